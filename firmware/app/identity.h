/// The identity page, written once when the board is provisioned. All numbers little-endian:
///   "ELID" · version u16 = 1 · length u16 of what follows up to the CRC · board_id[32], NUL padded · entropy[32] ·
///   whatever a later writer appends · CRC-32 over all before.
#ifndef EDGELOOP_IDENTITY_H
#define EDGELOOP_IDENTITY_H

#include <stddef.h>
#include <stdint.h>

enum {
    IDENTITY_ID_BYTES_MAX = 23,  ///< An MQTT-SN ClientId has 1 to 23 characters (5.3.1).
    IDENTITY_ENTROPY_BYTES = 32,
    IDENTITY_PAGE_BYTES_MAX = 256,  ///< Of a page, CRC included; a longer one is refused.
};

struct identity {
    char board_id[IDENTITY_ID_BYTES_MAX + 1];
    uint8_t entropy[IDENTITY_ENTROPY_BYTES];
};

enum identity_result {
    IDENTITY_OK,
    IDENTITY_MISSING,  ///< No magic: the board was never provisioned.
    IDENTITY_VERSION,  ///< Of a layout we do not know.
    IDENTITY_LENGTH,   ///< Too short for version 1 or longer than the page.
    IDENTITY_DAMAGED,  ///< CRC wrong.
    IDENTITY_BAD_ID,   ///< Empty, too long, or holds what a topic level or a log line cannot.
};

/// page: IDENTITY_PAGE_BYTES_MAX bytes or fewer, as flash holds them. out is written only on IDENTITY_OK.
enum identity_result identity_parse(const void *page, size_t page_bytes, struct identity *out);

/// "ok", "missing", … Static storage.
const char *identity_result_name(enum identity_result result);

#endif
