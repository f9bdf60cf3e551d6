#include "tmp105.h"

#include "board.h"

enum {
    TMP105_ADDRESS = 0x48,
    REGISTER_TEMPERATURE = 0,
    REGISTER_CONFIG = 1,
    CONFIG_12_BITS = 0x60,  // the power-up value is 9 bits
};

bool board_sensor_read(int16_t *sixteenths_c) {
    static bool configured;
    uint8_t raw[2];
    const uint8_t config[2] = {REGISTER_CONFIG, CONFIG_12_BITS};
    const uint8_t pointer = REGISTER_TEMPERATURE;
    if (!configured) {
        configured = i2c_transfer(TMP105_ADDRESS, config, sizeof config, NULL, 0);
    }
    if (!configured || !i2c_transfer(TMP105_ADDRESS, &pointer, 1, raw, sizeof raw)) {
        configured = false;  // it may have lost its power: set it up again
        return false;
    }
    *sixteenths_c = (int16_t)((int16_t)(raw[0] << 8 | raw[1]) >> 4);
    return true;
}
