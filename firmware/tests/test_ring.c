#include <setjmp.h>

#include "check.h"

// The power goes before the n-th word is stored: the ring's own code, its own order of writes.
static jmp_buf power_cut;
static unsigned steps_left;
static unsigned steps_taken;

static void step(void) {
    steps_taken++;
    if (steps_left != 0 && --steps_left == 0) {
        longjmp(power_cut, 1);
    }
}

#define RING_STEP() step()
#include "ring/ring.c"

#define CAPACITY 8U

static _Alignas(4) uint8_t storage[RING_STORAGE_BYTES(64)];
static struct ring ring;

static struct ring_reading reading_of(uint32_t boot, uint32_t sequence) {
    struct ring_reading reading = {.boot = boot, .sequence = sequence, .topic = (uint8_t)(sequence % 3)};
    reading.payload_bytes = (uint8_t)(sequence % (RING_PAYLOAD_BYTES_MAX + 1));
    memset(reading.payload, (int)(sequence * 7 + boot), reading.payload_bytes);
    return reading;
}

static bool push(uint32_t boot, uint32_t sequence) {
    const struct ring_reading reading = reading_of(boot, sequence);
    return ring_push(&ring, &reading);
}

static void check_holds(uint32_t position, uint32_t boot, uint32_t sequence) {
    const struct ring_reading expected = reading_of(boot, sequence);
    struct ring_reading found;
    CHECK(ring_peek(&ring, position, &found));
    CHECK_EQUAL(found.boot, boot);
    CHECK_EQUAL(found.sequence, sequence);
    CHECK_EQUAL(found.topic, expected.topic);
    CHECK(same_bytes(found.payload, found.payload_bytes, expected.payload, expected.payload_bytes));
}

static enum ring_open_result reopen(void) {
    return ring_open(&ring, storage, RING_STORAGE_BYTES(CAPACITY), CAPACITY);
}

static void open_empty(void) {
    memset(storage, 0, sizeof storage);
    CHECK_EQUAL(reopen(), RING_EMPTY);
}

static void test_readings_come_out_in_order_and_are_settled_from_the_front(void) {
    open_empty();
    for (uint32_t i = 1; i <= 5; i++) {
        CHECK(push(3, i));
    }
    CHECK_EQUAL(ring_held(&ring), 5);
    CHECK_EQUAL(ring_free(&ring), 3);
    for (uint32_t i = 0; i < 5; i++) {
        check_holds(i, 3, i + 1);
    }
    CHECK_EQUAL(ring_settle(&ring, 2), 2);
    CHECK_EQUAL(ring_settle(&ring, 2), 0);
    CHECK_EQUAL(ring_settle(&ring, 1), 0);
    struct ring_reading out;
    CHECK(!ring_peek(&ring, 1, &out));
    CHECK(!ring_peek(&ring, 5, &out));
    check_holds(2, 3, 3);
    CHECK_EQUAL(ring_settle(&ring, 1000), 3);
    CHECK_EQUAL(ring_held(&ring), 0);
}

static void test_the_oldest_is_shed_when_full_and_counted(void) {
    open_empty();
    for (uint32_t i = 1; i <= CAPACITY + 3; i++) {
        CHECK(push(3, i));
    }
    CHECK_EQUAL(ring_held(&ring), CAPACITY);
    CHECK_EQUAL(ring.head.shed, 3);
    CHECK_EQUAL(ring.head.oldest, 3);
    for (uint32_t i = 3; i < CAPACITY + 3; i++) {
        check_holds(i, 3, i + 1);
    }
    CHECK_EQUAL(reopen(), RING_RECOVERED);
    CHECK_EQUAL(ring.head.shed, 3);
}

static void test_a_payload_too_long_is_refused(void) {
    open_empty();
    struct ring_reading reading = reading_of(1, 1);
    reading.payload_bytes = RING_PAYLOAD_BYTES_MAX + 1;
    CHECK(!ring_push(&ring, &reading));
    CHECK_EQUAL(ring_held(&ring), 0);
}

