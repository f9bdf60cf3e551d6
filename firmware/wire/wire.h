/// The serial line's framing: one UART carries frames, SMP console lines and log text.
///
/// A stream is cut into segments by the byte 0x00. A segment that unstuffs (COBS) to content followed by its CRC-32
/// is a frame; content is a channel byte, never zero, and a payload. A segment that is no frame may hold SMP console
/// lines (they begin 06 09 or 04 14 and end with LF) and log text; whatever else it holds is one rejection with a
/// reason. Damage or a lost delimiter therefore costs the frame it hit, never the one that follows.
///
/// Everything here is portable C11 without heap, globals or I/O; the caller owns all memory and passes the time in.
/// Functions on different instances may run at the same time; those on one instance may not.

#ifndef EDGELOOP_WIRE_H
#define EDGELOOP_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define WIRE_CRC_BYTES 4U

/// Content a sender may use towards a peer that has not said HELLO, and the default cap of a gateway.
#define WIRE_CONTENT_BYTES_UNKNOWN_PEER 256U
#define WIRE_CONTENT_BYTES_GATEWAY 2048U

#define WIRE_TIMEOUT_MS 250U

/// Longest stuffed form of a content of the given length, without delimiters: what a receiver's buffer must hold.
#define WIRE_STUFFED_BYTES_MAX(content_bytes) \
    ((content_bytes) + WIRE_CRC_BYTES + 1U + (((content_bytes) + WIRE_CRC_BYTES) / 254U))

/// Longest frame on the line for a content of the given length, both delimiters included: what a writer needs.
#define WIRE_FRAME_BYTES_MAX(content_bytes) (WIRE_STUFFED_BYTES_MAX(content_bytes) + 2U)

/// The first byte of every content. 0x09 and 0x14 are never assigned: SMP console lines look like them.
enum wire_channel {
    WIRE_CHANNEL_MQTTSN = 0x01,   ///< One MQTT-SN message, plain or forwarder-encapsulated.
    WIRE_CHANNEL_READING = 0x02,  ///< struct wire_reading.
    WIRE_CHANNEL_LINK = 0x03,     ///< struct wire_link.
    WIRE_CHANNEL_SMP = 0x04,      ///< Reserved.
    WIRE_CHANNEL_REQUEST = 0x05,  ///< struct wire_request.
};

/// Bit of a channel in a set of channels; only channels below 32 can be members.
#define WIRE_CHANNEL_BIT(channel) (1UL << (channel))

/// --- CRC-32 and COBS ------------------------------------------------------------------------------------------

/// CRC-32 as IEEE 802.3 and zlib count it. Start with crc = 0; the result of one span is the start of the next.
/// Cost: a constant table of 64 bytes, two look-ups a byte.
uint32_t wire_crc32(uint32_t crc, const void *data, size_t data_bytes);

/// Stuff data into out, without delimiters. out must not overlap data.
/// Returns the bytes written, at least 1; 0 when out_capacity is too small (out's content is then undefined).
size_t wire_cobs_encode(const void *data, size_t data_bytes, void *out, size_t out_capacity);

/// Unstuff data, which holds no delimiter, into out. out may be data itself: the output never overtakes the input.
/// out needs room for data_bytes. Returns true and the bytes written, which may be 0; false when the input is empty,
/// holds a zero byte or ends inside a block.
bool wire_cobs_decode(const void *data, size_t data_bytes, void *out, size_t *out_bytes);

/// --- Writing frames -------------------------------------------------------------------------------------------

/// Builds one frame straight into the caller's buffer, in as many parts as its content has. No second copy is held.
/// Cost: 24 bytes on a 32-bit machine; each byte is touched twice (CRC, copy).
struct wire_writer {
    uint8_t *out;
    size_t capacity;
    size_t bytes;       ///< Written so far.
    size_t code_index;  ///< Where the open block's code byte stands.
    uint32_t crc;
    bool overflowed;
};

/// Begin a frame in out, which must stay valid until wire_writer_end. WIRE_FRAME_BYTES_MAX of the content suffices.
void wire_writer_begin(struct wire_writer *self, void *out, size_t capacity, uint8_t channel);

/// Append payload. Overflow is remembered and told by wire_writer_end.
void wire_writer_put(struct wire_writer *self, const void *data, size_t data_bytes);

/// Append CRC and delimiter. Returns the length of the whole frame, both delimiters included, 0 when out was too small.
size_t wire_writer_end(struct wire_writer *self);

/// The three calls above in one. Returns the frame's length, 0 when out was too small.
size_t wire_frame_encode(uint8_t channel, const void *payload, size_t payload_bytes, void *out, size_t out_capacity);

/// --- Receiving ------------------------------------------------------------------------------------------------

/// Why a segment was no frame. The names are metric labels on the gateway as well.
enum wire_reason {
    WIRE_TOO_SHORT,        ///< Unstuffed to fewer than channel and CRC.
    WIRE_TOO_LONG,         ///< Longer than the cap and not lines of text; told once, skipped up to the next delimiter.
    WIRE_BAD_COBS,         ///< Ends inside a block.
    WIRE_BAD_CRC,          ///< Checksum wrong.
    WIRE_TIMEOUT,          ///< Nothing came for the inter-byte timeout and what there was is neither frame nor text.
    WIRE_UNKNOWN_CHANNEL,  ///< A sound frame on a channel this receiver does not serve.
    WIRE_REASON_COUNT
};

