/// What a board's vector table takes from the common start-up code.
#ifndef STARTUP_H
#define STARTUP_H

#include <stdint.h>

extern uint32_t stack_top[];  ///< linker script

void reset_handler(void);    ///< sets up .data and .bss, then main()
void default_handler(void);  ///< any fault or unexpected interrupt: reset with WIRE_RESET_FAULT

/// The kernel's three, under their CMSIS names (FreeRTOSConfig.h).
void SVC_Handler(void);
void PendSV_Handler(void);
void SysTick_Handler(void);

typedef void (*vector)(void);

#define CORTEX_M_VECTORS(nmi)                                                                                         \
    (vector) stack_top, reset_handler, nmi, default_handler, default_handler, default_handler, default_handler, 0, 0, \
        0, 0, SVC_Handler, default_handler, 0, PendSV_Handler, SysTick_Handler

#endif
