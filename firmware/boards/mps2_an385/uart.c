// UART0: one byte of buffer in each direction, one interrupt a byte.
#include <FreeRTOS.h>

#include "mps2.h"
#include "uart_rings.h"

void mps2_uart_init(void) {
    UART0->bauddiv = CPU_HZ / UART_BAUD;
    UART0->ctrl = UART_TX_ENABLE | UART_RX_ENABLE | UART_TX_INTERRUPT | UART_RX_INTERRUPT | UART_RX_OVERRUN_INTERRUPT;
    NVIC_PRIORITY[UART0_RX_IRQ] = UART_PRIORITY;
    NVIC_PRIORITY[UART0_TX_IRQ] = UART_PRIORITY;
    NVIC_ISER0 = 1 << UART0_RX_IRQ | 1 << UART0_TX_IRQ;
}

void uart_kick(void) {
    uint8_t byte;
    while ((UART0->state & UART_TX_FULL) == 0 && uart_next_from_isr(&byte)) {
        UART0->data = byte;
    }
}

void mps2_uart_tx_isr(void) {
    UART0->intclear = UART_TX_EVENT;
    uart_kick();
    uart_end_isr();
}

void mps2_uart_rx_isr(void) {
    UART0->intclear = UART_RX_EVENT;
    // The overrun event has no line of its own that we enable: it is looked at with the next byte.
    if ((UART0->intclear & UART_RX_OVERRUN_EVENT) != 0) {
        UART0->intclear = UART_RX_OVERRUN_EVENT;
        uart_overrun_from_isr();
    }
    while ((UART0->state & UART_RX_FULL) != 0) {
        uart_received_from_isr((uint8_t)UART0->data);
    }
    uart_end_isr();
}
