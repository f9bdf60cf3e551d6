#include "app/identity.h"

#include <stdbool.h>
#include <string.h>

#include "wire/wire.h"

enum {
    HEADER_BYTES = 8,
    ID_FIELD_BYTES = 32,
    LENGTH_MIN = ID_FIELD_BYTES + IDENTITY_ENTROPY_BYTES,
};

static uint16_t u16(const uint8_t *at) {
    return (uint16_t)(at[0] | at[1] << 8);
}

static uint32_t u32(const uint8_t *at) {
    return (uint32_t)u16(at) | (uint32_t)u16(at + 2) << 16;
}

// The id becomes a topic level, a ClientId and a word in logs.
static bool id_is_usable(const uint8_t *field, size_t *id_bytes) {
    size_t bytes = 0;
    while (bytes < ID_FIELD_BYTES && field[bytes] != 0) {
        uint8_t c = field[bytes];
        if (c <= ' ' || c > '~' || c == '/' || c == '+' || c == '#' || c == '"' || c == '\\') {
            return false;
        }
        bytes++;
    }
    for (size_t i = bytes; i < ID_FIELD_BYTES; i++) {
        if (field[i] != 0) {
            return false;
        }
    }
    *id_bytes = bytes;
    return bytes >= 1 && bytes <= IDENTITY_ID_BYTES_MAX;
}

enum identity_result identity_parse(const void *page, size_t page_bytes, struct identity *out) {
    const uint8_t *at = page;
    if (page_bytes < HEADER_BYTES || memcmp(at, "ELID", 4) != 0) {
        return IDENTITY_MISSING;
    }
    if (u16(at + 4) != 1) {
        return IDENTITY_VERSION;
    }
    size_t length = u16(at + 6);
    if (length < LENGTH_MIN || length > IDENTITY_PAGE_BYTES_MAX - HEADER_BYTES - WIRE_CRC_BYTES ||
        HEADER_BYTES + length + WIRE_CRC_BYTES > page_bytes) {
        return IDENTITY_LENGTH;
    }
    if (wire_crc32(0, at, HEADER_BYTES + length) != u32(at + HEADER_BYTES + length)) {
        return IDENTITY_DAMAGED;
    }
    size_t id_bytes;
    if (!id_is_usable(at + HEADER_BYTES, &id_bytes)) {
        return IDENTITY_BAD_ID;
    }
    memset(out, 0, sizeof *out);
    memcpy(out->board_id, at + HEADER_BYTES, id_bytes);
    memcpy(out->entropy, at + HEADER_BYTES + ID_FIELD_BYTES, IDENTITY_ENTROPY_BYTES);
    return IDENTITY_OK;
}

const char *identity_result_name(enum identity_result result) {
    static const char *const names[] = {
        [IDENTITY_OK] = "ok",         [IDENTITY_MISSING] = "missing", [IDENTITY_VERSION] = "unknown version",
        [IDENTITY_LENGTH] = "length", [IDENTITY_DAMAGED] = "damaged", [IDENTITY_BAD_ID] = "unusable id",
    };
    return names[result];
}
