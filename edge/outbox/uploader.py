"""Sends a stream on, record after record, and learns what became of each. An Origin.

The straight line: `next` (from the tail in memory, or from the log) -> target -> `settled` -> the stream's cursor.
Invariants: what is sent is committed; what is sent again carries the same name; order is Cursor's.
"""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from edge.messages import Message, Outcome
from edge.metrics import Metrics
from edge.outbox.cursor import Cursor
from edge.outbox.record import messages_of
from edge.outbox.stream import CURSOR, Stream

READ_RECORDS: Final = 256
READ_BYTES: Final = 256 * 1024


class Uploader:
    """Of one stream. moved: called when something was settled or turned away, to send more."""

    def __init__(self, stream: Stream, metrics: Metrics) -> None:
        self.stream = stream
        self.moved: Callable[[Outcome], None] = _nothing
        self._cursor = Cursor(max(cursor_in(stream.state.get(CURSOR)), stream.log.first))
        self._out = metrics.counter("stream_records_out", stream=stream.name)
        self._refused = metrics.counter("stream_records_refused", stream=stream.name)
        self._unknown = metrics.counter("stream_records_unreadable", stream=stream.name)
        stream.cursor = self.cursor
        metrics.gauge("stream_backlog_records", lambda: stream.log.next - self._cursor.cursor, stream=stream.name)

    def cursor(self) -> int:
        """Below it nothing is needed any more."""
        return self._cursor.cursor

    @property
    def under_way(self) -> int:
        return self._cursor.under_way

    @property
    def is_waiting(self) -> bool:
        """Whether there is something to send now."""
        return self._cursor.position < self.stream.log.next and not self._cursor.is_held

    def next(self, count: int) -> Sequence[Message]:
        """At most count, in order; they count as sent. Empty: none, or none for now. Raises OSError."""
        cursor, tail, log = self._cursor, self.stream.tail, self.stream.log
        position, end = cursor.position, log.next
        if cursor.is_held or position >= end or count <= 0:
            return ()
        if tail.first <= position < tail.next:
            messages = tail.take(position, count)
            if messages:
                cursor.sent([message.receipt for message in messages], messages[-1].receipt + 1)
                return messages
        rows = log.read(position, records_max=min(count, READ_RECORDS), bytes_max=READ_BYTES)
        if not rows:
            cursor.skip_to(end)
            return ()
        found, unknown = messages_of(rows, self.stream.own)
        self._unknown.value += len(unknown)
        cursor.sent([message.receipt for message in found], rows[-1][0] + 1)
        return found

    def settled(self, receipts: Sequence[int], outcome: Outcome) -> None:
        cursor = self._cursor
        before = cursor.cursor
        if outcome is Outcome.CONGESTED:
            cursor.turned_away(receipts)
        else:
            count = cursor.settled(receipts)
            if outcome is Outcome.TAKEN:
                self._out.value += count
            else:
                self._refused.value += count
        if cursor.cursor != before:
            self.stream.cursor_moved()
        self.moved(outcome)


def cursor_in(value: bytes | None) -> int:
    """The cursor as kept in a stream's state; 1 where there is none."""
    try:
        return msgspec.msgpack.decode(value, type=int) if value else 1
    except msgspec.DecodeError:
        return 1


def _nothing(outcome: Outcome) -> None:
    return None
