/// The two byte rings between a UART's interrupts and the task that owns the line. One of each side: no locks.
/// A driver calls the `_from_isr` functions and implements uart_kick().
#ifndef UART_RINGS_H
#define UART_RINGS_H

#include <stdbool.h>
#include <stdint.h>

void uart_received_from_isr(uint8_t byte);
void uart_overrun_from_isr(void);
/// false: nothing to send.
bool uart_next_from_isr(uint8_t *byte);
/// At the end of an interrupt: switch to the listener if it was woken.
void uart_end_isr(void);

/// Driver: begin to send if the transmitter is idle. Called with interrupts masked.
void uart_kick(void);

#endif
