#include "check.h"
#include "vectors_data.h"

#define LISTED_MAX 400

/// What a receiver told, copied.
struct heard {
    struct wire_receiver receiver;
    uint8_t buffer[WIRE_STUFFED_BYTES_MAX(2048)];
    uint8_t data[16384];
    size_t data_bytes;
    struct {
        enum wire_event_type type;
        enum wire_reason reason;
        size_t at;
        size_t bytes;
    } events[LISTED_MAX];
    size_t count;
};

static void keep(void *context, const struct wire_event *event) {
    struct heard *self = (struct heard *)context;
    CHECK(self->count < LISTED_MAX && self->data_bytes + event->data_bytes + 1 <= sizeof self->data);
    self->events[self->count].type = event->type;
    self->events[self->count].reason = event->reason;
    self->events[self->count].at = self->data_bytes;
    if (event->type == WIRE_EVENT_FRAME) {
        self->data[self->data_bytes++] = event->channel;
    }
    if (event->data_bytes > 0) {
        memcpy(self->data + self->data_bytes, event->data, event->data_bytes);
    }
    self->data_bytes += event->data_bytes;
    self->events[self->count].bytes = self->data_bytes - self->events[self->count].at;
    self->count++;
}

static void open_receiver(struct heard *self, size_t content_bytes_max) {
    memset(self, 0, sizeof *self);
    const struct wire_receiver_config config = {
        .buffer = self->buffer,
        .buffer_bytes = WIRE_STUFFED_BYTES_MAX(content_bytes_max),
        .content_bytes_max = content_bytes_max,
        .channels = WIRE_CHANNEL_BIT(WIRE_CHANNEL_MQTTSN) | WIRE_CHANNEL_BIT(WIRE_CHANNEL_READING) |
                    WIRE_CHANNEL_BIT(WIRE_CHANNEL_LINK) | WIRE_CHANNEL_BIT(WIRE_CHANNEL_REQUEST),
        .on_event = keep,
        .context = self,
    };
    CHECK(wire_receiver_init(&self->receiver, &config));
}

static void push(struct heard *self, const void *data, size_t bytes) {
    wire_receiver_push(&self->receiver, data, bytes, 0);
}

static void silence(struct heard *self) {
    wire_receiver_poll(&self->receiver, WIRE_TIMEOUT_MS);
}

static size_t count_of(const struct heard *self, enum wire_event_type type) {
    size_t count = 0;
    for (size_t i = 0; i < self->count; i++) {
        count += self->events[i].type == type ? 1U : 0U;
    }
    return count;
}

static void check_listed(const struct heard *self, enum wire_event_type type, const struct span *expected,
                         size_t count) {
    size_t found = 0;
    CHECK_EQUAL(count_of(self, type), count);
    for (size_t i = 0; i < self->count; i++) {
        if (self->events[i].type == type) {
            CHECK(same_bytes(self->data + self->events[i].at, self->events[i].bytes, expected[found].data,
                             expected[found].bytes));
            found++;
        }
    }
}

static void check_stream(const struct heard *self, const struct stream_vector *vector) {
    check_listed(self, WIRE_EVENT_FRAME, vector->frames, vector->frame_count);
    check_listed(self, WIRE_EVENT_TEXT, vector->text, vector->text_count);
    check_listed(self, WIRE_EVENT_SMP_LINE, vector->smp, vector->smp_count);
    for (size_t reason = 0; reason < WIRE_REASON_COUNT; reason++) {
        CHECK_EQUAL(self->receiver.counters.rejected[reason], vector->rejected[reason]);
    }
    CHECK_EQUAL(self->receiver.counters.frames, vector->frame_count);
    CHECK_EQUAL(self->receiver.counters.text_lines, vector->text_count);
    CHECK_EQUAL(self->receiver.counters.smp_lines, vector->smp_count);
}

// Telling the same in the same order, events and bytes.
static bool same_heard(const struct heard *a, const struct heard *b) {
    if (a->count != b->count || !same_bytes(a->data, a->data_bytes, b->data, b->data_bytes)) {
        return false;
    }
    for (size_t i = 0; i < a->count; i++) {
        if (a->events[i].type != b->events[i].type || a->events[i].reason != b->events[i].reason ||
            a->events[i].bytes != b->events[i].bytes) {
            return false;
        }
    }
    return true;
}

