// Arm MPS2 with the AN385 image, as QEMU's machine mps2-an385 emulates it. The PSRAM serves as flash: it is memory, so
// this driver keeps the rules of NOR flash.
#include "board.h"

#include <FreeRTOS.h>
#include <string.h>
#include <task.h>

#include "mps2.h"
#include "retained.h"
#include "startup.h"

enum { FLASH_BYTES = 16 << 20, SECTOR_BYTES = 4096 };

// One watchdog period before the reset, with the cause noted for the next start.
static void nmi_handler(void) {
    retained_note(WIRE_RESET_WATCHDOG);
}

__attribute__((section(".vectors"), used)) static const vector vectors[16 + 32] = {
    CORTEX_M_VECTORS(nmi_handler),
    [16 + UART0_RX_IRQ] = mps2_uart_rx_isr,
    [16 + UART0_TX_IRQ] = mps2_uart_tx_isr,
};

static enum wire_reset_reason reason;

void board_init(int argc, char **argv) {
    (void)argc;
    (void)argv;
    reason = retained_take();
    if (reason == WIRE_RESET_UNKNOWN) {
        reason = WIRE_RESET_PIN;  // memory was kept and no code of ours asked for it: the board's button
    }
    TIMER0->reload = UINT32_MAX;
    TIMER0->value = UINT32_MAX;
    TIMER0->ctrl = TIMER_ENABLE;
    mps2_uart_init();
}

const char *board_name(void) {
    return "mps2_an385";
}

enum wire_reset_reason board_reset_reason(void) {
    return reason;
}

uint64_t board_now_us(void) {
    static uint32_t last, wraps;  // the timer wraps after 171 s: somebody asks far more often
    taskENTER_CRITICAL();
    uint32_t now = ~TIMER0->value;
    wraps += now < last;
    last = now;
    uint64_t count = (uint64_t)wraps << 32 | now;
    taskEXIT_CRITICAL();
    return count / (CPU_HZ / 1000000);
}

void board_watchdog_start(void) {
    WATCHDOG_LOCK = WATCHDOG_UNLOCK;
    // The first period ends in the NMI, the second in the reset.
    WATCHDOG->load = BOARD_WATCHDOG_MS / 2 * (CPU_HZ / 1000);
    WATCHDOG->ctrl = WATCHDOG_INTERRUPT | WATCHDOG_RESET;
    WATCHDOG_LOCK = 0;
}

void board_watchdog_feed(void) {
    WATCHDOG_LOCK = WATCHDOG_UNLOCK;
    WATCHDOG->intclear = 1;  // any write reloads
    WATCHDOG_LOCK = 0;
    retained_note(WIRE_RESET_UNKNOWN);
}

_Noreturn void board_reset(void) {
    portDISABLE_INTERRUPTS();
    cortex_m_reset(WIRE_RESET_SOFTWARE);
}

static bool in_flash(uint32_t address, size_t bytes) {
    return address >= PSRAM && address - PSRAM <= FLASH_BYTES && bytes <= FLASH_BYTES - (address - PSRAM);
}

static void flash_read(uint32_t address, void *data, size_t bytes) {
    if (in_flash(address, bytes)) {
        memcpy(data, (const void *)address, bytes);
    }
}

static bool flash_program(uint32_t address, const void *data, size_t bytes) {
    if (!in_flash(address, bytes) || (address | bytes) % 4 != 0) {
        return false;
    }
    volatile uint32_t *word = (volatile uint32_t *)address;
    for (size_t i = 0; i < bytes / 4; i++) {
        uint32_t value;
        memcpy(&value, (const uint8_t *)data + i * 4, 4);
        word[i] &= value;
    }
    return true;
}

static bool flash_erase(uint32_t sector_address) {
    if (!in_flash(sector_address, SECTOR_BYTES) || sector_address % SECTOR_BYTES != 0) {
        return false;
    }
    memset((void *)sector_address, 0xFF, SECTOR_BYTES);
    return true;
}

const struct board_flash *board_flash(void) {
    static const struct board_flash flash = {
        .identity = PSRAM,
        .boot_counter = {PSRAM + SECTOR_BYTES, PSRAM + 2 * SECTOR_BYTES},
        .sector_bytes = SECTOR_BYTES,
        .read = flash_read,
        .program = flash_program,
        .erase = flash_erase,
    };
    return &flash;
}
