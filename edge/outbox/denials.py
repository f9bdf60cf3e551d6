"""What a connection refuses of a stream: given up only once it takes something that was sent later. Pure.

A single record that nobody will ever take must not hold up the rest; a broker that takes nothing any more, because
somebody changed its ACL, must not empty a backlog that was acknowledged. What is taken later tells the two apart.

Invariants: what is refused stays under way until it is given up or turned away; while all is refused it is tried
again after HOLD_S_MIN, less and less often, and of a stream only so much at once as finds out.
"""

from collections.abc import Sequence
from typing import Final

HOLD_S_MIN: Final = 1.0
HOLD_S_MAX: Final = 300.0
TRIAL_MIN: Final = 2
TRIAL_MAX: Final = 64


class Denials:
    """Of one stream. holds: since when nothing was taken all was refused. trial: how much may be under way; 0: all."""

    def __init__(self) -> None:
        self._open: list[int] = []
        self._hold_s = HOLD_S_MIN
        self._until = 0.0
        self._due = False
        self.trial = 0

    @property
    def open(self) -> int:
        return len(self._open)

    @property
    def holds(self) -> bool:
        return self.trial > 0

    def refused(self, receipts: Sequence[int]) -> None:
        self._open += receipts

    def taken(self, highest: int) -> list[int]:
        """Something was taken. Returns what is given up: what was refused and lies below."""
        self._hold_s, self.trial = HOLD_S_MIN, 0
        given_up = [receipt for receipt in self._open if receipt < highest]
        if given_up:
            self._open = [receipt for receipt in self._open if receipt > highest]
        return given_up

    def hold(self) -> list[int]:
        """Nothing else is under way. Returns what is to be tried again."""
        turned_away, self._open = self._open, []
        self.trial = min(2 * self.trial, TRIAL_MAX) or TRIAL_MIN
        self._due = True
        return turned_away

    def wait_s(self, now: float) -> float:
        """How long nothing is to be sent."""
        if self._due:
            self._due = False
            self._until = now + self._hold_s
            self._hold_s = min(2 * self._hold_s, HOLD_S_MAX)
        return max(self._until - now, 0.0) if self.trial else 0.0