static struct heard heard;
static struct heard other;

// --- CRC and COBS ---

static void test_crc_of_the_check_string(void) {
    CHECK_EQUAL(wire_crc32(0, "123456789", 9), 0xCBF43926U);
    CHECK_EQUAL(wire_crc32(wire_crc32(0, "1234", 4), "56789", 5), 0xCBF43926U);
    CHECK_EQUAL(wire_crc32(0, "", 0), 0);
}

static void test_cobs_round_trip_at_every_length_up_to_three_blocks(void) {
    uint8_t data[800];
    uint8_t stuffed[1000];
    uint8_t back[1000];
    unsigned seed = 7;
    for (size_t bytes = 0; bytes <= sizeof data; bytes++) {
        for (unsigned kind = 0; kind < 4; kind++) {
            for (size_t i = 0; i < bytes; i++) {
                const unsigned r = next_random(&seed);
                data[i] = (uint8_t)(kind == 0 ? 0 : kind == 1 ? 1 + r % 255 : kind == 2 ? (r % 250 == 0 ? 0 : 7) : r);
            }
            const size_t needed = wire_cobs_encode(data, bytes, stuffed, sizeof stuffed);
            CHECK(needed >= bytes + 1 && needed <= bytes + 1 + bytes / 254);
            CHECK(memchr(stuffed, 0, needed) == NULL);
            CHECK_EQUAL(wire_cobs_encode(data, bytes, stuffed, needed), needed);
            CHECK_EQUAL(wire_cobs_encode(data, bytes, back, needed - 1), 0);
            size_t back_bytes = 0;
            CHECK(wire_cobs_decode(stuffed, needed, back, &back_bytes));
            CHECK(same_bytes(back, back_bytes, data, bytes));
            CHECK(wire_cobs_decode(stuffed, needed, stuffed, &back_bytes));
            CHECK(same_bytes(stuffed, back_bytes, data, bytes));
        }
    }
}

static void test_cobs_refuses_what_is_cut_or_holds_zeros(void) {
    uint8_t out[8];
    size_t bytes = 0;
    CHECK(!wire_cobs_decode("", 0, out, &bytes));
    CHECK(!wire_cobs_decode("\x03\x01", 2, out, &bytes));
    CHECK(!wire_cobs_decode("\x02\x00", 2, out, &bytes));
    CHECK(!wire_cobs_decode("\xff\x01", 2, out, &bytes));
}

// --- Vectors ---

static void test_frames_are_written_as_the_vectors_say(void) {
    uint8_t out[WIRE_FRAME_BYTES_MAX(2048)];
    for (size_t i = 0; i < COUNT(frame_vectors); i++) {
        const struct frame_vector *vector = &frame_vectors[i];
        const struct span content = vector->content;
        check_case = vector->name;
        CHECK(vector->frame.bytes <= WIRE_FRAME_BYTES_MAX(content.bytes));
        size_t bytes = wire_frame_encode(content.data[0], content.data + 1, content.bytes - 1, out, sizeof out);
        CHECK(same_bytes(out, bytes, vector->frame.data, vector->frame.bytes));
        // In parts, into exactly the room it takes; then into one byte less.
        for (size_t room = bytes - 1; room <= vector->frame.bytes; room++) {
            struct wire_writer writer;
            wire_writer_begin(&writer, out, room, content.data[0]);
            for (size_t at = 1; at < content.bytes; at++) {
                wire_writer_put(&writer, content.data + at, 1);
            }
            CHECK_EQUAL(wire_writer_end(&writer), room < bytes ? 0 : bytes);
        }
    }
}

static void test_frames_are_read_as_the_vectors_say(void) {
    for (size_t i = 0; i < COUNT(frame_vectors); i++) {
        const struct frame_vector *vector = &frame_vectors[i];
        check_case = vector->name;
        open_receiver(&heard, 2048);
        push(&heard, vector->frame.data, vector->frame.bytes);
        check_listed(&heard, WIRE_EVENT_FRAME, &vector->content, 1);
        CHECK_EQUAL(heard.count, 1);
    }
}

