// USART1 on PA9 (TX) and PA10 (RX).
#include <FreeRTOS.h>

#include "stm32f405.h"
#include "uart_rings.h"

enum { SR_ORE = 1 << 3, SR_RXNE = 1 << 5, SR_TXE = 1 << 7 };
enum { CR1_RE = 1 << 2, CR1_TE = 1 << 3, CR1_RXNEIE = 1 << 5, CR1_TXEIE = 1 << 7, CR1_UE = 1 << 13 };

void stm32_uart_init(void) {
    GPIOA->afrh |= 7 << 4 | 7 << 8;
    GPIOA->pupdr |= 1 << 20;  // an unplugged RX must not float
    GPIOA->moder |= 2 << 18 | 2 << 20;
    USART1->brr = (APB2_HZ + UART_BAUD / 2) / UART_BAUD;
    USART1->cr1 = CR1_UE | CR1_TE | CR1_RE | CR1_RXNEIE;
    NVIC_PRIORITY[USART1_IRQ] = UART_PRIORITY;
    NVIC_ISER[USART1_IRQ / 32] = 1 << USART1_IRQ % 32;
}

void uart_kick(void) {
    uint8_t byte;
    while ((USART1->sr & SR_TXE) != 0) {
        if (!uart_next_from_isr(&byte)) {
            USART1->cr1 &= ~(uint32_t)CR1_TXEIE;
            return;
        }
        USART1->dr = byte;
    }
    USART1->cr1 |= CR1_TXEIE;
}

void stm32_uart_isr(void) {
    uint32_t status = USART1->sr;
    if ((status & SR_ORE) != 0) {
        uart_overrun_from_isr();
    }
    if ((status & (SR_RXNE | SR_ORE)) != 0) {
        uint8_t byte = (uint8_t)USART1->dr;  // clears both
        if ((status & SR_RXNE) != 0) {
            uart_received_from_isr(byte);
        }
    }
    if ((USART1->cr1 & CR1_TXEIE) != 0) {
        uart_kick();
    }
    uart_end_isr();
}
