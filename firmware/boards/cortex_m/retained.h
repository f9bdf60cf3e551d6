/// Memory that a warm reset keeps, and the note in it that says who asked for the reset.
#ifndef RETAINED_H
#define RETAINED_H

#include <stdbool.h>

#include "board.h"

/// Leave the cause for the next start. WIRE_RESET_UNKNOWN withdraws it.
void retained_note(enum wire_reset_reason reason);
/// Take the note. WIRE_RESET_POWER_ON: the memory was lost; WIRE_RESET_UNKNOWN: it was kept and nobody left a note.
enum wire_reset_reason retained_take(void);
/// Note the cause, then SYSRESETREQ.
_Noreturn void cortex_m_reset(enum wire_reset_reason reason);

#endif