static void test_streams_are_sorted_as_the_vectors_say(void) {
    for (size_t i = 0; i < COUNT(stream_vectors); i++) {
        const struct stream_vector *vector = &stream_vectors[i];
        check_case = vector->name;
        open_receiver(&heard, vector->content_bytes_max);
        push(&heard, vector->stream.data, vector->stream.bytes);
        silence(&heard);
        check_stream(&heard, vector);
        // Cut anywhere: the same.
        const size_t steps[] = {1, 2, 3, 7, 253, 254, 255};
        for (size_t step = 0; step < COUNT(steps); step++) {
            open_receiver(&other, vector->content_bytes_max);
            for (size_t at = 0; at < vector->stream.bytes; at += steps[step]) {
                const size_t left = vector->stream.bytes - at;
                push(&other, vector->stream.data + at, left < steps[step] ? left : steps[step]);
            }
            silence(&other);
            CHECK(same_heard(&heard, &other));
        }
    }
}

// --- Damage ---

// Every frame between two that are sound: whatever happens to it, the two are told, and never more than one rejection
// a piece; returns whether it was told as it was.
static bool survives(const uint8_t *damaged, size_t bytes, const struct frame_vector *original) {
    const struct frame_vector *sound = &frame_vectors[0];
    open_receiver(&heard, 2048);
    push(&heard, sound->frame.data, sound->frame.bytes);
    push(&heard, damaged, bytes);
    push(&heard, sound->frame.data, sound->frame.bytes);
    silence(&heard);
    CHECK(heard.count >= 2);
    CHECK(heard.events[0].type == WIRE_EVENT_FRAME && heard.events[heard.count - 1].type == WIRE_EVENT_FRAME);
    bool told = false;
    for (size_t i = 1; i + 1 < heard.count; i++) {
        if (heard.events[i].type == WIRE_EVENT_FRAME) {
            told = same_bytes(heard.data + heard.events[i].at, heard.events[i].bytes, original->content.data,
                              original->content.bytes);
            CHECK(told);
        }
    }
    return told;
}

static void test_every_single_bit_flip_of_every_frame_is_refused(void) {
    uint8_t damaged[WIRE_FRAME_BYTES_MAX(2048)];
    for (size_t i = 0; i < COUNT(frame_vectors); i++) {
        const struct frame_vector *vector = &frame_vectors[i];
        check_case = vector->name;
        if (vector->frame.bytes > 600) {
            continue;  // The shorter ones cover every place a bit can stand in.
        }
        for (size_t bit = 0; bit < vector->frame.bytes * 8; bit++) {
            memcpy(damaged, vector->frame.data, vector->frame.bytes);
            damaged[bit / 8] = (uint8_t)(damaged[bit / 8] ^ (1U << (bit % 8)));
            // A flip in a delimiter leaves the neighbour's: the frame may live, joined to nothing but a byte of noise.
            const bool told = survives(damaged, vector->frame.bytes, vector);
            CHECK(!told || bit / 8 == 0 || bit / 8 == vector->frame.bytes - 1);
        }
    }
}

static void test_a_frame_cut_at_every_length_costs_only_itself(void) {
    for (size_t i = 0; i < COUNT(frame_vectors); i++) {
        const struct frame_vector *vector = &frame_vectors[i];
        check_case = vector->name;
        for (size_t bytes = 0; bytes < vector->frame.bytes - 1; bytes++) {
            CHECK(!survives(vector->frame.data, bytes, vector));
            // The end of it without its beginning; without the delimiter alone it is whole.
            CHECK(!survives(vector->frame.data + vector->frame.bytes - bytes, bytes, vector) ||
                  bytes == vector->frame.bytes - 1);
        }
        CHECK(survives(vector->frame.data + 1, vector->frame.bytes - 1, vector));
        CHECK(survives(vector->frame.data, vector->frame.bytes - 1, vector));
    }
}

