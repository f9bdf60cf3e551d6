#include <FreeRTOS.h>
#include <task.h>

#include "retained.h"

void vApplicationStackOverflowHook(TaskHandle_t task, char *name) {
    (void)task;
    (void)name;
    cortex_m_reset(WIRE_RESET_FAULT);
}

void cortex_m_assert_failed(void) {
    cortex_m_reset(WIRE_RESET_FAULT);
}
