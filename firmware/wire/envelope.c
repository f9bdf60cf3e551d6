#include "wire/bytes.h"
#include "wire/wire.h"

size_t wire_reading_encode_header(const struct wire_reading *reading, void *out, size_t out_capacity) {
    uint8_t *to = (uint8_t *)out;
    if (out_capacity < WIRE_READING_HEADER_BYTES) {
        return 0;
    }
    put_u32(to, reading->boot);
    put_u32(to + 4, reading->sequence);
    to[8] = reading->back;
    return WIRE_READING_HEADER_BYTES;
}

bool wire_reading_decode(const void *payload, size_t payload_bytes, struct wire_reading *out) {
    const uint8_t *in = (const uint8_t *)payload;
    if (payload_bytes < WIRE_READING_HEADER_BYTES) {
        return false;
    }
    *out = (struct wire_reading){.boot = get_u32(in),
                                 .sequence = get_u32(in + 4),
                                 .back = in[8],
                                 .message = in + WIRE_READING_HEADER_BYTES,
                                 .message_bytes = payload_bytes - WIRE_READING_HEADER_BYTES};
    return out->back < out->sequence;
}

size_t wire_request_encode_header(const struct wire_request *request, void *out, size_t out_capacity) {
    if (out_capacity < WIRE_REQUEST_HEADER_BYTES) {
        return 0;
    }
    put_u16((uint8_t *)out, request->request_id);
    return WIRE_REQUEST_HEADER_BYTES;
}

bool wire_request_decode(const void *payload, size_t payload_bytes, struct wire_request *out) {
    const uint8_t *in = (const uint8_t *)payload;
    if (payload_bytes < WIRE_REQUEST_HEADER_BYTES) {
        return false;
    }
    *out = (struct wire_request){.request_id = get_u16(in),
                                 .message = in + WIRE_REQUEST_HEADER_BYTES,
                                 .message_bytes = payload_bytes - WIRE_REQUEST_HEADER_BYTES};
    return true;
}
