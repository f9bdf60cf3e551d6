/// Bounded text for payloads and log lines: appends until the room ends, then remembers that it did not fit.
#ifndef EDGELOOP_TEXT_H
#define EDGELOOP_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct text {
    char *out;  ///< Not terminated.
    size_t capacity;
    size_t bytes;
    bool overflowed;
};

struct text text_begin(void *out, size_t capacity);
void text_put(struct text *self, const char *terminated);
void text_put_bytes(struct text *self, const void *data, size_t data_bytes);
void text_put_uint(struct text *self, uint64_t value);
/// A value in sixteenths as a decimal with four digits, which is exact: −3/16 is "-0.1875".
void text_put_sixteenths(struct text *self, int16_t sixteenths);

/// Decimal digits only, all of the data. Returns false for anything else and above UINT32_MAX.
bool text_parse_uint(const void *data, size_t data_bytes, uint32_t *value);

#endif