static void test_a_byte_lost_anywhere_costs_only_its_frame(void) {
    uint8_t damaged[WIRE_FRAME_BYTES_MAX(2048)];
    for (size_t i = 0; i < COUNT(frame_vectors); i++) {
        const struct frame_vector *vector = &frame_vectors[i];
        check_case = vector->name;
        for (size_t lost = 1; lost + 1 < vector->frame.bytes; lost++) {
            memcpy(damaged, vector->frame.data, lost);
            memcpy(damaged + lost, vector->frame.data + lost + 1, vector->frame.bytes - lost - 1);
            // Losing one of several equal bytes may leave a sound frame only if nothing changed: it never does.
            CHECK(!survives(damaged, vector->frame.bytes - 1, vector));
        }
    }
}

static void test_noise_never_hides_the_frame_after_it(void) {
    uint8_t noise[700];
    unsigned seed = 42;
    check_case = "seed 42";
    for (unsigned round = 0; round < 3000; round++) {
        const size_t bytes = next_random(&seed) % sizeof noise;
        for (size_t i = 0; i < bytes; i++) {
            noise[i] = (uint8_t)next_random(&seed);
        }
        const struct frame_vector *vector = &frame_vectors[round % 12];
        open_receiver(&heard, 512);
        push(&heard, noise, bytes);
        push(&heard, vector->frame.data, vector->frame.bytes);
        CHECK(heard.count >= 1 && heard.events[heard.count - 1].type == WIRE_EVENT_FRAME);
        check_listed(&heard, WIRE_EVENT_FRAME, &vector->content, 1);
    }
}

// --- Time and bounds ---

static void test_an_open_segment_is_closed_after_the_timeout_and_not_before(void) {
    const struct frame_vector *vector = &frame_vectors[1];
    const uint32_t start = UINT32_MAX - 100;  // The clock wraps meanwhile.
    open_receiver(&heard, 2048);
    CHECK_EQUAL(wire_receiver_next_ms(&heard.receiver, start), UINT32_MAX);
    wire_receiver_push(&heard.receiver, vector->frame.data, 6, start);
    CHECK_EQUAL(wire_receiver_next_ms(&heard.receiver, start + 100), 150);
    wire_receiver_poll(&heard.receiver, start + 249);
    CHECK_EQUAL(heard.count, 0);
    // Each byte begins the timeout anew.
    wire_receiver_push(&heard.receiver, vector->frame.data + 6, 1, start + 249);
    wire_receiver_poll(&heard.receiver, start + 498);
    CHECK_EQUAL(heard.count, 0);
    CHECK_EQUAL(wire_receiver_next_ms(&heard.receiver, start + 600), 0);
    // push closes it as well, before it takes bytes.
    wire_receiver_push(&heard.receiver, vector->frame.data, vector->frame.bytes, start + 499);
    CHECK_EQUAL(heard.count, 2);
    CHECK_EQUAL(heard.receiver.counters.rejected[WIRE_TIMEOUT], 1);
    check_listed(&heard, WIRE_EVENT_FRAME, &vector->content, 1);
    CHECK_EQUAL(wire_receiver_next_ms(&heard.receiver, start + 500), UINT32_MAX);
}

static void test_skipping_ends_with_the_timeout(void) {
    const struct frame_vector *vector = &frame_vectors[1];
    uint8_t noise[100];
    memset(noise, 0xAA, sizeof noise);
    open_receiver(&heard, 20);
    push(&heard, noise, sizeof noise);
    CHECK_EQUAL(heard.receiver.counters.rejected[WIRE_TOO_LONG], 1);
    silence(&heard);
    // The frame's first delimiter was lost.
    wire_receiver_push(&heard.receiver, vector->frame.data + 1, vector->frame.bytes - 1, 300);
    check_listed(&heard, WIRE_EVENT_FRAME, &vector->content, 1);
    CHECK_EQUAL(heard.count, 2);
}

