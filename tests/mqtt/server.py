"""A server for one client, without I/O, on our own parser: strict about all a client must not do."""

from collections import deque

from edge.messages import Message
from edge.mqtt import packets as p
from edge.mqtt.codes import V5
from edge.mqtt.packets import Packet, encode
from edge.mqtt.properties import NONE, PacketProperties
from edge.mqtt.reader import Parser


class FakeServer:
    """`taken`: the messages it answers for, in order, with the topics that aliases stand for. Raises AssertionError
    where the client breaks the standard."""

    def __init__(
        self, version: int = V5, receive_maximum: int = 65535, alias_maximum: int = 0, granted: PacketProperties = NONE
    ) -> None:
        self.version, self.receive_maximum, self.alias_maximum, self.granted = (
            version,
            receive_maximum,
            alias_maximum,
            granted,
        )
        self.taken: list[Message] = []
        self.codes: deque[int] = deque()  # what the next publishes are answered with
        self.has_session = False
        self.waiting: deque[Message] = deque()
        self.sent: dict[int, Message] = {}
        self.released: dict[int, None] = {}
        self._twice: set[int] = set()
        self._next_id = 0
        self.connect_packet: p.Connect | None = None
        self.disconnected: p.Disconnect | None = None
        self.requests: list[Packet] = []
        self.new_transport()

    def new_transport(self) -> None:
        self._parser = Parser(self.version)
        self._aliases: dict[int, str] = {}
        self._out: list[Packet] = []
        self._unanswered: list[int] = []  # QoS 1 publishes of this connection, in order
        self._unrecorded: list[int] = []  # the same with QoS 2
        self._open = 0
        self.connected = False

    def forget(self) -> None:
        """The session expires."""
        self.has_session = False
        self.sent.clear()
        self.released.clear()
        self._twice.clear()

    def publish(self, *messages: Message) -> None:
        self.waiting.extend(messages)
        self._send_waiting()

    def output(self) -> bytes:
        out, self._out = self._out, []
        return b"".join(encode(packet, self.version) for packet in out)

    def receive(self, data: bytes) -> None:
        for packet in self._parser.feed(data):
            self._handle(packet)

    def _handle(self, packet: Packet) -> None:
        if not self.connected:
            assert isinstance(packet, p.Connect)
            self._accept(packet)
            return
        match packet:
            case p.Publish():
                self._take(packet)
            case p.Puback(packet_id):
                assert self._unanswered.pop(0) == packet_id, "PUBACK out of order (4.6)"
                self._done(packet_id)
            case p.Pubrec(packet_id, code):
                assert self._unrecorded.pop(0) == packet_id, "PUBREC out of order (4.6)"
                if code >= 0x80:
                    self._done(packet_id)
                else:
                    self.released[packet_id] = None
                    self._out.append(p.Pubrel(packet_id))
            case p.Pubcomp(packet_id):
                assert packet_id in self.released
                del self.released[packet_id]
                self._done(packet_id)
            case p.Pubrel(packet_id):
                self._twice.discard(packet_id)
                self._out.append(p.Pubcomp(packet_id))
            case p.Subscribe(packet_id, entries):
                self.requests.append(packet)
                self._out.append(p.Suback(packet_id, tuple(entry.qos for entry in entries)))
            case p.Unsubscribe(packet_id, filters):
                self.requests.append(packet)
                self._out.append(p.Unsuback(packet_id, (0,) * len(filters) if self.version == V5 else ()))
            case p.Pingreq():
                self._out.append(p.Pingresp())
            case p.Disconnect():
                self.disconnected = packet
            case p.Auth():
                self.requests.append(packet)
            case _:
                raise AssertionError(f"no client sends {packet}")

    def _accept(self, packet: p.Connect) -> None:
        self.connected, self.connect_packet = True, packet
        if packet.clean_start:
            self.forget()
        present, self.has_session = self.has_session, True
        granted = NONE
        if self.version == V5:
            granted = self.granted
            if granted is NONE:
                granted = PacketProperties(
                    receive_maximum=self.receive_maximum, topic_alias_maximum=self.alias_maximum or None
                )
        self._out.append(p.Connack(present, 0, granted))
        asked = packet.properties.receive_maximum
        self._limit = asked if asked is not None else 65535
        for packet_id in self.released:
            self._out.append(p.Pubrel(packet_id))
        self._again = deque(packet_id for packet_id in self.sent if packet_id not in self.released)
        self._open = len(self.released)
        self._send_waiting()

    def _take(self, packet: p.Publish) -> None:
        topic, alias = packet.topic, packet.properties.topic_alias
        if alias is not None:
            assert 0 < alias <= self.alias_maximum
            topic = topic or self._aliases[alias]
            self._aliases[alias] = topic
        message = Message(topic, packet.payload, packet.qos, packet.retain)
        code = self.codes.popleft() if self.codes and packet.qos else 0
        if packet.qos == 2 and packet.packet_id in self._twice:
            code = 0
        elif code < 0x80:
            self.taken.append(message)
            if packet.qos == 2:
                self._twice.add(packet.packet_id)
        if packet.qos == 1:
            self._out.append(p.Puback(packet.packet_id, code))
        elif packet.qos == 2:
            self._out.append(p.Pubrec(packet.packet_id, code))

    def _done(self, packet_id: int) -> None:
        self.sent.pop(packet_id, None)
        self._open -= 1
        self._send_waiting()

    def _send_waiting(self) -> None:
        while self.connected and self._open < self._limit and self._again:
            packet_id = self._again.popleft()
            self._write(self.sent[packet_id], packet_id, dup=True)
        while self.connected and self.waiting and (not self.waiting[0].qos or self._open < self._limit):
            message = self.waiting.popleft()
            if not message.qos:
                self._out.append(p.Publish(message.topic, message.payload))
                continue
            self._next_id = self._next_id % 65535 + 1
            while self._next_id in self.sent:
                self._next_id = self._next_id % 65535 + 1
            self.sent[self._next_id] = message
            self._write(message, self._next_id, dup=False)

    def _write(self, message: Message, packet_id: int, *, dup: bool) -> None:
        self._open += 1
        (self._unanswered if message.qos == 1 else self._unrecorded).append(packet_id)
        self._out.append(p.Publish(message.topic, message.payload, message.qos, message.retain, dup, packet_id))
