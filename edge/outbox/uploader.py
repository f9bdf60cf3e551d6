"""Sends a stream on, record by record or in batches, and learns what became of each. An Origin.

The straight line: `next` (from the tail in memory, or from the log) -> target -> `settled` -> the stream's cursor.
Invariants: what is sent is committed; what is sent again carries the same names; the order is Cursor's.

How large a batch is: at most `batch_bytes_max` before gzip, at most what the target says it takes, and half of what was
ever refused as too large, until the next start. Refused so, a batch of several records goes again in smaller ones; a
record alone is given up, and counted as `too_large`.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from edge.config import StreamSettings
from edge.log import Log
from edge.logs import log_event
from edge.messages import Message, Outcome, may_expire, properties_bytes, text_bytes
from edge.metrics import Metrics
from edge.outbox import formats
from edge.outbox.clock import Clock
from edge.outbox.cursor import Cursor
from edge.outbox.denials import Denials
from edge.outbox.expiry import Expired, living
from edge.outbox.lanes import Lanes, Sent
from edge.outbox.ledger import Ledger
from edge.outbox.rate import Bucket
from edge.outbox.record import messages_of
from edge.outbox.report import CURSOR
from edge.outbox.tail import Tail

READ_RECORDS: Final = 512
READ_BYTES: Final = 256 * 1024
BATCHES_UNDER_WAY_MAX: Final = 8
MESSAGE_OVERHEAD_BYTES: Final = 64
PACKET_OVERHEAD_BYTES: Final = 128  # of a batch's PUBLISH beside topic and payload, at most
GO_ON_S: Final = 0.001  # where all that was read has expired
BATCH_BYTES_LEAST: Final = 1024  # smaller ones are sent record by record where one is refused

_log = logging.getLogger(__name__)


class Source(Protocol):
    """A stream, as far as it is sent on; or a part of one. committed: called when there is more."""

    settings: StreamSettings
    name: str
    own: str
    log: Log
    clock: Clock
    tail: Tail
    ledger: Ledger
    committed: Callable[[], None]

    @property
    def state(self) -> Mapping[str, bytes]: ...

    def exported(self, sent: Callable[[], Sent], state: Callable[[], bytes], given_up: Callable[[int], None]) -> None:
        """Who exports it. sent: how far; state: to keep of it; given_up(number): nothing below is there any more."""

    def refused(self, first: int, last: int, reason: str = "refused") -> None:
        """These records will never be taken where they go."""

    def cursor_moved(self) -> None: ...


class Uploader:
    """Of one stream. moved: called when something was settled or turned away, to send more. patient: while all that is
    sent is refused, it is held and not given up; a connection holds only topics of it. packet_bytes_max: what the
    target takes, where it says so. take_back: what waits at the target, as of a Queueing."""

    def __init__(
        self, stream: Source, metrics: Metrics, batch_topic: str, now: float, *, patient: bool = False
    ) -> None:
        self.stream = stream
        self.moved: Callable[[Outcome], None] = _nothing
        settings = stream.settings
        self._settings = settings
        self._batch_topic = settings.batch_topic or batch_topic
        self._lanes = Lanes(stream.state.get(CURSOR), stream.log.first, live_first=settings.live_first)
        self._messages = Bucket(settings.rate_messages_per_s, now)
        self._bytes = Bucket(settings.rate_bytes_per_s, now)
        self._limited = bool(settings.rate_messages_per_s or settings.rate_bytes_per_s)
        self.patient = patient
        self._denials = Denials() if patient else None
        self._refused = 0
        self._expired = Expired()
        self._goes_on = False  # nothing of what was read may be sent, and there is more
        self._read_ms = 0
        self.packet_bytes_max: Callable[[], int | None] = lambda: None
        self.take_back: Callable[[Callable[[int], bool]], list[int]] = lambda unwanted: []
        self._batch_since = now
        self._batch_at = 0
        self._batches: dict[int, tuple[int, int]] = {}  # receipt -> records, bytes before gzip
        self._bytes_max = settings.batch_bytes_max
        self._again_until = 0  # records below were in a batch too large: smaller ones wait for nothing
        self._alone_until = 0  # these go each by itself
        self._out = metrics.counter("stream_records_out", stream=stream.name)
        self._out_bytes = metrics.counter("stream_bytes_out", stream=stream.name)
        self._unknown = metrics.counter("stream_records_unreadable", stream=stream.name)
        stream.exported(lambda: self._lanes.sent, self._lanes.state, self._given_up)
        metrics.gauge("stream_backlog_records", self.backlog, stream=stream.name)

    def backlog(self) -> int:
        """How many records are held and not settled, about (numbers may skip)."""
        sent, log = self._lanes.sent, self.stream.log
        return max(log.next - max(sent.cursor, log.first) - (sent.live - sent.split), 0)

    @property
    def sent(self) -> Sent:
        return self._lanes.sent

    @property
    def under_way(self) -> int:
        return self._lanes.under_way

    @property
    def failing(self) -> str:
        """Why nothing gets on."""
        if self._denials is None or not self._denials.holds:
            return ""
        return f"{self._settings.export} refuses all that is sent; allow this client to publish it"

    def wait_s(self, now: float) -> float:
        """How long until `next` gives something; 0: now, or only after something else happened."""
        turns = self._lanes.turns(self.stream.log.next)
        if not turns:
            return 0.0
        if self._goes_on:
            self._goes_on = False
            return GO_ON_S
        if self._denials is not None and (held_s := self._denials.wait_s(now)):
            return held_s
        wait = max(self._messages.wait_s(1, now), self._bytes.wait_s(1, now)) if self._limited else 0.0
        if self._settings.format != "message":
            wait = max(wait, min([self._batch_wait_s(lane, end, now) for lane, end in turns]))
        return wait

    def next(self, count: int, now: float) -> Sequence[Message]:
        """At most count, in order; they count as sent. Empty: none, or none for now. Raises OSError."""
        if self._expired.is_full and self.under_way:
            return ()
        self._read_ms = int(now * 1000)
        messages = self._next(count, now)
        self._count_expired()
        return messages

    def _next(self, count: int, now: float) -> Sequence[Message]:
        """As `next`, which counts what expired."""
        turns = self._lanes.turns(self.stream.log.next)
        if not turns or count <= 0:
            return ()
        if self._denials is not None:
            if self._denials.wait_s(now):
                return ()
            if self._denials.holds:
                count = min(count, self._denials.trial - self.under_way)
                if count <= 0:
                    return ()
        if self._limited:
            count = min(count, int(min(self._messages.room(now), count)))
            if count < 1 or self._bytes.room(now) < 1:
                return ()
        if self._settings.format != "message":
            return self._next_batch(turns, now)
        lane, end = turns[0]
        messages, after = self._fetch(lane.position, min(count, end - lane.position))
        if self._limited:
            messages, after = self._within_rate(messages, after, now)
        if messages:
            lane.sent([message.receipt for message in messages], after)
        else:
            lane.skip_to(after)
        return messages

    def settled(self, receipts: Sequence[int], outcome: Outcome) -> None:
        given = list(receipts)
        self._settle(given, lambda: self._take(given, outcome), outcome)

    def _given_up(self, number: int) -> None:
        """Nothing below is there any more, and all of it is counted: what only waits at the target does not go out. A
        batch that reaches beyond goes whole."""
        self._expired.forget(number)
        lanes = self._lanes
        receipts = self.take_back(lambda receipt: receipt <= lanes.of(receipt).last_of(receipt) < number)
        lanes.skip_to(number)
        if receipts:
            self._settle(receipts, lambda: lanes.settled(receipts), Outcome.REFUSED)

    def send_anew(self) -> None:
        """What only waits at the target was stamped by a clock that has been set since: it goes once more."""
        if receipts := self.take_back(lambda receipt: True):
            self._settle(receipts, lambda: self._lanes.turned_away(receipts), Outcome.REFUSED)

    def expired(self, messages: Sequence[Message]) -> None:
        """As a Timekeeper."""
        self._expired.add(messages)
        receipts = [message.receipt for message in messages]
        self._settle(receipts, lambda: self._lanes.settled(receipts), Outcome.REFUSED)

    def _count_expired(self) -> None:
        if passed := self._expired.passed(self._lanes.sent):
            for reading in passed:
                self.stream.ledger.add(reading.thing, reading.boot, reading.sequence, "expired")
            self.stream.cursor_moved()

    def _settle(self, receipts: list[int], take: Callable[[], object], outcome: Outcome) -> None:
        lanes, denials = self._lanes, self._denials
        before = lanes.backlog.cursor
        if self._batches:
            for receipt in receipts:
                self._batches.pop(receipt, None)
        take()
        if denials is not None and denials.open and denials.open == lanes.under_way:
            if not denials.holds:
                problem = "all that is sent is refused: it is kept, and tried again"
                log_event(_log, "stream_held", level=logging.WARNING, stream=self.stream.name, problem=problem)
            lanes.turned_away(denials.hold())
        if lanes.backlog.cursor != before:
            self.stream.cursor_moved()
        self._count_expired()
        self.moved(outcome)

    def _take(self, given: list[int], outcome: Outcome) -> None:
        lanes = self._lanes
        if outcome is Outcome.CONGESTED:
            lanes.turned_away(given)
        elif outcome is Outcome.TAKEN:
            self._out.value += lanes.settled(given)
            if self._denials is not None and (self._denials.open or self._denials.holds):
                if self._denials.holds:
                    log_event(_log, "stream_taken_again", stream=self.stream.name)
                self._give_up(self._denials.taken(max(given)))
        elif self._denials is not None:
            self._denials.refused(given)
        else:
            self._give_up(given)

    def too_large(self, receipts: Sequence[int], *, surely: bool) -> None:
        """As a Packer."""
        again, alone = [], []
        for receipt in receipts:
            records, size = self._batches.get(receipt, (1, 0))
            if records == 1:
                alone.append(receipt)
                continue
            again.append(receipt)
            last = self._lanes.of(receipt).last_of(receipt)
            self._again_until = max(self._again_until, last + 1)
            if size < 2 * BATCH_BYTES_LEAST:
                self._alone_until = max(self._alone_until, last + 1)
            else:
                self._bytes_max = min(self._bytes_max, size // 2)
        if alone and not surely:
            self.settled(alone, Outcome.REFUSED)
        elif alone:
            self._settle(alone, lambda: self._give_up(alone, "too_large"), Outcome.REFUSED)
        if again:
            self._settle(again, lambda: self._lanes.turned_away(again), Outcome.REFUSED)

    def _give_up(self, receipts: list[int], reason: str = "refused") -> None:
        """Told when it happens first, and again at twice as many."""
        if not receipts:
            return
        before = self._refused
        for receipt in receipts:
            last = self._lanes.of(receipt).last_of(receipt)
            self.stream.refused(receipt, last, reason)
            self._refused += last - receipt + 1
        self._lanes.settled(receipts)
        if self._refused.bit_length() > before.bit_length():
            problem = f"{self._refused} records so far were refused, and given up"
            log_event(_log, "stream_records_refused", level=logging.WARNING, stream=self.stream.name, problem=problem)

    def _fetch(self, position: int, count: int) -> tuple[Sequence[Message], int]:
        """Messages from position on, and the number after them."""
        tail, log = self.stream.tail, self.stream.log
        if tail.first <= position < tail.next:
            messages = tail.take(position, count)
            if messages and not (self.patient and may_expire(messages)):  # else the log tells how old they are
                return messages, messages[-1].receipt + 1
        rows = log.read(position, records_max=min(count, READ_RECORDS), bytes_max=READ_BYTES)
        split = self._lanes.split
        end = split if position < split else log.next  # of its lane; what was thinned leaves gaps of any width
        rows = [row for row in rows if row[0] < end]
        if not rows:
            return (), end
        found, unknown = messages_of(rows, self.stream.own, self.stream.clock.unix_ms)
        self._unknown.value += len(unknown)
        return self._living(found, rows) if self.patient else found, rows[-1][0] + 1

    def _living(self, messages: Sequence[Message], rows: Sequence[tuple[int, bytes]]) -> Sequence[Message]:
        clock, now_ms = self.stream.clock, self._read_ms
        found, ended = living(messages, rows, lambda boot, taken_ms: clock.age_ms(boot, taken_ms, now_ms))
        self._expired.add(ended)
        self._goes_on = not found
        return found

    def _within_rate(self, messages: Sequence[Message], after: int, now: float) -> tuple[Sequence[Message], int]:
        room = self._bytes.room(now)
        spent = 0.0
        for place, message in enumerate(messages):
            size = len(message.payload) + len(message.topic) + MESSAGE_OVERHEAD_BYTES
            if message.properties is not None:
                size += properties_bytes(message.properties)
            if spent and spent + size > room:
                messages, after = messages[:place], message.receipt
                break
            spent += size
        self._messages.spend(len(messages))
        self._bytes.spend(spent)
        return messages, after

    def _batch_wait_s(self, lane: Cursor, end: int, now: float) -> float:
        """How long a batch that is not full still waits for more."""
        settings = self._settings
        if end - lane.position >= settings.batch_records_max or end <= self._lanes.split:  # below it nothing comes
            return 0.0
        if lane.position < self._again_until:
            return 0.0
        if self._batch_at != lane.position:
            self._batch_at, self._batch_since = lane.position, now
        return max(self._batch_since + settings.batch_wait_s - now, 0.0)

    def _next_batch(self, turns: Sequence[tuple[Cursor, int]], now: float) -> Sequence[Message]:
        """Of the first lane whose batch waits for nothing more."""
        if self.under_way >= BATCHES_UNDER_WAY_MAX:
            return ()
        for lane, end in turns:
            if self._batch_wait_s(lane, end, now) <= 0 and (batch := self._batch(lane, end)):
                return batch
        return ()

    def _batch(self, lane: Cursor, end: int) -> Sequence[Message]:
        settings = self._settings
        start = position = lane.position
        most, room = settings.batch_records_max, self._batch_bytes_max()
        if start < self._alone_until:
            most = 1
        rows: list[bytes] = []
        size = 0
        is_full = False
        while position < end and len(rows) < most and not is_full:
            messages, position = self._fetch(position, min(most - len(rows), end - position))
            if not messages:
                break
            for message in messages:
                row = formats.row(message, settings.format)
                if size + len(row) > room and rows:
                    is_full, position = True, message.receipt
                    break
                rows.append(row)
                size += len(row)
        if not rows:
            lane.skip_to(position)
            return ()
        payload, properties = formats.build(rows, settings.format, gzip=settings.gzip)
        self._batches[start] = len(rows), size
        self._messages.spend(len(rows))
        self._bytes.spend(len(payload))
        self._out_bytes.value += len(payload)
        lane.sent_as_one(start, position)
        return (Message(self._batch_topic, payload, 1, False, start, properties),)

    def _batch_bytes_max(self) -> int:
        """Of the rows of the next batch, before gzip."""
        packet = self.packet_bytes_max()
        if packet is None:
            return self._bytes_max
        room = packet - PACKET_OVERHEAD_BYTES - text_bytes(self._batch_topic)
        if self._settings.gzip:
            room -= formats.gzip_bytes(room)
        return min(self._bytes_max, room)


def _nothing(outcome: Outcome) -> None:
    return None