/// "too_short", "too_long", "bad_cobs", "bad_crc", "timeout", "unknown_channel". Static storage.
const char *wire_reason_name(enum wire_reason reason);

enum wire_event_type {
    WIRE_EVENT_FRAME,     ///< channel and data (the payload, may be empty).
    WIRE_EVENT_SMP_LINE,  ///< data: one console line as it came, from its 06 09 or 04 14 to its LF.
    WIRE_EVENT_TEXT,      ///< data: one line of log text without its CR LF; empty lines are not told.
    WIRE_EVENT_REJECTED,  ///< reason; data: what was rejected, as far as it was kept (raw; empty for too_long).
};

struct wire_event {
    enum wire_event_type type;
    uint8_t channel;
    enum wire_reason reason;
    const uint8_t *data;  ///< Points into the receiver's buffer: valid during the call-back only.
    size_t data_bytes;
};

/// Called for every event, in the order of the line, from within push and poll. It must not call back into the same
/// receiver.
typedef void (*wire_event_fn)(void *context, const struct wire_event *event);

/// What a receiver saw. May be read at any time and set to zero at any time; each wraps at 2^32.
struct wire_counters {
    uint32_t frames;
    uint32_t smp_lines;
    uint32_t text_lines;
    uint32_t text_bytes;  ///< Of text lines told, line ends not counted.
    uint32_t rejected[WIRE_REASON_COUNT];
};

struct wire_receiver_config {
    /// Holds one segment: at least WIRE_STUFFED_BYTES_MAX(content_bytes_max) bytes. Owned by the caller, who leaves
    /// it to the receiver.
    uint8_t *buffer;
    size_t buffer_bytes;
    size_t content_bytes_max;  ///< At least 1.
    uint32_t timeout_ms;       ///< 0 means WIRE_TIMEOUT_MS.
    uint32_t channels;         ///< WIRE_CHANNEL_BITs served; frames on others are counted as unknown_channel.
    wire_event_fn on_event;
    void *context;
};

/// Invariants: buffer[0..bytes) is the open segment as it came, without a zero byte; when skipping, bytes is 0 and the
/// segment was told as too_long. Read the fields, never write them (counters excepted).
struct wire_receiver {
    struct wire_receiver_config config;
    size_t stuffed_bytes_max;
    size_t bytes;
    uint32_t last_byte_ms;
    bool skipping;
    struct wire_counters counters;
};

/// Returns false, and leaves the receiver unusable, when the buffer is too small or a pointer is missing.
bool wire_receiver_init(struct wire_receiver *self, const struct wire_receiver_config *config);

/// Take bytes as they came from the line; they may cut segments anywhere. The result does not depend on how a stream
/// is cut into calls, only on its bytes and times.
/// Cost: every byte is copied once and looked at a bounded number of times; the byte that closes a segment pays for
/// the passes over it (unstuffing, CRC, and for what is no frame the search for lines), at most stuffed_bytes_max.
void wire_receiver_push(struct wire_receiver *self, const void *data, size_t data_bytes, uint32_t now_ms);

/// Close an open segment that is older than the timeout, as if a delimiter had come: a whole frame is told as such,
/// text as text, anything else is rejected as timeout. Call it at leisure; push does the same before it takes bytes.
void wire_receiver_poll(struct wire_receiver *self, uint32_t now_ms);

/// Milliseconds until poll has something to do, UINT32_MAX when nothing is open.
uint32_t wire_receiver_next_ms(const struct wire_receiver *self, uint32_t now_ms);

/// Forget an open segment without telling it, as after the port was closed. Counters stay.
void wire_receiver_reset(struct wire_receiver *self);

/// --- Envelopes ------------------------------------------------------------------------------------------------

#define WIRE_READING_HEADER_BYTES 9U
#define WIRE_REQUEST_HEADER_BYTES 2U

/// Payload of a READING frame. sequence counts from 1 within a boot; back = sequence - the oldest sequence of this
/// boot that the board still holds unacknowledged, 255 at most.
struct wire_reading {
    uint32_t boot;
    uint32_t sequence;
    uint8_t back;
    const uint8_t *message;  ///< One MQTT-SN PUBLISH. Decoding points into the payload given.
    size_t message_bytes;
};

/// Writes the nine bytes in front of the message. Returns WIRE_READING_HEADER_BYTES, 0 when out is too small.
size_t wire_reading_encode_header(const struct wire_reading *reading, void *out, size_t out_capacity);

/// Returns false when the payload is too short, sequence is 0 or back >= sequence.
bool wire_reading_decode(const void *payload, size_t payload_bytes, struct wire_reading *out);

