#include <string.h>

#include "app/checkin.h"
#include "app/command.h"
#include "tests/check.h"

static struct settings settings;
static struct wire_stats stats;
static char answer[1024];

static enum command topic(const char *name) {
    return command_of_topic(name, strlen(name), "board-1");
}

static struct command_result run(enum command command, const char *payload) {
    struct command_result result =
        command_run(command, payload, strlen(payload), &settings, &stats, answer, sizeof answer - 1);
    answer[result.answer_bytes] = '\0';
    return result;
}

static void test_topics_name_their_commands(void) {
    CHECK(topic("cmd/board-1/ping") == COMMAND_PING);
    CHECK(topic("cmd/board-1/stats") == COMMAND_STATS);
    CHECK(topic("cmd/board-1/interval") == COMMAND_INTERVAL);
    CHECK(topic("cmd/board-1/pause") == COMMAND_PAUSE);
    CHECK(topic("cmd/board-1/resume") == COMMAND_RESUME);
    CHECK(topic("cmd/board-1/reset") == COMMAND_RESET);
    CHECK(topic("cmd/board-1/fault") == COMMAND_FAULT);
}

static void test_other_words_below_our_topic_are_unknown_commands(void) {
    static const char *const words[] = {"",    "pin", "pings", "Ping",       "ping/",      "/ping",
                                        "a/b", "#",   "+",     "stats/ping", "reply/more", "replay"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        char name[64] = "cmd/board-1/";
        strcat(name, words[i]);
        CHECK(topic(name) == COMMAND_UNKNOWN);
    }
    run(COMMAND_UNKNOWN, "x");
    CHECK(strcmp(answer, "{\"error\":\"unknown_command\"}") == 0);
}

static void test_our_own_replies_and_other_boards_topics_are_ignored(void) {
    static const char *const names[] = {"cmd/board-1/reply",
                                        "cmd/board-2/ping",
                                        "cmd/board-11/ping",
                                        "cmd/board-1",
                                        "cmd/board-/ping",
                                        "dt/board-1/ping",
                                        "cmd/",
                                        ""};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        CHECK(topic(names[i]) == COMMAND_IGNORED);
    }
    CHECK(command_of_topic(NULL, 0, "board-1") == COMMAND_IGNORED);
}

static void test_ping_echoes_every_byte(void) {
    const char payload[] = {0, 1, (char)0xFF, '"', 0};
    struct command_result result =
        command_run(COMMAND_PING, payload, sizeof payload, &settings, &stats, answer, sizeof answer);
    CHECK(result.answer_bytes == sizeof payload && memcmp(answer, payload, sizeof payload) == 0);
    CHECK(command_run(COMMAND_PING, NULL, 0, &settings, &stats, answer, sizeof answer).answer_bytes == 0);
}

static void test_interval_takes_milliseconds_up_to_a_day(void) {
    settings.interval_ms = 1000;
    CHECK(run(COMMAND_INTERVAL, "250").effect == EFFECT_SETTINGS);
    CHECK(settings.interval_ms == 250 && strcmp(answer, "{\"interval_ms\":250}") == 0);
    run(COMMAND_INTERVAL, "0");
    CHECK(settings.interval_ms == 0 && strcmp(answer, "{\"interval_ms\":0}") == 0);
    run(COMMAND_INTERVAL, "86400000");
    CHECK(settings.interval_ms == 86400000);
    static const char *const refused[] = {"", "86400001", "-1", "1.5", "soon", "4294967296", "\"5\""};
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        CHECK(run(COMMAND_INTERVAL, refused[i]).effect == EFFECT_NONE);
        CHECK(strcmp(answer, "{\"error\":\"bad_value\"}") == 0);
        CHECK(settings.interval_ms == 86400000);
    }
}

