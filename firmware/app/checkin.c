#include "app/checkin.h"

struct checkin checkin_begin(unsigned tasks) {
    return (struct checkin){.expected = tasks >= 32 ? UINT32_MAX : (UINT32_C(1) << tasks) - 1};
}

bool checkin_mark(struct checkin *self, unsigned task) {
    self->seen |= UINT32_C(1) << task;
    if (self->stopped || (self->seen & self->expected) != self->expected) {
        return false;
    }
    self->seen = 0;
    return true;
}

void checkin_stop(struct checkin *self) {
    self->stopped = true;
}
