#include "ring/ring.h"

#include <string.h>

#include "wire/wire.h"

#define MAGIC 0x474E5231U  // "1RNG"
#define CAPACITY_MAX 0x40000000U

_Static_assert(sizeof(struct ring_entry) == 16 + RING_PAYLOAD_BYTES_MAX + 4, "an entry must have no padding");
_Static_assert(sizeof(struct ring_head) == 28, "a head must have no padding");

static uint32_t crc_of_entry(const struct ring_entry *entry) {
    return wire_crc32(0, entry, sizeof *entry - sizeof entry->crc);
}

static uint32_t crc_of_head(const struct ring_head *head) {
    return wire_crc32(0, head, sizeof *head - sizeof head->crc);
}

static bool head_is_sound(const struct ring_head *head, uint32_t capacity) {
    return head->magic == MAGIC && head->capacity == capacity && head->crc == crc_of_head(head) &&
           head->end - head->oldest <= capacity;
}

// Called before each word is stored; the tests cut the power there.
#ifndef RING_STEP
#define RING_STEP() ((void)0)
#endif

// All that changes storage: word by word, in this order, even where the compiler sees no reader.
static void store(void *to, const void *from, size_t bytes) {
    volatile uint32_t *target = (volatile uint32_t *)to;
    const uint32_t *word = (const uint32_t *)from;
    for (size_t i = 0; i < bytes / sizeof *word; i++) {
        RING_STEP();
        target[i] = word[i];
    }
}

// The older of the two heads is overwritten, so that one sound head always stands.
static void write_head(struct ring *self) {
    self->head.generation++;
    self->head.crc = crc_of_head(&self->head);
    store(&self->heads[self->head.generation & 1U], &self->head, sizeof self->head);
}

static struct ring_entry *slot_of(const struct ring *self, uint32_t position) {
    return &self->entries[position & (self->head.capacity - 1U)];
}

static bool is_held(const struct ring *self, uint32_t position) {
    return position - self->head.oldest < self->head.end - self->head.oldest;
}

static bool entry_is_sound(const struct ring_entry *entry, uint32_t position) {
    return entry->position == position && entry->payload_bytes <= RING_PAYLOAD_BYTES_MAX &&
           entry->crc == crc_of_entry(entry);
}

enum ring_open_result ring_open(struct ring *self, void *storage, size_t storage_bytes, uint32_t capacity) {
    memset(self, 0, sizeof *self);
    if (storage == NULL || (uintptr_t)storage % 4U != 0 || capacity < 2 || capacity > CAPACITY_MAX ||
        (capacity & (capacity - 1U)) != 0 || storage_bytes < RING_STORAGE_BYTES((size_t)capacity)) {
        return RING_INVALID;
    }
    self->heads = (struct ring_head *)storage;
    self->entries = (struct ring_entry *)(void *)(self->heads + 2);
    const bool first = head_is_sound(&self->heads[0], capacity);
    const bool second = head_is_sound(&self->heads[1], capacity);
    if (!first && !second) {
        self->head = (struct ring_head){.magic = MAGIC, .capacity = capacity};
        // What lies in the other head must never win later.
        const struct ring_head nothing = {0};
        store(&self->heads[0], &nothing, sizeof nothing);
        store(&self->heads[1], &nothing, sizeof nothing);
        write_head(self);
        return RING_EMPTY;
    }
    const bool second_newer = (self->heads[1].generation - self->heads[0].generation) < 0x80000000U;
    self->head = self->heads[second && (!first || second_newer) ? 1 : 0];
    for (uint32_t position = self->head.oldest; position != self->head.end; position++) {
        self->damaged += entry_is_sound(slot_of(self, position), position) ? 0U : 1U;
    }
    return RING_RECOVERED;
}

bool ring_push(struct ring *self, const struct ring_reading *reading) {
    if (reading->payload_bytes > RING_PAYLOAD_BYTES_MAX) {
        return false;
    }
    if (ring_free(self) == 0) {
        // The head goes first: the slot about to be overwritten must not count any more.
        self->head.oldest++;
        self->head.shed++;
        write_head(self);
    }
    struct ring_entry entry = {.position = self->head.end,
                               .boot = reading->boot,
                               .sequence = reading->sequence,
                               .topic = reading->topic,
                               .payload_bytes = reading->payload_bytes};
    memcpy(entry.payload, reading->payload, reading->payload_bytes);
    entry.crc = crc_of_entry(&entry);
    store(slot_of(self, self->head.end), &entry, sizeof entry);
    self->head.end++;
    write_head(self);
    return true;
}

uint32_t ring_held(const struct ring *self) {
    return self->head.end - self->head.oldest;
}

uint32_t ring_free(const struct ring *self) {
    return self->head.capacity - ring_held(self);
}

bool ring_peek(const struct ring *self, uint32_t position, struct ring_reading *out) {
    if (!is_held(self, position)) {
        return false;
    }
    const struct ring_entry *entry = slot_of(self, position);
    if (!entry_is_sound(entry, position)) {
        return false;
    }
    out->boot = entry->boot;
    out->sequence = entry->sequence;
    out->topic = entry->topic;
    out->payload_bytes = entry->payload_bytes;
    memcpy(out->payload, entry->payload, sizeof out->payload);
    return true;
}

uint32_t ring_settle(struct ring *self, uint32_t before) {
    const uint32_t held = ring_held(self);
    const uint32_t wanted = before - self->head.oldest;
    // A position far ahead lies behind: it was dropped already.
    const uint32_t dropped = wanted >= 0x80000000U ? 0 : wanted < held ? wanted : held;
    if (dropped > 0) {
        self->head.oldest += dropped;
        write_head(self);
    }
    return dropped;
}

uint32_t ring_newest_sequence(const struct ring *self, uint32_t boot) {
    for (uint32_t position = self->head.end; position != self->head.oldest; position--) {
        const struct ring_entry *entry = slot_of(self, position - 1U);
        if (entry_is_sound(entry, position - 1U) && entry->boot == boot) {
            return entry->sequence;
        }
    }
    return 0;
}
