/// Registers of the STM32F405 (RM0090) that we use.
#ifndef STM32F405_H
#define STM32F405_H

#include <stdint.h>

typedef volatile uint32_t reg;

struct rcc {
    reg cr, pllcfgr, cfgr, cir, reset[8], ahb1enr, unused[3], apb1enr, apb2enr, more[11], csr;
};
struct gpio {
    reg moder, otyper, ospeedr, pupdr, idr, odr, bsrr, lckr, afrl, afrh;
};
struct usart {
    reg sr, dr, brr, cr1;
};
struct timer {
    reg cr1, unused[4], egr, more[3], cnt, psc;
};
struct i2c {
    reg cr1, cr2, oar1, oar2, dr, sr1, sr2, ccr, trise;
};
struct flash {
    reg acr, keyr, optkeyr, sr, cr;
};
struct iwdg {
    reg kr, pr, rlr, sr;
};

#define RCC ((struct rcc *)0x40023800)
#define GPIOA ((struct gpio *)0x40020000)
#define GPIOB ((struct gpio *)0x40020400)
#define TIM2 ((struct timer *)0x40000000)
#define USART1 ((struct usart *)0x40011000)
#define I2C1 ((struct i2c *)0x40005400)
#define FLASH ((struct flash *)0x40023C00)
#define IWDG ((struct iwdg *)0x40003000)
#define NVIC_ISER ((reg *)0xE000E100)
#define NVIC_PRIORITY ((volatile uint8_t *)0xE000E400)

enum { CPU_HZ = 168000000, APB1_HZ = CPU_HZ / 4, APB2_HZ = CPU_HZ / 2, UART_BAUD = 115200, USART1_IRQ = 37 };

void stm32_uart_init(void);
void stm32_uart_isr(void);
void stm32_i2c_init(void);

#endif
