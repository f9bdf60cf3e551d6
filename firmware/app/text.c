#include "app/text.h"

#include <string.h>

struct text text_begin(void *out, size_t capacity) {
    return (struct text){.out = out, .capacity = capacity};
}

void text_put_bytes(struct text *self, const void *data, size_t data_bytes) {
    if (self->overflowed || data_bytes > self->capacity - self->bytes) {
        self->overflowed = true;
        return;
    }
    if (data_bytes > 0) {
        memcpy(self->out + self->bytes, data, data_bytes);
        self->bytes += data_bytes;
    }
}

void text_put(struct text *self, const char *terminated) {
    text_put_bytes(self, terminated, strlen(terminated));
}

void text_put_uint(struct text *self, uint64_t value) {
    char digits[20];
    size_t first = sizeof digits;
    do {
        digits[--first] = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    text_put_bytes(self, digits + first, sizeof digits - first);
}

void text_put_sixteenths(struct text *self, int16_t sixteenths) {
    uint32_t magnitude = sixteenths < 0 ? (uint32_t) - (int32_t)sixteenths : (uint32_t)sixteenths;
    uint32_t fraction = magnitude % 16 * 625;
    char digits[4];
    for (int i = 3; i >= 0; i--) {
        digits[i] = (char)('0' + fraction % 10);
        fraction /= 10;
    }
    if (sixteenths < 0) {
        text_put(self, "-");
    }
    text_put_uint(self, magnitude / 16);
    text_put(self, ".");
    text_put_bytes(self, digits, sizeof digits);
}

bool text_parse_uint(const void *data, size_t data_bytes, uint32_t *value) {
    const char *digits = data;
    uint64_t sum = 0;
    if (data_bytes == 0 || data_bytes > 10) {
        return false;
    }
    for (size_t i = 0; i < data_bytes; i++) {
        if (digits[i] < '0' || digits[i] > '9') {
            return false;
        }
        sum = sum * 10 + (uint64_t)(digits[i] - '0');
    }
    if (sum > UINT32_MAX) {
        return false;
    }
    *value = (uint32_t)sum;
    return true;
}
