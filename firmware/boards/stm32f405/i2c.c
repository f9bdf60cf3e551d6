// I2C1 on PB6 (SCL) and PB7 (SDA), 100 kHz. Every wait is bounded: a bus that hangs is a sensor error.
#include <stdbool.h>
#include <stddef.h>

#include "stm32f405.h"
#include "tmp105.h"

enum { CR1_PE = 1, CR1_START = 1 << 8, CR1_STOP = 1 << 9, CR1_ACK = 1 << 10, CR1_POS = 1 << 11, CR1_SWRST = 1 << 15 };
enum { SR1_SB = 1, SR1_ADDR = 1 << 1, SR1_BTF = 1 << 2, SR1_AF = 1 << 10 };
enum { SPINS_MAX = 20000 };  // about a millisecond; a byte takes 90 µs

void stm32_i2c_init(void) {
    GPIOB->otyper |= 1 << 6 | 1 << 7;
    GPIOB->pupdr |= 1 << 12 | 1 << 14;
    GPIOB->afrl |= 4 << 24 | 4 << 28;
    GPIOB->moder |= 2 << 12 | 2 << 14;
    I2C1->cr1 = CR1_SWRST;  // also frees a bus that a reset cut short
    I2C1->cr1 = 0;
    I2C1->cr2 = APB1_HZ / 1000000;
    I2C1->ccr = APB1_HZ / 200000;
    I2C1->trise = APB1_HZ / 1000000 + 1;
    I2C1->cr1 = CR1_PE;
}

static bool await(uint32_t flag) {
    for (int spins = 0; spins < SPINS_MAX; spins++) {
        uint32_t status = I2C1->sr1;
        if ((status & flag) != 0) {
            return true;
        }
        if ((status & SR1_AF) != 0) {
            I2C1->sr1 = ~(uint32_t)SR1_AF;
            return false;
        }
    }
    return false;
}

static bool address_sent(uint8_t address_byte) {
    I2C1->cr1 |= CR1_START;
    if (!await(SR1_SB)) {
        return false;
    }
    I2C1->dr = address_byte;
    return await(SR1_ADDR);
}

static bool write_bytes(uint8_t address, const uint8_t *out, size_t out_bytes) {
    if (!address_sent((uint8_t)(address << 1))) {
        return false;
    }
    (void)I2C1->sr2;  // clears ADDR
    for (size_t i = 0; i < out_bytes; i++) {
        I2C1->dr = out[i];
        if (!await(SR1_BTF)) {
            return false;
        }
    }
    return true;
}

// The sequence of RM0090 27.3.3 for exactly two bytes.
static bool read_two_bytes(uint8_t address, uint8_t *in) {
    I2C1->cr1 |= CR1_ACK | CR1_POS;
    if (!address_sent((uint8_t)(address << 1 | 1))) {
        return false;
    }
    (void)I2C1->sr2;
    I2C1->cr1 &= ~(uint32_t)CR1_ACK;
    if (!await(SR1_BTF)) {
        return false;
    }
    I2C1->cr1 |= CR1_STOP;
    in[0] = (uint8_t)I2C1->dr;
    in[1] = (uint8_t)I2C1->dr;
    I2C1->cr1 &= ~(uint32_t)CR1_POS;
    return true;
}

bool i2c_transfer(uint8_t address, const uint8_t *out, size_t out_bytes, uint8_t *in, size_t in_bytes) {
    bool done = (in_bytes == 0 || in_bytes == 2) && write_bytes(address, out, out_bytes);
    if (done && in_bytes == 2) {
        done = read_two_bytes(address, in);
    } else {
        I2C1->cr1 |= CR1_STOP;
    }
    if (!done) {
        stm32_i2c_init();
    }
    return done;
}
