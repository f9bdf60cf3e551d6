/// Registers of the CMSDK peripherals (Arm DDI 0479) and of the MPS2 AN385 image (Arm DAI 0385) that we use.
#ifndef MPS2_H
#define MPS2_H

#include <stdint.h>

typedef volatile uint32_t reg;

struct cmsdk_timer {
    reg ctrl, value, reload, intclear;
};
struct cmsdk_uart {
    reg data, state, ctrl, intclear, bauddiv;
};
struct cmsdk_watchdog {
    reg load, value, ctrl, intclear, ris, mis;
};
struct sbcon {
    reg set, clear;
};  ///< reading `set` gives the lines

#define TIMER0 ((struct cmsdk_timer *)0x40000000)
#define UART0 ((struct cmsdk_uart *)0x40004000)
#define WATCHDOG ((struct cmsdk_watchdog *)0x40008000)
#define WATCHDOG_LOCK (*(reg *)0x40008C00)
#define SHIELD_I2C ((struct sbcon *)0x4002A000)
#define NVIC_ISER0 (*(reg *)0xE000E100)
#define NVIC_PRIORITY ((volatile uint8_t *)0xE000E400)

enum {
    CPU_HZ = 25000000,
    UART_BAUD = 115200,

    TIMER_ENABLE = 1 << 0,

    UART_TX_FULL = 1 << 0,  ///< state
    UART_RX_FULL = 1 << 1,
    UART_TX_ENABLE = 1 << 0,  ///< ctrl
    UART_RX_ENABLE = 1 << 1,
    UART_TX_INTERRUPT = 1 << 2,
    UART_RX_INTERRUPT = 1 << 3,
    UART_RX_OVERRUN_INTERRUPT = 1 << 5,
    UART_TX_EVENT = 1 << 0,  ///< intclear
    UART_RX_EVENT = 1 << 1,
    UART_RX_OVERRUN_EVENT = 1 << 3,

    UART0_RX_IRQ = 0,
    UART0_TX_IRQ = 1,

    WATCHDOG_INTERRUPT = 1 << 0,  ///< ctrl
    WATCHDOG_RESET = 1 << 1,
    WATCHDOG_UNLOCK = 0x1ACCE551,

    I2C_SCL = 1 << 0,
    I2C_SDA = 1 << 1,

    PSRAM = 0x21000000,
};

void mps2_uart_init(void);
void mps2_uart_rx_isr(void);
void mps2_uart_tx_isr(void);

#endif
