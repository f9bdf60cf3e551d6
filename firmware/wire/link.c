#include <string.h>

#include "wire/bytes.h"
#include "wire/wire.h"

const char *wire_stat_name(unsigned stat) {
    static const char *const names[WIRE_STAT_END] = {
        [WIRE_STAT_FRAMES_IN] = "frames_in",
        [WIRE_STAT_FRAMES_OUT] = "frames_out",
        [WIRE_STAT_BAD_CRC] = "bad_crc",
        [WIRE_STAT_BAD_COBS] = "bad_cobs",
        [WIRE_STAT_TOO_LONG] = "too_long",
        [WIRE_STAT_TOO_SHORT] = "too_short",
        [WIRE_STAT_TIMEOUT] = "timeout",
        [WIRE_STAT_UNKNOWN_CHANNEL] = "unknown_channel",
        [WIRE_STAT_UART_OVERRUN] = "uart_overrun",
        [WIRE_STAT_READINGS_PRODUCED] = "readings_produced",
        [WIRE_STAT_READINGS_ACKNOWLEDGED] = "readings_acknowledged",
        [WIRE_STAT_READINGS_SHED] = "readings_shed",
        [WIRE_STAT_READINGS_SENT_AGAIN] = "readings_sent_again",
        [WIRE_STAT_READINGS_HELD] = "readings_held",
        [WIRE_STAT_COMMANDS_RECEIVED] = "commands_received",
        [WIRE_STAT_COMMANDS_ANSWERED] = "commands_answered",
        [WIRE_STAT_SENSOR_ERRORS] = "sensor_errors",
        [WIRE_STAT_MQTTSN_REJECTED] = "mqttsn_rejected",
        [WIRE_STAT_RECONNECTS] = "reconnects",
        [WIRE_STAT_WATCHDOG_RESETS] = "watchdog_resets",
        [WIRE_STAT_TEXT_BYTES_DROPPED] = "text_bytes_dropped",
    };
    return stat < WIRE_STAT_END ? names[stat] : NULL;
}

// --- Encoding: a cursor that remembers running out of room ---

struct out {
    uint8_t *data;
    size_t capacity;
    size_t bytes;
    bool overflowed;
};

static uint8_t *take_room(struct out *out, size_t bytes) {
    if (out->overflowed || out->capacity - out->bytes < bytes) {
        out->overflowed = true;
        return NULL;
    }
    out->bytes += bytes;
    return out->data + out->bytes - bytes;
}

static void write_u8(struct out *out, uint8_t value) {
    uint8_t *to = take_room(out, 1);
    if (to != NULL) {
        *to = value;
    }
}

static void write_u16(struct out *out, uint16_t value) {
    uint8_t *to = take_room(out, 2);
    if (to != NULL) {
        put_u16(to, value);
    }
}

static void write_u32(struct out *out, uint32_t value) {
    uint8_t *to = take_room(out, 4);
    if (to != NULL) {
        put_u32(to, value);
    }
}

static void write_u64(struct out *out, uint64_t value) {
    uint8_t *to = take_room(out, 8);
    if (to != NULL) {
        put_u64(to, value);
    }
}

static void write_text(struct out *out, struct wire_text text) {
    write_u8(out, text.bytes);
    uint8_t *to = take_room(out, text.bytes);
    if (to != NULL && text.bytes > 0) {
        memcpy(to, text.data, text.bytes);
    }
}

static void write_stats(struct out *out, const struct wire_stats *stats) {
    write_u32(out, stats->boot);
    write_u64(out, stats->uptime_ms);
    write_u8(out, stats->reset_reason);
    write_u8(out, stats->count);
    if (stats->count > WIRE_STATS_MAX) {
        out->overflowed = true;
        return;
    }
    for (size_t i = 0; i < stats->count; i++) {
        write_u8(out, stats->values[i].id);
        write_u32(out, stats->values[i].value);
    }
}

