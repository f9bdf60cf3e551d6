/// The watchdog is fed only when every task has checked in since the last feeding. Pure; the caller locks.
#ifndef EDGELOOP_CHECKIN_H
#define EDGELOOP_CHECKIN_H

#include <stdbool.h>
#include <stdint.h>

struct checkin {
    uint32_t expected;  ///< One bit a task.
    uint32_t seen;
    bool stopped;
};

/// tasks: how many, up to 32; they are numbered from 0.
struct checkin checkin_begin(unsigned tasks);
/// Returns true when this was the last one missing: feed the watchdog now.
bool checkin_mark(struct checkin *self, unsigned task);
/// From now on never feed: the watchdog will reset the board.
void checkin_stop(struct checkin *self);

#endif
