/// What the Cortex-M boards' FreeRTOSConfig.h share.
#ifndef FREERTOS_CORTEX_M_H
#define FREERTOS_CORTEX_M_H

#include "freertos_common.h"

#define configTICK_RATE_HZ 1000
#define configUSE_TICKLESS_IDLE 1
#define configUSE_IDLE_HOOK 0
#define configUSE_TICK_HOOK 0
#define configUSE_PORT_OPTIMISED_TASK_SELECTION 1
#define configMINIMAL_STACK_SIZE 96

/// The top three bits are there on every Cortex-M3 and M4. Interrupts that call the kernel run at UART_PRIORITY.
#define configKERNEL_INTERRUPT_PRIORITY 0xE0
#define configMAX_SYSCALL_INTERRUPT_PRIORITY 0x80
#define UART_PRIORITY 0xA0

void cortex_m_assert_failed(void);
#define configASSERT(condition)       \
    do {                              \
        if (!(condition)) {           \
            cortex_m_assert_failed(); \
        }                             \
    } while (0)

#define vPortSVCHandler SVC_Handler
#define xPortPendSVHandler PendSV_Handler
#define xPortSysTickHandler SysTick_Handler

#endif
