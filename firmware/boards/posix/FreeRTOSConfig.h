#ifndef FREERTOS_CONFIG_H
#define FREERTOS_CONFIG_H

#include "freertos_common.h"

/// A hundred ticks a second are enough: what arrives wakes the idle task's poll at once.
#define configTICK_RATE_HZ 100
#define configUSE_TICKLESS_IDLE 0
#define configUSE_IDLE_HOOK 1  ///< polls the UART
#define configUSE_TICK_HOOK 1  ///< the watchdog
#define configUSE_PORT_OPTIMISED_TASK_SELECTION 0
#define configMINIMAL_STACK_SIZE 128

void posix_assert_failed(const char *condition);
#define configASSERT(condition)              \
    do {                                     \
        if (!(condition)) {                  \
            posix_assert_failed(#condition); \
        }                                    \
    } while (0)

#endif
