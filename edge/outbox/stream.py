"""A stream: takes messages, stores them, and only then says so. A router Target.

Invariants:
- A QoS 1 or 2 message is settled TAKEN only after the commit that holds it is on disk. A repeat is settled when what it
  repeats is: with the commit being gathered or in the air, at once if there is none.
- What belongs together commits together: records, their sources' marks, the cursor of the export, what was shed.
- One commit is in the air at a time; what arrives meanwhile is the next one.
- Of a batch that does not fit, all from the first that does not on is turned away, so that a source's order holds.
- The cursor and what it frees, and what was shed, are committed with the next records, or CURSOR_S later when none
  come. What is too large for ever is REFUSED to a QoS 1 or 2 sender only after the commit that counts it.
"""

import asyncio
import errno
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Final

from edge.config import StreamSettings
from edge.log import Batch, Log, Replacement
from edge.logs import log_event
from edge.messages import Message, Origin, Outcome, Reading
from edge.metrics import Metrics
from edge.outbox.clock import Clock
from edge.outbox.damages import Damages
from edge.outbox.gathering import Gathering
from edge.outbox.intent import INTENT, count_intent
from edge.outbox.lanes import Sent
from edge.outbox.ledger import BY_BOARD, REASONS, SHED, Ledger
from edge.outbox.marks import Marks
from edge.outbox.rate import Rate
from edge.outbox.record import OVERHEAD_BYTES, RETAIN, VERSION, content_bytes, encode, records_bytes
from edge.outbox.report import CURSOR
from edge.outbox.shedder import Shedder, count_refused
from edge.outbox.shortage import Shortage
from edge.outbox.tail import Tail
from edge.outbox.worker import Worker

PAYLOAD_BYTES_MAX: Final = 128 * 1024  # with the properties
GATHER_S: Final = 0.002  # commits begin no closer together: a hop and a sync each, they would eat the processor
GATHER_BUSY_S: Final = 0.005  # when there is much to gather
BUSY_RECORDS: Final = 64
CURSOR_S: Final = 1.0
BUFFER_BYTES_MAX: Final = 4 * 1024 * 1024
RETRY_S_MIN, RETRY_S_MAX = 0.1, 5.0
TICK_S: Final = 1.0

_log = logging.getLogger(__name__)


