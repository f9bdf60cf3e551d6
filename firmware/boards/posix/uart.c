// The UART: a unix socket that somebody listens on, or a terminal. The idle task polls it, so that bytes that arrive
// wake the listener at once; a line that closes is opened again.
#include <FreeRTOS.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <task.h>
#include <termios.h>
#include <unistd.h>

#include "posix.h"

enum {
    POLL_MS = 1000,  // the tick cuts it short
    REOPEN_MS = 200,
    SEND_BUFFER_BYTES = 1,  // the kernel raises it to its least: a UART has next to no buffer
};

static struct {
    const char *path;
    int fd;  // −1: closed
    uint64_t reopen_us;
    TaskHandle_t listener;
    uint8_t tx[BOARD_UART_TX_BYTES];  // [0..tx_bytes) waits to be sent
    size_t tx_bytes;
} uart = {.fd = -1};

static int open_path(const char *path) {
    struct stat status;
    int fd;
    if (stat(path, &status) != 0) {
        return -1;
    }
    if (S_ISSOCK(status.st_mode)) {
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        const int send_buffer_bytes = SEND_BUFFER_BYTES;
        if (strlen(path) >= sizeof address.sun_path) {
            errno = ENAMETOOLONG;
            return -1;
        }
        strcpy(address.sun_path, path);
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &send_buffer_bytes, sizeof send_buffer_bytes);
        if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
            close(fd);
            return -1;
        }
        return fd;
    }
    struct termios terminal;
    fd = open(path, O_RDWR | O_NOCTTY | O_NONBLOCK);
    if (fd >= 0 && tcgetattr(fd, &terminal) == 0) {
        cfmakeraw(&terminal);
        tcsetattr(fd, TCSANOW, &terminal);
    }
    return fd;
}

void posix_uart_open(const char *path, int inherited_fd) {
    uart.path = path;
    uart.fd = inherited_fd >= 0 ? inherited_fd : open_path(path);
    if (uart.fd < 0) {
        posix_fail("cannot open as UART", path);
    }
}

int posix_uart_fd(void) {
    return uart.fd;
}

static void line_lost(void) {
    close(uart.fd);
    uart.fd = -1;
    uart.tx_bytes = 0;
    uart.reopen_us = board_now_us() + REOPEN_MS * 1000;
}

// Critical section around it: the idle task and the listener both flush.
static void flush(void) {
    while (uart.fd >= 0 && uart.tx_bytes > 0) {
        ssize_t sent = write(uart.fd, uart.tx, uart.tx_bytes);
        if (sent > 0) {
            uart.tx_bytes -= (size_t)sent;
            memmove(uart.tx, uart.tx + sent, uart.tx_bytes);
        } else if (sent < 0 && errno == EAGAIN) {
            return;
        } else if (sent == 0 || errno != EINTR) {
            line_lost();
        }
    }
    if (uart.fd < 0) {
        uart.tx_bytes = 0;  // an unplugged UART sends into the air
    }
}

void board_uart_start(void *listener_task) {
    uart.listener = listener_task;
}

size_t board_uart_read(uint8_t *data, size_t bytes_max) {
    if (uart.fd < 0) {
        return 0;
    }
    ssize_t got = read(uart.fd, data, bytes_max);
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) {
        taskENTER_CRITICAL();
        line_lost();
        taskEXIT_CRITICAL();
    }
    return got > 0 ? (size_t)got : 0;
}

bool board_uart_write(const uint8_t *data, size_t bytes) {
    bool fits = bytes <= sizeof uart.tx - uart.tx_bytes;
    if (fits) {
        taskENTER_CRITICAL();
        memcpy(uart.tx + uart.tx_bytes, data, bytes);
        uart.tx_bytes += bytes;
        flush();
        taskEXIT_CRITICAL();
    }
    return fits;
}

size_t board_uart_backlog_bytes(void) {
    return uart.tx_bytes;
}

uint32_t board_uart_overruns(void) {
    return 0;
}

static void reopen_when_due(void) {
    poll(NULL, 0, POLL_MS);
    if (board_now_us() >= uart.reopen_us) {
        uart.fd = open_path(uart.path);
        uart.reopen_us = board_now_us() + REOPEN_MS * 1000;
    }
}

void vApplicationIdleHook(void) {
    if (uart.fd < 0) {
        reopen_when_due();
        return;
    }
    size_t waiting = uart.tx_bytes;
    struct pollfd line = {.fd = uart.fd, .events = (short)(waiting > 0 ? POLLIN | POLLOUT : POLLIN)};
    if (poll(&line, 1, POLL_MS) <= 0) {
        return;
    }
    if ((line.revents & POLLOUT) != 0) {
        taskENTER_CRITICAL();
        flush();
        taskEXIT_CRITICAL();
    }
    bool ran_low = waiting > BOARD_UART_LOW_BYTES && uart.tx_bytes <= BOARD_UART_LOW_BYTES;
    if ((ran_low || (line.revents & (POLLIN | POLLHUP | POLLERR)) != 0) && uart.listener != NULL) {
        xTaskNotifyGive(uart.listener);  // it reads, and finds out when the line has closed
    }
}
