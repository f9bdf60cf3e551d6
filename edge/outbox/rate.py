"""A limit of messages and bytes a second, as two token buckets. Pure: the clock's reading is given.

Invariant: over any stretch of t seconds no more than rate * (t + BURST_S) is let go, but for one message larger than
that, which waits until the bucket is full and then leaves it in debt.
"""

from typing import Final

BURST_S: Final = 1.0
RATE_KEPT: Final = 0.8  # of the rate before, each tick


class Bucket:
    """rate: units a second; 0 is no limit."""

    def __init__(self, rate: float, now: float) -> None:
        self.rate = rate
        self._full = max(rate * BURST_S, 1.0)
        self._level = self._full
        self._at = now

    def room(self, now: float) -> float:
        """How many units may go now."""
        if not self.rate:
            return float("inf")
        self._level = min(self._full, self._level + max(now - self._at, 0) * self.rate)
        self._at = now
        return self._level

    def spend(self, units: float) -> None:
        if self.rate:
            self._level -= units

    def wait_s(self, units: float, now: float) -> float:
        """How long until so many units, or a full bucket, are there."""
        lacking = min(units, self._full) - self.room(now)
        return max(lacking / self.rate, 0.0) if self.rate else 0.0


class Rate:
    """How fast a counter rises, over the last seconds."""

    def __init__(self) -> None:
        self.per_s = 0.0
        self._value = 0

    def tick(self, value: int, elapsed_s: float) -> None:
        self.per_s = RATE_KEPT * self.per_s + (1 - RATE_KEPT) * (value - self._value) / elapsed_s
        self._value = value
