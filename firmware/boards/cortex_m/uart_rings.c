#include "uart_rings.h"

#include <FreeRTOS.h>
#include <task.h>

#include "board.h"

// Powers of two: the indices run free and are masked at use.
_Static_assert((BOARD_UART_TX_BYTES & (BOARD_UART_TX_BYTES - 1)) == 0, "power of two");
_Static_assert((BOARD_UART_RX_BYTES & (BOARD_UART_RX_BYTES - 1)) == 0, "power of two");

static struct {
    uint8_t tx[BOARD_UART_TX_BYTES];
    uint8_t rx[BOARD_UART_RX_BYTES];
    volatile uint32_t tx_head, tx_tail, rx_head, rx_tail;
    volatile uint32_t overruns;
    bool inside_segment;  // a byte other than 0x00 came since the last 0x00
    BaseType_t woken;
    TaskHandle_t listener;
} uart;

void board_uart_start(void *listener_task) {
    taskENTER_CRITICAL();
    uart.listener = listener_task;
    taskEXIT_CRITICAL();
}

static void wake(void) {
    if (uart.listener != NULL) {
        vTaskNotifyGiveFromISR(uart.listener, &uart.woken);
    }
}

void uart_overrun_from_isr(void) {
    uart.overruns++;
}

void uart_received_from_isr(uint8_t byte) {
    uint32_t head = uart.rx_head;
    uint32_t held = head - uart.rx_tail;
    if (held == BOARD_UART_RX_BYTES) {
        uart.overruns++;
        return;
    }
    uart.rx[head % BOARD_UART_RX_BYTES] = byte;
    uart.rx_head = head + 1;
    // Two wakes a frame, not one a byte: at its beginning, so that the listener can time it out, and at its end.
    bool was_inside = uart.inside_segment;
    uart.inside_segment = byte != 0;
    if (was_inside != uart.inside_segment || held == BOARD_UART_RX_BYTES / 2) {
        wake();
    }
}

bool uart_next_from_isr(uint8_t *byte) {
    uint32_t tail = uart.tx_tail;
    uint32_t held = uart.tx_head - tail;
    if (held == 0) {
        return false;
    }
    *byte = uart.tx[tail % BOARD_UART_TX_BYTES];
    uart.tx_tail = tail + 1;
    if (held == BOARD_UART_LOW_BYTES + 1) {
        wake();
    }
    return true;
}

void uart_end_isr(void) {
    BaseType_t woken = uart.woken;
    uart.woken = pdFALSE;
    portYIELD_FROM_ISR(woken);
}

size_t board_uart_read(uint8_t *data, size_t bytes_max) {
    uint32_t tail = uart.rx_tail;
    uint32_t held = uart.rx_head - tail;
    size_t bytes = held < bytes_max ? held : bytes_max;
    for (size_t i = 0; i < bytes; i++) {
        data[i] = uart.rx[(tail + i) % BOARD_UART_RX_BYTES];
    }
    uart.rx_tail = tail + (uint32_t)bytes;
    return bytes;
}

bool board_uart_write(const uint8_t *data, size_t bytes) {
    uint32_t head = uart.tx_head;
    if (BOARD_UART_TX_BYTES - (head - uart.tx_tail) < bytes) {
        return false;
    }
    for (size_t i = 0; i < bytes; i++) {
        uart.tx[(head + i) % BOARD_UART_TX_BYTES] = data[i];
    }
    taskENTER_CRITICAL();
    uart.tx_head = head + (uint32_t)bytes;
    uart_kick();
    taskEXIT_CRITICAL();
    return true;
}

size_t board_uart_backlog_bytes(void) {
    return uart.tx_head - uart.tx_tail;
}

uint32_t board_uart_overruns(void) {
    return uart.overruns;
}
