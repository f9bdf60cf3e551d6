#include "wire/stuff.h"

static const uint8_t delimiter = 0;

static void put_raw(struct wire_writer *self, uint8_t byte) {
    if (self->bytes < self->capacity) {
        self->out[self->bytes++] = byte;
    } else {
        self->overflowed = true;
    }
}

void wire_writer_begin(struct wire_writer *self, void *out, size_t capacity, uint8_t channel) {
    *self = (struct wire_writer){.out = (uint8_t *)out, .capacity = capacity};
    put_raw(self, delimiter);
    wire_stuff_begin(self);
    wire_writer_put(self, &channel, 1);
}

void wire_writer_put(struct wire_writer *self, const void *data, size_t data_bytes) {
    if (data_bytes == 0 || self->overflowed) {
        return;
    }
    self->crc = wire_crc32(self->crc, data, data_bytes);
    wire_stuff(self, (const uint8_t *)data, data_bytes);
}

size_t wire_writer_end(struct wire_writer *self) {
    const uint8_t crc[WIRE_CRC_BYTES] = {(uint8_t)self->crc, (uint8_t)(self->crc >> 8), (uint8_t)(self->crc >> 16),
                                         (uint8_t)(self->crc >> 24)};
    if (!self->overflowed) {
        wire_stuff(self, crc, sizeof crc);
        wire_stuff_end(self);
        put_raw(self, delimiter);
    }
    return self->overflowed ? 0 : self->bytes;
}

size_t wire_frame_encode(uint8_t channel, const void *payload, size_t payload_bytes, void *out, size_t out_capacity) {
    struct wire_writer writer;
    wire_writer_begin(&writer, out, out_capacity, channel);
    wire_writer_put(&writer, payload, payload_bytes);
    return wire_writer_end(&writer);
}
