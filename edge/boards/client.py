"""One MQTT-SN client's session at the gateway (MQTT-SN 1.2, clause 6). Pure: packets and `now` in, packets out.

Invariants:
- The state changes only as the table of 6.14 has it: a client is disconnected, active, asleep, awake or lost; while its
  will is asked for it is connecting.
- A QoS 1 or 2 PUBLISH from the client is acknowledged only when `settled` says that it was taken, once per message:
  its repeats are neither handed on again nor answered early.
- What a clean session left behind is gone at its end; a session that is not clean keeps its subscriptions, will,
  topic ids and, within the bound, its messages.
- A sleeping client counts as connected; the flags of the CONNECT by which it wakes are ignored.
- Everything held for a client is bounded: topic ids, subscriptions, messages waiting, publishes under way.
"""

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Final, Protocol

import msgspec

from edge.boards import packets as sn
from edge.boards.link import RequestFrame
from edge.boards.mqttsn import encode, encode_puback
from edge.boards.outbound import Delivery, Outbound, Peer
from edge.boards.requests import Request
from edge.boards.topic_ids import TopicIds
from edge.messages import Message, Outcome, Properties

SUBSCRIPTIONS_MAX: Final = 256
WILL_BYTES_MAX: Final = 4096
_RECENT_MAX = 16
_RELEASES_MAX = 64


class State(Enum):
    """6.14, and CONNECTING for the handshake of 6.3."""

    DISCONNECTED = "disconnected"
    CONNECTING = "connecting"
    ACTIVE = "active"
    ASLEEP = "asleep"
    AWAKE = "awake"
    LOST = "lost"


CONNECTED: Final = frozenset({State.ACTIVE, State.ASLEEP, State.AWAKE})


class Terms(msgspec.Struct, frozen=True):
    """What every session of a gateway is held to (7.2): T_retry, N_retry, and the bounds."""

    retry_s: float = 10.0
    retries: int = 4
    queue_messages_max: int = 256
    sleeping_messages_max: int = 64
    topics_max: int = 1024


class Will(msgspec.Struct, frozen=True, gc=False):
    topic: str
    payload: bytes
    qos: int
    retain: bool


class Host(Protocol):
    """What a session stands in: the gateway with all its subscriptions."""

    def published(self, client: "Client", message: Message, /) -> None:
        """The client published; `client.settled` is called if the QoS is above 0."""

    def subscribed(self, client: "Client", topic_filter: str, qos: int, *, before: int | None) -> None:
        """before: the QoS of the same subscription until now, if there was one."""

    def unsubscribed(self, client: "Client", topic_filter: str, qos: int) -> None: ...

    def will_due(self, client: "Client", will: Will) -> None: ...

    def changed(self, client: "Client", state: State) -> None:
        """state: the one before."""

    def rejected(self, client: "Client", reason: str) -> None: ...

    def delivered(self, delivery: Delivery, outcome: Outcome) -> None: ...

    def dropped(self, reason: str) -> None: ...


class _Inbound(msgspec.Struct):
    """A publish of the client's that is not settled yet. request: the one it answers."""

    message_id: int
    topic_id: int
    qos: int
    fingerprint: int
    request: Request | None = None


def tolerant(duration_s: float) -> float:
    """How long to wait for a client that promised to be heard within duration_s (7.2)."""
    return duration_s * (1.1 if duration_s > 60 else 1.5)


