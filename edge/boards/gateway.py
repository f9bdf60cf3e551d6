"""The aggregating MQTT-SN gateway: the clients of all links, between them and the router (MQTT-SN 1.2, 4.2, clause 6).

Invariants:
- A client id belongs to one link: a board's own name and those its `clients` list names are refused on any other link.
- A client id is connected once: a CONNECT from the same link replaces the former session's place, from another link it
  is refused while the former is connected.
- What one link's clients published in one turn goes to the router as one batch a client; what became of messages to
  clients is told to each origin in bulk, at the end of the turn.
- A full table has room for a newcomer as long as some session is kept for nobody, or some client that is not, or
  hardly, supervised by keep-alive has been silent for IDLE_S.
- Sessions, retained messages, and wills that find no room are bounded; what a bound sheds is counted.
"""

import logging
import re
from collections.abc import Callable, Hashable, Sequence
from typing import Final

import msgspec

from edge.boards.client import CONNECTED, Client, State, Terms, Will
from edge.boards.gateway_link import Link
from edge.boards.mqttsn import decode, encode
from edge.boards.outbound import Delivery
from edge.boards.packets import (
    CONGESTION,
    NOT_SUPPORTED,
    Advertise,
    ConnAck,
    Connect,
    Disconnect,
    Forwarded,
    GwInfo,
    Packet,
    PacketRejected,
    Publish,
    SearchGw,
)
from edge.boards.retained import Retained
from edge.boards.topic_ids import TopicIds
from edge.boards.wills import Route, Wills
from edge.config import BoardSettings, MqttSnSettings
from edge.logs import log_event
from edge.messages import Message, Origin, Outcome, Target
from edge.metrics import Counter, Metrics
from edge.topics import TopicTree

TELL_EVERY_S: Final = 0.5
SETTLING_S: Final = 10.0
IDLE_S: Final = 60.0
KEEP_ALIVE_LONG_S: Final = 3600
LOG_LINES_A_MINUTE_MAX: Final = 20
_TOLD_MAX = 256
_SUBSCRIBERS_REMEMBERED_MAX = 1024
_CLIENT_ID = re.compile(r"[A-Za-z0-9_.:-]{1,23}")

_logger = logging.getLogger(__name__)


class ClientStatus(msgspec.Struct, frozen=True):
    """One client, for `edge status`. waiting: messages queued for it or under way to it."""

    id: str
    link: str
    state: str
    subscriptions: int
    waiting: int


class _Place(msgspec.Struct):
    """Where a client id is at home now."""

    client: Client
    link: Link
    key: Hashable


class _To:
    """The router's target of one name."""

    __slots__ = ("_gateway", "_name")

    def __init__(self, gateway: "Gateway", name: str) -> None:
        self._gateway, self._name = gateway, name

    def send(self, messages: Sequence[Message], origin: Origin) -> None:
        self._gateway.send(self._name, messages, origin)


