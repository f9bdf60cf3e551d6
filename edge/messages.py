"""What travels through the gateway, and the seam along which it travels.

Everything moves in batches: one call carries what one read of a port or socket held. A batch goes from an
`Origin` to a `Target`; the target tells the origin what became of each QoS 1 or 2 message by `settled`.
"""

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Final, Protocol, runtime_checkable

import msgspec

NAMES: Final = frozenset({"thing", "boot", "seq", "t"})
"""The user properties that name a reading and say when it was taken."""

_PAIR_BYTES: Final = 12  # of a user property beside its texts, on the wire or in a record, at most
_PROPERTIES_BYTES: Final = 128  # of the others beside theirs


class Properties(msgspec.Struct, frozen=True, gc=False):
    """The MQTT 5 publish properties that travel end to end (MQTT 5.0, 3.3.2.3)."""

    response_topic: str | None = None
    correlation_data: bytes | None = None
    content_type: str | None = None
    payload_is_utf8: bool = False
    expiry_s: int | None = None
    user: tuple[tuple[str, str], ...] = ()


class Reading(msgspec.Struct, frozen=True, gc=False):
    """Names one reading for good: the thing, its boot, its sequence number within that boot (from 1)."""

    thing: str
    boot: int
    sequence: int


class Message(msgspec.Struct, frozen=True, gc=False):
    """One application message. `receipt` is the origin's own mark, given back by `settled`; no one else reads it.
    time_ms: Unix time when the gateway took it; 0 where that is not known or not told."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    receipt: int = 0
    properties: Properties | None = None
    reading: Reading | None = None
    time_ms: int = 0


def others(user: Sequence[tuple[str, str]]) -> Sequence[tuple[str, str]]:
    """The user properties that may stand beside a reading's own name. Those that name another are left out: whoever
    publishes says by what it is named, so that nobody speaks for another's board."""
    return [pair for pair in user if pair[0] not in NAMES] if any(name in NAMES for name, _ in user) else user


def properties_bytes(properties: Properties | None) -> int:
    """How many bytes they take at most, on the wire and in a record."""
    if properties is None:
        return 0
    size = _PROPERTIES_BYTES + len(properties.correlation_data or b"")
    size += text_bytes(properties.response_topic or "") + text_bytes(properties.content_type or "")
    for name, value in properties.user:
        size += _PAIR_BYTES + text_bytes(name) + text_bytes(value)
    return size


def text_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def may_expire(messages: Sequence[Message]) -> bool:
    """Whether any of them has an expiry interval."""
    given = [properties for message in messages if (properties := message.properties) is not None]
    return any(properties.expiry_s is not None for properties in given)


def aged(message: Message, waited_s: int) -> Message:
    """With what is left of its expiry interval, at least 1 s (MQTT 5.0, 3.3.2.3.3)."""
    properties = message.properties
    if not waited_s or properties is None or properties.expiry_s is None:
        return message
    properties = msgspec.structs.replace(properties, expiry_s=max(properties.expiry_s - waited_s, 1))
    return msgspec.structs.replace(message, properties=properties)


class Outcome(Enum):
    """What became of a message, told to its origin."""

    TAKEN = "taken"  # the next hop answers for it now
    CONGESTED = "congested"  # no room: the origin keeps it and offers it again later
    REFUSED = "refused"  # never to be offered again: no route, not allowed, too large


class Origin(Protocol):
    """Who handed over a batch, and is told how each QoS 1 and 2 message in it ended, exactly once."""

    def settled(self, receipts: Sequence[int], outcome: Outcome) -> None: ...


class Target(Protocol):
    """Who takes a batch. Never blocks; may settle before it returns, or much later. QoS 0 is never settled."""

    def send(self, messages: Sequence[Message], origin: Origin) -> None: ...


@runtime_checkable
class Packer(Origin, Protocol):
    """An origin whose messages hold many records each: it can make smaller ones of one that is refused."""

    def too_large(self, receipts: Sequence[int], *, surely: bool) -> None:
        """Instead of `settled` with REFUSED. surely: for their size, which otherwise is only likely."""


@runtime_checkable
class Timekeeper(Origin, Protocol):
    """An origin that tells what ran out of time from what is refused."""

    def expired(self, messages: Sequence[Message]) -> None:
        """Instead of `settled` with REFUSED: their expiry interval ended before they could go."""


@runtime_checkable
class Limited(Target, Protocol):
    """A target that knows how much it takes."""

    @property
    def packet_bytes_max(self) -> int | None:
        """Of a PUBLISH packet, as the other side said last; None: it said nothing."""


@runtime_checkable
class Queueing(Target, Protocol):
    """A target where messages wait that it has not sent yet."""

    def take_back(self, origin: Origin, unwanted: Callable[[int], bool]) -> list[int]:
        """Of this origin's messages that wait, never send those whose receipts are unwanted. Returns these receipts;
        they are not settled any more."""


def refuse(origin: Origin, receipts: Sequence[int], *, too_large: bool | None) -> None:
    """Settle what will never be taken as it is. too_large: for its size; None: perhaps."""
    if too_large is not False and isinstance(origin, Packer):
        origin.too_large(receipts, surely=bool(too_large))
    else:
        origin.settled(receipts, Outcome.REFUSED)
