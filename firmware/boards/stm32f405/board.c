// STM32F405 at 168 MHz from its internal oscillator, so that any board's crystal will do.
//
// QEMU's netduinoplus2 and olimex-stm32-h405 run this over USART1. They lack: RCC (the clock is always 168 MHz, no
// reset flags), the flash interface (nothing can be programmed: the boot counter counts in retained memory only), I2C
// (every reading is a sensor error), IWDG (never bites) and the RNG, which we do not use. Every wait here is therefore
// bounded.
#include "board.h"

#include <FreeRTOS.h>
#include <string.h>
#include <task.h>

#include "retained.h"
#include "startup.h"
#include "stm32f405.h"

enum {
    SPINS_MAX = 1000000,  // about 50 ms
    SPINS_ERASE_MAX = 40 * SPINS_MAX,
    SECTOR_BYTES = 16 * 1024,
    FLASH_BASE = 0x08000000,
    FLASH_END = 0x08100000,
};
enum { FLASH_PG = 1, FLASH_SER = 1 << 1, FLASH_PSIZE_32 = 2 << 8, FLASH_START = 1 << 16 };  // CR
enum { FLASH_ERRORS = 0xF2, FLASH_BUSY = 1 << 16 };                                         // SR
enum { CSR_RMVF = 1 << 24, CSR_BOR = 1 << 25, CSR_PIN = 1 << 26, CSR_POR = 1 << 27, CSR_IWDG = 1 << 29 };
#define FLASH_LOCK (UINT32_C(1) << 31)

__attribute__((section(".vectors"), used)) static const vector vectors[16 + 82] = {
    CORTEX_M_VECTORS(default_handler),
    [16 + USART1_IRQ] = stm32_uart_isr,
};

static enum wire_reset_reason reason;

static bool await(const reg *at, uint32_t mask, uint32_t value, int spins_max) {
    for (int spins = 0; spins < spins_max; spins++) {
        if ((*at & mask) == value) {
            return true;
        }
    }
    return false;
}

static void clocks_init(void) {
    FLASH->acr = 0x305;  // prefetch, instruction cache, 5 wait states; a data cache would show flash as it was
    RCC->pllcfgr = 16 | 336 << 6 | 0 << 16 | 7 << 24;  // 16 MHz / 16 × 336 / 2
    RCC->cfgr = 5 << 10 | 4 << 13;                     // APB1 / 4, APB2 / 2
    RCC->cr |= 1 << 24;                                // PLLON
    bool locked = await(&RCC->cr, 1 << 25, 1 << 25, SPINS_MAX);
    if (locked) {
        RCC->cfgr |= 2;  // SW: PLL
        await(&RCC->cfgr, 3 << 2, 2 << 2, SPINS_MAX);
    }
    RCC->ahb1enr |= 1 << 0 | 1 << 1;   // GPIOA, GPIOB
    RCC->apb1enr |= 1 << 21 | 1 << 0;  // I2C1, TIM2
    RCC->apb2enr |= 1 << 4;            // USART1
    // Microseconds. Without a PLL this is QEMU, whose TIM2 counts nanoseconds.
    TIM2->psc = locked ? 2 * APB1_HZ / 1000000 - 1 : 1000 - 1;
    TIM2->egr = 1;  // UG: take the prescaler
    TIM2->cr1 = 1;
}

static enum wire_reset_reason find_reason(uint32_t csr, enum wire_reset_reason noted) {
    if ((csr & CSR_POR) != 0) {
        return WIRE_RESET_POWER_ON;
    }
    if ((csr & CSR_BOR) != 0) {
        return WIRE_RESET_BROWNOUT;
    }
    if ((csr & CSR_IWDG) != 0) {
        return WIRE_RESET_WATCHDOG;
    }
    // Software's own: retained memory knows which. Only the pin's flag and no note: the reset button.
    return noted == WIRE_RESET_UNKNOWN && (csr & CSR_PIN) != 0 ? WIRE_RESET_PIN : noted;
}

void board_init(int argc, char **argv) {
    (void)argc;
    (void)argv;
    clocks_init();
    reason = find_reason(RCC->csr, retained_take());
    RCC->csr |= CSR_RMVF;
    stm32_uart_init();
    stm32_i2c_init();
}

const char *board_name(void) {
    return "stm32f405";
}

enum wire_reset_reason board_reset_reason(void) {
    return reason;
}

uint64_t board_now_us(void) {
    static uint32_t last, wraps;  // the timer wraps after 71 minutes: somebody asks far more often
    taskENTER_CRITICAL();
    uint32_t now = TIM2->cnt;
    wraps += now < last;
    last = now;
    uint64_t us = (uint64_t)wraps << 32 | now;
    taskEXIT_CRITICAL();
    return us;
}

void board_watchdog_start(void) {
    IWDG->kr = 0xCCCC;
    IWDG->kr = 0x5555;
    IWDG->pr = 3;  // 32 kHz / 32
    IWDG->rlr = BOARD_WATCHDOG_MS;
    await(&IWDG->sr, 3, 0, SPINS_MAX);
    board_watchdog_feed();
}

void board_watchdog_feed(void) {
    IWDG->kr = 0xAAAA;
}

_Noreturn void board_reset(void) {
    portDISABLE_INTERRUPTS();
    cortex_m_reset(WIRE_RESET_SOFTWARE);
}

static bool flash_begin(uint32_t control) {
    if (!await(&FLASH->sr, FLASH_BUSY, 0, SPINS_MAX)) {
        return false;
    }
    FLASH->keyr = 0x45670123;
    FLASH->keyr = 0xCDEF89AB;
    FLASH->sr = FLASH_ERRORS;
    FLASH->cr = control;
    return (FLASH->cr & control) == control;
}

static bool flash_end(void) {
    bool done = await(&FLASH->sr, FLASH_BUSY, 0, SPINS_ERASE_MAX) && (FLASH->sr & FLASH_ERRORS) == 0;
    FLASH->cr = FLASH_LOCK;
    return done;
}

static void flash_read(uint32_t address, void *data, size_t bytes) {
    memcpy(data, (const void *)address, bytes);
}

static bool flash_program(uint32_t address, const void *data, size_t bytes) {
    if (address < FLASH_BASE || address > FLASH_END || bytes > FLASH_END - address || (address | bytes) % 4 != 0 ||
        !flash_begin(FLASH_PG | FLASH_PSIZE_32)) {
        return false;
    }
    for (size_t i = 0; i < bytes; i += 4) {
        uint32_t value;
        memcpy(&value, (const uint8_t *)data + i, 4);
        *(volatile uint32_t *)(address + i) = value;
        if (!await(&FLASH->sr, FLASH_BUSY, 0, SPINS_MAX)) {
            break;
        }
    }
    return flash_end();
}

// Sectors 1 to 3 only: what we own.
static bool flash_erase(uint32_t sector_address) {
    uint32_t sector = (sector_address - FLASH_BASE) / SECTOR_BYTES;
    if (sector < 1 || sector > 3 || !flash_begin(FLASH_SER | sector << 3 | FLASH_PSIZE_32)) {
        return false;
    }
    FLASH->cr |= FLASH_START;
    return flash_end();
}

const struct board_flash *board_flash(void) {
    static const struct board_flash flash = {
        .identity = FLASH_BASE + SECTOR_BYTES,
        .boot_counter = {FLASH_BASE + 2 * SECTOR_BYTES, FLASH_BASE + 3 * SECTOR_BYTES},
        .sector_bytes = SECTOR_BYTES,
        .read = flash_read,
        .program = flash_program,
        .erase = flash_erase,
    };
    return &flash;
}
