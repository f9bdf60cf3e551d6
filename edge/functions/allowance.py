"""How much of something may come, over time: so many a second, and some at once. Pure."""


class Allowance:
    """Full at first."""

    def __init__(self, now: float, *, per_s: float, burst: float) -> None:
        self._per_s, self._burst = per_s, burst
        self._left, self._at = burst, now

    def spend(self, units: float, now: float) -> float:
        """Seconds until there is any again, 0 while there is; more may be spent than there is."""
        self._left = min(self._left + (now - self._at) * self._per_s, self._burst) - units
        self._at = now
        return -self._left / self._per_s if self._left < 0 else 0.0
