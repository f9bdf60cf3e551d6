/// Everything the application needs from the hardware. Exactly one board is linked in and implements all of it.
///
/// Nothing here blocks unless it says so, nothing allocates. All but the `_from_isr`-free UART functions may be called
/// from any task; the UART belongs to one task, the listener.
#ifndef BOARD_H
#define BOARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire/wire.h"

/// Flash in NOR manner: reads anywhere, programming clears bits, erasing a sector sets them.
struct board_flash {
    uint32_t identity;         ///< address of the identity page
    uint32_t boot_counter[2];  ///< two sectors that hold the boot counter
    uint32_t sector_bytes;     ///< of the boot counter's sectors
    void (*read)(uint32_t address, void *data, size_t bytes);
    /// address and bytes are multiples of 4. false: refused by the hardware; the content is then unknown.
    bool (*program)(uint32_t address, const void *data, size_t bytes);
    bool (*erase)(uint32_t sector_address);
};

/// Before the scheduler: clocks, pins, the cause of the reset. argc and argv are the process's on posix, 0 elsewhere.
void board_init(int argc, char **argv);

const char *board_name(void);
const struct board_flash *board_flash(void);
enum wire_reset_reason board_reset_reason(void);

/// Memory that a warm reset keeps and a power-up does not; its content is then anything. *bytes: how much there is.
void *board_retained(size_t *bytes);

/// Monotonic since the reset.
uint64_t board_now_us(void);

/// The listener task gets a task notification when a whole segment (up to a 0x00) or the beginning of one has arrived,
/// when the receive buffer is half full, and when what waits to be sent has fallen to BOARD_UART_LOW_BYTES.
void board_uart_start(void *listener_task);
size_t board_uart_read(uint8_t *data, size_t bytes_max);
/// Take all of it or nothing: false when it does not fit now. bytes: up to BOARD_UART_TX_BYTES − 1.
bool board_uart_write(const uint8_t *data, size_t bytes);
size_t board_uart_backlog_bytes(void);
uint32_t board_uart_overruns(void);

enum {
    BOARD_UART_TX_BYTES = 2048,
    BOARD_UART_RX_BYTES = 2048,
    /// Low water, half a frame: at 115,200 baud it leaves 2.8 ms to wake up and build the next one.
    BOARD_UART_LOW_BYTES = 32,
};

/// Read the temperature, in sixteenths of a °C. Blocks for about 0.6 ms at 100 kHz. false: no answer on the bus.
bool board_sensor_read(int16_t *sixteenths_c);

/// Once started it cannot be stopped; feed it at least every BOARD_WATCHDOG_MS.
void board_watchdog_start(void);
void board_watchdog_feed(void);

enum { BOARD_WATCHDOG_MS = 4000 };

/// Restart with WIRE_RESET_SOFTWARE as the reason, retained memory kept.
_Noreturn void board_reset(void);

#endif
