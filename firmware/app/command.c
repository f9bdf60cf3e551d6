#include "app/command.h"

#include <string.h>

#include "app/text.h"

static const char *const names[] = {
    [COMMAND_PING] = "ping",     [COMMAND_STATS] = "stats", [COMMAND_INTERVAL] = "interval", [COMMAND_PAUSE] = "pause",
    [COMMAND_RESUME] = "resume", [COMMAND_RESET] = "reset", [COMMAND_FAULT] = "fault",
};

static bool take(const char **at, size_t *left, const char *prefix) {
    size_t bytes = strlen(prefix);
    if (*left < bytes || memcmp(*at, prefix, bytes) != 0) {
        return false;
    }
    *at += bytes;
    *left -= bytes;
    return true;
}

enum command command_of_topic(const char *topic, size_t topic_bytes, const char *board_id) {
    if (!take(&topic, &topic_bytes, "cmd/") || !take(&topic, &topic_bytes, board_id) ||
        !take(&topic, &topic_bytes, "/")) {
        return COMMAND_IGNORED;
    }
    if (topic_bytes == 5 && memcmp(topic, "reply", 5) == 0) {
        return COMMAND_IGNORED;
    }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strlen(names[i]) == topic_bytes && memcmp(names[i], topic, topic_bytes) == 0) {
            return (enum command)i;
        }
    }
    return COMMAND_UNKNOWN;
}

const char *command_reset_reason_name(unsigned reason) {
    static const char *const reasons[] = {
        [WIRE_RESET_UNKNOWN] = "unknown",   [WIRE_RESET_POWER_ON] = "power_on", [WIRE_RESET_PIN] = "pin",
        [WIRE_RESET_SOFTWARE] = "software", [WIRE_RESET_WATCHDOG] = "watchdog", [WIRE_RESET_BROWNOUT] = "brownout",
        [WIRE_RESET_FAULT] = "fault",
    };
    return reasons[reason < sizeof reasons / sizeof *reasons ? reason : WIRE_RESET_UNKNOWN];
}

static void put_stats(struct text *answer, const struct wire_stats *stats) {
    text_put(answer, "{\"boot\":");
    text_put_uint(answer, stats->boot);
    text_put(answer, ",\"uptime_ms\":");
    text_put_uint(answer, stats->uptime_ms);
    text_put(answer, ",\"reset_reason\":\"");
    text_put(answer, command_reset_reason_name(stats->reset_reason));
    text_put(answer, "\"");
    for (size_t i = 0; i < stats->count; i++) {
        text_put(answer, ",\"");
        text_put(answer, wire_stat_name(stats->values[i].id));
        text_put(answer, "\":");
        text_put_uint(answer, stats->values[i].value);
    }
    text_put(answer, "}");
}

static void put_paused(struct text *answer, bool paused) {
    text_put(answer, paused ? "{\"paused\":true}" : "{\"paused\":false}");
}

struct command_result command_run(enum command command, const void *payload, size_t payload_bytes,
                                  struct settings *settings, const struct wire_stats *stats, void *out,
                                  size_t out_capacity) {
    struct text answer = text_begin(out, out_capacity);
    enum command_effect effect = EFFECT_NONE;
    uint32_t interval_ms;
    switch (command) {
        case COMMAND_PING:
            text_put_bytes(&answer, payload, payload_bytes);
            break;
        case COMMAND_STATS:
            put_stats(&answer, stats);
            break;
        case COMMAND_INTERVAL:
            if (!text_parse_uint(payload, payload_bytes, &interval_ms) || interval_ms > COMMAND_INTERVAL_MS_MAX) {
                text_put(&answer, "{\"error\":\"bad_value\"}");
                break;
            }
            settings->interval_ms = interval_ms;
            effect = EFFECT_SETTINGS;
            text_put(&answer, "{\"interval_ms\":");
            text_put_uint(&answer, interval_ms);
            text_put(&answer, "}");
            break;
        case COMMAND_PAUSE:
        case COMMAND_RESUME:
            settings->paused = command == COMMAND_PAUSE;
            effect = EFFECT_SETTINGS;
            put_paused(&answer, settings->paused);
            break;
        case COMMAND_RESET:
            effect = EFFECT_RESET;
            text_put(&answer, "{\"reset\":true}");
            break;
        case COMMAND_FAULT:
            effect = EFFECT_FAULT;
            text_put(&answer, "{\"fault\":true}");
            break;
        case COMMAND_UNKNOWN:
        case COMMAND_IGNORED:
            text_put(&answer, "{\"error\":\"unknown_command\"}");
            break;
    }
    if (answer.overflowed) {
        answer = text_begin(out, out_capacity);
        text_put(&answer, "{\"error\":\"too_long\"}");
    }
    return (struct command_result){.answer_bytes = answer.bytes, .effect = effect};
}
