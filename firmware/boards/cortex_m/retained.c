#include "retained.h"

#include <string.h>

// Linker script: the room for the application's retained memory, outside .bss.
extern uint8_t retained_start[], retained_end[];

static struct {
    uint32_t kept;  // KEPT once this code ran since power-up
    uint32_t reason;
    uint32_t reason_check;  // ~reason
} note __attribute__((section(".noinit")));

enum { KEPT = 0x454C4B50 };

void *board_retained(size_t *bytes) {
    *bytes = (size_t)(retained_end - retained_start);
    return retained_start;
}

void retained_note(enum wire_reset_reason reason) {
    note.reason_check = ~(uint32_t)reason;
    note.reason = (uint32_t)reason;
}

enum wire_reset_reason retained_take(void) {
    enum wire_reset_reason reason = WIRE_RESET_POWER_ON;
    if (note.kept == KEPT) {
        reason = note.reason == ~note.reason_check && note.reason <= WIRE_RESET_FAULT
                     ? (enum wire_reset_reason)note.reason
                     : WIRE_RESET_UNKNOWN;
    }
    note.kept = KEPT;
    retained_note(WIRE_RESET_UNKNOWN);
    return reason;
}

_Noreturn void cortex_m_reset(enum wire_reset_reason reason) {
    volatile uint32_t *const aircr = (volatile uint32_t *)0xE000ED0C;
    retained_note(reason);
    __asm volatile("dsb" ::: "memory");
    *aircr = 0x05FA0004;  // VECTKEY, SYSRESETREQ
    for (;;) {
    }
}
