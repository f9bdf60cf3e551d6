"""The readings of one thing: accepted in order, each once, acknowledged when settled. Pure; an Origin.

Invariants:
- Within a boot, readings are handed on in order of sequence without a hole that the board did not announce by `back`.
- A reading that was handed on and is not yet settled is under way: its repeats are neither handed on nor answered.
- PUBACK "accepted" goes out only for what was settled TAKEN. A congested reading, and all after it, are taken back:
  the board sends them again, and of those only what was not taken meanwhile is handed on again.
- While a hole is open, or a congested reading outstanding, nothing of another boot overtakes it, for a bounded time.
- What is remembered is bounded: a window of readings under way, the last boots, the last refusals.

A frame is `02 boot:u32 sequence:u32 back:u8` and an MQTT-SN PUBLISH; numbers are big-endian.
"""

import struct
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from edge.boards.link import Rewind, decode_reading
from edge.boards.packets import ACCEPTED, CONGESTION, INVALID_TOPIC_ID, NOT_SUPPORTED
from edge.boards.topic_ids import TopicIds
from edge.errors import InputRejected
from edge.messages import Message, Outcome, Reading
from edge.metrics import Metrics

REWIND_EVERY_S: Final = 0.5
HOLE_HOLDS_S: Final = 2.0
CONGESTION_HOLDS_S: Final = 30.0
# A window holds 255 readings at most: what lies further back is no repeat but a boot number used again, by a board
# whose counter was erased.
REPEATS_REACH_BACK: Final = 255

_BOOTS_MAX = 4
_REFUSALS_MAX = 256
_SPAN_FACTOR = 8

# boot, sequence, back; length, type, flags, topic id, message id of the PUBLISH (MQTT-SN 1.2, 5.4.12).
_HEAD = struct.Struct(">IIBBBBHH")
_IDS_AT, _PAYLOAD_AT, _ENVELOPE = 13, 17, 10
_SEQUENCE = (1 << 32) - 1


class Marks(Protocol):
    """Where the last settled reading of each thing is kept, so that repeats are known after a restart too."""

    def last(self, thing: str) -> tuple[int, int] | None:
        """(boot, sequence) up to which all was settled."""

    def store(self, thing: str, boot: int, sequence: int) -> None: ...

    def shed(self, thing: str, boot: int, first: int, last: int) -> int:
        """The board says that it no longer holds these readings, which did not come since the start. Returns how many
        of them never came before it either: the mark that `last` gave may have been too low."""


class MarksInMemory:
    """Outlives a link's closing, not the process."""

    def __init__(self) -> None:
        self._marks: dict[str, tuple[int, int]] = {}

    def last(self, thing: str) -> tuple[int, int] | None:
        return self._marks.get(thing)

    def store(self, thing: str, boot: int, sequence: int) -> None:
        self._marks[thing] = boot, sequence

    def shed(self, thing: str, boot: int, first: int, last: int) -> int:
        return last - first + 1


class _Boot:
    """last: up to where all was accepted; base + sequence is a receipt; done: settled ones above last, taken back."""

    __slots__ = ("base", "done", "last", "number")

    def __init__(self, number: int, base: int, last: int) -> None:
        self.number, self.base, self.last = number, base, last
        self.done: set[int] = set()


class _Hold:
    """What must come next before anything else is accepted. quiet: the board knows, no REWIND is sent.

    until: None as long as no one has looked at the clock since.
    """

    __slots__ = ("boot", "expected", "quiet", "rewind_at", "until")

    def __init__(self, boot: int, expected: int, until: float | None, *, quiet: bool) -> None:
        self.boot, self.expected, self.until, self.quiet = boot, expected, until, quiet
        self.rewind_at = 0.0