class Gateway:
    """clock: seconds, as `now` everywhere. route: the router's, with source, client id, batch, origin.

    The client id is '' for a QoS -1 publish from an address where no client is connected.
    """

    def __init__(
        self,
        settings: MqttSnSettings,
        boards: Sequence[BoardSettings],
        route: Route,
        metrics: Metrics,
        clock: Callable[[], float],
    ) -> None:
        self._settings, self._route, self._metrics, self._clock = settings, route, metrics, clock
        self._terms = Terms(
            retry_s=settings.retry_s,
            retries=settings.retries,
            queue_messages_max=settings.queue_messages_max,
            sleeping_messages_max=settings.sleeping_messages_max,
            topics_max=settings.topics_max,
        )
        self._owners = {board.name: board.name for board in boards}
        for board in boards:
            self._owners.update({one: board.name for one in board.clients if not one.endswith("*")})
        self._places: dict[str, _Place] = {}
        self._links: list[Link] = []
        self._trees: dict[bool, TopicTree[tuple[Client, int]]] = {False: TopicTree(), True: TopicTree()}
        self._subscribers: dict[tuple[str, str], tuple[tuple[Client, int], ...]] = {}
        self._retained = Retained(
            settings.retained_max, settings.retained_bytes_max, metrics.counter("retained_dropped")
        )
        metrics.gauge("retained_messages", lambda: len(self._retained))
        self._rejected: dict[tuple[str, str], Counter] = {}
        self._no_subscriber = metrics.counter("no_subscriber")
        self._published: dict[Client, list[Message]] = {}
        self._ended: dict[tuple[Origin, Outcome], list[int]] = {}
        self._wills = Wills(self._route, metrics.counter("messages_dropped", reason="wills_full"))

    # Towards the runtime.

    def target(self, name: str) -> Target:
        """name: `boards`, `board:NAME` or `udp`."""
        return _To(self, name)

    def attach(self, link: Link) -> None:
        """Once, for each link there is."""
        self._links.append(link)

    def clients(self) -> tuple[ClientStatus, ...]:
        return tuple(
            ClientStatus(one.client.id, one.link.name, one.client.state.value, len(one.client.subscriptions),
                         len(one.client.outbound))
            for one in self._places.values()
        )  # fmt: skip

    def rejections(self, link_name: str) -> dict[str, int]:
        """MQTT-SN and link messages of one link that were refused, by reason."""
        return {reason: counter.value for (name, reason), counter in self._rejected.items() if name == link_name}

    def is_foreign(self, link: Link, client_id: str) -> bool:
        """Whether the id belongs to another board."""
        return self._owners.get(client_id, link.owner) != link.owner

    # The way down: messages from the router to clients.

    def send(self, name: str, messages: Sequence[Message], origin: Origin) -> None:
        """As Target says. Taken when every client has, congested when none had room; to nobody: taken, counted.

        A board that has just been plugged in, or lost, is waited for a little: commands for it may come again.
        """
        now = self._clock()
        ended: dict[Outcome, list[int]] = {}
        for message in messages:
            if message.retain:
                self._retained.keep(name, message)
            subscribers = self._subscribers_of(name, message.topic)
            if not subscribers:
                if message.qos and message.reading is None and self._is_settling(name, now):
                    ended.setdefault(Outcome.CONGESTED, []).append(message.receipt)
                    continue
                self._no_subscriber.value += 1
                if message.qos:
                    ended.setdefault(Outcome.TAKEN, []).append(message.receipt)
                continue
            outcome = self._offer(message, subscribers, origin, now)
            if outcome is not None and message.qos:
                ended.setdefault(outcome, []).append(message.receipt)
        for outcome, receipts in ended.items():
            origin.settled(receipts, outcome)
        self._tell_origins()

    def _offer(
        self, message: Message, subscribers: Sequence[tuple[Client, int]], origin: Origin, now: float
    ) -> Outcome | None:
        """The outcome, when it is known at once."""
        delivery = Delivery(origin, message.receipt)
        # One more than there are, so that it does not end before all have been asked.
        delivery.left = 1 + sum(1 for _, qos in subscribers if min(qos, message.qos))
        waits = delivery.left > 1
        full = 0
        for client, granted in subscribers:
            qos = min(granted, message.qos)
            if client.offer(message, qos, now, delivery if qos else None):
                continue
            if not qos or not message.qos:
                self.dropped("queue_full")
                continue
            full += 1
            delivery.left -= 1
            delivery.congested = True
        if full and full < len(subscribers):
            self._metrics.counter("messages_dropped", reason="queue_full").value += full
        if not waits:
            return Outcome.TAKEN
        if full and full < len(subscribers):
            delivery.taken = True  # the others have it: it is not offered to all again for the sake of one
        delivery.left -= 1
        return None if delivery.left else _outcome(delivery)

    def _is_settling(self, name: str, now: float) -> bool:
        """Whether some board of a target may subscribe within moments: the gateway, the port or it has just started."""
        for link in self._links:
            if link.owner and name in link.targets:
                if link.settling_until is None:
                    link.settling_until = now + SETTLING_S
                if now < link.settling_until:
                    return True
        return False

    def _subscribers_of(self, name: str, topic: str) -> tuple[tuple[Client, int], ...]:
        known = self._subscribers.get((name, topic))
        if known is not None:
            return known
        granted: dict[Client, int] = {}
        for client, qos in self._trees[name == "udp"].match(topic):
            place = self._places.get(client.id)
            if place is not None and name in place.link.targets:
                granted[client] = max(qos, granted.get(client, 0))
        if len(self._subscribers) >= _SUBSCRIBERS_REMEMBERED_MAX:
            self._subscribers.clear()
        found = self._subscribers[name, topic] = tuple(granted.items())
        return found

    # The way up: packets from links.

    def receive(self, link: Link, key: Hashable, data: bytes, now: float) -> None:
        """One MQTT-SN message from a link. Raises nothing. Call `flush` when the turn's messages are all in."""
        client = link.clients.get(key)
        try:
            packet = decode(data)
        except PacketRejected as error:
            self.count_rejected(link, error.reason)
            if error.answer is not None and (
                (client is not None and client.connected) or type(error.answer) is ConnAck
            ):
                link.transmit(key, (encode(error.answer),))
            return
        match packet:
            case Connect():
                self._connect(link, key, packet, now)
            case Publish(qos=-1):
                self._publish_unconnected(link, key, packet, now)
            case Forwarded():
                self.receive(link, (key, packet.node_id), packet.message, now)
            case SearchGw():
                link.transmit(key, (encode(GwInfo(self._settings.gateway_id)),))
            case Advertise() | GwInfo():
                pass  # another gateway's
            case _:
                self._receive_known(link, key, packet, now)

    def _receive_known(self, link: Link, key: Hashable, packet: Packet, now: float) -> None:
        client = link.clients.get(key)
        if client is not None and (client.connected or client.state is State.CONNECTING):
            client.receive(packet, now)
            return
        self.count_rejected(link, "not_connected")
        if type(packet) is not Disconnect or client is None:
            self.tell_unknown(link, key, now)
        else:
            link.transmit(key, (encode(Disconnect()),))

    def tell_unknown(self, link: Link, key: Hashable, now: float) -> None:
        """Say DISCONNECT to one that is not connected, so that it connects; not more often than every half second."""
        if now >= link.told.get(key, 0.0):
            if len(link.told) >= _TOLD_MAX:
                link.told.clear()
            link.told[key] = now + TELL_EVERY_S
            link.transmit(key, (encode(Disconnect()),))

    def route(self, link: Link, client_id: str, messages: Sequence[Message], origin: Origin) -> None:
        """A batch that needs no session's care: readings."""
        self._route(link.source, client_id, messages, origin)

    def flush(self) -> None:
        """The turn is over: route what clients published, and tell origins what became of theirs."""
        while self._published:
            published, self._published = self._published, {}
            for client, messages in published.items():
                place = self._places.get(client.id)
                if place is not None and place.client is client:
                    self._route(place.link.source, client.id, messages, client)
        if self._ended:
            self._tell_origins()

    def tick(self, link: Link, now: float) -> None:
        """Supervise a link's clients and send again what is due."""
        for client in tuple(link.clients.values()):
            due = client.deadline()
            if due is not None and now >= due:
                client.tick(now)
        self._wills.tick(now)
        self.flush()

    def deadline(self, link: Link) -> float | None:
        due = [client.deadline() for client in link.clients.values()]
        due.append(self._wills.due)
        return min((at for at in due if at is not None), default=None)

    def pump(self, link: Link, now: float) -> None:
        """The link has room again."""
        for client in tuple(link.clients.values()):
            if client.outbound.waiting:
                client.pump(now)
        self.flush()

    def advertisement(self) -> bytes:
        return encode(Advertise(self._settings.gateway_id, self._settings.advertise_s))

    def count_rejected(self, link: Link, reason: str) -> None:
        counter = self._rejected.get((link.name, reason))
        if counter is None:
            counter = self._metrics.counter("mqttsn_rejected", board=link.name, reason=reason)
            self._rejected[link.name, reason] = counter
        counter.value += 1

    # Connecting.

    def _connect(self, link: Link, key: Hashable, packet: Connect, now: float) -> None:
        client_id = packet.client_id
        place = self._places.get(client_id)
        reason = self._reason_to_refuse(link, client_id, place)
        if reason:
            self.count_rejected(link, reason)
            self.note(link, "client_refused", logging.WARNING, client=client_id, reason=reason)
            link.transmit(key, (encode(ConnAck(NOT_SUPPORTED)),))
            return
        if place is not None and place.link is not link:
            place.client.end()
            self._leave(place)
            place = None
        there = link.clients.get(key)
        if there is not None and there.id != client_id:
            former = self._places[there.id]
            if there.connected:
                there.lose()
            self._leave(former, keep_session=not there.clean)
        if place is None:
            if not self._make_room(link, now):
                self.count_rejected(link, "clients_exhausted")
                link.transmit(key, (encode(ConnAck(CONGESTION)),))
                return
            client = Client(client_id, link.peer(key), self, self._terms, link.predefined)
            place = self._places[client_id] = _Place(client, link, key)
        elif place.key != key:
            if link.clients.get(place.key) is place.client:
                del link.clients[place.key]
            place.key = key
            place.client.peer = link.peer(key)
        link.clients[key] = place.client
        link.told.pop(key, None)
        place.client.connect(packet, now, place.client.peer)

    def _reason_to_refuse(self, link: Link, client_id: str, place: _Place | None) -> str:
        if not _CLIENT_ID.fullmatch(client_id):
            return "client_id_invalid"
        if self.is_foreign(link, client_id):
            return "client_id_foreign"
        if not link.allows(client_id):
            return "client_id_not_allowed"
        if place is not None and place.link is not link and place.client.connected:
            return "client_id_in_use"
        return ""

    def _make_room(self, link: Link, now: float) -> bool:
        """Whether one more session fits on the link; one that is away and kept gives way, else the one silent longest.

        Only a client whose keep-alive would not end it within the hour is ended for its silence; its will is published.
        """
        ours = [place for place in self._places.values() if place.link is link]
        if len(ours) < link.clients_max:
            return True
        for place in ours:
            if place.client.state not in CONNECTED and place.client.state is not State.CONNECTING:
                self._metrics.counter("sessions_evicted", board=link.name).value += 1
                place.client.end()
                self._leave(place)
                return True
        silent = min(filter(_is_unsupervised, ours), key=lambda place: place.client.heard, default=None)
        if silent is None or now - silent.client.heard < IDLE_S:
            return False
        self._metrics.counter("sessions_evicted", board=link.name).value += 1
        silent.client.peer.send((encode(Disconnect()),))
        silent.client.lose()
        silent.client.end()
        self._leave(silent)
        return True

    def _leave(self, place: _Place, *, keep_session: bool = False) -> None:
        if place.link.clients.get(place.key) is place.client:
            del place.link.clients[place.key]
        if not keep_session and self._places.get(place.client.id) is place:
            del self._places[place.client.id]
            self._published.pop(place.client, None)

    def _publish_unconnected(self, link: Link, key: Hashable, packet: Publish, now: float) -> None:
        """QoS -1 (6.8): from anybody, under a predefined or short topic."""
        client = link.clients.get(key)
        topic = TopicIds(link.predefined, 0).topic(packet.topic_type, packet.topic_id)
        if topic is None:
            self.count_rejected(link, "topic_id_unknown")
            return
        message = Message(topic, packet.payload, 0, packet.retain)
        if client is not None and client.connected:
            client.heard = now
            self.published(client, message)
        else:
            self._route(link.source, link.owner if key == b"" else "", (message,), self._wills)

    # What a session stands in (client.Host).

    def published(self, client: Client, message: Message, /) -> None:
        batch = self._published.get(client)
        if batch is None:
            self._published[client] = [message]
        else:
            batch.append(message)

    def subscribed(self, client: Client, topic_filter: str, qos: int, *, before: int | None) -> None:
        place = self._places[client.id]
        if client.id == place.link.owner:
            place.link.settling_until = 0.0
        tree = self._trees[place.link.source == "udp"]
        if before is not None:
            tree.remove(topic_filter, (client, before))
        tree.add(topic_filter, (client, qos))
        self._subscribers.clear()
        now = self._clock()
        for message in tuple(self._retained.matching(place.link.targets, topic_filter)):
            if not client.offer(message, min(qos, message.qos), now, None, retain=True):
                self.dropped("queue_full")

    def unsubscribed(self, client: Client, topic_filter: str, qos: int) -> None:
        for tree in self._trees.values():
            tree.remove(topic_filter, (client, qos))
        self._subscribers.clear()

    def will_due(self, client: Client, will: Will) -> None:
        place = self._places[client.id]
        self._wills.add(place.link.source, client.id, will)

    def changed(self, client: Client, state: State) -> None:
        place = self._places.get(client.id)
        if place is None or place.client is not client:
            return
        link = place.link
        if client.state is State.LOST:
            self._metrics.counter("clients_lost", board=link.name).value += 1
            self.note(link, "client_lost", logging.WARNING, client=client.id)
        elif client.state is State.DISCONNECTED:
            self.note(link, "client_disconnected", client=client.id)
        elif client.state is State.ACTIVE and state not in CONNECTED:
            self.note(link, "client_connected", client=client.id)
        if client.id == link.owner and not client.subscriptions and client.state in {State.LOST, State.ACTIVE}:
            link.settling_until = self._clock() + SETTLING_S
        if client.state in {State.LOST, State.DISCONNECTED} and client.clean:
            self._route_rest(place)
            self._leave(place)

    def rejected(self, client: Client, reason: str) -> None:
        self.count_rejected(self._places[client.id].link, reason)

    def delivered(self, delivery: Delivery, outcome: Outcome) -> None:
        delivery.left -= 1
        delivery.taken = delivery.taken or outcome is Outcome.TAKEN
        delivery.congested = delivery.congested or outcome is Outcome.CONGESTED
        if not delivery.left:
            self._ended.setdefault((delivery.origin, _outcome(delivery)), []).append(delivery.receipt)

    def dropped(self, reason: str) -> None:
        self._metrics.counter("messages_dropped", reason=reason).value += 1

    def _route_rest(self, place: _Place) -> None:
        """What a client published in the turn in which it left is routed while its place is still known."""
        messages = self._published.pop(place.client, None)
        if messages:
            self._route(place.link.source, place.client.id, messages, place.client)

    def note(self, link: Link, event: str, level: int = logging.INFO, **fields: object) -> None:
        """Log a change of state; a client that comes and goes all the time does not fill the log."""
        now = self._clock()
        if now >= link.log_from + 60.0:
            link.log_from, link.log_lines = now, 0
        link.log_lines += 1
        if link.log_lines <= LOG_LINES_A_MINUTE_MAX:
            log_event(_logger, event, level=level, board=link.name, **fields)

    def _tell_origins(self) -> None:
        ended, self._ended = self._ended, {}
        for (origin, outcome), receipts in ended.items():
            origin.settled(receipts, outcome)


def _is_unsupervised(place: _Place) -> bool:
    client = place.client
    return client.state is State.ACTIVE and not 0 < client.keep_alive_s <= KEEP_ALIVE_LONG_S


def _outcome(delivery: Delivery) -> Outcome:
    if delivery.taken:
        return Outcome.TAKEN
    return Outcome.CONGESTED if delivery.congested else Outcome.REFUSED