size_t wire_link_encode(const struct wire_link *link, void *out, size_t out_capacity) {
    struct out to = {.data = (uint8_t *)out, .capacity = out_capacity};
    write_u8(&to, (uint8_t)link->type);
    switch (link->type) {
        case WIRE_LINK_HELLO:
            write_u8(&to, link->as.hello.version);
            write_u8(&to, link->as.hello.window);
            write_u16(&to, link->as.hello.content_bytes_max);
            write_u32(&to, link->as.hello.boot);
            write_u8(&to, link->as.hello.reset_reason);
            write_text(&to, link->as.hello.board_id);
            write_text(&to, link->as.hello.firmware);
            break;
        case WIRE_LINK_WELCOME:
            write_u8(&to, link->as.welcome.version);
            write_u8(&to, link->as.welcome.window);
            write_u16(&to, link->as.welcome.content_bytes_max);
            write_u64(&to, link->as.welcome.unix_time_ms);
            break;
        case WIRE_LINK_HELLO_REQUEST:
            write_u8(&to, link->as.hello_request_version);
            break;
        case WIRE_LINK_TIME:
            write_u64(&to, link->as.time_ms);
            break;
        case WIRE_LINK_STATS_REQUEST:
            break;
        case WIRE_LINK_STATS:
            write_stats(&to, &link->as.stats);
            break;
        case WIRE_LINK_REWIND:
            write_u32(&to, link->as.rewind.boot);
            write_u32(&to, link->as.rewind.sequence);
            break;
        default:
            return 0;
    }
    return to.overflowed ? 0 : to.bytes;
}

// --- Decoding: a cursor that remembers running out of bytes; what is missing reads as zero ---

struct in {
    const uint8_t *data;
    size_t bytes;
    bool truncated;
};

static const uint8_t *take(struct in *in, size_t bytes) {
    static const uint8_t nothing[8];
    if (in->truncated || in->bytes < bytes) {
        in->truncated = true;
        return nothing;
    }
    in->data += bytes;
    in->bytes -= bytes;
    return in->data - bytes;
}

static struct wire_text read_text(struct in *in) {
    const uint8_t bytes = *take(in, 1);
    const uint8_t *data = take(in, bytes);
    return in->truncated ? (struct wire_text){NULL, 0} : (struct wire_text){(const char *)data, bytes};
}

static void read_hello(struct in *in, struct wire_hello *out) {
    out->version = *take(in, 1);
    out->window = *take(in, 1);
    out->content_bytes_max = get_u16(take(in, 2));
    out->boot = get_u32(take(in, 4));
    out->reset_reason = *take(in, 1);
    out->board_id = read_text(in);
    out->firmware = read_text(in);
}

static void read_welcome(struct in *in, struct wire_welcome *out) {
    out->version = *take(in, 1);
    out->window = *take(in, 1);
    out->content_bytes_max = get_u16(take(in, 2));
    out->unix_time_ms = get_u64(take(in, 8));
}

static void read_stats(struct in *in, struct wire_stats *out) {
    out->boot = get_u32(take(in, 4));
    out->uptime_ms = get_u64(take(in, 8));
    out->reset_reason = *take(in, 1);
    const size_t listed = *take(in, 1);
    for (size_t i = 0; i < listed; i++) {
        const uint8_t id = *take(in, 1);
        const uint32_t value = get_u32(take(in, 4));
        if (i < WIRE_STATS_MAX && !in->truncated) {
            out->values[i].id = id;
            out->values[i].value = value;
            out->count = (uint8_t)(i + 1);
        }
    }
}

enum wire_link_result wire_link_decode(const void *payload, size_t payload_bytes, struct wire_link *out) {
    struct in in = {.data = (const uint8_t *)payload, .bytes = payload_bytes};
    const uint8_t type = *take(&in, 1);
    memset(out, 0, sizeof *out);
    out->type = (enum wire_link_type)type;
    if (in.truncated) {
        return WIRE_LINK_TRUNCATED;
    }
    switch (type) {
        case WIRE_LINK_HELLO:
            read_hello(&in, &out->as.hello);
            break;
        case WIRE_LINK_WELCOME:
            read_welcome(&in, &out->as.welcome);
            break;
        case WIRE_LINK_HELLO_REQUEST:
            out->as.hello_request_version = *take(&in, 1);
            break;
        case WIRE_LINK_TIME:
            out->as.time_ms = get_u64(take(&in, 8));
            break;
        case WIRE_LINK_STATS_REQUEST:
            break;
        case WIRE_LINK_STATS:
            read_stats(&in, &out->as.stats);
            break;
        case WIRE_LINK_REWIND:
            out->as.rewind.boot = get_u32(take(&in, 4));
            out->as.rewind.sequence = get_u32(take(&in, 4));
            break;
        default:
            return WIRE_LINK_UNKNOWN;
    }
    return in.truncated ? WIRE_LINK_TRUNCATED : WIRE_LINK_OK;
}