static void test_an_smp_line_is_told_at_its_end_without_waiting(void) {
    const char line[] =
        "\x06\x09"
        "AAsC\n";
    const struct span expected = {(const uint8_t *)line, sizeof line - 1};
    open_receiver(&heard, 128);
    for (size_t i = 0; i + 1 < sizeof line; i++) {
        CHECK_EQUAL(heard.count, 0);
        push(&heard, line + i, 1);
    }
    check_listed(&heard, WIRE_EVENT_SMP_LINE, &expected, 1);
    CHECK_EQUAL(wire_receiver_next_ms(&heard.receiver, 0), UINT32_MAX);
}

static void test_content_of_every_length_around_the_cap(void) {
    uint8_t payload[300];
    uint8_t frame[WIRE_FRAME_BYTES_MAX(301)];
    for (size_t cap = 1; cap <= 300; cap += cap < 240 ? 13 : 1) {
        for (size_t content = cap < 3 ? 1 : cap - 2; content <= cap + 1 && content <= 300; content++) {
            for (unsigned fill = 0; fill < 2; fill++) {
                memset(payload, (int)fill, sizeof payload);
                const size_t bytes = wire_frame_encode(WIRE_CHANNEL_MQTTSN, payload, content - 1, frame, sizeof frame);
                open_receiver(&heard, cap);
                push(&heard, frame, bytes);
                silence(&heard);
                CHECK_EQUAL(heard.count, 1);
                CHECK_EQUAL(heard.receiver.counters.frames, content <= cap ? 1 : 0);
                CHECK_EQUAL(heard.receiver.counters.rejected[WIRE_TOO_LONG], content <= cap ? 0 : 1);
            }
        }
    }
}

static void test_a_receiver_refuses_a_buffer_too_small(void) {
    struct wire_receiver receiver;
    uint8_t buffer[64];
    struct wire_receiver_config config = {
        .buffer = buffer, .buffer_bytes = sizeof buffer, .content_bytes_max = 59, .on_event = keep};
    CHECK(wire_receiver_init(&receiver, &config));
    config.content_bytes_max = 60;
    CHECK(!wire_receiver_init(&receiver, &config));
    config.content_bytes_max = 0;
    CHECK(!wire_receiver_init(&receiver, &config));
    config.content_bytes_max = SIZE_MAX;
    CHECK(!wire_receiver_init(&receiver, &config));
}

static void test_reset_forgets_the_open_segment(void) {
    const struct frame_vector *vector = &frame_vectors[1];
    open_receiver(&heard, 128);
    push(&heard, "\x05garbage", 8);
    wire_receiver_reset(&heard.receiver);
    push(&heard, vector->frame.data, vector->frame.bytes);
    CHECK_EQUAL(heard.count, 1);
    check_listed(&heard, WIRE_EVENT_FRAME, &vector->content, 1);
}

static void test_reasons_have_the_names_of_the_metrics(void) {
    const char *const names[] = {"too_short", "too_long", "bad_cobs", "bad_crc", "timeout", "unknown_channel"};
    for (size_t i = 0; i < WIRE_REASON_COUNT; i++) {
        CHECK(strcmp(wire_reason_name((enum wire_reason)i), names[i]) == 0);
    }
}

int main(void) {
    RUN(test_crc_of_the_check_string);
    RUN(test_cobs_round_trip_at_every_length_up_to_three_blocks);
    RUN(test_cobs_refuses_what_is_cut_or_holds_zeros);
    RUN(test_frames_are_written_as_the_vectors_say);
    RUN(test_frames_are_read_as_the_vectors_say);
    RUN(test_streams_are_sorted_as_the_vectors_say);
    RUN(test_every_single_bit_flip_of_every_frame_is_refused);
    RUN(test_a_frame_cut_at_every_length_costs_only_itself);
    RUN(test_a_byte_lost_anywhere_costs_only_its_frame);
    RUN(test_noise_never_hides_the_frame_after_it);
    RUN(test_an_open_segment_is_closed_after_the_timeout_and_not_before);
    RUN(test_skipping_ends_with_the_timeout);
    RUN(test_an_smp_line_is_told_at_its_end_without_waiting);
    RUN(test_content_of_every_length_around_the_cap);
    RUN(test_a_receiver_refuses_a_buffer_too_small);
    RUN(test_reset_forgets_the_open_segment);
    RUN(test_reasons_have_the_names_of_the_metrics);
    return 0;
}
