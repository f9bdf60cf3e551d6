"""The client's side of an MQTT session, MQTT 5.0 and 3.1.1 in one machine: bytes in, events out, no I/O, no clock.

Use: transport opened -> connect(now); write output(). Bytes came -> receive(data, now); handle the events; write
output(). After publish() of anything: write output() and handle events() (what was refused on the spot). At
deadline(): tick(now), handle, write. Transport closed -> transport_lost(); later connect(now) again on the same object.
After Refused, Disconnected, ProtocolFailed: write output(), close the transport, call transport_lost().

Invariants:
- `_in_flight` holds, in the order of publishing, every QoS 1 and 2 message taken and not settled, by packet id. It is
  settled at PUBACK, PUBCOMP or a refusal, exactly once; a lost connection moves nothing out of it.
- `_resend` holds those of them this connection has not sent yet; as long as there are any, nothing newer is taken.
- Sent and not settled is never more than min(the server's receive maximum, the window) (MQTT 5.0, 4.9).
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import Final, TypeVar

from edge.errors import InputRejected, TransientError
from edge.messages import Message, Origin, Outcome
from edge.mqtt import codes, packets
from edge.mqtt.codes import PROTOCOL_ERROR, V5, ProtocolError
from edge.mqtt.events import (
    AuthChallenge,
    Disconnected,
    Event,
    Options,
    PassedOver,
    ProtocolFailed,
    Received,
    Refused,
    Settled,
    Subscribed,
    Unsubscribed,
)
from edge.mqtt.handshake import connect_packet, granted
from edge.mqtt.inbound import Inbound
from edge.mqtt.packets import Subscription
from edge.mqtt.properties import NONE, PacketProperties
from edge.mqtt.publisher import Named, Publisher, reason_of, stamp_of
from edge.mqtt.reader import BulkReader, Item, Oversized, Run

_WINDOW_MAX: Final = 60_000  # with the requests below always less than there are packet ids
_REQUESTS_MAX: Final = 1_000
_CONGESTED: Final = frozenset({codes.QUOTA_EXCEEDED, codes.PACKET_ID_IN_USE})

V = TypeVar("V")


class _State(Enum):
    IDLE = "idle"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    ENDED = "ended"  # until the transport is closed


class Session:
    def __init__(self, options: Options) -> None:
        """Raises InputRejected for options no CONNECT can say."""
        self.options = options
        self.client_id = options.client_id
        self._v5 = options.version == V5
        self._state = _State.IDLE
        self._connection = -1
        self._clean = options.clean_start
        self._out: list[bytes] = []
        self._events: list[Event] = []
        self._in_flight: dict[int, tuple[Message, Origin | None]] = {}
        self._released: dict[int, None] = {}
        self._resend: deque[int] = deque()
        self._resend_dup = False
        self._requests: dict[int, int] = {}
        self._last_id = 0
        self._granted = self._quota = 0
        self._limit: int | None = None
        self._inbound = Inbound(options.version, self._out, options.receive_maximum + options.receive_excess)
        self._now = self._last_sent = self._last_received = 0.0
        self._keepalive_s = 0
        self._waiting_until: float | None = None
        self._new_connection()
        packets.encode(
            connect_packet(options, self.client_id, clean=self._clean), options.version
        )  # raises InputRejected now rather than later

    def _new_connection(self) -> None:
        options = self.options
        self._reader = BulkReader(
            options.version,
            options.packet_bytes_max,
            options.topic_alias_maximum if self._v5 else 0,
            max(self._connection, 0) << 16,
        )
        self._publisher = Publisher(options.version, 0, 1 << 28, 2, retain_available=True)
        self._out.clear()
        self._inbound.begin(max(self._connection, 0))
        self._requests.clear()
        self._waiting_until = None

    # The connection

    @property
    def connected(self) -> bool:
        """CONNACK came, and the connection has not ended since."""
        return self._state is _State.CONNECTED

    @property
    def ended(self) -> bool:
        """No use any more: write output() and close the transport."""
        return self._state is _State.ENDED

    @property
    def in_flight(self) -> int:
        """Publishes taken and not settled yet."""
        return len(self._in_flight)

    @property
    def wants_input(self) -> bool:
        """False while twice the receive maximum is unanswered: stop reading the transport until acknowledge() has
        made it true again. It is what bounds memory against a server that does not keep to the receive maximum, or
        knows none (3.1.1)."""
        return self._inbound.unanswered < 2 * self.options.receive_maximum

    def connect(self, now: float) -> None:
        """The transport is open: CONNECT goes out."""
        self._connection += 1
        self._new_connection()
        self._state = _State.CONNECTING
        self._now = self._last_received = now
        self._waiting_until = now + self.options.connect_timeout_s
        connect = connect_packet(self.options, self.client_id, clean=self._clean)
        self._out.append(packets.encode(connect, self.options.version))

    def transport_lost(self) -> list[Event]:
        """The transport closed: what is in flight waits for the next connect."""
        self._state = _State.IDLE
        self._new_connection()
        return self.events()

    def disconnect(self, reason: int = 0) -> None:
        """DISCONNECT goes out; then close the transport. reason 4: let the will be published."""
        if self._state is _State.CONNECTED and (self._v5 or reason != 4):
            self._out.append(packets.encode(packets.Disconnect(reason if self._v5 else 0), self.options.version))
        self._state, self._waiting_until = _State.ENDED, None

    def authenticate(self, data: bytes | None, reason: int = codes.CONTINUE_AUTHENTICATION) -> None:
        """AUTH (MQTT 5): 0x18 continues an exchange, 0x19 starts one anew."""
        found = PacketProperties(authentication_method=self.options.authentication_method, authentication_data=data)
        self._out.append(packets.encode(packets.Auth(reason, found), self.options.version))

    def abandon(self, outcome: Outcome = Outcome.CONGESTED) -> list[Event]:
        """Give up all that is in flight, settled with this outcome (for shutting down)."""
        given_up = list(self._in_flight.values())
        self._in_flight.clear()
        self._released.clear()
        self._resend.clear()
        self._settle(given_up, outcome, 0)
        return self.events()

    def refuse(
        self, unwanted: Callable[[Message, Origin | None], bool], reason: int, outcome: Outcome = Outcome.REFUSED
    ) -> list[Event]:
        """Between two connections: never send these of the messages in flight again; they are settled so. One whose
        PUBREC came is the server's already, and stays."""
        found = [
            packet_id
            for packet_id, (message, origin) in self._in_flight.items()
            if packet_id not in self._released and unwanted(message, origin)
        ]
        self._settle([self._in_flight.pop(packet_id) for packet_id in found], outcome, reason)
        return self.events()

    # Time

    def deadline(self) -> float | None:
        """When tick is due, in the time of `now`; None: never."""
        if self._waiting_until is not None:
            return self._waiting_until
        if self._state is _State.CONNECTED and self._keepalive_s:
            return min(self._last_sent, self._last_received) + self._keepalive_s
        return None

    def tick(self, now: float) -> list[Event]:
        """Keep-alive and time limits; call at deadline() or later, as often as you like."""
        self._now = now
        due = self.deadline()
        if due is not None and now >= due and self._state in {_State.CONNECTING, _State.CONNECTED}:
            if self._waiting_until is None:
                self._out.append(b"\xc0\0")
                self._waiting_until = now + self.options.ping_timeout_s
            elif self._state is _State.CONNECTED and not self.wants_input:
                self._waiting_until = now + self.options.ping_timeout_s  # nobody reads: silence says nothing
            elif self._state is _State.CONNECTING:
                self._fail(ProtocolError("connect_timeout", "no CONNACK came", codes.KEEP_ALIVE_TIMEOUT, "3.1.4"))
            else:
                self._fail(ProtocolError("keep_alive", "no PINGRESP came", codes.KEEP_ALIVE_TIMEOUT, "3.1.2.10"))
        return self.events()

    # Bytes and events

    def output(self) -> bytes:
        """Everything to write, once; b'' when nothing is."""
        if not self._out:
            return b""
        data = b"".join(self._out)
        self._out.clear()
        self._last_sent = self._now  # never later than the truth, so that a PINGREQ is never late
        return data

    def events(self) -> list[Event]:
        """What came up outside receive and tick: Settled for publishes refused on the spot."""
        if not self._events:
            return []
        found, self._events = self._events, []
        return found

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Never raises. At most one Received, with all messages of these bytes."""
        if self._state is not _State.CONNECTED and self._state is not _State.CONNECTING:
            return []
        self._now = self._last_received = now
        if self._state is _State.CONNECTED:
            self._waiting_until = None
        received: list[Message] = []
        failure: ProtocolError | None = None
        try:
            for item in self._reader.feed(data):
                if type(item) is Run and self._state is _State.CONNECTED:
                    if item.acknowledged:
                        self._acknowledged(item.acknowledged)
                    if item.messages:
                        if received:
                            received += item.messages
                        else:
                            received = item.messages
                        if item.receipts:
                            self._inbound.came(item.receipts)
                else:
                    self._handle(item, received)
                    if self.ended:
                        break
            else:
                failure = self._reader.error
                self._inbound.check()
        except ProtocolError as error:
            failure = error
        if received:
            self._events.append(Received(received))
        if failure is not None:
            self._fail(failure)
        return self.events()

    def _fail(self, error: ProtocolError) -> None:
        if self._v5 and self._state is _State.CONNECTED:
            known = error.reason_code in codes.ALLOWED[codes.DISCONNECT]
            self._out.append(packets.encode(packets.Disconnect(error.reason_code if known else PROTOCOL_ERROR), V5))
        self._state = _State.ENDED
        self._waiting_until = None
        self._events.append(ProtocolFailed(error.reason_code, error.reason, str(error)))

    def _handle(self, item: Item, received: list[Message]) -> None:
        """Any packet but those of a Run; a Run too while CONNACK has not come."""
        if self._state is _State.CONNECTING:
            match item:
                case packets.Connack():
                    self._connack(item)
                case packets.Auth():
                    self._auth(item)
                case _:
                    raise ProtocolError("no_connack", f"{type(item).__name__} before it", PROTOCOL_ERROR, "3.2")
            return
        match item:
            case packets.Publish():
                self._inbound.publish(item, received)
            case Oversized():
                self._inbound.pass_over(item.packet)
                self._events.append(PassedOver(item.packet.topic, item.bytes))
            case packets.Puback():
                self._answered(item.packet_id, item.code, 1)
            case packets.Pubrec():
                self._pubrec(item)
            case packets.Pubrel():
                self._inbound.pubrel(item)
            case packets.Pubcomp():
                if item.packet_id in self._in_flight and item.packet_id not in self._released:
                    raise ProtocolError("pubcomp", "without PUBREC", PROTOCOL_ERROR, "4.3.3")
                self._answered(item.packet_id, 0, 2)
            case packets.Suback():
                self._listed(item)
            case packets.Unsuback():
                self._listed(item)
            case packets.Pingresp():
                pass
            case packets.Disconnect() if self._v5:
                found, self._state = item.properties, _State.ENDED
                self._waiting_until = None
                name = codes.name_of(item.code)
                if received:  # told before the end, not after it
                    self._events.append(Received(received[:]))
                    received.clear()
                self._events.append(Disconnected(item.code, name, found.reason or "", found.server_reference))
            case packets.Auth():
                self._auth(item)
            case _:
                raise ProtocolError("unexpected", f"{type(item).__name__} from a server", PROTOCOL_ERROR, "2.1.2")

    def _connack(self, packet: packets.Connack) -> None:
        found = packet.properties
        code = packet.code if self._v5 else codes.CONNACK_311[packet.code]
        if code:
            self._state, self._waiting_until = _State.ENDED, None
            self._events.append(Refused(code, codes.name_of(code), found.reason or "", found.server_reference))
            return
        if packet.session_present and self._clean:
            raise ProtocolError("session_present", "after a clean start", PROTOCOL_ERROR, "3.2.2.1.1")
        options = self.options
        if self._v5:
            self._clean = False
        event = granted(packet, options, self.client_id)
        self.client_id, self._keepalive_s = event.client_id, event.keepalive_s
        self._publisher = Publisher(
            options.version,
            min(event.topic_alias_maximum, 1024),
            event.packet_bytes_max or 1 << 28,
            event.qos_maximum,
            event.retain_available,
        )
        self._granted = min(event.receive_maximum, options.window, _WINDOW_MAX)
        self._quota = self._granted if self._limit is None else min(self._granted, self._limit)
        self._state, self._waiting_until = _State.CONNECTED, None
        self._last_sent = self._now
        self._events.append(event)
        if not packet.session_present:
            self._inbound.forget()
            self._released.clear()
        for packet_id in self._released:
            self._out.append(b"\x62\2" + packet_id.to_bytes(2, "big"))
        self._resend = deque(packet_id for packet_id in self._in_flight if packet_id not in self._released)
        self._resend_dup = packet.session_present
        self._pump()

    def _auth(self, packet: packets.Auth) -> None:
        method = self.options.authentication_method
        if method is None or packet.properties.authentication_method != method:
            raise ProtocolError("auth", "not the method asked for", PROTOCOL_ERROR, "4.12")
        self._events.append(AuthChallenge(packet.code, method, packet.properties.authentication_data))

    # Out: publish, and what the server answers

    def restrict(self, limit: int | None) -> None:
        """Until it is lifted by None, publish() takes nothing, and of what is in flight at most so many go out."""
        self._limit = limit
        self._quota = self._granted if limit is None else min(self._granted, limit)
        if self._state is _State.CONNECTED:
            self._pump()

    def oldest_sent(self) -> tuple[Message, Origin | None] | None:
        """The first message in flight that went out on this connection and got no answer at all, and its origin."""
        for packet_id, entry in self._in_flight.items():
            if self._resend and packet_id == self._resend[0]:
                break
            if packet_id not in self._released:
                return entry
        return None

    def room(self) -> int:
        """How many QoS 1 or 2 messages publish() would take now."""
        if self._state is not _State.CONNECTED or self._limit is not None:
            return 0
        return max(0, self._quota - len(self._in_flight))

    def publish(self, messages: Sequence[Message], origin: Origin | None) -> int:
        """How many from the front were taken now; the rest stays with the caller. 0 unless connected.

        A taken QoS 1 or 2 message is settled exactly once by a Settled event, however many connections that takes.
        """
        if self._state is not _State.CONNECTED or self._limit is not None:
            return 0
        publisher = self._publisher
        forms, heads, limit = publisher.forms, publisher.heads, publisher.remaining_max
        named, names = publisher.named, publisher.names
        way: Named | None = None  # that of the reading before, as all from here on
        thing, boot, topic, time_ms, digits, fixed = "", -1, "", -1, -1, 0
        middle = stamp = b""
        in_flight, requests, out = self._in_flight, self._requests, self._out
        packet_id, room, taken = self._last_id, self._quota - len(in_flight), 0
        for message in messages:
            if message.qos:
                if room <= 0:
                    break
                packet_id = packet_id + 1 if packet_id < 65535 else 1
                while packet_id in in_flight or packet_id in requests:
                    packet_id = packet_id + 1 if packet_id < 65535 else 1
                if message.properties is None and message.qos == 1 and not message.retain:
                    reading, payload = message.reading, message.payload
                    if reading is None or not names:
                        form = forms.get(message.topic)
                        if form is not None:
                            raw, shift, tail, size, length = form
                            remaining = length + len(payload)
                            if remaining <= limit:
                                out += (
                                    heads.get(remaining) or publisher.head(remaining),
                                    raw,
                                    (packet_id << shift | tail).to_bytes(size, "big"),
                                    payload,
                                )
                                in_flight[packet_id] = (message, origin)
                                room -= 1
                                taken += 1
                                continue
                    else:
                        if way is None or reading.thing != thing or message.topic != topic or reading.boot != boot:
                            thing, boot, topic, digits = reading.thing, reading.boot, message.topic, -1
                            known = named.get(thing)
                            way = known[1].get(topic) if known is not None and known[0] == boot else None
                        if way is not None:
                            sequence = b"%d" % reading.sequence
                            if message.time_ms != time_ms:
                                time_ms, digits = message.time_ms, -1
                                stamp = stamp_of(time_ms)
                            if len(sequence) != digits:
                                digits = len(sequence)
                                key = digits << 8 | len(stamp)
                                middle = way.middles.get(key) or publisher.middle(way, digits, len(stamp))
                                fixed = len(way.topic) + 2 + len(middle) + digits + len(stamp)
                            remaining = fixed + len(payload)
                            if remaining <= limit:
                                out += (
                                    heads.get(remaining) or publisher.head(remaining),
                                    way.topic,
                                    packet_id.to_bytes(2, "big"),
                                    middle,
                                    sequence,
                                    stamp,
                                    payload,
                                )
                                in_flight[packet_id] = (message, origin)
                                room -= 1
                                taken += 1
                                continue
            try:
                fitted = publisher.fitted(message)
                out.append(publisher.build(fitted, packet_id, dup=False))
            except InputRejected as error:
                if message.qos:
                    self._settle([(message, origin)], Outcome.REFUSED, reason_of(error))
            else:
                if message.qos:
                    in_flight[packet_id] = (fitted, origin)
                    room -= 1
            taken += 1
        self._last_id = packet_id
        return taken

    def _pump(self) -> None:
        """Send again what the last connection left open, as far as the quota goes, in order."""
        resend, in_flight = self._resend, self._in_flight
        while resend and len(in_flight) - len(resend) < self._quota:
            packet_id = resend.popleft()
            entry = in_flight.get(packet_id)
            if entry is None:
                continue
            try:
                message = self._publisher.fitted(entry[0])
                self._out.append(self._publisher.build(message, packet_id, dup=self._resend_dup))
                in_flight[packet_id] = (message, entry[1])
            except InputRejected as error:  # this server takes less than the one it was first sent to
                del in_flight[packet_id]
                self._settle([entry], Outcome.REFUSED, reason_of(error))

    def _settle(self, entries: Iterable[tuple[Message, Origin | None]], outcome: Outcome, code: int) -> None:
        """One Settled for each run of entries of one origin."""
        receipts: list[int] = []
        current: Origin | None = None
        for message, origin in entries:
            if origin is not current or not receipts:
                receipts = []
                current = origin
                topic = message.topic if outcome is Outcome.REFUSED else ""
                self._events.append(Settled(origin, receipts, outcome, code, topic))
            receipts.append(message.receipt)

    def _acknowledged(self, packet_ids: list[int]) -> None:
        """PUBACK with success, in bulk. Ids nobody waits for are let pass (4.4: the exchange may have ended)."""
        pop = self._in_flight.pop
        receipts: list[int] = []
        current: Origin | None = None
        for packet_id in packet_ids:
            entry = pop(packet_id, None)
            if entry is None:
                continue
            message, origin = entry
            if message.qos == 2:
                self._in_flight[packet_id] = entry
                raise ProtocolError("puback", "for a QoS 2 message", PROTOCOL_ERROR, "4.3.3")
            if origin is not current or not receipts:
                receipts = []
                current = origin
                self._events.append(Settled(origin, receipts, Outcome.TAKEN, 0))
            receipts.append(message.receipt)
        if self._resend:
            self._pump()

    def _answered(self, packet_id: int, code: int, qos: int) -> None:
        """The exchange of one message ended: PUBACK, PUBCOMP, or PUBREC with an error."""
        entry = self._in_flight.get(packet_id)
        if entry is None:
            return
        if entry[0].qos != qos:
            raise ProtocolError("acknowledgement", f"of a QoS {entry[0].qos} message", PROTOCOL_ERROR, "4.3")
        del self._in_flight[packet_id]
        self._released.pop(packet_id, None)
        if code < 0x80:
            outcome = Outcome.TAKEN
        else:
            outcome = Outcome.CONGESTED if code in _CONGESTED else Outcome.REFUSED
        self._settle([entry], outcome, code)
        if self._resend:
            self._pump()

    def _pubrec(self, packet: packets.Pubrec) -> None:
        packet_id = packet.packet_id
        if packet.code >= 0x80:
            self._answered(packet_id, packet.code, 2)
            return
        entry = self._in_flight.get(packet_id)
        if entry is not None and entry[0].qos != 2:
            raise ProtocolError("pubrec", "for a QoS 1 message", PROTOCOL_ERROR, "4.3.2")
        if entry is not None:
            self._released[packet_id] = None
        code = codes.PACKET_ID_NOT_FOUND if entry is None and self._v5 else 0
        self._out.append(packets.encode(packets.Pubrel(packet_id, code), self.options.version))

    # In: what the server publishes, and what we answer

    def acknowledge(self, receipts: Sequence[int], reason: int = 0) -> None:
        """Answer received QoS 1/2 messages: PUBACK or PUBREC. Receipts of a lost connection are let go (the server
        sends those messages again). reason 0x80 and above refuses (3.1.1 knows no refusal: a plain ack goes out).
        """
        self._inbound.acknowledge(receipts, reason, speaking=self._state is _State.CONNECTED)

    # Subscriptions

    def subscribe(self, subscriptions: Sequence[Subscription], subscription_id: int | None = None) -> int:
        """Packet id, found again in Subscribed. A connection lost before that forgets the request. Options but QoS
        are left out under 3.1.1. Raises InputRejected for a filter that is none, TransientError unless connected."""
        packet_id = self._free_id()
        found = NONE
        if self._v5:
            entries = tuple(subscriptions)
            if subscription_id is not None:
                found = PacketProperties(subscription_ids=(subscription_id,))
        else:
            entries = tuple(Subscription(entry.topic_filter, entry.qos) for entry in subscriptions)
        self._out.append(packets.encode(packets.Subscribe(packet_id, entries, found), self.options.version))
        self._requests[packet_id] = len(entries)
        return packet_id

    def unsubscribe(self, filters: Sequence[str]) -> int:
        """Packet id, found again in Unsubscribed. Raises InputRejected for a filter that is none."""
        packet_id = self._free_id()
        self._out.append(packets.encode(packets.Unsubscribe(packet_id, tuple(filters)), self.options.version))
        self._requests[packet_id] = -len(filters)
        return packet_id

    def _free_id(self) -> int:
        if self._state is not _State.CONNECTED:
            raise TransientError("not connected")
        if len(self._requests) >= _REQUESTS_MAX:
            raise TransientError(f"{_REQUESTS_MAX} subscriptions are unanswered")
        packet_id = self._last_id
        while True:
            packet_id = packet_id + 1 if packet_id < 65535 else 1
            if packet_id not in self._in_flight and packet_id not in self._requests:
                self._last_id = packet_id
                return packet_id

    def _listed(self, packet: packets.Suback | packets.Unsuback) -> None:
        suback = isinstance(packet, packets.Suback)
        expected = self._requests.get(packet.packet_id)
        if expected is None:
            return
        if (expected > 0) is not suback:
            raise ProtocolError("unexpected", type(packet).__name__, PROTOCOL_ERROR, "3.9, 3.11")
        if len(packet.codes) != abs(expected) and (self._v5 or suback):
            detail = f"{len(packet.codes)} codes for {abs(expected)} filters"
            raise ProtocolError("suback", detail, PROTOCOL_ERROR, "3.9.3, 3.11.3")
        del self._requests[packet.packet_id]
        text = packet.properties.reason or ""
        kind = Subscribed if suback else Unsubscribed
        self._events.append(kind(packet.packet_id, packet.codes, text))
