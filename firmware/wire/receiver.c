#include <string.h>

#include "wire/wire.h"

// CRC-32 of any content followed by its own CRC.
#define RESIDUE 0x2144DF1CU
#define CONTENT_BYTES_MIN 1U

const char *wire_reason_name(enum wire_reason reason) {
    static const char *const names[WIRE_REASON_COUNT] = {"too_short", "too_long", "bad_cobs",
                                                         "bad_crc",   "timeout",  "unknown_channel"};
    return (unsigned)reason < WIRE_REASON_COUNT ? names[reason] : "";
}

bool wire_receiver_init(struct wire_receiver *self, const struct wire_receiver_config *config) {
    const size_t needed = WIRE_STUFFED_BYTES_MAX(config->content_bytes_max);
    if (config->buffer == NULL || config->on_event == NULL || config->content_bytes_max < CONTENT_BYTES_MIN ||
        config->buffer_bytes < needed || needed < config->content_bytes_max) {
        return false;
    }
    *self = (struct wire_receiver){.config = *config, .stuffed_bytes_max = needed};
    if (self->config.timeout_ms == 0) {
        self->config.timeout_ms = WIRE_TIMEOUT_MS;
    }
    return true;
}

static void reject(struct wire_receiver *self, enum wire_reason reason, size_t data_bytes) {
    const struct wire_event event = {
        .type = WIRE_EVENT_REJECTED, .reason = reason, .data = self->config.buffer, .data_bytes = data_bytes};
    self->counters.rejected[reason]++;
    self->config.on_event(self->config.context, &event);
}

static void tell_line(struct wire_receiver *self, enum wire_event_type type, const uint8_t *data, size_t data_bytes) {
    const struct wire_event event = {.type = type, .data = data, .data_bytes = data_bytes};
    if (type == WIRE_EVENT_SMP_LINE) {
        self->counters.smp_lines++;
    } else {
        self->counters.text_lines++;
        self->counters.text_bytes += (uint32_t)data_bytes;
    }
    self->config.on_event(self->config.context, &event);
}

// --- Frames ---

// Reads the blocks where they lie, so that what is no frame stays as it came.
static bool check_frame(const uint8_t *in, size_t in_bytes, enum wire_reason *reason) {
    static const uint8_t zero = 0;
    uint32_t crc = 0;
    size_t at = 0;
    size_t unstuffed = 0;
    while (at < in_bytes) {
        const size_t code = in[at];
        if (code > in_bytes - at) {
            *reason = WIRE_BAD_COBS;
            return false;
        }
        crc = wire_crc32(crc, in + at + 1, code - 1);
        unstuffed += code - 1;
        at += code;
        if (code != 255U && at < in_bytes) {
            crc = wire_crc32(crc, &zero, 1);
            unstuffed++;
        }
    }
    *reason = unstuffed < CONTENT_BYTES_MIN + WIRE_CRC_BYTES ? WIRE_TOO_SHORT : WIRE_BAD_CRC;
    return *reason == WIRE_BAD_CRC && crc == RESIDUE;
}

static void deliver_frame(struct wire_receiver *self) {
    uint8_t *buffer = self->config.buffer;
    size_t unstuffed = 0;
    // check_frame found it sound: this cannot fail.
    (void)wire_cobs_decode(buffer, self->bytes, buffer, &unstuffed);
    const size_t content_bytes = unstuffed - WIRE_CRC_BYTES;
    const uint8_t channel = buffer[0];
    // Content with zeros stuffs shorter than the cap allows for.
    if (content_bytes > self->config.content_bytes_max) {
        reject(self, WIRE_TOO_LONG, 0);
    } else if (channel == 0 || channel > 31 || (self->config.channels & WIRE_CHANNEL_BIT(channel)) == 0) {
        reject(self, WIRE_UNKNOWN_CHANNEL, content_bytes);
    } else {
        const struct wire_event event = {
            .type = WIRE_EVENT_FRAME, .channel = channel, .data = buffer + 1, .data_bytes = content_bytes - 1};
        self->counters.frames++;
        self->config.on_event(self->config.context, &event);
    }
}

// --- Lines ---

static bool begins_smp_line(const uint8_t *data, size_t data_bytes) {
    return data_bytes >= 2 && ((data[0] == 0x06 && data[1] == 0x09) || (data[0] == 0x04 && data[1] == 0x14));
}

static bool is_continuation(uint8_t byte) {
    return (byte & 0xC0U) == 0x80U;
}

// Bytes of the printable character at the start of data, 0 when there is none: UTF-8 as RFC 3629 has it, without the
// control characters of U+0000-001F (but TAB, LF, CR, ESC) and U+007F-009F.
static size_t printable_bytes(const uint8_t *data, size_t data_bytes) {
    const uint8_t lead = data[0];
    if (lead < 0x80U) {
        const bool kept = lead >= 0x20U || lead == '\t' || lead == '\n' || lead == '\r' || lead == 0x1BU;
        return kept && lead != 0x7FU ? 1 : 0;
    }
    const size_t needed = lead >= 0xF0U ? 4 : lead >= 0xE0U ? 3 : 2;
    if (lead < 0xC2U || lead > 0xF4U || data_bytes < needed) {
        return 0;
    }
    for (size_t i = 1; i < needed; i++) {
        if (!is_continuation(data[i])) {
            return 0;
        }
    }
    const uint8_t second = data[1];
    const bool control = lead == 0xC2U && second < 0xA0U;
    const bool overlong = (lead == 0xE0U && second < 0xA0U) || (lead == 0xF0U && second < 0x90U);
    const bool surrogate = lead == 0xEDU && second >= 0xA0U;
    const bool beyond = lead == 0xF4U && second >= 0x90U;
    return control || overlong || surrogate || beyond ? 0 : needed;
}