class Readings:
    """send: takes whole MQTT-SN messages for the board; rewind: what it shall go back to; reject: a reason to count."""

    def __init__(
        self,
        thing: str,
        board: str,
        metrics: Metrics,
        marks: Marks,
        *,
        send: Callable[[Sequence[bytes]], None],
        rewind: Callable[[Rewind], None],
        reject: Callable[[str], None],
    ) -> None:
        self.thing = thing
        self.window = 16
        self._send, self._rewind, self._reject, self._marks = send, rewind, reject, marks
        self._accepted = metrics.counter("readings_accepted", board=board)
        self._repeated = metrics.counter("readings_repeated", board=board)
        self._out_of_order = metrics.counter("readings_out_of_order", board=board)
        self._congested = metrics.counter("readings_congested", board=board)
        self._shed = metrics.counter("readings_shed_by_board", board=board)
        self._reused = metrics.counter("boot_numbers_reused", board=board)
        self._pending: dict[int, bytes] = {}
        self._refused: dict[tuple[int, int], None] = {}
        self._boots: dict[int, _Boot] = {}
        self._bases = 0
        self._hold: _Hold | None = None
        self._taken_back = False  # some that are under way or done lie above their boot's last
        self._mark = marks.last(thing)
        self._boot = self._remember(*(self._mark or (0, 0)))
        if self._mark is None:
            del self._boots[0]

    @property
    def last(self) -> tuple[int, int] | None:
        """(boot, sequence) of the last reading accepted; None before the first."""
        return (self._boot.number, self._boot.last) if self._boot.number in self._boots else None

    @property
    def under_way(self) -> int:
        return len(self._pending)

    def take(self, frames: Sequence[bytes], topics: TopicIds, now: float) -> list[Message]:
        """frames: the contents of READING frames in the order in which they came. Returns what to route, in order.

        Raises nothing: what is wrong is counted and answered.
        """
        names, thing, pending = topics.names.get, self.thing, self._pending
        unpack, ids_at, payload_at, envelope = _HEAD.unpack_from, _IDS_AT, _PAYLOAD_AT, _ENVELOPE
        boot = self._boot
        number, base, expected, stop = boot.number, boot.base, boot.last + 1, self._stop(boot)
        messages: list[Message] = []
        add = messages.append
        for frame in frames:
            if len(frame) >= payload_at:
                named, sequence, _, length, kind, flags, topic_id, _ = unpack(frame, 1)
                if (
                    sequence == expected
                    and named == number
                    and sequence < stop
                    and kind == 0x0C
                    and flags & 0x7F == 0x20
                    and length == len(frame) - envelope
                    and (topic := names(topic_id)) is not None
                ):
                    expected += 1
                    receipt = base + sequence
                    pending[receipt] = frame[ids_at:payload_at]
                    add(Message(topic, frame[payload_at:], 1, False, receipt, None, Reading(thing, named, sequence)))
                    continue
            boot.last = expected - 1
            if (message := self._take_one(frame, topics, now)) is not None:
                add(message)
            boot = self._boot
            number, base, expected, stop = boot.number, boot.base, boot.last + 1, self._stop(boot)
        boot.last = expected - 1
        self._accepted.value += len(messages)
        if self._taken_back:
            self._taken_back = self._is_taken_back()
            self._store_mark()
        return messages

    def settled(self, receipts: Sequence[int], outcome: Outcome) -> None:
        """As Origin says. Receipts that are not under way are nothing."""
        pop = self._pending.pop
        if outcome is Outcome.TAKEN and not self._taken_back:
            answers = [b"\x07\x0d" + ids + b"\0" for receipt in receipts if (ids := pop(receipt, None)) is not None]
            self._send(answers)
        else:
            self._settle_slowly(receipts, outcome)
        self._store_mark()

    def reset(self) -> None:
        """The board begins anew: an open hole is no more one."""
        self._hold = None

    def _stop(self, boot: _Boot) -> int:
        """The first sequence that the hot path may not take; 0 while anything is unusual."""
        if self._taken_back or self._hold is not None or boot.number not in self._boots:
            return 0
        stop = boot.last + 1 + self.window - len(self._pending)
        if (oldest := next(iter(self._pending), None)) is not None:
            stop = min(stop, oldest - boot.base + self.window * _SPAN_FACTOR)
        return stop

    def _is_taken_back(self) -> bool:
        last = {boot.base: boot.base + boot.last for boot in self._boots.values()}
        return any(boot.done for boot in self._boots.values()) or any(
            receipt > last[receipt & ~_SEQUENCE] for receipt in self._pending
        )

    def _take_one(self, frame: bytes, topics: TopicIds, now: float) -> Message | None:
        try:
            reading = decode_reading(frame)
            if reading.publish.qos not in {0, 1}:
                raise InputRejected("reading_qos", f"QoS {reading.publish.qos}")
        except InputRejected as error:
            self._reject(error.reason)
            return None
        number, sequence, publish = reading.boot, reading.sequence, reading.publish
        ids = struct.pack(">HH", publish.topic_id, publish.message_id)
        boot = self._boots.get(number)
        if boot is not None and sequence + REPEATS_REACH_BACK < boot.last:
            self._reused.value += 1
            self._forget(boot)
            boot = None
        if not self._in_turn(boot, number, sequence, reading.back, now):
            if boot is not None and sequence <= boot.last:
                self._answer_repeat(boot, sequence, ids)
            return None
        topic = topics.topic(publish.topic_type, publish.topic_id)
        if topic is None:
            self._reject("topic_id_unknown")
            self._answer(ids, INVALID_TOPIC_ID)
            return None
        if boot is None:
            boot = self._remember(number, 0 if self._boots else sequence - reading.back - 1)
        else:
            self._boot = boot
        receipt = boot.base + sequence
        if self._again_under_way(boot, sequence, receipt, ids):
            return None
        if publish.qos and self._stop_slowly(boot) <= sequence:
            self._congested.value += 1
            self._hold = _Hold(number, sequence, now + CONGESTION_HOLDS_S, quiet=True)
            self._answer(ids, CONGESTION)
            return None
        if sequence > boot.last + 1:
            self._skip_to(boot, sequence)
        self._advance(boot, sequence)
        self._hold = None
        if publish.qos:
            self._pending[receipt] = ids
            if self._taken_back:
                in_order = sorted(self._pending.items())
                self._pending.clear()
                self._pending.update(in_order)
        reading_name = Reading(self.thing, number, sequence)
        return Message(topic, publish.payload, publish.qos, publish.retain, receipt, None, reading_name)

    def _in_turn(self, boot: _Boot | None, number: int, sequence: int, back: int, now: float) -> bool:
        """Whether this is the next one; if it is not, say so to the board where that helps."""
        hold = self._hold
        if hold is not None and hold.until is None:
            hold.until = now + CONGESTION_HOLDS_S
        if hold is not None and hold.until is not None and hold.boot != number:
            if now < hold.until:
                self._out_of_order.value += boot is None or sequence > boot.last
                self._ask_again(hold, now)
                return False
            self._hold = hold = None
        expected = max(boot.last + 1, sequence - back) if boot is not None else sequence - back
        if sequence == expected:
            return True
        if sequence > expected:
            self._out_of_order.value += 1
            if hold is None or hold.expected != expected:
                hold = self._hold = _Hold(number, expected, now + HOLE_HOLDS_S, quiet=False)
            elif hold.quiet and hold.until is not None and now >= hold.until:
                hold.quiet = False
            self._ask_again(hold, now)
        return False

    def _ask_again(self, hold: _Hold, now: float) -> None:
        if not hold.quiet and now >= hold.rewind_at:
            hold.rewind_at = now + REWIND_EVERY_S
            self._rewind(Rewind(hold.boot, hold.expected))

    def _again_under_way(self, boot: _Boot, sequence: int, receipt: int, ids: bytes) -> bool:
        """Whether this reading, taken back once, was handed on before and not found congested itself."""
        if sequence in boot.done:
            boot.done.discard(sequence)
            self._answer(ids, NOT_SUPPORTED if (boot.number, sequence) in self._refused else ACCEPTED)
        elif receipt in self._pending:
            self._pending[receipt] = ids
        else:
            return False
        self._advance(boot, sequence)
        self._hold = None
        self._repeated.value += 1
        return True

    def _skip_to(self, boot: _Boot, sequence: int) -> None:
        """The board no longer holds what comes before: it was shed, but for what was handed on and taken back."""
        here = {receipt - boot.base for receipt in self._pending} | boot.done
        first = boot.last + 1
        for one in (*sorted(one for one in here if boot.last < one < sequence), sequence):
            if first < one:
                self._shed.value += self._marks.shed(self.thing, boot.number, first, one - 1)
            first = one + 1
        boot.done = {one for one in boot.done if one > sequence}

    def _advance(self, boot: _Boot, sequence: int) -> None:
        """All up to this one is accepted; so are those after it that are settled, which the board need not repeat."""
        while sequence + 1 in boot.done:
            sequence += 1
            boot.done.discard(sequence)
        boot.last = sequence

    def _answer_repeat(self, boot: _Boot, sequence: int, ids: bytes) -> None:
        self._repeated.value += 1
        receipt = boot.base + sequence
        if receipt in self._pending:
            self._pending[receipt] = ids
        else:
            self._answer(ids, NOT_SUPPORTED if (boot.number, sequence) in self._refused else ACCEPTED)

    def _stop_slowly(self, boot: _Boot) -> int:
        """The first sequence that may not be taken: the window is full, or runs too far ahead of the oldest."""
        if len(self._pending) >= self.window:
            return 0
        oldest = min((r for r in self._pending if r >> 32 == boot.base >> 32), default=None)
        return boot.last + (1 << 32) if oldest is None else oldest - boot.base + self.window * _SPAN_FACTOR

    def _settle_slowly(self, receipts: Sequence[int], outcome: Outcome) -> None:
        bases = {boot.base: boot for boot in self._boots.values()}
        lowest: dict[_Boot, tuple[int, bytes]] = {}
        congested: set[int] = set()
        for receipt in receipts:
            ids = self._pending.pop(receipt, None)
            boot = bases.get(receipt & ~_SEQUENCE)
            if ids is None or boot is None:
                continue
            sequence = receipt & _SEQUENCE
            if outcome is Outcome.CONGESTED:
                congested.add(receipt)
                if sequence <= boot.last and (boot not in lowest or sequence < lowest[boot][0]):
                    lowest[boot] = sequence, ids
                continue
            if sequence > boot.last:
                boot.done.add(sequence)
                self._advance(boot, boot.last)
            if outcome is Outcome.REFUSED:
                self._refuse(boot.number, sequence)
            self._answer(ids, NOT_SUPPORTED if outcome is Outcome.REFUSED else ACCEPTED)
        self._congested.value += len(congested)
        self._taken_back = self._taken_back or bool(lowest)
        for boot, (sequence, ids) in lowest.items():
            self._take_back(boot, sequence, congested)
            self._answer(ids, CONGESTION)

    def _take_back(self, boot: _Boot, sequence: int, congested: set[int]) -> None:
        """Accept again from this sequence on; remember which of those after it are already settled."""
        for later in range(sequence + 1, boot.last + 1):
            receipt = boot.base + later
            if receipt not in self._pending and receipt not in congested:
                boot.done.add(later)
        boot.last = sequence - 1
        hold = self._hold
        if hold is None or not hold.quiet or (hold.boot == boot.number and hold.expected > sequence):
            self._hold = _Hold(boot.number, sequence, None, quiet=True)

    def _refuse(self, number: int, sequence: int) -> None:
        if len(self._refused) >= _REFUSALS_MAX:
            del self._refused[next(iter(self._refused))]
        self._refused[number, sequence] = None

    def _answer(self, ids: bytes, return_code: int) -> None:
        self._send((b"\x07\x0d" + ids + bytes((return_code,)),))

    def _remember(self, number: int, last: int) -> _Boot:
        """A boot seen for the first time becomes the current one; the oldest of too many is forgotten."""
        if len(self._boots) >= _BOOTS_MAX:
            self._forget(next(iter(self._boots.values())))
        self._bases += 1
        self._boot = self._boots[number] = _Boot(number, self._bases << 32, last)
        return self._boot

    def _forget(self, boot: _Boot) -> None:
        del self._boots[boot.number]
        for receipt in [one for one in self._pending if one & ~_SEQUENCE == boot.base]:
            del self._pending[receipt]

    def _store_mark(self) -> None:
        boot = self._boot
        last = boot.last
        oldest = next(iter(self._pending), None)
        if oldest is not None and oldest >= boot.base:
            last = min(last, (oldest & _SEQUENCE) - 1)
        if last and self._mark != (boot.number, last):
            self._mark = boot.number, last
            self._marks.store(self.thing, boot.number, last)
