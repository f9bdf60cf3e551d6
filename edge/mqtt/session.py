"""The client's side of an MQTT session, MQTT 5.0 and 3.1.1 in one machine: bytes in, events out, no I/O, no clock.

Draft of the interface; the bodies follow in the next commits.

Use: transport opened -> connect(now); write output(). Bytes came -> receive(data, now); handle the events; write
output(). After publish() of anything: write output() and handle events() (what was refused on the spot). At
deadline(): tick(now), handle, write. Transport closed -> transport_lost(); later connect(now) again on the same object.
After Refused, Disconnected, ProtocolFailed: write output(), close the transport, call transport_lost().
"""

from collections.abc import Sequence

from edge.messages import Message, Origin, Outcome
from edge.mqtt.events import Event, Options, Subscription


class Session:
    def __init__(self, options: Options) -> None:
        self.options = options

    @property
    def connected(self) -> bool:
        """CONNACK came, and the connection has not ended since."""
        raise NotImplementedError

    @property
    def in_flight(self) -> int:
        """Publishes accepted and not settled yet."""
        raise NotImplementedError

    def connect(self, now: float) -> None:
        """The transport is open: CONNECT goes out."""
        raise NotImplementedError

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Never raises. At most one Received, with all messages of these bytes."""
        raise NotImplementedError

    def publish(self, messages: Sequence[Message], origin: Origin | None) -> int:
        """How many from the front were taken now; the rest stays with the caller. 0 unless connected.

        A taken QoS 1 or 2 message is settled exactly once by a Settled event, however many connections that takes."""
        raise NotImplementedError

    def room(self) -> int:
        """How many QoS 1 or 2 messages publish() would take now."""
        raise NotImplementedError

    def acknowledge(self, receipts: Sequence[int], reason: int = 0) -> None:
        """Answer received QoS 1/2 messages: PUBACK or PUBREC. Receipts of a lost connection are let go (the server
        sends those messages again). reason 0x80 and above refuses (3.1.1 knows no refusal: a plain ack goes out)."""
        raise NotImplementedError

    def subscribe(self, subscriptions: Sequence[Subscription], subscription_id: int | None = None) -> int:
        """Packet id, found again in Subscribed. A connection lost before that forgets the request."""
        raise NotImplementedError

    def unsubscribe(self, filters: Sequence[str]) -> int:
        raise NotImplementedError

    def disconnect(self, reason: int = 0) -> None:
        """DISCONNECT goes out; then close the transport. reason 4: let the will be published."""
        raise NotImplementedError

    def authenticate(self, data: bytes | None, reason: int = 0x18) -> None:
        """AUTH (MQTT 5): 0x18 continues an exchange, 0x19 starts one anew."""
        raise NotImplementedError

    def abandon(self, outcome: Outcome = Outcome.CONGESTED) -> list[Event]:
        """Give up all that is in flight, settled with this outcome (for shutting down)."""
        raise NotImplementedError

    def output(self) -> bytes:
        """Everything to write, once; b'' when nothing is."""
        raise NotImplementedError

    def events(self) -> list[Event]:
        """What came up outside receive and tick: Settled for publishes refused on the spot."""
        raise NotImplementedError

    def tick(self, now: float) -> list[Event]:
        """Keep-alive and time limits; call at deadline() or later, as often as you like."""
        raise NotImplementedError

    def deadline(self) -> float | None:
        """When tick is due, in the time of `now`; None: never."""
        raise NotImplementedError

    def transport_lost(self) -> list[Event]:
        """The transport closed: what is in flight waits for the next connect."""
        raise NotImplementedError
