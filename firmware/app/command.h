/// The commands a board understands: which one a topic means, what it answers, what it changes. Pure.
#ifndef EDGELOOP_COMMAND_H
#define EDGELOOP_COMMAND_H

#include "wire/wire.h"

enum command {
    COMMAND_PING,
    COMMAND_STATS,
    COMMAND_INTERVAL,
    COMMAND_PAUSE,
    COMMAND_RESUME,
    COMMAND_RESET,
    COMMAND_FAULT,
    COMMAND_UNKNOWN,
    COMMAND_IGNORED,  ///< Our own answers, which our subscription brings back where a route says so.
};

enum { COMMAND_INTERVAL_MS_MAX = 24 * 60 * 60 * 1000 };

struct settings {
    uint32_t interval_ms;  ///< Between readings; 0: as fast as the ring takes them.
    bool paused;
};

enum command_effect {
    EFFECT_NONE,
    EFFECT_SETTINGS,  ///< settings may have changed.
    EFFECT_RESET,     ///< Once the answer is out: restart.
    EFFECT_FAULT,     ///< Once the answer is out: stop feeding the watchdog.
};

/// topic: not terminated. Returns COMMAND_IGNORED for what is not below `cmd/{board_id}/`.
enum command command_of_topic(const char *topic, size_t topic_bytes, const char *board_id);

struct command_result {
    size_t answer_bytes;
    enum command_effect effect;
};

/// out: where the answer goes. An answer that does not fit becomes `{"error":"too_long"}`; out_capacity is at least
/// COMMAND_ERROR_BYTES_MAX.
struct command_result command_run(enum command command, const void *payload, size_t payload_bytes,
                                  struct settings *settings, const struct wire_stats *stats, void *out,
                                  size_t out_capacity);

#define COMMAND_ERROR_BYTES_MAX 32U

/// "power_on", "watchdog", …; "unknown" for values we do not know. Static storage.
const char *command_reset_reason_name(unsigned reason);

#endif
