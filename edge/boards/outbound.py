"""What waits for and is on its way to one MQTT-SN client (MQTT-SN 1.2, 6.6, 6.9, 6.13). Pure.

Invariants:
- Messages leave in the order in which they came, and REGISTER before the first PUBLISH under a new topic id.
- At most `peer.window` QoS 1 and 2 messages are under way: one to a plain client, as the standard has it.
- A message whose delivery someone waits for is settled exactly once.
- What asks for an answer waits while the client may yet say that it can answer by request id.
- The queue is bounded. Full: QoS 0 is dropped and counted; QoS 1 and 2 of an active client are offered back, for one
  that sleeps or is away they are dropped and counted.
"""

from collections import deque
from collections.abc import Sequence
from typing import Protocol

from edge.boards.mqttsn import encode
from edge.boards.packets import (
    ACCEPTED,
    CONGESTION,
    INVALID_TOPIC_ID,
    MESSAGE_BYTES_MAX,
    PubAck,
    Publish,
    PubRel,
    RegAck,
    Register,
)
from edge.boards.requests import Requests
from edge.boards.topic_ids import TopicIds
from edge.errors import InputRejected
from edge.messages import Message, Origin, Outcome


class Peer(Protocol):
    """The way to one client: what the link it hangs on can take.

    message_bytes_max: of one MQTT-SN message; requests: None when the client cannot answer by request id;
    hello_until: until when one that could before may say hello and can again.
    """

    window: int
    requests: Requests | None
    hello_until: float

    @property
    def message_bytes_max(self) -> int: ...

    def send(self, packets: Sequence[bytes]) -> None:
        """Whole MQTT-SN messages, in order."""

    def send_request(self, request_id: int, packet: bytes) -> None:
        """A PUBLISH that wants an answer."""

    def room(self) -> bool:
        """Whether the link takes more than answers just now."""


class Delivery:
    """One QoS 1 or 2 message on its way to `left` clients; the origin hears of it once."""

    __slots__ = ("congested", "left", "origin", "receipt", "taken")

    def __init__(self, origin: Origin, receipt: int) -> None:
        self.origin, self.receipt = origin, receipt
        self.left = 0
        self.taken = self.congested = False


class Tally(Protocol):
    """Who is told how deliveries end and what is lost, by a stable reason."""

    def delivered(self, delivery: Delivery, outcome: Outcome) -> None: ...

    def dropped(self, reason: str) -> None: ...


class _Item:
    __slots__ = ("again", "delivery", "expires", "message", "qos", "retain")

    def __init__(self, message: Message, qos: int, delivery: Delivery | None, expires: float | None) -> None:
        self.message, self.qos, self.delivery, self.expires = message, qos, delivery, expires
        self.retain = False
        self.again = False


class _Flight:
    """One PUBLISH, PUBREL or REGISTER under way. packet: what is sent again."""

    __slots__ = ("due", "item", "packet", "received", "request_id", "topic_id", "tries")

    def __init__(self, item: _Item, packet: bytes, due: float, topic_id: int, request_id: int | None) -> None:
        self.item, self.packet, self.due, self.topic_id, self.request_id = item, packet, due, topic_id, request_id
        self.received = False
        self.tries = 0


