"""How far a stream is exported: what to send next, what was settled, below which nothing is needed. Pure.

Invariants:
- What is sent is sent in order of number. After anything was turned away nothing goes out until all that is under way
  is settled; then it goes on from the lowest turned away, and what lay above it and was taken goes once more, under
  the same name.
- cursor: all below it is settled for good. It never falls.
"""

from collections.abc import Sequence


class Cursor:
    """A receipt is the first number of what was sent as one: a record, or a batch of them."""

    def __init__(self, cursor: int) -> None:
        self.cursor = self.position = cursor
        self._open: dict[int, None] = {}
        self._again = 0

    @property
    def under_way(self) -> int:
        return len(self._open)

    @property
    def is_held(self) -> bool:
        """Nothing may be sent now."""
        return self._again > 0

    def sent(self, receipts: Sequence[int], after: int) -> None:
        """These went out; the next record to send is `after`."""
        self._open.update(dict.fromkeys(receipts))
        self.position = after

    def settled(self, receipts: Sequence[int]) -> int:
        """For good, whether taken or refused. Returns how many of them were under way."""
        opened = self._open
        before = len(opened)
        for receipt in receipts:
            opened.pop(receipt, None)
        self._advance()
        return before - len(opened)

    def turned_away(self, receipts: Sequence[int]) -> None:
        for receipt in receipts:
            if receipt in self._open:
                del self._open[receipt]
                self._again = min(self._again or receipt, receipt)
        self._advance()

    def skip_to(self, number: int) -> None:
        """Nothing below is there any more; what is under way of it is settled all the same when its answer comes."""
        self.position = max(self.position, number)
        self._advance()

    def _advance(self) -> None:
        if not self._again:
            self.cursor = max(self.cursor, next(iter(self._open), self.position))
        elif not self._open:
            self.cursor = max(self.cursor, self._again)
            self.position, self._again = self._again, 0
        else:
            self.cursor = max(self.cursor, min(next(iter(self._open)), self._again))
