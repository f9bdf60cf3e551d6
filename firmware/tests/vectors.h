/// Shapes of the vectors that tests/vectors.py writes from the JSON files both languages read.

#ifndef EDGELOOP_TESTS_VECTORS_H
#define EDGELOOP_TESTS_VECTORS_H

#include "mqttsn/message.h"
#include "wire/wire.h"

struct span {
    const uint8_t *data;
    size_t bytes;
};

struct frame_vector {
    const char *name;
    struct span content;
    struct span frame;
};

struct stream_vector {
    const char *name;
    struct span stream;
    size_t content_bytes_max;
    const struct span *frames;
    size_t frame_count;
    const struct span *text;
    size_t text_count;
    const struct span *smp;
    size_t smp_count;
    uint32_t rejected[WIRE_REASON_COUNT];
};

struct link_vector {
    const char *name;
    struct span payload;
    struct wire_link link;
};

struct reading_vector {
    const char *name;
    struct span payload;
    uint32_t boot;
    uint32_t sequence;
    uint8_t back;
    struct span message;
};

struct request_vector {
    const char *name;
    struct span payload;
    uint16_t request_id;
    struct span message;
};

struct message_vector {
    const char *name;
    struct span bytes;
    struct mqttsn_message message;
    bool encodes_otherwise;
};

struct encapsulation_vector {
    const char *name;
    struct span bytes;
    uint8_t radius;
    struct span node_id;
    struct span message;
};

struct rejection_vector {
    const char *name;
    struct span bytes;
    const char *reason;
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

#endif