static bool is_text(const uint8_t *data, size_t data_bytes) {
    size_t at = 0;
    while (at < data_bytes) {
        const size_t step = printable_bytes(data + at, data_bytes - at);
        if (step == 0) {
            return false;
        }
        at += step;
    }
    return true;
}

// The line at the start of data, its LF included; all of data when there is none.
static size_t line_bytes(const uint8_t *data, size_t data_bytes) {
    const uint8_t *end = (const uint8_t *)memchr(data, '\n', data_bytes);
    return end == NULL ? data_bytes : (size_t)(end - data) + 1;
}

static bool is_smp_line(const uint8_t *line, size_t bytes) {
    return begins_smp_line(line, bytes) && line[bytes - 1] == '\n';
}

static void tell_text(struct wire_receiver *self, const uint8_t *line, size_t bytes) {
    if (bytes > 0 && line[bytes - 1] == '\n') {
        bytes--;
    }
    if (bytes > 0 && line[bytes - 1] == '\r') {
        bytes--;
    }
    if (bytes > 0) {
        tell_line(self, WIRE_EVENT_TEXT, line, bytes);
    }
}

// What is no frame, the first end bytes held: SMP lines are told in any case, the rest is text as a whole or nothing.
static bool deliver_lines(struct wire_receiver *self, size_t end) {
    const uint8_t *buffer = self->config.buffer;
    bool text = true;
    size_t bytes = 0;
    for (size_t at = 0; at < end && text; at += bytes) {
        bytes = line_bytes(buffer + at, end - at);
        text = is_smp_line(buffer + at, bytes) || is_text(buffer + at, bytes);
    }
    for (size_t at = 0; at < end; at += bytes) {
        bytes = line_bytes(buffer + at, end - at);
        if (is_smp_line(buffer + at, bytes)) {
            tell_line(self, WIRE_EVENT_SMP_LINE, buffer + at, bytes);
        } else if (text) {
            tell_text(self, buffer + at, bytes);
        }
    }
    return text;
}

// --- Segments ---

static void close_segment(struct wire_receiver *self, bool timed_out) {
    enum wire_reason reason = WIRE_BAD_CRC;
    if (self->bytes > 0) {
        if (check_frame(self->config.buffer, self->bytes, &reason)) {
            deliver_frame(self);
        } else if (!deliver_lines(self, self->bytes)) {
            reject(self, timed_out ? WIRE_TIMEOUT : reason, self->bytes);
        }
    }
    self->bytes = 0;
    self->skipping = false;
}

// The buffer is full, so this is no frame. Returns whether whole lines of text could be told to make room: a board
// that prints without ever sending a frame is heard this way.
static bool make_room(struct wire_receiver *self) {
    uint8_t *buffer = self->config.buffer;
    size_t end = self->bytes;
    while (end > 0 && buffer[end - 1] != '\n') {
        end--;
    }
    if (end == 0 || !deliver_lines(self, end)) {
        return false;
    }
    self->bytes -= end;
    memmove(buffer, buffer + end, self->bytes);
    return true;
}

// Take bytes of one segment, none of them zero.
static void append(struct wire_receiver *self, const uint8_t *data, size_t data_bytes) {
    while (data_bytes > 0 && !self->skipping) {
        const size_t room = self->stuffed_bytes_max - self->bytes;
        size_t taken = data_bytes < room ? data_bytes : room;
        if (taken == 0 && make_room(self)) {
            continue;
        }
        if (taken == 0) {
            self->bytes = 0;
            self->skipping = true;
            reject(self, WIRE_TOO_LONG, 0);
            return;
        }
        // An SMP line that begins a segment is told at its LF: stock tools send no delimiter, and no frame on an
        // assigned channel begins like it.
        uint8_t *to = self->config.buffer + self->bytes;
        const size_t line = line_bytes(data, taken);
        if (data[line - 1] == '\n' && line < taken) {
            taken = line;
        }
        memcpy(to, data, taken);
        self->bytes += taken;
        data += taken;
        data_bytes -= taken;
        if (to[taken - 1] == '\n' && is_smp_line(self->config.buffer, self->bytes)) {
            tell_line(self, WIRE_EVENT_SMP_LINE, self->config.buffer, self->bytes);
            self->bytes = 0;
        }
    }
}

void wire_receiver_push(struct wire_receiver *self, const void *data, size_t data_bytes, uint32_t now_ms) {
    const uint8_t *from = (const uint8_t *)data;
    const uint8_t *end = from + data_bytes;
    if (data_bytes == 0) {
        return;
    }
    wire_receiver_poll(self, now_ms);
    self->last_byte_ms = now_ms;
    while (from < end) {
        const size_t left = (size_t)(end - from);
        const uint8_t *zero = (const uint8_t *)memchr(from, 0, left);
        append(self, from, zero == NULL ? left : (size_t)(zero - from));
        if (zero == NULL) {
            return;
        }
        close_segment(self, false);
        from = zero + 1;
    }
}

void wire_receiver_poll(struct wire_receiver *self, uint32_t now_ms) {
    if ((self->bytes > 0 || self->skipping) && now_ms - self->last_byte_ms >= self->config.timeout_ms) {
        close_segment(self, true);
    }
}

uint32_t wire_receiver_next_ms(const struct wire_receiver *self, uint32_t now_ms) {
    if (self->bytes == 0 && !self->skipping) {
        return UINT32_MAX;
    }
    const uint32_t age_ms = now_ms - self->last_byte_ms;
    return age_ms >= self->config.timeout_ms ? 0 : self->config.timeout_ms - age_ms;
}

void wire_receiver_reset(struct wire_receiver *self) {
    self->bytes = 0;
    self->skipping = false;
}
