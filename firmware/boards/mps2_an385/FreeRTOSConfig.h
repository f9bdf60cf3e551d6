#ifndef FREERTOS_CONFIG_H
#define FREERTOS_CONFIG_H

#define configCPU_CLOCK_HZ 25000000
// The image's reference clock. From the core clock QEMU's SysTick reads as zero for 10 µs after its start, which the
// kernel's tickless sleep takes for the whole sleep.
#define configSYSTICK_CLOCK_HZ 1000000
#include "freertos_cortex_m.h"

#endif
