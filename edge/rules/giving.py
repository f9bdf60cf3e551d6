"""Windows that ended and whose rows are not all given: they are taken step by step, and a turn may end after any. Pure.

Invariants:
- Windows give in the order in which they ended, and each gives its rows in an order of its own that never changes.
- `place` is the number of steps that the first of them has made. It stands in the checkpoint beside what the window
  held, which stays until its last step: so a restart goes on at the row where it was.
- Nothing that comes later changes what is due, and what is due counts towards no bound of what is open: so how many
  rows a turn gives changes none of them.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Any


class Giving(ABC):
    """due_weight: about how much is held for it."""

    def __init__(self) -> None:
        self.due: deque[Any] = deque()
        self.due_weight = 0
        self.place = 0
        self._steps: Iterator[Any] | None = None

    def give(self) -> Iterator[Any]:
        """The rows of what is due; None for a step that made none. May be left after any of them, and called again."""
        while self.due:
            if self._steps is None:
                steps = self._rows_of(self.due[0])
                self._steps = islice(steps, self.place, None) if self.place else steps
            for row in self._steps:
                self.place += 1
                yield row
            self._steps, self.place = None, 0
            self._gave(self.due.popleft())

    @abstractmethod
    def _rows_of(self, window: Any) -> Iterator[Any]:
        """All its steps."""

    @abstractmethod
    def _gave(self, window: Any) -> None:
        """It is done: what was held for it goes."""

    def _forget_due(self) -> None:
        self.due.clear()
        self.due_weight = self.place = 0
        self._steps = None
