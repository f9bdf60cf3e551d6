#include "startup.h"

#include <string.h>

#include "retained.h"

extern uint8_t data_load[], data_start[], data_end[], bss_start[], bss_end[];

int main(int argc, char **argv);

void reset_handler(void) {
    memcpy(data_start, data_load, (size_t)(data_end - data_start));
    memset(bss_start, 0, (size_t)(bss_end - bss_start));
    main(0, NULL);
    default_handler();
}

void default_handler(void) {
    cortex_m_reset(WIRE_RESET_FAULT);
}
