"""When to look at what grows: before it could be full at the rate seen. Pure."""

from typing import Final

REST_S: Final = 0.5  # while nothing stirs
SOON_S: Final = 0.02  # after something stirred in an empty one; sooner in a fuller one
LEAST_S: Final = 0.005
COST: Final = 10  # looking takes at most a tenth of the time, but for one that is soon full


class Pace:
    """full: what is there, as a part of what may be, at the first look."""

    def __init__(self, full: float, now: float) -> None:
        self._full, self._at = full, now
        self._soon_s = _soon_s(full)
        self.due_at = now + self._soon_s

    def stirred(self, now: float) -> None:
        self.due_at = min(self.due_at, max(now, self._at + self._soon_s))

    def looked(self, full: float, now: float, *, took_s: float, may_grow_unseen: bool = False) -> None:
        """took_s: how long it took to look. may_grow_unseen: nothing need stir for it to grow."""
        grown, since_s = full - self._full, max(now - self._at, 1e-6)
        self._full, self._at = full, now
        self._soon_s = max(_soon_s(full), COST * took_s)
        wait_s = self._soon_s if may_grow_unseen else REST_S
        if grown > 0:
            wait_s = min(wait_s, max((1 - full) * since_s / grown / 2, LEAST_S))
        self.due_at = now + wait_s


def _soon_s(full: float) -> float:
    return max((1 - full) * SOON_S, LEAST_S)
