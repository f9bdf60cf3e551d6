/// Inside the libraries only: big-endian fields.

#ifndef EDGELOOP_WIRE_BYTES_H
#define EDGELOOP_WIRE_BYTES_H

#include <stdint.h>

static inline void put_u16(uint8_t *out, uint16_t value) {
    out[0] = (uint8_t)(value >> 8);
    out[1] = (uint8_t)value;
}

static inline void put_u32(uint8_t *out, uint32_t value) {
    put_u16(out, (uint16_t)(value >> 16));
    put_u16(out + 2, (uint16_t)value);
}

static inline void put_u64(uint8_t *out, uint64_t value) {
    put_u32(out, (uint32_t)(value >> 32));
    put_u32(out + 4, (uint32_t)value);
}

static inline uint16_t get_u16(const uint8_t *in) {
    return (uint16_t)((unsigned)in[0] << 8 | in[1]);
}

static inline uint32_t get_u32(const uint8_t *in) {
    return (uint32_t)get_u16(in) << 16 | get_u16(in + 2);
}

static inline uint64_t get_u64(const uint8_t *in) {
    return (uint64_t)get_u32(in) << 32 | get_u32(in + 4);
}

#endif