class Client:
    """An Origin. heard: when the client last said anything; keep_alive_s: 0 for no supervision."""

    def __init__(self, client_id: str, peer: Peer, host: Host, terms: Terms, predefined: dict[int, str]) -> None:
        self.id = self.source = client_id
        self.state = State.DISCONNECTED
        self.clean = True
        self.will: Will | None = None
        self.subscriptions: dict[str, int] = {}
        self.keep_alive_s = 0
        self.sleep_s = 0
        self.heard = 0.0
        self.peer = peer
        self.ids = TopicIds(predefined, terms.topics_max)
        self._host, self._terms, self._predefined = host, terms, predefined
        self.outbound = Outbound(
            peer, host, self.ids, retry_s=terms.retry_s, retries=terms.retries, bound=terms.queue_messages_max
        )
        self._connect: sn.Connect | None = None
        self._will_topic: sn.WillTopic | None = None
        self._will_asked = False
        self._receipt = 0
        self._inbound: dict[int, _Inbound] = {}
        self._by_message_id: dict[int, int] = {}
        self._releases: dict[int, None] = {}
        self._recent: dict[tuple[int, int], None] = {}

    @property
    def connected(self) -> bool:
        return self.state in CONNECTED

    # What the gateway calls.

    def connect(self, packet: sn.Connect, now: float, peer: Peer | None = None) -> None:
        """CONNECT from this client, whose right to the id the gateway has checked. peer: when it came another way."""
        self.heard = now
        if self.state in {State.ASLEEP, State.AWAKE}:
            self.keep_alive_s = packet.duration_s
            self._rebind(peer)
            self._become(State.ACTIVE)
            self._send(sn.ConnAck())
            self.outbound.bound = self._terms.queue_messages_max
            self.outbound.allow(None)
            self.outbound.resume(now)
            return
        self._rebind(peer)
        if packet.clean_session:
            self._forget()
        self._connect = packet
        self._will_asked = packet.will
        if packet.will:
            self._become(State.CONNECTING)
            self._will_topic = None
            self.outbound.open = False
            self._send(sn.WillTopicReq())
        else:
            self._accept(now)

    def receive(self, packet: sn.Packet, now: float) -> None:
        """Anything else from this client."""
        self.heard = now
        handler = _HANDLERS.get(type(packet))
        if handler is None:
            self._host.rejected(self, "unexpected")
        elif self.state in CONNECTED or (self.state is State.CONNECTING and type(packet) in _IN_HANDSHAKE):
            handler(self, packet, now)
        else:
            self._host.rejected(self, "not_connected")
            self._send(sn.Disconnect())

    def offer(self, message: Message, qos: int, now: float, delivery: Delivery | None, *, retain: bool = False) -> bool:
        """A message for the client. False: no room, the origin may offer it again; nothing was counted.

        A client that is asleep, or away with a session that is not clean, is answered for by the gateway: the delivery
        is settled at once, as one sleeper must not hold up whoever else waits for the same connection. What finds its
        queue full is dropped and counted: the newest, as brokers do for a session that is away.
        """
        if self.state is State.ACTIVE or self.state is State.AWAKE:
            return self.outbound.offer(message, qos, now, delivery, retain=retain)
        if not qos and self.state is not State.ASLEEP:
            self._host.dropped("not_connected")
            return True
        if not self.outbound.offer(message, qos, now, None, retain=retain):
            self._host.dropped("sleeper_full" if self.state is State.ASLEEP else "session_full")
        if delivery is not None:
            self._host.delivered(delivery, Outcome.TAKEN)
        return True

    def answered(self, frame: RequestFrame, now: float) -> None:
        """The client's answer to a request: routed on the request's response topic, with its correlation data."""
        self.heard = now
        requests, publish = self.peer.requests, frame.publish
        request = requests.find(frame.request_id, now) if requests is not None else None
        if request is None:
            self._host.rejected(self, "request_id_unknown")
            if publish.qos > 0:
                self._puback(publish, sn.ACCEPTED)
            return
        if publish.qos not in {0, 1}:
            self._host.rejected(self, "request_qos")
            return
        if request.settled is not None:
            self._puback(publish, request.settled)
            return
        if request.receipt:
            return
        properties = Properties(correlation_data=request.correlation_data)
        receipt = 0
        if publish.qos:
            inbound = _Inbound(publish.message_id, publish.topic_id, 1, 0, request)
            receipt = request.receipt = self._remember(inbound)
        elif requests is not None:
            requests.close(frame.request_id)
        message = Message(request.response_topic, publish.payload, publish.qos, False, receipt, properties)
        self._host.published(self, message)
        self.outbound.pump(now)

    def settled(self, receipts: Sequence[int], outcome: Outcome) -> None:
        """As Origin says: PUBACK or PUBREC to the client. Receipts of an earlier session are nothing."""
        answers: list[bytes] = []
        code = _CODES[outcome]
        for receipt in receipts:
            inbound = self._inbound.pop(receipt, None)
            if inbound is None:
                continue
            self._by_message_id.pop(inbound.message_id, None)
            if inbound.request is not None:
                inbound.request.receipt = 0
                inbound.request.settled = None if outcome is Outcome.CONGESTED else code
            elif outcome is Outcome.TAKEN and inbound.qos == 1:
                if len(self._recent) >= _RECENT_MAX:
                    del self._recent[next(iter(self._recent))]
                self._recent[inbound.message_id, inbound.fingerprint] = None
            if outcome is Outcome.TAKEN and inbound.qos == 2:
                if len(self._releases) >= _RELEASES_MAX:
                    del self._releases[next(iter(self._releases))]
                self._releases[inbound.message_id] = None
                answers.append(encode(sn.PubRec(inbound.message_id)))
            else:
                answers.append(encode_puback(inbound.topic_id, inbound.message_id, code))
        if answers:
            self.peer.send(answers)

    def pump(self, now: float) -> None:
        """The link has room again."""
        self.outbound.pump(now)
        self._finish_draining(now)

    def tick(self, now: float) -> None:
        """Supervise, and send again what is due."""
        if self.peer.requests is not None:
            self.peer.requests.expire(now)
        due = self._supervision()
        if due is not None and now >= due:
            if self.state is State.CONNECTING:
                self._end(State.DISCONNECTED)
            else:
                self.lose()
        elif self.state in CONNECTED and not self.outbound.tick(now):
            if self.state is State.AWAKE:
                self._fall_asleep()
            else:
                self.lose()

    def deadline(self) -> float | None:
        """When `tick` has something to do; None for never."""
        due = [self._supervision()]
        if self.state in CONNECTED:
            due.append(self.outbound.deadline())
            if self.peer.requests is not None:
                due.append(self.peer.requests.deadline())
        return min((at for at in due if at is not None), default=None)

    def lose(self) -> None:
        """The client is gone without a word: its will is published (6.14)."""
        if self.will is not None and self.state in CONNECTED:
            self._host.will_due(self, self.will)
        self._end(State.LOST)

    def end(self) -> None:
        """Another takes this client's place; nothing is kept, no will is published."""
        self.clean = True
        self._end(State.DISCONNECTED)

    # What the client says.

    def _on_will_topic(self, packet: sn.WillTopic, now: float) -> None:
        if self.state is not State.CONNECTING:
            self._say_again(self._will_asked and self.will is None and not packet.topic)
        elif not packet.topic:
            self.will = None
            self._accept(now)
        else:
            self._will_topic = packet
            self._send(sn.WillMsgReq())

    def _on_will_message(self, packet: sn.WillMsg, now: float) -> None:
        topic = self._will_topic
        if self.state is not State.CONNECTING or topic is None:
            known = self.will is not None and self.will.payload == packet.message
            self._say_again(self._will_asked and known and self.state is State.ACTIVE)
            return
        if len(packet.message) > WILL_BYTES_MAX:
            self._host.rejected(self, "will_too_large")
            self._send(sn.ConnAck(sn.NOT_SUPPORTED))
            self._end(State.DISCONNECTED)
            return
        self.will = Will(topic.topic, packet.message, topic.qos, topic.retain)
        self._accept(now)

    def _say_again(self, repeated: bool) -> None:
        """A repeat of what ended the handshake means that its CONNACK was lost (6.13)."""
        if repeated:
            self._send(sn.ConnAck())
        else:
            self._host.rejected(self, "unexpected")

    def _on_will_topic_update(self, packet: sn.WillTopicUpd, now: float) -> None:
        if not packet.topic:
            self.will = None
        else:
            payload = self.will.payload if self.will is not None else b""
            self.will = Will(packet.topic, payload, packet.qos, packet.retain)
        self._send(sn.WillTopicResp())

    def _on_will_message_update(self, packet: sn.WillMsgUpd, now: float) -> None:
        if self.will is None or len(packet.message) > WILL_BYTES_MAX:
            self._host.rejected(self, "will_missing" if self.will is None else "will_too_large")
            self._send(sn.WillMsgResp(sn.NOT_SUPPORTED))
            return
        self.will = msgspec.structs.replace(self.will, payload=packet.message)
        self._send(sn.WillMsgResp())

    def _on_register(self, packet: sn.Register, now: float) -> None:
        number = self.ids.allot(packet.topic)
        if number is None:
            self._host.rejected(self, "topic_ids_exhausted")
            self._send(sn.RegAck(0, packet.message_id, sn.CONGESTION))
            return
        self.ids.learn(number)
        self._send(sn.RegAck(number, packet.message_id))
        self.outbound.pump(now)

    def _on_publish(self, packet: sn.Publish, now: float) -> None:
        topic = self.ids.topic(packet.topic_type, packet.topic_id)
        if topic is None:
            self._host.rejected(self, "topic_id_unknown")
            if packet.qos >= 0:
                self._puback(packet, sn.INVALID_TOPIC_ID)
            return
        qos, message_id = packet.qos, packet.message_id
        if qos <= 0:
            self._host.published(self, Message(topic, packet.payload, 0, packet.retain))
            return
        if message_id in self._by_message_id:
            self._host.rejected(self, "repeated")
            return
        if qos == 2 and message_id in self._releases:
            self._send(sn.PubRec(message_id))
            return
        fingerprint = hash((packet.topic_type, packet.topic_id, packet.payload))
        if packet.dup and (message_id, fingerprint) in self._recent:
            self._host.rejected(self, "repeated")
            self._puback(packet, sn.ACCEPTED)
            return
        if len(self._inbound) >= self.peer.window:
            self._host.rejected(self, "window_exceeded")
            self._puback(packet, sn.CONGESTION)
            return
        receipt = self._remember(_Inbound(message_id, packet.topic_id, qos, fingerprint))
        self._by_message_id[message_id] = receipt
        self._host.published(self, Message(topic, packet.payload, qos, packet.retain, receipt))

    def _on_puback(self, packet: sn.PubAck, now: float) -> None:
        self._answered_or_odd(self.outbound.puback(packet, now), now)

    def _on_pubrec(self, packet: sn.PubRec, now: float) -> None:
        if not self.outbound.pubrec(packet.message_id, now):
            self._host.rejected(self, "message_id_unknown")
            self._send(sn.PubRel(packet.message_id))  # lets the client finish what the gateway forgot

    def _on_pubcomp(self, packet: sn.PubComp, now: float) -> None:
        self._answered_or_odd(self.outbound.pubcomp(packet.message_id, now), now)

    def _on_pubrel(self, packet: sn.PubRel, now: float) -> None:
        self._releases.pop(packet.message_id, None)
        self._send(sn.PubComp(packet.message_id))

    def _on_regack(self, packet: sn.RegAck, now: float) -> None:
        self._answered_or_odd(self.outbound.regack(packet, now), now)

    def _on_subscribe(self, packet: sn.Subscribe, now: float) -> None:
        topic_filter, topic_id, code = packet.topic, 0, sn.ACCEPTED
        wild = packet.topic_type == sn.NORMAL and ("+" in topic_filter or "#" in topic_filter)
        if packet.topic_type not in {sn.NORMAL, sn.SHORT}:
            topic_id = packet.topic_id
            topic_filter = self.ids.topic(packet.topic_type, topic_id) or ""
            code = sn.ACCEPTED if topic_filter else sn.INVALID_TOPIC_ID
        elif len(self.subscriptions) >= SUBSCRIPTIONS_MAX and topic_filter not in self.subscriptions:
            code = sn.CONGESTION
        elif not wild and packet.topic_type == sn.NORMAL:
            number = self.ids.allot(topic_filter)
            if number is None:
                code = sn.CONGESTION
            else:
                topic_id = number
                self.ids.learn(number)
        if code != sn.ACCEPTED:
            reason = "topic_id_unknown" if code == sn.INVALID_TOPIC_ID else "subscriptions_exhausted"
            self._host.rejected(self, reason)
            self._send(sn.SubAck(0, packet.message_id, code))
            return
        before = self.subscriptions.get(topic_filter)
        self.subscriptions[topic_filter] = packet.qos
        self._send(sn.SubAck(topic_id, packet.message_id, sn.ACCEPTED, packet.qos))
        self._host.subscribed(self, topic_filter, packet.qos, before=before)

    def _on_unsubscribe(self, packet: sn.Unsubscribe, now: float) -> None:
        topic_filter = packet.topic or self.ids.topic(packet.topic_type, packet.topic_id) or ""
        qos = self.subscriptions.pop(topic_filter, None)
        if qos is not None:
            self._host.unsubscribed(self, topic_filter, qos)
        self._send(sn.UnsubAck(packet.message_id))

    def _on_pingreq(self, packet: sn.PingReq, now: float) -> None:
        if self.state not in {State.ASLEEP, State.AWAKE} or not packet.client_id:
            self._send(sn.PingResp())
            return
        if packet.client_id != self.id:
            self._host.rejected(self, "client_id_foreign")
            return
        self._become(State.AWAKE)
        self.outbound.allow(self.outbound.waiting)
        self.outbound.resume(now)
        self._finish_draining(now)

    def _on_disconnect(self, packet: sn.Disconnect, now: float) -> None:
        if not packet.duration_s:
            self._send(sn.Disconnect())
            self._end(State.DISCONNECTED)
            return
        self.sleep_s = packet.duration_s
        self._send(sn.Disconnect())
        self._fall_asleep()

    # Within.

    def _accept(self, now: float) -> None:
        connect = self._connect
        assert connect is not None
        self._connect = None
        self.clean = connect.clean_session
        self.keep_alive_s = connect.duration_s
        self._become(State.ACTIVE)
        self._send(sn.ConnAck())
        self.outbound.bound = self._terms.queue_messages_max
        self.outbound.allow(None)
        self.outbound.resume(now)

    def _rebind(self, peer: Peer | None) -> None:
        if peer is not None:
            self.peer = peer
            self.outbound.use(peer, self.ids)

    def _forget(self) -> None:
        """A clean start: subscriptions, will, ids and messages of the session before are gone (6.3)."""
        for topic_filter, qos in self.subscriptions.items():
            self._host.unsubscribed(self, topic_filter, qos)
        self.subscriptions = {}
        self.will = None
        self.ids = TopicIds(self._predefined, self._terms.topics_max)
        self.outbound.clear()
        self.outbound.use(self.peer, self.ids)
        self._forget_inbound()

    def _forget_inbound(self) -> None:
        for inbound in self._inbound.values():
            if inbound.request is not None:
                inbound.request.receipt = 0
        self._inbound.clear()
        self._by_message_id.clear()
        self._releases.clear()
        self._recent.clear()

    def _end(self, state: State) -> None:
        self.outbound.open = False
        self.outbound.bound = self._terms.sleeping_messages_max
        self._connect = None
        if self.clean:
            self._forget()
        else:
            self.outbound.answer_for_all()
        self._become(state)

    def _fall_asleep(self) -> None:
        self.outbound.open = False
        self.outbound.bound = self._terms.sleeping_messages_max
        self.outbound.answer_for_all()
        self._become(State.ASLEEP)

    def _finish_draining(self, now: float) -> None:
        if self.state is State.AWAKE and self.outbound.drained:
            self._send(sn.PingResp())
            self._fall_asleep()

    def _supervision(self) -> float | None:
        if self.state is State.CONNECTING:
            return self.heard + self._terms.retry_s * self._terms.retries
        if self.state in {State.ASLEEP, State.AWAKE}:
            return self.heard + tolerant(self.sleep_s)
        if self.state is State.ACTIVE and self.keep_alive_s:
            return self.heard + tolerant(self.keep_alive_s)
        return None

    def _become(self, state: State) -> None:
        before, self.state = self.state, state
        if before is not state:
            self._host.changed(self, before)

    def _remember(self, inbound: _Inbound) -> int:
        self._receipt += 1
        self._inbound[self._receipt] = inbound
        return self._receipt

    def _answered_or_odd(self, known: bool, now: float) -> None:
        if not known:
            self._host.rejected(self, "message_id_unknown")
        self._finish_draining(now)

    def _puback(self, packet: sn.Publish, code: int) -> None:
        self.peer.send((encode_puback(packet.topic_id, packet.message_id, code),))

    def _send(self, packet: sn.Packet) -> None:
        self.peer.send((encode(packet),))


_CODES: Final = {Outcome.TAKEN: sn.ACCEPTED, Outcome.CONGESTED: sn.CONGESTION, Outcome.REFUSED: sn.NOT_SUPPORTED}

_HANDLERS: Final[dict[type, Callable[[Client, Any, float], None]]] = {
    sn.WillTopic: Client._on_will_topic,
    sn.WillMsg: Client._on_will_message,
    sn.WillTopicUpd: Client._on_will_topic_update,
    sn.WillMsgUpd: Client._on_will_message_update,
    sn.Register: Client._on_register,
    sn.Publish: Client._on_publish,
    sn.PubAck: Client._on_puback,
    sn.PubRec: Client._on_pubrec,
    sn.PubComp: Client._on_pubcomp,
    sn.PubRel: Client._on_pubrel,
    sn.RegAck: Client._on_regack,
    sn.Subscribe: Client._on_subscribe,
    sn.Unsubscribe: Client._on_unsubscribe,
    sn.PingReq: Client._on_pingreq,
    sn.Disconnect: Client._on_disconnect,
}
_IN_HANDSHAKE: Final = frozenset({sn.WillTopic, sn.WillMsg, sn.Disconnect})
