"""What travels through the gateway, and the seam along which it travels.

Everything moves in batches: one call carries what one read of a port or socket held. A batch goes from an
`Origin` to a `Target`; the target tells the origin what became of each QoS 1 or 2 message by `settled`.
"""

from collections.abc import Sequence
from enum import Enum
from typing import Protocol

import msgspec


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