/// Payload of a REQUEST frame, either way.
struct wire_request {
    uint16_t request_id;
    const uint8_t *message;  ///< One MQTT-SN PUBLISH. Decoding points into the payload given.
    size_t message_bytes;
};

size_t wire_request_encode_header(const struct wire_request *request, void *out, size_t out_capacity);
bool wire_request_decode(const void *payload, size_t payload_bytes, struct wire_request *out);

/// --- Link control ---------------------------------------------------------------------------------------------

#define WIRE_LINK_VERSION 1U

enum wire_link_type {
    WIRE_LINK_HELLO = 0x01,
    WIRE_LINK_WELCOME = 0x02,
    WIRE_LINK_HELLO_REQUEST = 0x03,
    WIRE_LINK_TIME = 0x04,
    WIRE_LINK_STATS_REQUEST = 0x05,
    WIRE_LINK_STATS = 0x06,
    WIRE_LINK_REWIND = 0x07,
};

enum wire_reset_reason {
    WIRE_RESET_UNKNOWN = 0,
    WIRE_RESET_POWER_ON = 1,
    WIRE_RESET_PIN = 2,
    WIRE_RESET_SOFTWARE = 3,
    WIRE_RESET_WATCHDOG = 4,
    WIRE_RESET_BROWNOUT = 5,
    WIRE_RESET_FAULT = 6,
};

enum wire_stat {
    WIRE_STAT_FRAMES_IN = 1,
    WIRE_STAT_FRAMES_OUT = 2,
    WIRE_STAT_BAD_CRC = 3,
    WIRE_STAT_BAD_COBS = 4,
    WIRE_STAT_TOO_LONG = 5,
    WIRE_STAT_TOO_SHORT = 6,
    WIRE_STAT_TIMEOUT = 7,
    WIRE_STAT_UNKNOWN_CHANNEL = 8,
    WIRE_STAT_UART_OVERRUN = 9,
    WIRE_STAT_READINGS_PRODUCED = 10,
    WIRE_STAT_READINGS_ACKNOWLEDGED = 11,
    WIRE_STAT_READINGS_SHED = 12,
    WIRE_STAT_READINGS_SENT_AGAIN = 13,
    WIRE_STAT_READINGS_HELD = 14,
    WIRE_STAT_COMMANDS_RECEIVED = 15,
    WIRE_STAT_COMMANDS_ANSWERED = 16,
    WIRE_STAT_SENSOR_ERRORS = 17,
    WIRE_STAT_MQTTSN_REJECTED = 18,
    WIRE_STAT_RECONNECTS = 19,
    WIRE_STAT_WATCHDOG_RESETS = 20,
    WIRE_STAT_TEXT_BYTES_DROPPED = 21,
    WIRE_STAT_END  ///< One past the last.
};

/// "frames_in", … as in the list above, lower case; NULL for an id outside it. Static storage.
const char *wire_stat_name(unsigned stat);

/// A piece of text: not terminated, not owned, may be empty.
struct wire_text {
    const char *data;
    uint8_t bytes;
};

struct wire_hello {
    uint8_t version;
    uint8_t window;              ///< QoS 1 publishes the board can keep in flight.
    uint16_t content_bytes_max;  ///< What the board can receive.
    uint32_t boot;
    uint8_t reset_reason;       ///< enum wire_reset_reason, or a newer value.
    struct wire_text board_id;  ///< UTF-8.
    struct wire_text firmware;  ///< UTF-8.
};

struct wire_welcome {
    uint8_t version;
    uint8_t window;  ///< Granted.
    uint16_t content_bytes_max;
    uint64_t unix_time_ms;  ///< 0: the gateway does not know.
};

#define WIRE_STATS_MAX 40U

struct wire_stats {
    uint32_t boot;
    uint64_t uptime_ms;
    uint8_t reset_reason;
    uint8_t count;  ///< At most WIRE_STATS_MAX; a decoder keeps the first WIRE_STATS_MAX of a longer list.
    struct {
        uint8_t id;
        uint32_t value;
    } values[WIRE_STATS_MAX];
};

struct wire_rewind {
    uint32_t boot;
    uint32_t sequence;
};

/// Payload of a LINK frame. About 350 bytes; keep it off small stacks.
struct wire_link {
    enum wire_link_type type;
    union {
        struct wire_hello hello;
        struct wire_welcome welcome;
        uint8_t hello_request_version;
        uint64_t time_ms;
        struct wire_stats stats;
        struct wire_rewind rewind;
    } as;
};

enum wire_link_result {
    WIRE_LINK_OK,
    WIRE_LINK_UNKNOWN,    ///< A type of a newer version: count it, carry on.
    WIRE_LINK_TRUNCATED,  ///< Ends before its last field, or empty.
};

/// Returns the payload's length, 0 when out is too small, the type unknown or count beyond WIRE_STATS_MAX.
size_t wire_link_encode(const struct wire_link *link, void *out, size_t out_capacity);

/// Further bytes after the last known field are ignored: newer versions append. Texts point into the payload given.
enum wire_link_result wire_link_decode(const void *payload, size_t payload_bytes, struct wire_link *out);

#ifdef __cplusplus
}
#endif

#endif
