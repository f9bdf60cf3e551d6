// The shield's I2C: two lines that we move ourselves (SBCon). Reading SDA needs it released.
#include "mps2.h"
#include "tmp105.h"

// About a quarter of a bit at 100 kHz on a 25 MHz core.
static void quarter(void) {
    for (volatile int i = 0; i < 8; i++) {
    }
}

static void lines(uint32_t scl, uint32_t sda) {
    // The data line moves before the clock rises and after it falls.
    uint32_t now = SHIELD_I2C->set & I2C_SCL;
    if (now != 0 && scl == 0) {
        SHIELD_I2C->clear = I2C_SCL;
    }
    if (sda != 0) {
        SHIELD_I2C->set = I2C_SDA;
    } else {
        SHIELD_I2C->clear = I2C_SDA;
    }
    if (scl != 0) {
        SHIELD_I2C->set = I2C_SCL;
    }
    quarter();
}

static void start(void) {
    lines(0, 1);
    lines(1, 1);
    lines(1, 0);
    lines(0, 0);
}

static void stop(void) {
    lines(0, 0);
    lines(1, 0);
    lines(1, 1);
}

static bool bit(bool out) {
    lines(0, out);
    lines(1, out);
    bool in = (SHIELD_I2C->set & I2C_SDA) != 0;
    lines(0, out);
    return in;
}

static bool write_byte(uint8_t byte) {
    for (int i = 7; i >= 0; i--) {
        bit((byte >> i & 1) != 0);
    }
    return !bit(true);
}

static uint8_t read_byte(bool more) {
    uint8_t byte = 0;
    for (int i = 0; i < 8; i++) {
        byte = (uint8_t)(byte << 1 | bit(true));
    }
    bit(!more);
    return byte;
}

bool i2c_transfer(uint8_t address, const uint8_t *out, size_t out_bytes, uint8_t *in, size_t in_bytes) {
    start();
    bool answered = write_byte((uint8_t)(address << 1));
    for (size_t i = 0; i < out_bytes && answered; i++) {
        answered = write_byte(out[i]);
    }
    if (answered && in_bytes > 0) {
        start();
        answered = write_byte((uint8_t)(address << 1 | 1));
        for (size_t i = 0; i < in_bytes && answered; i++) {
            in[i] = read_byte(i + 1 < in_bytes);
        }
    }
    stop();
    return answered;
}