class Stream:
    """log: open, this stream's alone. own: the thing that records without a reading are named by. boot: the gateway's,
    higher than at any start before. segment_bytes: of the log. disk_full: called when the disk has no room;
    disk_well: now and then while it has.

    committed: called after each commit. checkpoint: called for what someone keeps in the state, to be in one commit
    with all that was taken before.
    """

    def __init__(
        self,
        settings: StreamSettings,
        log: Log,
        own: str,
        metrics: Metrics,
        *,
        boot: int,
        system_boot: str,
        segment_bytes: int,
        now: Callable[[], float] = time.monotonic,
        unix_time: Callable[[], float] = time.time,
        disk_full: Callable[[], None] = lambda: None,
        disk_well: Callable[[], None] = lambda: None,
    ) -> None:
        self.settings, self.name, self.log, self.own, self.boot = settings, settings.name, log, own, boot
        self.marks = Marks(log.state)
        self.tail = Tail()
        self.clock = Clock(log.state, boot, system_boot)
        self.ledger = Ledger(log.state)
        if count_intent(log, self.ledger):
            log.put_state(INTENT, None)
        self.committed: Callable[[], None] = lambda: None
        self.checkpoint: Callable[[], Iterable[tuple[str, bytes | None]]] = tuple
        self._sent: Callable[[], Sent] | None = None
        self._sent_state: Callable[[], bytes] | None = None
        self._sent_kept = log.state.get(CURSOR, b"")
        self._given_up: Callable[[int], None] = lambda number: None
        self._now, self._unix_time = now, unix_time
        self.shortage = Shortage(settings.name, log, disk_full, disk_well)
        self._shedder = Shedder(
            settings,
            log,
            own,
            self.clock,
            self.ledger,
            now_ms=lambda: int(now() * 1000),
            sent=self.sent,
            given_up=self._give_up,
            commit=self._commit_soon,
        )
        self._thinning: Replacement | None = None
        self._least_room = segment_bytes
        self._bytes_max = settings.bytes_max
        self._tick_timer: asyncio.TimerHandle | None = None
        self._worker = Worker(f"commit {settings.name}")
        self._interval_s, self._records_max = settings.commit_interval_s, settings.commit_records_max
        self._in = metrics.counter("stream_records_in", stream=self.name)
        self._repeated = metrics.counter("stream_records_repeated", stream=self.name)
        self._congested = metrics.counter("stream_messages_congested", stream=self.name)
        self._dropped = metrics.counter("stream_messages_dropped", stream=self.name, reason="full")
        self._refused = metrics.counter("stream_messages_refused", stream=self.name, reason="too_large")
        self._out = metrics.counter("stream_records_out", stream=self.name)
        self._rates = Rate(), Rate()
        self._damages = Damages(log, self.ledger)
        self._failures = metrics.counter("stream_commits_failed", stream=self.name)
        self._gathering = Gathering()
        self._air: tuple[Batch, Gathering] | None = None
        self._relief: Batch | None = None  # goes first, while what is in the air finds no room
        self._begun_at = float("-inf")
        self._gather_s = GATHER_S
        self._timer: asyncio.Handle | None = None
        self._timer_is_for_cursor = False
        self._retry_s = RETRY_S_MIN
        self._room = log.room(settings.bytes_max)
        self._commit_wanted = False  # as soon as what is being written is
        self._closed = False
        self.failing = ""
        for reason in REASONS:
            metrics.gauge("stream_records_shed", partial(self.ledger.total, reason), stream=self.name, reason=reason)
        metrics.gauge("stream_bytes", lambda: log.bytes_held, stream=self.name)
        metrics.gauge("stream_records_held", lambda: log.next - log.first, stream=self.name)

    @property
    def state(self) -> Mapping[str, bytes]:
        return self.log.state

    def exported(self, sent: Callable[[], Sent], state: Callable[[], bytes], given_up: Callable[[int], None]) -> None:
        """Someone exports this stream. sent: how far; state: to keep of it; given_up(number): nothing below is there
        any more."""
        self._sent, self._sent_state, self._given_up = sent, state, given_up

    def sent(self) -> Sent:
        """How far the export is; without one nothing ever is."""
        if self._sent is None:
            first = self.log.first
            return Sent(first, first, 0, 0, 0)
        return self._sent()

    def refused(self, first: int, last: int, reason: str = "refused") -> None:
        """These records will never be taken where they go."""
        count_refused(self.log, self.ledger, (self.own, self.boot), first, last, reason=reason)

    def start(self) -> None:
        """On the running loop."""
        self._count_damage(self.sent().cursor)
        self._tick()

    @property
    def rates(self) -> tuple[float, float]:
        """Records a second taken and exported, over the last seconds."""
        return self._rates[0].per_s, self._rates[1].per_s

    def keep(self, key: str, value: bytes) -> None:
        if not self._closed:
            self.log.put_state(key, value)

    def change(self, settings: StreamSettings) -> None:
        """Other bounds from now on; of what is held nothing is given up for it but by the policy."""
        self.settings = settings
        self._shedder.change(settings)
        self._bytes_max = settings.bytes_max
        self._find_room()

    def board_shed(self, thing: str, boot: int, first: int, last: int) -> None:
        # The board may not know of all that is here: a kill can come between the commit and its PUBACK.
        first = max(first, self.marks.sequence(thing, boot) + 1)
        if first <= last:
            self.ledger.add_once(thing, boot, first, last, BY_BOARD)
            self._commit_later()

    def send(self, messages: Sequence[Message], origin: Origin) -> None:
        if self._closed:  # who sends may end later: it keeps what it has
            self._turn_away(messages, origin)
            return
        size = records_bytes(messages)
        if (
            size > self._room
            or self._gathering.bytes + size > BUFFER_BYTES_MAX
            or (size > PAYLOAD_BYTES_MAX and max(map(content_bytes, messages)) > PAYLOAD_BYTES_MAX)
        ):
            messages, size = self._fitting(messages, origin)
        now = self._now()
        boot, own, taken_ms, advance = self.boot, self.own, int(now * 1000), self.marks.advance
        time_ms = self.clock.unix_ms(boot, taken_ms)
        number = self.log.next_appended
        records: list[bytes] = []
        taken: list[Message] = []
        receipts: list[int] = []
        repeated = 0
        for message in messages:
            reading = message.reading
            payload = message.payload
            if reading is None:
                stored = None
                reading = Reading(own, boot, number)
            else:
                stored = (reading.thing, reading.boot, reading.sequence)
                if not advance(*stored):
                    repeated += 1
                    receipts.append(message.receipt)
                    continue
            qos = message.qos
            if qos:
                receipts.append(message.receipt)
            retain = message.retain
            properties = message.properties
            flags = qos | RETAIN if retain else qos
            records.append(encode((VERSION, boot, taken_ms, message.topic, payload, flags, properties, stored)))
            taken.append(Message(message.topic, payload, 1, retain, number, properties, reading, time_ms))
            number += 1
        self._repeated.value += repeated
        self._gather(records, taken, size, now, fresh=len(records), origin=origin, receipts=receipts)

    @property
    def has_room(self) -> bool:
        """For `store`: as much as one call brings, short of the extreme."""
        return self._room > PAYLOAD_BYTES_MAX and self._gathering.bytes < BUFFER_BYTES_MAX

    def store(
        self, rows: Sequence[tuple[str, str, bytes]], origin: Origin, receipts: list[int], *, messages: int
    ) -> None:
        """Take what was made here out of so many messages: (thing, topic, payload), named by this boot and the record's
        number, whatever the room. receipts: of those messages, settled when this is on disk, with what `checkpoint`
        says of it."""
        now, boot, number = self._now(), self.boot, self.log.next_appended
        taken_ms = int(now * 1000)
        time_ms = self.clock.unix_ms(boot, taken_ms)
        records, taken, size = [], [], OVERHEAD_BYTES * len(rows)
        for thing, topic, payload in rows:
            records.append(encode((VERSION, boot, taken_ms, topic, payload, 1, None, (thing, boot, number))))
            taken.append(Message(topic, payload, 1, False, number, None, Reading(thing, boot, number), time_ms))
            size += len(topic) + len(payload)
            number += 1
        self._gather(records, taken, size, now, fresh=messages, origin=origin, receipts=receipts)

    def oldest_age_s(self) -> float | None:
        """Of the oldest record that is not exported; None where it is not known, or there is none."""
        age_ms = self._shedder.age_of_oldest()
        return None if age_ms is None else age_ms / 1000

    def purge(self) -> int:
        """Give up all that is committed, counted as `purged`. Returns how many records."""
        return self._shedder.purge("purged")

    def cursor_moved(self) -> None:
        """The export is further: free what is behind it before long."""
        self._commit_later()

    def _commit_later(self) -> None:
        """What came without records is committed with the next, or after CURSOR_S."""
        if self._timer is None and not self.is_writing and not self._closed:
            self._timer = asyncio.get_running_loop().call_later(CURSOR_S, self._commit)
            self._timer_is_for_cursor = True

    @property
    def is_busy(self) -> bool:
        """Something is gathered, being written or thinned."""
        return bool(self._gathering.fresh) or self._air is not None or self._thinning is not None

    @property
    def is_writing(self) -> bool:
        return self._air is not None or self._thinning is not None

    def abandon(self) -> None:
        """End without a commit, as a kill would."""
        self._closed = True
        self._cancel_timer()
        if self._tick_timer is not None:
            self._tick_timer.cancel()
        self._worker.stop()
        self._shedder.stop()
        self.log.close()
        self._room = -1  # what still comes is turned away

    def close(self) -> None:
        """Commit what is gathered, on this thread; then the log is closed."""
        self._closed = True
        self._cancel_timer()
        if self._tick_timer is not None:
            self._tick_timer.cancel()
        self._worker.stop()
        try:
            if self._thinning is not None:
                self.log.write(self._thinning)
                self._end_thinning()
            if self._relief is not None:
                self.log.write(self._relief)
                self.log.settle(self._relief)
            if self._air is not None:
                self.log.write(self._air[0])
                self._settle()
            if (batch := self._seal()) is not None:
                self.log.write(batch)
                self._settle()
        except OSError as error:
            self._tell_failure(error)
        self._shedder.stop()
        self.log.close()
        self._room = -1  # what still comes is turned away

    def _gather(
        self, records: list[bytes], taken: list[Message], size: int, now: float, *,
        fresh: int, origin: Origin, receipts: list[int],
    ) -> None:  # fmt: skip
        gathering = self._gathering
        gathering.fresh += fresh
        if records:
            self._in.value += len(records)
            self.log.append(records)
            gathering.messages += taken
            size = max(size, sum(map(len, records)) + 4 * len(records))
            gathering.bytes += size
            self._room -= size
        if receipts:
            self._wait_for(origin, receipts)
        if fresh:
            self._schedule(now)

    def _wait_for(self, origin: Origin, receipts: list[int], outcome: Outcome = Outcome.TAKEN) -> None:
        if self._gathering.fresh:
            self._gathering.wait(origin, receipts, outcome)
        elif self._air is not None:
            self._air[1].wait(origin, receipts, outcome)
        else:
            origin.settled(receipts, outcome)

    def _fitting(self, messages: Sequence[Message], origin: Origin) -> tuple[Sequence[Message], int]:
        """Turn away what is too large for ever, and from the first that finds no room on all."""
        refused = [message for message in messages if content_bytes(message) > PAYLOAD_BYTES_MAX]
        if refused:
            messages = [message for message in messages if content_bytes(message) <= PAYLOAD_BYTES_MAX]
            self._refuse(refused, origin)
        room = min(self._room, BUFFER_BYTES_MAX - self._gathering.bytes)
        size = 0
        for place, message in enumerate(messages):
            more = records_bytes([message])
            if size + more > room:
                self._turn_away(messages[place:], origin)
                return messages[:place], size
            size += more
        return messages, size

    def _refuse(self, messages: Sequence[Message], origin: Origin) -> None:
        """Too large for ever. Told when it is counted on disk, for nobody will offer it again."""
        self._refused.value += len(messages)
        for message in messages:
            self._shed(message, "too_large")
        if receipts := [message.receipt for message in messages if message.qos]:
            self._gathering.fresh += len(receipts)
            self._wait_for(origin, receipts, Outcome.REFUSED)
            self._schedule(self._now())

    def _turn_away(self, messages: Sequence[Message], origin: Origin) -> None:
        receipts = [message.receipt for message in messages if message.qos]
        self._dropped.value += len(messages) - len(receipts)
        self._congested.value += len(receipts)
        for message in messages:
            if not message.qos:
                self._shed(message, "full")
        if receipts:
            origin.settled(receipts, Outcome.CONGESTED)

    def _schedule(self, now: float) -> None:
        """See to it that what is gathered is committed in time."""
        if self._air is not None or self._thinning is not None or self._closed:
            return
        full = self._gathering.fresh >= self._records_max
        if self._timer is not None:
            if not full and not self._timer_is_for_cursor:
                return
            self._cancel_timer()
        loop = asyncio.get_running_loop()
        since = now - self._begun_at
        delay = self._gather_s - since if full else max(self._interval_s, self._gather_s - since)
        if delay > 0:
            self._timer = loop.call_later(delay, self._commit)
        else:
            self._timer = loop.call_soon(self._commit)  # what this turn of the loop still reads goes with it
        self._timer_is_for_cursor = False

    def _commit(self) -> None:
        self._timer = None
        gather_s = GATHER_BUSY_S if self._gathering.fresh >= BUSY_RECORDS else GATHER_S
        if self._air is None and self._thinning is None and (batch := self._seal()) is not None:
            self._begun_at, self._gather_s = self._now(), gather_s
            self._write(batch)

    def _commit_soon(self) -> None:
        self._commit_wanted = self.is_writing
        if not self._closed and not self.is_writing:
            self._cancel_timer()
            self._timer = asyncio.get_running_loop().call_soon(self._commit)
            self._timer_is_for_cursor = False

    def _seal(self) -> Batch | None:
        log = self.log
        self._look_at_clock()
        for key, value in (*self.marks.changes(), *self.ledger.changes(), *self.clock.changes(), *self.checkpoint()):
            log.put_state(key, value)
        cursor = min(self.sent().cursor, log.next)
        if self._sent_state is not None and (state := self._sent_state()) != self._sent_kept:
            log.put_state(CURSOR, state)
            log.release(cursor)
            self._sent_kept = state
        batch = log.seal()
        gathering, self._gathering = self._gathering, Gathering()
        if batch is not None:
            self._air = batch, gathering
            self._find_room()
        else:  # nothing came of them, and nothing is to be remembered
            gathering.settle()
        return batch

    def _write(self, batch: Batch) -> None:
        if not self._closed:
            self._worker.submit(lambda: self.log.write(batch), self._written)

    def _written(self, failure: OSError | None) -> None:
        if self._air is None or self._closed:
            return
        if failure is not None:
            self._tell_failure(failure)
            if failure.errno == errno.ENOSPC:
                if not self.log.bytes_kept:  # else shortage says how much less is enough
                    self._bytes_max = min(self._bytes_max, self.log.bytes_held + self.log.bytes_reserved)
                self.shortage.found(self._now())
                if self._relieve():
                    return
            self._write_later()
            return
        if self.failing:
            log_event(_log, "stream_commits_again", stream=self.name)
            self.failing, self._retry_s = "", RETRY_S_MIN
        self._settle()
        self.committed()
        self.shortage.look(self._now())
        work = self._look_at_room()
        if work is not None:
            self._thin(work)
        elif self._commit_wanted:
            self._commit_soon()
        elif self._gathering.fresh:
            self._schedule(self._now())
        elif self.ledger.is_changed or (self._sent_state is not None and self._sent_state() != self._sent_kept):
            self._commit_later()

    def _look_at_room(self) -> Replacement | None:
        room = 0 if self.shortage.wants_less else self.log.room(self._bytes_max)
        return self._shedder.look_at_room(room, self._least_room)

    def _write_later(self) -> None:
        assert self._air is not None
        asyncio.get_running_loop().call_later(self._retry_s, self._write, self._air[0])
        self._retry_s = min(2 * self._retry_s, RETRY_S_MAX)

    def _relieve(self) -> bool:
        """The disk is full. Commit first what frees some of it, if there is such: what was exported or shed since."""
        assert self._air is not None
        cursor = min(self.sent().cursor, self.log.next)
        if not self.log.frees(cursor):
            if self.settings.when_full != "reject":  # what would thin on a full disk is used up
                self._shedder.drop_oldest()
            return False
        # What the batch tells of losses must go along: what it releases for them is released with the relief.
        told = {key: value for key, value in self._air[0].changes.items() if key.startswith(SHED) or key == INTENT}
        changes = {**told, **dict(self.ledger.changes())}
        if self._sent_state is not None:
            changes[CURSOR] = self._sent_state()
        batch = self._relief = self.log.relief(cursor, changes)
        self._worker.submit(lambda: self.log.write(batch), self._relieved)
        return True

    def _relieved(self, failure: OSError | None) -> None:
        if self._relief is None or self._closed:
            return
        batch, self._relief = self._relief, None
        if failure is not None:
            self._tell_failure(failure)
            self.log.abandon(batch)
            self._write_later()
            return
        self.log.settle(batch)
        if self._air is not None:
            self._write(self._air[0])

    def _thin(self, work: Replacement) -> None:
        self._cancel_timer()
        self._thinning = work
        self._worker.submit(lambda: self.log.write(work), self._thinned)

    def _thinned(self, failure: OSError | None) -> None:
        if self._thinning is None or self._closed:
            return
        if failure is not None:
            no_room = failure.errno == errno.ENOSPC
            if no_room:
                self.shortage.found(self._now())
            else:
                self._tell_failure(failure)
            work, self._thinning = self._thinning, None
            self.log.abandon(work)
            self._shedder.not_thinned(work.row.segment, no_room=no_room)
        else:
            self._end_thinning()
        self._commit_soon()

    def _end_thinning(self) -> None:
        assert self._thinning is not None
        work, self._thinning = self._thinning, None
        self.log.settle(work)
        self.tail.forget(work.row.next)  # else what was thinned would be sent as it came
        self.log.regain()
        self._shedder.thinned()
        self._find_room()

    def _tick(self) -> None:
        self._tick_timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)
        for rate, counter in zip(self._rates, (self._in, self._out), strict=True):
            rate.tick(counter.value, TICK_S)
        self._count_damage(0)
        self._look_at_clock()
        if self.clock.is_set_anew and self.log.first < self.log.next:  # or nobody needs it kept
            self._commit_later()
        if self.shortage.tick(self._now(), fails=bool(self.failing)):
            self._bytes_max = self.settings.bytes_max
        if self._air is not None or self._thinning is not None:
            return
        try:
            work = self._shedder.look_at_age()
            if work is None and not self.failing:  # where nothing is taken no commit looks
                work = self._look_at_room()
        except OSError as error:
            self._tell_failure(error)
            return
        self._find_room()
        if work is not None:
            self._thin(work)

    def _look_at_clock(self) -> None:
        if self.clock.learn(self._unix_time(), self._now()):
            self.tail.stamp_anew(self.log.next_appended)

    def _count_damage(self, since: int) -> None:
        if self._damages.count(since):
            self._commit_soon()

    def _find_room(self) -> None:
        self._room = 0 if self._shedder.too_old else self.log.room(self._bytes_max)

    def _settle(self) -> None:
        assert self._air is not None
        (batch, gathering), self._air = self._air, None
        self.log.settle(batch)
        self._find_room()
        self.tail.put(batch.first, gathering.messages)
        gathering.settle()

    def _tell_failure(self, error: OSError) -> None:
        self._failures.value += 1
        problem = error.strerror or str(error)
        if problem != self.failing:
            self.failing = problem
            log_event(
                _log,
                "stream_commit_failed",
                level=logging.WARNING,
                stream=self.name,
                problem=problem,
                remedy="Nothing more is acknowledged until it succeeds; it is tried again. Look at the disk.",
            )

    def _give_up(self, number: int) -> None:
        self._given_up(number)

    def _shed(self, message: Message, reason: str) -> None:
        """What is never stored."""
        reading = message.reading
        name = (reading.thing, reading.boot, reading.sequence) if reading is not None else (self.own, self.boot, 0)
        self.ledger.add(*name, reason)
        self._commit_later()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
