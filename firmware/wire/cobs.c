#include <string.h>

#include "wire/stuff.h"

// A block is a code byte and code - 1 bytes, none zero. A zero follows it unless code is 255 or the data end there.
#define CODE_MAX 255U

static void open_block(struct wire_writer *self) {
    if (self->bytes >= self->capacity) {
        self->overflowed = true;
        return;
    }
    self->code_index = self->bytes++;
}

static void close_block(struct wire_writer *self) {
    if (!self->overflowed) {
        self->out[self->code_index] = (uint8_t)(self->bytes - self->code_index);
    }
}

void wire_stuff_begin(struct wire_writer *self) {
    open_block(self);
}

void wire_stuff(struct wire_writer *self, const uint8_t *data, size_t data_bytes) {
    for (size_t i = 0; i < data_bytes; i++) {
        // A full block is left only when another byte comes, so that data ending there cost no empty block.
        if (self->bytes - self->code_index == CODE_MAX) {
            close_block(self);
            open_block(self);
        }
        if (data[i] == 0) {
            close_block(self);
            open_block(self);
        } else if (self->bytes < self->capacity) {
            self->out[self->bytes++] = data[i];
        } else {
            self->overflowed = true;
        }
        if (self->overflowed) {
            return;
        }
    }
}

void wire_stuff_end(struct wire_writer *self) {
    close_block(self);
}

size_t wire_cobs_encode(const void *data, size_t data_bytes, void *out, size_t out_capacity) {
    struct wire_writer writer = {.out = (uint8_t *)out, .capacity = out_capacity};
    wire_stuff_begin(&writer);
    wire_stuff(&writer, (const uint8_t *)data, data_bytes);
    wire_stuff_end(&writer);
    return writer.overflowed ? 0 : writer.bytes;
}

bool wire_cobs_decode(const void *data, size_t data_bytes, void *out, size_t *out_bytes) {
    const uint8_t *in = (const uint8_t *)data;
    uint8_t *to = (uint8_t *)out;
    size_t at = 0;
    size_t written = 0;
    if (data_bytes == 0 || memchr(in, 0, data_bytes) != NULL) {
        return false;
    }
    while (at < data_bytes) {
        const size_t code = in[at];
        if (code > data_bytes - at) {
            return false;
        }
        memmove(to + written, in + at + 1, code - 1);
        written += code - 1;
        at += code;
        if (code != CODE_MAX && at < data_bytes) {
            to[written++] = 0;
        }
    }
    *out_bytes = written;
    return true;
}
