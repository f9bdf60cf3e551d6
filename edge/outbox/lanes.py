"""A stream's cursors: one, or with `live_first` two while a backlog is made up: what is new goes ahead of it. Pure.

Invariants: the backlog's cursor lies below `split`, the live one at or above; each record belongs to one of them. When
the backlog is through, the live cursor is the only one. The state says all of it, so that a restart goes on alike.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from edge.outbox.cursor import Cursor

BACKLOG_LEAST: Final = 1000  # records behind, from which on what is new goes first

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[int, int, int]).decode


class Sent(msgspec.Struct, frozen=True, array_like=True):
    """How far the export is. Below cursor and in split … live all is settled; in position … split and from
    live_position on nothing is under way. Without a live lane split, live and live_position are 0."""

    cursor: int
    position: int
    split: int
    live: int
    live_position: int

    def is_settled(self, number: int, thing: str = "") -> bool:
        """thing: whose record it is, where that tells more."""
        return number < self.cursor or self.split <= number < self.live

    def is_untouched(self, number: int) -> bool:
        """Neither sent nor settled."""
        return number >= (self.live_position if self.split and number >= self.split else self.position)


class Lanes:
    """state: as `state()` gave it; first: the oldest record held."""

    def __init__(self, state: bytes | None, first: int, *, live_first: bool) -> None:
        cursor, self.split, live = _parse(state)
        self.live_first = live_first
        self.backlog = Cursor(max(cursor, first))
        self.live: Cursor | None = None
        if self.split > self.backlog.cursor:
            self.live = Cursor(max(live, self.split))
        elif self.split:
            self.backlog = Cursor(max(live, first))
        if self.live is None:
            self.split = 0

    @property
    def sent(self) -> Sent:
        backlog, live = self.backlog, self.live
        if live is None:
            return Sent(backlog.cursor, backlog.position, 0, 0, 0)
        return Sent(backlog.cursor, min(backlog.position, self.split), self.split, live.cursor, live.position)

    @property
    def under_way(self) -> int:
        return self.backlog.under_way + (self.live.under_way if self.live is not None else 0)

    def state(self) -> bytes:
        sent = self.sent
        return _encode((sent.cursor, sent.split, sent.live))

    def turns(self, next_number: int) -> Sequence[tuple[Cursor, int]]:
        """Each cursor that has something to send now, in order of their turns, and the number at which it stops."""
        backlog, live = self.backlog, self.live
        if live is None:
            if backlog.is_held or backlog.position >= next_number:
                return ()
            if self.live_first and next_number - backlog.position > BACKLOG_LEAST:
                self.split = next_number
                self.live = Cursor(next_number)
            return ((backlog, next_number),)
        turns = (live, next_number), (backlog, self.split)
        return [(lane, end) for lane, end in turns if lane.position < end and not lane.is_held]

    def of(self, receipt: int) -> Cursor:
        return self.live if self.live is not None and receipt >= self.split else self.backlog

    def settled(self, receipts: list[int]) -> int:
        if self.live is None:
            return self.backlog.settled(receipts)
        split = self.split
        count = self.live.settled([receipt for receipt in receipts if receipt >= split])
        count += self.backlog.settled([receipt for receipt in receipts if receipt < split])
        self._join()
        return count

    def turned_away(self, receipts: list[int]) -> None:
        for receipt in receipts:
            self.of(receipt).turned_away((receipt,))

    def skip_to(self, number: int) -> None:
        """Nothing below is held any more."""
        if self.live is not None:
            self.live.skip_to(max(number, self.split))
            self.backlog.skip_to(min(number, self.split))
            self._join()
        else:
            self.backlog.skip_to(number)

    def _join(self) -> None:
        if self.live is not None and self.backlog.cursor >= self.split and not self.backlog.under_way:
            self.backlog, self.live, self.split = self.live, None, 0


def _parse(state: bytes | None) -> tuple[int, int, int]:
    try:
        return _decode(state) if state else (1, 0, 0)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return 1, 0, 0