class Outbound:
    """open: whether messages may leave now; bound: how many may wait."""

    def __init__(self, peer: Peer, tally: Tally, ids: TopicIds, *, retry_s: float, retries: int, bound: int) -> None:
        self.open = False
        self.bound = bound
        self._peer, self._tally, self._ids = peer, tally, ids
        self._retry_s, self._retries = retry_s, retries
        self._queue: deque[_Item] = deque()
        self._flights: dict[int, _Flight] = {}
        self._registering: tuple[int, _Flight] | None = None
        self._message_id = 0
        self._allowance: int | None = None
        self._awaits_hello = False

    def __len__(self) -> int:
        return len(self._queue) + len(self._flights)

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def drained(self) -> bool:
        """Whether all that `allow` let through has been sent and answered for."""
        return not self._flights and self._registering is None and (not self._allowance or not self._queue)

    def use(self, peer: Peer, ids: TopicIds) -> None:
        """The client has come back, perhaps from elsewhere, perhaps knowing nothing."""
        self._peer, self._ids = peer, ids

    def allow(self, count: int | None) -> None:
        """Let just so many of the waiting ones through; None for all."""
        self._allowance = count

    def offer(self, message: Message, qos: int, now: float, delivery: Delivery | None, *, retain: bool = False) -> bool:
        """Queue a message and send what may be sent. False: no room, and nothing was changed or counted."""
        if len(self._queue) >= self.bound:
            return False
        expiry_s = message.properties.expiry_s if message.properties is not None else None
        item = _Item(message, qos, delivery, None if expiry_s is None else now + expiry_s)
        item.retain = retain
        self._queue.append(item)
        self.pump(now)
        return True

    def pump(self, now: float) -> None:
        """Send what window, room and allowance let through."""
        queue, peer = self._queue, self._peer
        self._awaits_hello = False
        while queue and self.open and self._allowance != 0:
            item = queue[0]
            if item.expires is not None and item.expires <= now:
                self._drop(queue.popleft(), "expired", Outcome.TAKEN)
                continue
            if item.qos and len(self._flights) >= peer.window:
                return
            if not peer.room():
                if item.qos:
                    return
                self._drop(queue.popleft(), "output_full", Outcome.TAKEN)
                continue
            reference = self._ids.reference(item.message.topic)
            if reference is None:
                if self._registering is None and not self._register(item, now):
                    self._drop(queue.popleft(), "topic_ids_exhausted", Outcome.REFUSED)
                    continue
                return
            if not self._publish(item, reference, now):
                return

    def puback(self, packet: PubAck, now: float) -> bool:
        """False: it answers nothing that is under way."""
        flight = self._flights.get(packet.message_id)
        if flight is None and not packet.message_id and packet.return_code == INVALID_TOPIC_ID:
            self._ids.unlearn(packet.topic_id)  # it was QoS 0 and is lost; the next one is registered first
            self._tally.dropped("topic_id_forgotten")
            return True
        if flight is None or flight.received:
            return False
        if packet.return_code == CONGESTION:
            flight.due, flight.tries = now + self._retry_s, 0
            return True
        item = flight.item
        if packet.return_code == ACCEPTED and item.qos == 2:
            return False
        del self._flights[packet.message_id]
        if flight.request_id is not None and packet.return_code != ACCEPTED and self._peer.requests is not None:
            self._peer.requests.close(flight.request_id)
        if packet.return_code == ACCEPTED:
            self._end(item, Outcome.TAKEN)
        elif packet.return_code == INVALID_TOPIC_ID and not item.again:
            self._ids.unlearn(flight.topic_id)
            item.again = True
            self._queue.appendleft(item)
            if self._allowance is not None:
                self._allowance += 1
        else:
            self._drop(item, "refused_by_client", Outcome.REFUSED)
        self.pump(now)
        return True

    def pubrec(self, message_id: int, now: float) -> bool:
        flight = self._flights.get(message_id)
        if flight is None or flight.item.qos != 2:
            return False
        flight.received = True
        flight.packet = encode(PubRel(message_id))
        flight.request_id = None
        flight.due, flight.tries = now + self._retry_s, 0
        self._peer.send((flight.packet,))
        return True

    def pubcomp(self, message_id: int, now: float) -> bool:
        flight = self._flights.get(message_id)
        if flight is None or not flight.received:
            return False
        del self._flights[message_id]
        self._end(flight.item, Outcome.TAKEN)
        self.pump(now)
        return True

    def regack(self, packet: RegAck, now: float) -> bool:
        if self._registering is None or self._registering[0] != packet.message_id:
            return False
        flight = self._registering[1]
        if packet.return_code == CONGESTION:
            flight.due, flight.tries = now + self._retry_s, 0
            return True
        self._registering = None
        if packet.return_code == ACCEPTED:
            self._ids.learn(flight.topic_id)
        elif self._queue and self._queue[0].message.topic == flight.item.message.topic:
            self._drop(self._queue.popleft(), "refused_by_client", Outcome.REFUSED)
        self.pump(now)
        return True

    def tick(self, now: float) -> bool:
        """Send again what is due. False: N_retry is reached, the client does not answer (MQTT-SN 1.2, 6.13)."""
        flights = [*self._flights.values(), *((self._registering[1],) if self._registering else ())]
        for flight in flights:
            if flight.due > now or not self.open:
                continue
            if flight.request_id is not None and self._peer.requests is None and not self._as_plain(flight, now):
                continue
            if not self._peer.room():
                flight.due = now + self._retry_s
                continue
            if flight.tries >= self._retries:
                return False
            flight.tries += 1
            flight.due = now + self._retry_s
            self._send(flight, again=True)
        self.pump(now)
        return True

    def deadline(self) -> float | None:
        if not self.open:
            return None
        due = [flight.due for flight in self._flights.values()]
        if self._registering is not None:
            due.append(self._registering[1].due)
        if self._awaits_hello:
            due.append(self._peer.hello_until)
        return min(due, default=None)

    def requests_under_way(self) -> set[int]:
        """The ids of the requests that the client has not acknowledged."""
        return {flight.request_id for flight in self._flights.values() if flight.request_id is not None}

    def resume(self, now: float) -> None:
        """The client is back with its session: what was under way is sent again at once."""
        self.open = True
        for flight in self._flights.values():
            flight.due, flight.tries = now + self._retry_s, 0
            if flight.request_id is None or self._peer.requests is not None or self._as_plain(flight, now):
                self._send(flight, again=True)
        self._registering = None
        self.pump(now)

    def greeted(self, now: float) -> None:
        """The client said hello: a request whose repeat waited for that is due."""
        for flight in self._flights.values():
            if flight.request_id is not None and flight.due == self._peer.hello_until:
                flight.due = now

    def answer_for_all(self) -> None:
        """The gateway keeps these for the client from here on; nobody waits for the client any more."""
        for item in (*self._queue, *(flight.item for flight in self._flights.values())):
            self._end(item, Outcome.TAKEN)

    def clear(self) -> None:
        """The session is over. Whoever waits keeps its message; what nobody waits for is counted."""
        if (requests := self._peer.requests) is not None:
            for request_id in self.requests_under_way():
                requests.close(request_id)
        self._awaits_hello = False
        items = [*(flight.item for flight in self._flights.values()), *self._queue]
        self._flights.clear()
        self._queue.clear()
        self._registering = None
        self.open = False
        for item in items:
            if item.delivery is None:
                self._tally.dropped("session_ended")
            self._end(item, Outcome.CONGESTED)

    def _publish(self, item: _Item, reference: tuple[int, int], now: float) -> bool:
        topic_type, topic_id = reference
        message = item.message
        properties, requests = message.properties, self._peer.requests
        request_id: int | None = None
        if properties is not None and properties.response_topic:
            if requests is not None:
                request_id = requests.open(properties, now)
                if request_id is None:
                    return False
            elif now < self._peer.hello_until:
                self._awaits_hello = True
                return False
        message_id = self._next_message_id() if item.qos else 0
        publish = Publish(topic_id, message.payload, message_id, item.qos, topic_type, item.retain)
        packet = self._sized(publish)
        self._queue.popleft()
        if self._allowance is not None:
            self._allowance -= 1
        if packet is None:
            if request_id is not None and requests is not None:
                requests.close(request_id)
            self._drop(item, "too_large", Outcome.REFUSED)
            return True
        flight = _Flight(item, packet, now + self._retry_s, topic_id, request_id)
        if item.qos:
            self._flights[message_id] = flight
        self._send(flight)
        return True

    def _register(self, item: _Item, now: float) -> bool:
        topic = item.message.topic
        number = self._ids.allot(topic)
        if number is None:
            return False
        message_id = self._next_message_id()
        packet = self._sized(Register(number, message_id, topic))
        if packet is None:
            return False
        flight = _Flight(item, packet, now + self._retry_s, number, None)
        self._registering = message_id, flight
        self._send(flight)
        return True

    def _send(self, flight: _Flight, *, again: bool = False) -> None:
        packet = flight.packet
        if again and not flight.received and packet is not (self._registering[1].packet if self._registering else None):
            at = 4 if packet[0] == 1 else 2
            packet = packet[:at] + bytes((packet[at] | 0x80,)) + packet[at + 1 :]  # DUP (5.3.4)
        if flight.request_id is None:
            self._peer.send((packet,))
        else:
            self._peer.send_request(flight.request_id, packet)

    def _as_plain(self, flight: _Flight, now: float) -> bool:
        """Whether a request under way may go as a plain message: the client had its time to say hello again."""
        if now < self._peer.hello_until:
            flight.due = self._peer.hello_until
            return False
        flight.request_id = None
        return True

    def _sized(self, packet: Publish | Register) -> bytes | None:
        try:
            data = encode(packet)
        except InputRejected:
            return None
        return data if len(data) <= min(self._peer.message_bytes_max, MESSAGE_BYTES_MAX) else None

    def _next_message_id(self) -> int:
        while True:
            self._message_id = self._message_id % 0xFFFF + 1
            if self._message_id not in self._flights:
                return self._message_id

    def _drop(self, item: _Item, reason: str, outcome: Outcome) -> None:
        self._tally.dropped(reason)
        self._end(item, outcome)

    def _end(self, item: _Item, outcome: Outcome) -> None:
        delivery, item.delivery = item.delivery, None
        if delivery is not None:
            self._tally.delivered(delivery, outcome)