static void test_a_warm_reset_keeps_what_was_held(void) {
    open_empty();
    for (uint32_t i = 1; i <= 6; i++) {
        CHECK(push(3, i));
    }
    ring_settle(&ring, 2);
    CHECK_EQUAL(reopen(), RING_RECOVERED);
    CHECK_EQUAL(ring.damaged, 0);
    CHECK_EQUAL(ring_held(&ring), 4);
    CHECK(push(4, 1));
    check_holds(5, 3, 6);
    check_holds(6, 4, 1);
    CHECK_EQUAL(ring_newest_sequence(&ring, 3), 6);
    CHECK_EQUAL(ring_newest_sequence(&ring, 4), 1);
    CHECK_EQUAL(ring_newest_sequence(&ring, 5), 0);
}

static void test_garbage_at_power_up_is_an_empty_ring(void) {
    unsigned seed = 99;
    check_case = "garbage, seed 99";
    for (unsigned round = 0; round < 2000; round++) {
        for (size_t i = 0; i < RING_STORAGE_BYTES(CAPACITY); i++) {
            storage[i] = (uint8_t)(round == 0 ? 0 : round == 1 ? 0xFF : next_random(&seed));
        }
        CHECK_EQUAL(reopen(), RING_EMPTY);
        CHECK(push(1, 1));
        CHECK_EQUAL(reopen(), RING_RECOVERED);
        CHECK_EQUAL(ring_held(&ring), 1);
    }
}

static void test_another_capacity_or_bad_storage_is_not_taken_over(void) {
    open_empty();
    CHECK(push(1, 1));
    CHECK_EQUAL(ring_open(&ring, storage, sizeof storage, 16), RING_EMPTY);
    CHECK_EQUAL(ring_open(&ring, storage, RING_STORAGE_BYTES(16) - 1, 16), RING_INVALID);
    CHECK_EQUAL(ring_open(&ring, storage + 1, sizeof storage - 1, 16), RING_INVALID);
    CHECK_EQUAL(ring_open(&ring, storage, sizeof storage, 12), RING_INVALID);
    CHECK_EQUAL(ring_open(&ring, storage, sizeof storage, 1), RING_INVALID);
    CHECK_EQUAL(ring_open(&ring, NULL, sizeof storage, 16), RING_INVALID);
}

static void test_every_single_bit_flip_is_noticed(void) {
    for (size_t bit = 0; bit < RING_STORAGE_BYTES(CAPACITY) * 8; bit++) {
        open_empty();
        for (uint32_t i = 1; i <= CAPACITY; i++) {
            CHECK(push(3, i));
        }
        storage[bit / 8] = (uint8_t)(storage[bit / 8] ^ (1U << (bit % 8)));
        CHECK_EQUAL(reopen(), RING_RECOVERED);
        if (bit / 8 < 2 * sizeof(struct ring_head)) {
            // The newer head damaged: the older one misses the last push alone.
            CHECK(ring_held(&ring) >= CAPACITY - 1 && ring.damaged == 0);
        } else {
            CHECK_EQUAL(ring_held(&ring), CAPACITY);
            CHECK_EQUAL(ring.damaged, 1);
        }
        for (uint32_t position = ring.head.oldest; position != ring.head.end; position++) {
            struct ring_reading out;
            if (ring_peek(&ring, position, &out)) {
                check_holds(position, 3, position + 1);
            }
        }
    }
}

// Cuts the power before every word that change stores, beginning with `held` readings, the oldest of them at
// position `start`.
static void cut_everywhere(uint32_t start, uint32_t held, void (*change)(void), bool adds, uint32_t removes) {
    static uint8_t before[sizeof storage];
    open_empty();
    ring.head.oldest = start;
    ring.head.end = start;
    write_head(&ring);
    for (uint32_t i = 0; i < held; i++) {
        CHECK(push(3, i + 1));
    }
    memcpy(before, storage, sizeof storage);
    steps_taken = 0;
    change();
    const unsigned steps = steps_taken;
    CHECK(steps > 0);
    for (unsigned cut = 1; cut <= steps; cut++) {
        memcpy(storage, before, sizeof storage);
        CHECK_EQUAL(reopen(), RING_RECOVERED);
        steps_left = cut;
        if (setjmp(power_cut) == 0) {
            change();
            CHECK(false);
        }
        CHECK_EQUAL(reopen(), RING_RECOVERED);
        CHECK_EQUAL(ring.damaged, 0);
        const uint32_t oldest = ring.head.oldest - start;
        CHECK(oldest == 0 || oldest == removes);
        CHECK(ring.head.end == start + held || (adds && ring.head.end == start + held + 1));
        for (uint32_t position = ring.head.oldest; position != ring.head.end; position++) {
            check_holds(position, 3, position - start + 1);
        }
        // And it carries on: the same change again ends where it would have without the cut.
        if (oldest == 0 && ring.head.end == start + held) {
            change();
            CHECK_EQUAL(ring.head.oldest, start + removes);
            CHECK_EQUAL(ring.head.end, start + held + (adds ? 1U : 0U));
        }
    }
    steps_left = 0;
}

