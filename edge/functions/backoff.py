"""When a worker may be started again. Pure.

One that lived STEADY_S is replaced at once. One that ended sooner waits 1 s; one that ended before it did anything
waits 1, 2, 4 … BACKOFF_S_MAX seconds, until one does something.
"""

from typing import Final

STEADY_S: Final = 10.0
BACKOFF_S_MIN: Final = 1.0
BACKOFF_S_MAX: Final = 60.0


class Backoff:
    """Of one function's workers."""

    def __init__(self) -> None:
        self.failures = 0
        """In a row, without anything done in between."""
        self.until = 0.0

    def worked(self) -> None:
        self.failures = 0

    def ended(self, now: float, *, lived_s: float, did_something: bool) -> float:
        """A worker ended by itself, or had to be ended. Returns how long to wait."""
        if did_something:
            self.failures = 0
            wait = 0.0 if lived_s >= STEADY_S else BACKOFF_S_MIN
        else:
            self.failures += 1
            wait = min(BACKOFF_S_MIN * 2.0 ** min(self.failures - 1, 16), BACKOFF_S_MAX)
        self.until = max(self.until, now + wait)
        return wait

    def reset(self) -> None:
        """New code or settings: what was learned of the old says nothing."""
        self.failures, self.until = 0, 0.0
