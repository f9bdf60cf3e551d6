/// TMP105 / TMP75 / LM75 temperature sensor at address 0x48 on the board's I2C bus.
#ifndef TMP105_H
#define TMP105_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/// The bus, by the board: a write of `out_bytes`, then, when in_bytes > 0, a repeated start and a read. Blocks. false:
/// nobody acknowledged.
bool i2c_transfer(uint8_t address, const uint8_t *out, size_t out_bytes, uint8_t *in, size_t in_bytes);

#endif
