/// Counts boots in two flash sectors, append-only: every boot gets a number no earlier boot had.
///
/// Invariants.
///   - A record is 8 bytes, count and check; erased, torn and damaged ones are told apart from sound ones by the check.
///   - The sector that holds the highest sound count is never erased while it does; records are appended to it, and
///     only when it is full is the other one erased and begun.
///   - A count is handed out only after it was read back, so a power cut at any flash operation costs at most a number
///     that nobody has used.
#ifndef EDGELOOP_BOOT_COUNTER_H
#define EDGELOOP_BOOT_COUNTER_H

#include "boards/board.h"

/// Cost: reads both sectors once, programs 8 bytes, erases one sector every sector_bytes / 8 boots.
/// Returns false when the flash took nothing; *count is then one more than the last one found, and the next boot will
/// get it as well.
bool boot_counter_next(const struct board_flash *flash, uint32_t *count);

#endif
