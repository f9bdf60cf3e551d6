"""A broker that misbehaves on request, on the codec's own packets: over a loopback socket, or without one.

Every wish is an attribute that may be changed at any time. What it is not told to do wrong it does right: sessions,
QoS 0 and 1, subscriptions, pings.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any

from edge.mqtt import packets
from edge.mqtt.codes import V5, ProtocolError
from edge.mqtt.packets import Packet
from edge.mqtt.properties import NONE, PacketProperties
from edge.mqtt.reader import Parser
from edge.topics import matches

READ_BYTES_MAX = 64 * 1024


class FakeBroker:
    """connack: the code it answers CONNECT with, None: no answer. receive_maximum: as announced. reading: whether it
    takes bytes off the transport. hold_acks: no PUBACK until `release`. answer_pings: whether it does. greeting: bytes
    sent right after CONNACK. cut: bytes a chunk that it sends, 0 for whole. keeps_sessions: else every session is new.
    denied: topics for a message to which it hangs up, after a PUBACK with `denied_code` unless that is None. dropping:
    it hangs up as soon as anything comes after CONNECT. denied_filters: it neither grants nor lets go.
    """

    def __init__(self) -> None:
        self.connack: int | None = 0
        self.receive_maximum: int | None = None
        self.reading = True
        self.hold_acks = False
        self.answer_pings = True
        self.keeps_sessions = True
        self.denied: set[str] = set()
        self.denied_code: int | None = 0x87
        self.dropping = False
        self.denied_filters: set[str] = set()
        self.greeting = b""
        self.cut = 0
        self.accepts = True
        self.opened_at: list[float] = []
        self.packets: list[Packet] = []
        self.chunks = 0
        self.clients: list[_Client] = []
        self.sessions: dict[str, _Session] = {}

    @property
    def published(self) -> list[bytes]:
        """The payloads that came, in order."""
        return [packet.payload for packet in self.packets if isinstance(packet, packets.Publish)]

    def of(self, kind: type[Any]) -> list[Any]:
        """The packets of one kind that came."""
        return [packet for packet in self.packets if isinstance(packet, kind)]

    def make_client(self) -> asyncio.Protocol:
        return _Client(self)

    async def open_transport(
        self, make_link: Callable[[], asyncio.BufferedProtocol], _: ssl.SSLContext | None
    ) -> object:
        """For CodecConnection(open_transport=…): a connection within the process, fit for virtual time."""
        if not self.accepts:
            raise ConnectionRefusedError
        loop = asyncio.get_running_loop()
        near, far = Pipe(loop), Pipe(loop)
        near.peer, far.peer = far, near
        far.start(_Client(self))
        near.start(make_link())
        return near

    def publish(self, topic: str, payload: bytes, qos: int = 1) -> None:
        """To whom it may concern, as some other client would."""
        for session in self.sessions.values():
            if any(matches(topic_filter, topic) for topic_filter in session.filters):
                session.last_id = session.last_id % 65535 + 1
                packet = packets.Publish(topic, payload, qos, packet_id=session.last_id if qos else 0)
                if qos:
                    session.open[session.last_id] = packet
                if session.client is not None:
                    session.client.say(packet)

    def release(self) -> None:
        """Send the PUBACKs that were held."""
        self.hold_acks = False
        for client in self.clients:
            held, client.held = client.held, []
            client.say(*held)

    def resume_reading(self) -> None:
        self.reading = True
        for client in self.clients:
            client.transport.resume_reading()

    def say(self, *said: Packet) -> None:
        for client in self.clients:
            client.say(*said)

    def say_bytes(self, data: bytes) -> None:
        for client in self.clients:
            client.say_bytes(data)

    def hang_up(self) -> None:
        for client in list(self.clients):
            client.transport.close()


class _Session:
    def __init__(self) -> None:
        self.filters: dict[str, int] = {}
        self.open: dict[int, packets.Publish] = {}
        self.last_id = 0
        self.client: _Client | None = None


class _Client(asyncio.Protocol):
    def __init__(self, broker: FakeBroker) -> None:
        self._broker, self._parser, self._version = broker, Parser(), V5
        self.held: list[Packet] = []
        self._session = _Session()
        self._hung_up = False
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._broker.clients.append(self)
        self._broker.opened_at.append(asyncio.get_running_loop().time())

    def connection_lost(self, exc: Exception | None) -> None:
        self._broker.clients.remove(self)
        if self._session.client is self:
            self._session.client = None

    def data_received(self, data: bytes) -> None:
        self._broker.chunks += 1
        for packet in self._parser.feed(data):
            if self.transport.is_closing() or self._hung_up:
                break
            self._broker.packets.append(packet)
            self._answer(packet)
        if not self._broker.reading:
            self.transport.pause_reading()

    def say(self, *said: Packet) -> None:
        self.say_bytes(b"".join(packets.encode(packet, self._version) for packet in said))

    def say_bytes(self, data: bytes) -> None:
        step = self._broker.cut or len(data) or 1
        for start in range(0, len(data), step):
            self.transport.write(data[start : start + step])

    def _answer(self, packet: Packet) -> None:
        broker = self._broker
        match packet:
            case packets.Publish() if packet.topic in broker.denied:
                if packet.qos and broker.denied_code is not None:
                    self.say(packets.Puback(packet.packet_id, broker.denied_code))
                self._hang_up()
            case _ if broker.dropping and not isinstance(packet, packets.Connect):
                self._hang_up()
            case packets.Connect():
                self._version = packet.version
                if broker.connack is not None:
                    self._connect(packet, broker.connack)
            case packets.Publish(qos=1):
                self.held.append(packets.Puback(packet.packet_id))
                if not broker.hold_acks:
                    held, self.held = self.held, []
                    self.say(*held)
            case packets.Subscribe():
                codes = []
                for entry in packet.subscriptions:
                    denied = entry.topic_filter in broker.denied_filters
                    codes.append(0x87 if denied else entry.qos)
                    if not denied:
                        self._session.filters[entry.topic_filter] = entry.qos
                self.say(packets.Suback(packet.packet_id, tuple(codes)))
            case packets.Unsubscribe():
                codes = []
                for one in packet.filters:
                    denied = one in broker.denied_filters
                    known = not denied and self._session.filters.pop(one, None) is not None
                    codes.append(0x87 if denied else 0 if known else 0x11)
                self.say(packets.Unsuback(packet.packet_id, tuple(codes)))
            case packets.Puback():
                self._session.open.pop(packet.packet_id, None)
            case packets.Pingreq():
                if broker.answer_pings:
                    self.say(packets.Pingresp())
            case packets.Disconnect():
                self.transport.close()
            case packets.Publish():
                pass
            case _:
                raise ProtocolError("unexpected", type(packet).__name__)

    def _hang_up(self) -> None:
        self._hung_up = True
        self.transport.close()

    def _connect(self, packet: packets.Connect, code: int) -> None:
        broker = self._broker
        if code:
            self.say(packets.Connack(code=code))
            self.transport.close()
            return
        if packet.clean_start or not broker.keeps_sessions:
            broker.sessions.pop(packet.client_id, None)
        present = packet.client_id in broker.sessions
        self._session = broker.sessions.setdefault(packet.client_id, _Session())
        self._session.client = self
        properties = NONE
        if self._version == V5:
            properties = PacketProperties(receive_maximum=broker.receive_maximum)
        self.say(packets.Connack(session_present=present, properties=properties))
        self.say(*self._session.open.values())
        self.say_bytes(broker.greeting)


class Pipe(asyncio.Transport):
    """One end of a connection within the process. What is written comes to the other end in the next turn of the loop;
    while that end does not read it is buffered here, and the writer is asked to pause above the limit. `close` ends it
    when all that was written has been read. It is its own socket, as far as SO_RCVLOWAT goes."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop
        self._high = 64 * 1024
        self._buffer = bytearray()
        self._reading, self._paused, self._closing, self._closed = True, False, False, False
        self._low_water = 1
        self._protocol: asyncio.Protocol | asyncio.BufferedProtocol
        self.peer: Pipe

    def start(self, protocol: asyncio.Protocol | asyncio.BufferedProtocol) -> None:
        self._protocol = protocol
        protocol.connection_made(self)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self if name == "socket" else default

    def setsockopt(self, level: int, option: int, value: int) -> None:
        assert (level, option) == (socket.SOL_SOCKET, socket.SO_RCVLOWAT)
        self._low_water = value
        self._loop.call_soon(self.peer._move_on)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = high or 64 * 1024

    def get_write_buffer_size(self) -> int:
        return len(self._buffer)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._closing:
            return
        self._buffer += data
        self._loop.call_soon(self._move, max(len(data), self.peer._low_water))
        if len(self._buffer) > self._high and not self._paused:
            self._paused = True
            self._protocol.pause_writing()

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        if not self._reading:
            self._reading = True
            self._loop.call_soon(self.peer._move_on)

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self._closing = True
        self._loop.call_soon(self._move_on)

    def abort(self) -> None:
        for end in (self, self.peer):
            if not end._closed:
                end._closing = end._closed = True
                self._loop.call_soon(end._protocol.connection_lost, None)

    def _move_on(self) -> None:
        """What waited while the other end did not read, one read in a turn of the loop."""
        before = len(self._buffer)
        self._move(READ_BYTES_MAX)
        if 0 < len(self._buffer) < before:
            self._loop.call_soon(self._move_on)

    def _move(self, size: int) -> None:
        peer = self.peer
        if not peer._reading or peer._closed or (len(self._buffer) < peer._low_water and not self._closing):
            return
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        if self._paused and not self._buffer:
            self._paused = False
            self._protocol.resume_writing()
        if data:
            peer._give(data)
        if self._closing and not self._buffer:
            self.abort()

    def _give(self, data: bytes) -> None:
        protocol = self._protocol
        if isinstance(protocol, asyncio.Protocol):
            protocol.data_received(data)
            return
        while data and not self._closed:
            buffer = memoryview(protocol.get_buffer(len(data)))
            size = min(len(buffer), len(data))
            buffer[:size] = data[:size]
            protocol.buffer_updated(size)
            data = data[size:]
