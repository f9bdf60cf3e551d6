add_cortex_m_app(GCC/ARM_CM3 -mcpu=cortex-m3 board.c uart.c i2c.c)