static void test_pause_and_resume_say_what_holds_now(void) {
    CHECK(run(COMMAND_PAUSE, "").effect == EFFECT_SETTINGS);
    CHECK(settings.paused && strcmp(answer, "{\"paused\":true}") == 0);
    run(COMMAND_RESUME, "anything");
    CHECK(!settings.paused && strcmp(answer, "{\"paused\":false}") == 0);
}

static void test_reset_and_fault_answer_first(void) {
    CHECK(run(COMMAND_RESET, "").effect == EFFECT_RESET);
    CHECK(strcmp(answer, "{\"reset\":true}") == 0);
    CHECK(run(COMMAND_FAULT, "").effect == EFFECT_FAULT);
    CHECK(strcmp(answer, "{\"fault\":true}") == 0);
}

static void test_stats_names_every_counter_and_the_largest_fit(void) {
    stats = (struct wire_stats){.boot = UINT32_MAX, .uptime_ms = UINT64_MAX, .reset_reason = WIRE_RESET_BROWNOUT};
    for (uint8_t id = 1; id < WIRE_STAT_END; id++) {
        stats.values[stats.count].id = id;
        stats.values[stats.count++].value = UINT32_MAX - id;
    }
    CHECK(run(COMMAND_STATS, "").effect == EFFECT_NONE);
    CHECK(strncmp(answer,
                  "{\"boot\":4294967295,\"uptime_ms\":18446744073709551615,\"reset_reason\":\"brownout\","
                  "\"frames_in\":4294967294,",
                  100) == 0);
    CHECK(answer[strlen(answer) - 1] == '}');
    for (unsigned id = 1; id < WIRE_STAT_END; id++) {
        CHECK(strstr(answer, wire_stat_name(id)) != NULL);
    }
    stats.reset_reason = 200;
    run(COMMAND_STATS, "");
    CHECK(strstr(answer, "\"reset_reason\":\"unknown\"") != NULL);
}

static void test_an_answer_without_room_becomes_an_error(void) {
    char payload[64] = {0};
    char room[COMMAND_ERROR_BYTES_MAX];
    struct command_result result =
        command_run(COMMAND_PING, payload, sizeof payload, &settings, &stats, room, sizeof room);
    CHECK(result.answer_bytes == strlen("{\"error\":\"too_long\"}"));
    CHECK(memcmp(room, "{\"error\":\"too_long\"}", result.answer_bytes) == 0);
}

static void test_the_watchdog_is_fed_only_when_every_task_has_checked_in(void) {
    struct checkin checkin = checkin_begin(3);
    CHECK(!checkin_mark(&checkin, 0));
    CHECK(!checkin_mark(&checkin, 0));
    CHECK(!checkin_mark(&checkin, 2));
    CHECK(checkin_mark(&checkin, 1));
    CHECK(!checkin_mark(&checkin, 1));
    CHECK(!checkin_mark(&checkin, 2));
    CHECK(checkin_mark(&checkin, 0));
    checkin_stop(&checkin);
    for (unsigned i = 0; i < 9; i++) {
        CHECK(!checkin_mark(&checkin, i % 3));
    }
    struct checkin alone = checkin_begin(1);
    CHECK(checkin_mark(&alone, 0));
    struct checkin many = checkin_begin(32);
    for (unsigned i = 0; i < 31; i++) {
        CHECK(!checkin_mark(&many, i));
    }
    CHECK(checkin_mark(&many, 31));
}

int main(void) {
    RUN(test_topics_name_their_commands);
    RUN(test_other_words_below_our_topic_are_unknown_commands);
    RUN(test_our_own_replies_and_other_boards_topics_are_ignored);
    RUN(test_ping_echoes_every_byte);
    RUN(test_interval_takes_milliseconds_up_to_a_day);
    RUN(test_pause_and_resume_say_what_holds_now);
    RUN(test_reset_and_fault_answer_first);
    RUN(test_stats_names_every_counter_and_the_largest_fit);
    RUN(test_an_answer_without_room_becomes_an_error);
    RUN(test_the_watchdog_is_fed_only_when_every_task_has_checked_in);
    return 0;
}
