#ifndef FREERTOS_CONFIG_H
#define FREERTOS_CONFIG_H

#define configCPU_CLOCK_HZ 168000000
#define configSYSTICK_CLOCK_HZ 21000000  // HCLK / 8: sleeps of 0.8 s instead of 0.1 s
#include "freertos_cortex_m.h"

#endif
