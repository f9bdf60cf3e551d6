"""How long to wait before the next try: exponential, with full jitter so that a fleet does not come back as one."""

from collections.abc import Callable


class Backoff:
    """min_s, max_s: the bounds of a delay. random: as random.random, in [0, 1)."""

    def __init__(self, min_s: float, max_s: float, random: Callable[[], float]) -> None:
        self._min_s, self._max_s, self._random = min_s, max_s, random
        self._ceiling_s = min_s

    def next_s(self) -> float:
        """The delay before the next try; each may be twice as long as the one before."""
        delay_s = self._min_s + (self._ceiling_s - self._min_s) * self._random()
        if self._ceiling_s == self._min_s:  # the first: between half and the whole, so that even it is spread
            delay_s = self._min_s * (0.5 + 0.5 * self._random())
        self._ceiling_s = min(self._max_s, 2 * self._ceiling_s)
        return delay_s

    def lasted(self, duration_s: float) -> bool:
        """What was tried held for so long. Start over if that is longer than the next delay could be; tell whether."""
        if duration_s < self._ceiling_s:
            return False
        self.reset()
        return True

    def reset(self) -> None:
        self._ceiling_s = self._min_s
