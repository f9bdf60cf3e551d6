// The application as a Linux process.
//
//   app --uart PATH --flash FILE [--temperature FILE]
//
// PATH: a unix socket that somebody listens on, or a terminal. FILE with the temperature: decimal °C as text, read at
// every sample; without it 20 °C. EDGELOOP_UART, EDGELOOP_FLASH and EDGELOOP_TEMPERATURE in the environment stand for
// options not given. Time is the computer's; ticks drift.
#include "board.h"

#include <FreeRTOS.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <task.h>
#include <time.h>
#include <unistd.h>

#include "posix.h"

enum { EXIT_USAGE = 2 };

static struct {
    char **argv;
    enum wire_reset_reason reason;
    const char *temperature_path;  // NULL: none
    uint64_t started_us;
    volatile uint64_t watchdog_due_us;  // 0: not started
} board;

_Noreturn void posix_fail(const char *what, const char *name) {
    fprintf(stderr, "app: %s: %s: %s\n", what, name, strerror(errno));
    exit(EXIT_FAILURE);
}

void posix_assert_failed(const char *condition) {
    fprintf(stderr, "app: assertion failed: %s\n", condition);
    abort();
}

static const char *option(int argc, char **argv, const char *name, const char *environment) {
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], name) == 0) {
            return argv[i + 1];
        }
    }
    return getenv(environment);
}

// What passed through the exec, once: it must not reach a process that somebody else starts.
static int inherited(const char *name) {
    const char *value = getenv(name);
    int number = value != NULL ? atoi(value) : -1;
    unsetenv(name);
    return number;
}

void board_init(int argc, char **argv) {
    const char *uart = option(argc, argv, "--uart", "EDGELOOP_UART");
    const char *flash = option(argc, argv, "--flash", "EDGELOOP_FLASH");
    if (uart == NULL || flash == NULL || argc % 2 == 0) {
        fprintf(stderr, "usage: app --uart PATH --flash FILE [--temperature FILE]\n");
        exit(EXIT_USAGE);
    }
    signal(SIGPIPE, SIG_IGN);
    board.argv = argv;
    board.temperature_path = option(argc, argv, "--temperature", "EDGELOOP_TEMPERATURE");
    board.started_us = board_now_us();
    int reason = inherited("EDGELOOP_RESET_REASON");
    board.reason = reason < 0 ? WIRE_RESET_POWER_ON : (enum wire_reset_reason)reason;
    posix_memory_open(flash, inherited("EDGELOOP_RETAINED_FD"));
    posix_uart_open(uart, inherited("EDGELOOP_UART_FD"));
}

static void pass_on(char *out, size_t out_bytes, const char *name, int number) {
    snprintf(out, out_bytes, "%s=%d", name, number);
}

// Also from the tick's signal handler: no heap, no locks. The tick must not strike between the images.
_Noreturn void posix_exec(enum wire_reset_reason reason) {
    extern char **environ;
    static char notes[3][48];
    static char *environment[256];
    sigset_t none;
    size_t count = 0;
    signal(SIGALRM, SIG_IGN);
    pass_on(notes[0], sizeof notes[0], "EDGELOOP_RESET_REASON", (int)reason);
    pass_on(notes[1], sizeof notes[1], "EDGELOOP_RETAINED_FD", posix_retained_fd());
    pass_on(notes[2], sizeof notes[2], "EDGELOOP_UART_FD", posix_uart_fd());
    for (size_t i = 0; i < 3; i++) {
        environment[count++] = notes[i];
    }
    for (char **at = environ; *at != NULL && count < 255; at++) {
        environment[count++] = *at;
    }
    sigemptyset(&none);
    pthread_sigmask(SIG_SETMASK, &none, NULL);
    execve("/proc/self/exe", board.argv, environment);
    _exit(EXIT_FAILURE);
}

const char *board_name(void) {
    return "posix";
}

enum wire_reset_reason board_reset_reason(void) {
    return board.reason;
}

uint64_t board_now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000 - board.started_us;
}

bool board_sensor_read(int16_t *sixteenths_c) {
    char room[32] = "20";
    if (board.temperature_path != NULL) {
        int fd = open(board.temperature_path, O_RDONLY | O_CLOEXEC);
        ssize_t got = fd < 0 ? -1 : read(fd, room, sizeof room - 1);
        if (fd >= 0) {
            close(fd);
        }
        if (got <= 0) {
            return false;
        }
        room[got] = '\0';
    }
    char *end;
    double c = strtod(room, &end);
    if (end == room || !(c >= -128.0 && c < 128.0)) {
        return false;
    }
    *sixteenths_c = (int16_t)(c * 16.0);
    return true;
}

void board_watchdog_feed(void) {
    board.watchdog_due_us = board_now_us() + BOARD_WATCHDOG_MS * 1000;
}

void board_watchdog_start(void) {
    board_watchdog_feed();
}

void vApplicationTickHook(void) {
    if (board.watchdog_due_us != 0 && board_now_us() > board.watchdog_due_us) {
        posix_exec(WIRE_RESET_WATCHDOG);
    }
}

_Noreturn void board_reset(void) {
    posix_exec(WIRE_RESET_SOFTWARE);
}

void vApplicationStackOverflowHook(TaskHandle_t task, char *name) {
    (void)task;
    posix_assert_failed(name);
}
