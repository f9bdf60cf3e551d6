/// The demultiplexer on raw bytes: in one go, in pieces, and with a small cap. The same must come out of the first two.

#include <stdlib.h>
#include <string.h>

#include "wire/wire.h"

#define CONTENT_MAX 2048U

struct sum {
    uint32_t events;
    uint32_t crc;
};

static void add(void *context, const struct wire_event *event) {
    struct sum *sum = (struct sum *)context;
    const uint8_t head[3] = {(uint8_t)event->type, event->channel, (uint8_t)event->reason};
    sum->events++;
    sum->crc = wire_crc32(sum->crc, head, sizeof head);
    sum->crc = wire_crc32(sum->crc, event->data, event->data_bytes);
    if (event->type == WIRE_EVENT_FRAME) {
        // What was taken for a frame is one: written again it is read again.
        uint8_t frame[WIRE_FRAME_BYTES_MAX(CONTENT_MAX)];
        if (wire_frame_encode(event->channel, event->data, event->data_bytes, frame, sizeof frame) == 0) {
            abort();
        }
    }
}

static struct sum feed(const uint8_t *data, size_t size, size_t cap, size_t step) {
    // Exactly as large as asked for: the sanitizer sees a byte too many.
    uint8_t *buffer = (uint8_t *)malloc(WIRE_STUFFED_BYTES_MAX(cap));
    struct sum sum = {0, 0};
    struct wire_receiver receiver;
    const struct wire_receiver_config config = {.buffer = buffer,
                                                .buffer_bytes = WIRE_STUFFED_BYTES_MAX(cap),
                                                .content_bytes_max = cap,
                                                .channels = 0x2E,
                                                .on_event = add,
                                                .context = &sum};
    if (!wire_receiver_init(&receiver, &config)) {
        abort();
    }
    for (size_t at = 0; at < size; at += step) {
        wire_receiver_push(&receiver, data + at, size - at < step ? size - at : step, 0);
    }
    wire_receiver_poll(&receiver, WIRE_TIMEOUT_MS);
    if (receiver.bytes != 0 || receiver.skipping) {
        abort();
    }
    free(buffer);
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const struct sum whole = feed(data, size, CONTENT_MAX, size + 1);
    const struct sum pieces = feed(data, size, CONTENT_MAX, size % 5 + 1);
    if (whole.events != pieces.events || whole.crc != pieces.crc) {
        abort();
    }
    (void)feed(data, size, 16, 3);
    return 0;
}
