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
        self._open: dict[int, int] = {}  # receipt -> the number after what it stands for
        self._again = 0

    @property
    def under_way(self) -> int:
        return len(self._open)

    @property
    def is_held(self) -> bool:
        """Nothing may be sent now."""
        return self._again > 0

    def sent(self, receipts: Sequence[int], after: int) -> None:
        """These records went out, each by itself; the next to send is `after`."""
        self._open.update(zip(receipts, receipts, strict=True))
        self.position = after

    def sent_as_one(self, receipt: int, after: int) -> None:
        """The records receipt … after went out as one."""
        self._open[receipt] = after - 1
        self.position = after

    def last_of(self, receipt: int) -> int:
        """The last record that went with it; below the receipt if it is not under way."""
        return self._open.get(receipt, receipt - 1)

    def settled(self, receipts: Sequence[int]) -> int:
        """For good, whether taken or refused. Returns how many records that were."""
        pop = self._open.pop
        count = 0
        for receipt in receipts:
            last = pop(receipt, 0)
            if last:
                count += last - receipt + 1
        self._advance()
        return count

    def turned_away(self, receipts: Sequence[int]) -> None:
        for receipt in receipts:
            if self._open.pop(receipt, 0):
                self._again = min(self._again or receipt, receipt)
        self._advance()

    def skip_to(self, number: int) -> None:
        """Nothing below is there any more; what is under way of it is settled all the same when its answer comes."""
        self.position = max(self.position, number)
        if self._again:
            self._again = max(self._again, number)
        self._advance()

    def _advance(self) -> None:
        if not self._again:
            self.cursor = max(self.cursor, next(iter(self._open), self.position))
        elif not self._open:
            self.cursor = max(self.cursor, self._again)
            self.position, self._again = self._again, 0
        else:
            self.cursor = max(self.cursor, min(next(iter(self._open)), self._again))
