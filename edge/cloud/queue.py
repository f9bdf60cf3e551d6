"""What waits in memory for the connection, bounded by messages and by bytes.

Invariants: what leaves comes in the order it was put in; each QoS 1 or 2 message is either in here, handed on, or
settled, never two of these; QoS 0 beyond the bound is dropped and counted. A message that waits grows old: its expiry
interval is lowered by the whole seconds it waited (MQTT 5.0, 3.3.2.3.3). A durable outbox can stand here.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence

from edge.messages import Message, Origin, Outcome, Timekeeper, aged, may_expire, properties_bytes
from edge.metrics import Counter

_OVERHEAD_BYTES = 64  # of a message beside its topic, payload and properties, about


class _Batch:
    """size: of all its messages, in bytes; since: when it was put in, None when nothing in it expires."""

    __slots__ = ("messages", "origin", "since", "size", "start")

    def __init__(self, messages: Sequence[Message], origin: Origin, size: int, since: float | None = None) -> None:
        self.messages, self.origin, self.size, self.start, self.since = messages, origin, size, 0, since


class Queue:
    """messages_max and bytes_max: at most so much waits. dropped: QoS 0 lost; congested: QoS 1 and 2 turned away;
    expired: those that waited too long, whatever their QoS."""

    def __init__(
        self,
        messages_max: int,
        bytes_max: int,
        dropped: Counter,
        congested: Counter,
        *,
        expired: Counter | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._messages_max, self._bytes_max = messages_max, bytes_max
        self._dropped, self._congested = dropped, congested
        self._expired, self._clock = expired or Counter(), clock
        self._expiring = False
        self._batches: deque[_Batch] = deque()
        self.messages = 0
        self.bytes = 0

    def __bool__(self) -> bool:
        return self.messages > 0

    def put(self, messages: Sequence[Message], origin: Origin) -> None:
        """Take what fits from the front. From the first that does not fit on all are turned away, to keep the order."""
        fits, bytes_new = self._fitting(messages)
        if fits:
            taken = messages if fits == len(messages) else messages[:fits]
            self._batches.append(_Batch(taken, origin, bytes_new, self._since(taken)))
            self.messages += fits
            self.bytes += bytes_new
        if fits < len(messages):
            self._turn_away(messages[fits:], origin)

    def head(self, count: int) -> tuple[Sequence[Message], Origin]:
        """At most count from the front, all of one origin; not empty as long as the queue is not."""
        batch = self._batches[0]
        if batch.since is not None:
            waited_s = int(self._clock() - batch.since)
            return [aged(m, waited_s) for m in batch.messages[batch.start : batch.start + count]], batch.origin
        if batch.start == 0 and len(batch.messages) <= count:
            return batch.messages, batch.origin
        return batch.messages[batch.start : batch.start + count], batch.origin

    def advance(self, count: int) -> None:
        """So many of the last head were handed on."""
        batch = self._batches[0]
        end = batch.start + count
        whole = count == len(batch.messages)
        self.bytes -= batch.size if whole else _size_of(batch.messages[batch.start : end])
        self.messages -= count
        batch.start = end
        if end == len(batch.messages):
            self._batches.popleft()

    def put_back(self, batches: Sequence[tuple[Sequence[Message], Origin]]) -> None:
        """Again at the front, in this order, what was handed on in vain; the bounds let it be, it was counted once.
        What expires grows older from here on."""
        for messages, origin in reversed(batches):
            size = _size_of(messages)
            self._batches.appendleft(_Batch(messages, origin, size, self._since(messages)))
            self.messages += len(messages)
            self.bytes += size

    def take_out(self, unwanted: Callable[[Message, Origin], bool]) -> list[tuple[Sequence[Message], Origin]]:
        """Remove these wherever they wait; the caller settles them."""
        return self._take_out(lambda message, batch: unwanted(message, batch.origin))

    def expire(self) -> None:
        """Before the next `head`: drop what waited longer than it may. To an origin that does not tell it from what is
        refused it is REFUSED."""
        if not self._expiring:
            return
        now = self._clock()
        for messages, origin in self._take_out(lambda m, b: b.since is not None and _lives_s(m) <= now - b.since):
            self._expired.value += len(messages)
            if told := [message for message in messages if message.qos]:
                if isinstance(origin, Timekeeper):
                    origin.expired(told)
                else:
                    origin.settled([message.receipt for message in told], Outcome.REFUSED)
        self._expiring = any(batch.since is not None for batch in self._batches)

    def _take_out(self, unwanted: Callable[[Message, _Batch], bool]) -> list[tuple[Sequence[Message], Origin]]:
        out: list[tuple[Sequence[Message], Origin]] = []
        batches, self._batches = self._batches, deque()
        for batch in batches:
            waiting = batch.messages[batch.start :]
            found = [message for message in waiting if unwanted(message, batch)]
            if found:
                out.append((found, batch.origin))
                self.messages -= len(found)
                self.bytes -= _size_of(found)
                left = [message for message in waiting if not unwanted(message, batch)]
                batch = _Batch(left, batch.origin, _size_of(left), batch.since)
            if batch.start < len(batch.messages):
                self._batches.append(batch)
        return out

    def abandon(self) -> None:
        """Settle all that waits as CONGESTED: its origins keep it. QoS 0 is dropped."""
        while self._batches:
            batch = self._batches.popleft()
            self._turn_away(batch.messages[batch.start :], batch.origin)
        self.messages = self.bytes = 0

    def _since(self, messages: Sequence[Message]) -> float | None:
        if not may_expire(messages):
            return None
        self._expiring = True
        return self._clock()

    def _fitting(self, messages: Sequence[Message]) -> tuple[int, int]:
        room = min(len(messages), self._messages_max - self.messages)
        bytes_room = self._bytes_max - self.bytes
        bytes_new = _size_of(messages)
        if room == len(messages) and bytes_new <= bytes_room:
            return room, bytes_new
        bytes_new = 0
        for place in range(max(room, 0)):
            size = _size(messages[place])
            if bytes_new + size > bytes_room:
                return place, bytes_new
            bytes_new += size
        return max(room, 0), bytes_new

    def _turn_away(self, messages: Sequence[Message], origin: Origin) -> None:
        receipts = [message.receipt for message in messages if message.qos]
        self._dropped.value += len(messages) - len(receipts)
        self._congested.value += len(receipts)
        if receipts:
            origin.settled(receipts, Outcome.CONGESTED)


def _lives_s(message: Message) -> float:
    properties = message.properties
    return float("inf") if properties is None or properties.expiry_s is None else properties.expiry_s


def _size_of(messages: Sequence[Message]) -> int:
    size = sum([len(one.topic) + len(one.payload) for one in messages]) + _OVERHEAD_BYTES * len(messages)
    return size + sum([properties_bytes(one.properties) for one in messages if one.properties is not None])


def _size(message: Message) -> int:
    return len(message.topic) + len(message.payload) + properties_bytes(message.properties) + _OVERHEAD_BYTES
