"""A function's inbox: a stream of its own, from which calls are taken and in which their ends are noted.

Invariants:
- What the stream settled TAKEN is called at least once, or dead-lettered, or counted in the stream's ledger.
- Numbers are settled in any order; the cursor stands below the lowest that is not. What lies above it and is settled,
  and the attempts made, are noted in the stream's state now and then, so that a restart repeats little.
"""

import os
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from edge.config import StreamSettings
from edge.config_functions import FunctionSettings
from edge.messages import Message, Outcome
from edge.metrics import Metrics
from edge.outbox.record import messages_of
from edge.outbox.stream import Stream
from edge.outbox.uploader import Uploader

CALLS: Final = "calls"
IDENTITY: Final = "identity"
NOTED_MAX: Final = 256
OPEN_MAX: Final = 4096
GATHER: Final = "5 ms"  # of messages in one commit: at 1,000 calls a second a third less CPU than committing each
CROWDED: Final = 0.75  # of its bytes, from which on what waits for a retry is given up

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[int, dict[int, int]]).decode


def inbox_settings(settings: FunctionSettings) -> StreamSettings:
    return StreamSettings(
        name=settings.target, bytes_max=settings.bytes_max, when_full=settings.when_full, commit=GATHER, export=""
    )


class Inbox:
    """stream: open, this function's alone."""

    def __init__(self, stream: Stream, metrics: Metrics, now: Callable[[], float]) -> None:
        self.stream = stream
        self._now = now
        self._uploader = Uploader(stream, metrics, "", now())
        self._open: dict[int, int] = {}
        self._noted = stream.state.get(CALLS, b"")
        self.identity = stream.state.get(IDENTITY, b"")
        """Names this inbox for good: with a number of it, a message."""
        if not self.identity:
            self.identity = os.urandom(16)
            stream.keep(IDENTITY, self.identity)  # it commits with the first message
        try:
            self._known_until, self._left = _decode(self._noted) if self._noted else (0, {})
        except (msgspec.DecodeError, UnicodeDecodeError):
            self._known_until, self._left = 0, {}

    def when_committed(self, call: Callable[[], None]) -> None:
        """call: there may be more to take."""
        self.stream.committed = call

    @property
    def open(self) -> int:
        """How many were taken and are not settled."""
        return len(self._open)

    @property
    def has_more(self) -> bool:
        return self._uploader.sent.position < self.stream.log.next

    @property
    def backlog(self) -> int:
        """How many messages are committed and not settled, about."""
        return self._uploader.backlog()

    @property
    def is_crowded(self) -> bool:
        """Nearly full, or as much is open as may be."""
        stream = self.stream
        full = stream.log.bytes_held > CROWDED * stream.settings.bytes_max
        return full or (len(self._open) >= OPEN_MAX and self.has_more)

    def take(self, count: int) -> list[tuple[Message, int]]:
        """The next at most count messages, each with the number of its next attempt; its receipt is its number. Raises
        OSError, never with a message taken."""
        found: list[tuple[Message, int]] = []
        while count > 0 and len(self._open) < OPEN_MAX:
            try:
                messages = self._uploader.next(min(count, OPEN_MAX - len(self._open)), self._now())
            except OSError:
                if found:
                    break
                raise
            if not messages:
                break
            ended: list[int] = []
            for message in messages:
                number = message.receipt
                attempt = 1 if number >= self._known_until else self._left.get(number, 0)
                if attempt:
                    self._open[number] = attempt
                    found.append((message, attempt))
                else:
                    ended.append(number)
            count -= len(messages) - len(ended)
            if ended:
                self._uploader.settled(ended, Outcome.TAKEN)
        return found

    def again(self, number: int) -> Message | None:
        """A message that was taken before and is no longer in memory; None if it was shed meanwhile. Raises OSError."""
        stream = self.stream
        rows = [row for row in stream.log.read(number, records_max=1, bytes_max=0) if row[0] == number]
        messages, _ = messages_of(rows, stream.own, stream.clock.unix_ms)
        return messages[0] if messages else None

    def failed(self, number: int, attempt: int) -> None:
        """attempt: the next one."""
        self._open[number] = attempt

    def done(self, numbers: Sequence[int]) -> None:
        """Never to be called again: they succeeded, or are dead letters."""
        for number in numbers:
            self._open.pop(number, None)
        self._uploader.settled(numbers, Outcome.TAKEN)

    def give_up(self, numbers: Sequence[int]) -> None:
        """Never to be called again, and nowhere else: counted as refused in the stream's ledger."""
        for number in numbers:
            self._open.pop(number, None)
        self._uploader.settled(numbers, Outcome.REFUSED)

    def note(self) -> None:
        """Called about once a second: put the attempts, and what is settled above the cursor, into the state."""
        opened = self._open
        behind = bool(opened) and (
            self._uploader.sent.position - self._uploader.sent.cursor > len(opened) or max(opened.values()) > 1
        )
        if behind and len(opened) <= NOTED_MAX:
            noted = _encode((self._uploader.sent.position, opened))
            if noted != self._noted:
                self._noted = noted
                self.stream.keep(CALLS, noted)
                self.stream.cursor_moved()

    def is_from_nowhere(self, message: Message) -> bool:
        """Whether its reading is only the name that this inbox gave it."""
        return message.reading is None or message.reading.thing == self.stream.own