static void push_one(void) {
    struct ring_reading newest;
    const bool any = ring_peek(&ring, ring.head.end - 1, &newest);
    CHECK(push(3, any ? newest.sequence + 1 : 1));
}

static void settle_two(void) {
    ring_settle(&ring, ring.head.oldest + 2);
}

static void test_a_reset_at_any_step_loses_at_most_the_entry_being_written(void) {
    const uint32_t starts[] = {0, 5, UINT32_MAX - 3};
    for (size_t i = 0; i < 3; i++) {
        cut_everywhere(starts[i], 0, push_one, true, 0);
        cut_everywhere(starts[i], 4, push_one, true, 0);
        cut_everywhere(starts[i], CAPACITY, push_one, true, 1);
        cut_everywhere(starts[i], 4, settle_two, false, 2);
        cut_everywhere(starts[i], CAPACITY, settle_two, false, 2);
    }
}

static void test_a_reset_while_opening_garbage_leaves_it_openable(void) {
    for (unsigned cut = 1; cut < 40; cut++) {
        memset(storage, 0xA5, sizeof storage);
        steps_left = cut;
        if (setjmp(power_cut) == 0) {
            reopen();
        }
        steps_left = 0;
        const enum ring_open_result result = reopen();
        CHECK(result == RING_EMPTY || result == RING_RECOVERED);
        CHECK_EQUAL(ring_held(&ring), 0);
    }
}

// A plain array beside the ring says what it must hold.
static void test_random_use_with_resets_is_as_a_model_says(void) {
    uint32_t model[CAPACITY];
    uint32_t held = 0;
    uint32_t next = 1;
    uint32_t shed = 0;
    unsigned seed = 5;
    open_empty();
    check_case = "model, seed 5";
    for (unsigned round = 0; round < 20000; round++) {
        const unsigned r = next_random(&seed);
        if (r % 8 < 5) {
            CHECK(push(9, next));
            if (held == CAPACITY) {
                memmove(model, model + 1, (CAPACITY - 1) * sizeof model[0]);
                held--;
                shed++;
            }
            model[held++] = next++;
        } else if (r % 8 < 7) {
            const uint32_t count = (r >> 8) % 4;
            const uint32_t dropped = ring_settle(&ring, ring.head.oldest + count);
            CHECK_EQUAL(dropped, count < held ? count : held);
            memmove(model, model + dropped, (held - dropped) * sizeof model[0]);
            held -= dropped;
        } else {
            CHECK_EQUAL(reopen(), RING_RECOVERED);
        }
        CHECK_EQUAL(ring_held(&ring), held);
        CHECK_EQUAL(ring.head.shed, shed);
        for (uint32_t i = 0; i < held; i++) {
            check_holds(ring.head.oldest + i, 9, model[i]);
        }
    }
}

int main(void) {
    RUN(test_readings_come_out_in_order_and_are_settled_from_the_front);
    RUN(test_the_oldest_is_shed_when_full_and_counted);
    RUN(test_a_payload_too_long_is_refused);
    RUN(test_a_warm_reset_keeps_what_was_held);
    RUN(test_garbage_at_power_up_is_an_empty_ring);
    RUN(test_another_capacity_or_bad_storage_is_not_taken_over);
    RUN(test_every_single_bit_flip_is_noticed);
    RUN(test_a_reset_at_any_step_loses_at_most_the_entry_being_written);
    RUN(test_a_reset_while_opening_garbage_leaves_it_openable);
    RUN(test_random_use_with_resets_is_as_a_model_says);
    return 0;
}
