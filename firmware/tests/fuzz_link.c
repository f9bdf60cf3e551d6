/// LINK, READING and REQUEST payloads from raw bytes. What decodes encodes to what decodes the same.

#include <stdlib.h>
#include <string.h>

#include "wire/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct wire_link link;
    struct wire_reading reading;
    struct wire_request request;
    uint8_t out[700];
    uint8_t again[700];
    if (wire_link_decode(data, size, &link) == WIRE_LINK_OK) {
        const size_t bytes = wire_link_encode(&link, out, sizeof out);
        if (bytes == 0 || bytes > size || wire_link_decode(out, bytes, &link) != WIRE_LINK_OK ||
            wire_link_encode(&link, again, sizeof again) != bytes || memcmp(out, again, bytes) != 0) {
            abort();
        }
    }
    if (wire_reading_decode(data, size, &reading)) {
        const size_t bytes = wire_reading_encode_header(&reading, out, sizeof out);
        if (bytes + reading.message_bytes != size || memcmp(out, data, bytes) != 0) {
            abort();
        }
    }
    if (wire_request_decode(data, size, &request)) {
        const size_t bytes = wire_request_encode_header(&request, out, sizeof out);
        if (bytes + request.message_bytes != size || memcmp(out, data, bytes) != 0) {
            abort();
        }
    }
    return 0;
}
