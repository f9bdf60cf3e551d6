#include "mqttsn/ring_source.h"

static void lock(const struct ring_source *self) {
    if (self->lock != NULL) {
        self->lock(self->context);
    }
}

static void unlock(const struct ring_source *self) {
    if (self->unlock != NULL) {
        self->unlock(self->context);
    }
}

static uint32_t oldest(void *context) {
    const struct ring_source *self = (const struct ring_source *)context;
    lock(self);
    const uint32_t position = self->ring->head.oldest;
    unlock(self);
    return position;
}

static uint32_t end(void *context) {
    const struct ring_source *self = (const struct ring_source *)context;
    lock(self);
    const uint32_t position = self->ring->head.end;
    unlock(self);
    return position;
}

static bool peek(void *context, uint32_t position, struct mqttsn_reading *out) {
    struct ring_source *self = (struct ring_source *)context;
    lock(self);
    const bool held = ring_peek(self->ring, position, &self->peeked);
    unlock(self);
    if (held) {
        *out = (struct mqttsn_reading){.boot = self->peeked.boot,
                                       .sequence = self->peeked.sequence,
                                       .topic = self->peeked.topic,
                                       .data = self->peeked.payload,
                                       .data_bytes = self->peeked.payload_bytes};
    }
    return held;
}

static void settle(void *context, uint32_t before) {
    const struct ring_source *self = (const struct ring_source *)context;
    lock(self);
    (void)ring_settle(self->ring, before);
    unlock(self);
}

struct mqttsn_reading_source ring_source_open(struct ring_source *self) {
    return (struct mqttsn_reading_source){
        .context = self, .oldest = oldest, .end = end, .peek = peek, .settle = settle};
}
