"""Raw MQTT 3.1.1 clients for a bench: packets are built beforehand, and looked at afterwards.

A payload is JSON as a board would send it, PAYLOAD_BYTES long, with the message's number in it.
"""

import selectors
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Final

from edge.mqtt import packets as p
from edge.mqtt.codes import V311
from edge.mqtt.packets import Packet, encode
from edge.mqtt.reader import Parser
from tests.bench.figures import NoFigure

HOST: Final = "127.0.0.1"
TOPIC: Final = "bench/relay"
PAYLOAD_BYTES: Final = 100
READ_BYTES: Final = 1 << 18
PUBACK_BYTES: Final = 4
_NUMBER: Final = slice(6, 16)


def payload(number: int) -> bytes:
    """number: at most ten digits; the values vary with it."""
    celsius, humid = 1000 + number * 7919 % 8999, 1000 + number * 104729 % 8999
    up_ms = 10**10 + number * 100
    return b'{"n":"%010d","c":%.4f,"rh":%.4f,"up_ms":%d,"state":"running","place":"hall 4 W"}' % (
        number,
        celsius / 100,
        humid / 100,
        up_ms,
    )


def number_in(data: bytes) -> int:
    """Of a payload."""
    return int(data[_NUMBER])


class Client:
    """A blocking client. clean_start: without a session that stays behind."""

    def __init__(self, port: int, name: str, *, clean_start: bool = True) -> None:
        self.socket = socket.create_connection((HOST, port), 10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._parser = Parser(V311)
        self._ask(p.Connect(name, V311, clean_start=clean_start), p.Connack)

    def subscribe(self, topic_filter: str, qos: int = 0) -> None:
        """QoS 0 costs the broker least."""
        self._ask(p.Subscribe(1, (p.Subscription(topic_filter, qos=qos),)), p.Suback)

    def _ask(self, packet: Packet, answer: type) -> None:
        self.socket.sendall(encode(packet, V311))
        while not any(isinstance(one, answer) for one in self._parser.feed(self.socket.recv(READ_BYTES))):
            pass

    def close(self) -> None:
        self.socket.close()


class Publisher(Client):
    """Publishes with QoS 1 as fast as the broker takes it."""

    def __init__(self, port: int, name: str) -> None:
        super().__init__(port, name)
        self._owed_bytes = 0

    def publish(self, numbers: Iterable[int], topic: Callable[[int], str] = lambda _: TOPIC) -> None:
        """Returns when the broker has acknowledged all. topic: of a number."""
        built = [_publish(number, topic(number)) for number in numbers]
        stream, at = memoryview(b"".join(built)), 0
        self._owed_bytes += PUBACK_BYTES * len(built)
        self.socket.setblocking(False)
        with selectors.DefaultSelector() as selector:
            selector.register(self.socket, selectors.EVENT_READ | selectors.EVENT_WRITE)
            while self._owed_bytes:
                if not (ready := selector.select(10)):
                    raise TimeoutError("the broker acknowledges nothing")
                for _, events in ready:
                    if events & selectors.EVENT_READ:
                        self._read()
                    if events & selectors.EVENT_WRITE:
                        at += self.socket.send(stream[at : at + READ_BYTES])
                        if at == len(stream):
                            selector.modify(self.socket, selectors.EVENT_READ)
        self.socket.setblocking(True)

    def publish_one(self, number: int, topic: str = TOPIC) -> None:
        """Its acknowledgement is read by some later call."""
        self.socket.sendall(_publish(number, topic))
        self._owed_bytes += PUBACK_BYTES
        self.socket.setblocking(False)
        with suppress(BlockingIOError):
            self._read()
        self.socket.setblocking(True)

    def _read(self) -> None:
        data = self.socket.recv(READ_BYTES)
        if not data:
            raise ConnectionError("the broker closed the publisher's connection")
        self._owed_bytes -= len(data)


def _publish(number: int, topic: str = TOPIC) -> bytes:
    return encode(p.Publish(topic, payload(number), 1, packet_id=number % 65535 + 1), V311)


class Counter(Client):
    """Receives; keeps the bytes and looks at them when all should be there."""

    def __init__(self, port: int, name: str, *filters: str) -> None:
        super().__init__(port, name)
        self._chunks: list[bytes] = []
        self.bytes = 0
        for topic_filter in filters:
            self.subscribe(topic_filter)

    def start(self) -> None:
        self._chunks.clear()
        self.bytes = 0

    def receive(self, bytes_min: int, quiet_s: float, until: float = float("inf")) -> float:
        """Read until there are so many bytes, or nothing came for so long, or that time of the monotonic clock;
        returns when the last ones came."""
        self.socket.settimeout(quiet_s)
        last = time.monotonic()
        with suppress(TimeoutError):
            while self.bytes < bytes_min and last < until:
                self.take()
                last = time.monotonic()
        self.socket.settimeout(10)
        return last

    def take(self) -> None:
        """One read."""
        chunk = self.socket.recv(READ_BYTES)
        if not chunk:
            raise ConnectionError("the broker closed the counter's connection")
        self._chunks.append(chunk)
        self.bytes += len(chunk)

    def found(self) -> list[p.Publish]:
        """What came since `start`."""
        return [one for one in Parser(V311).feed(b"".join(self._chunks)) if isinstance(one, p.Publish)]


def packet_bytes(topic: str = TOPIC, size: int = PAYLOAD_BYTES) -> int:
    """The size of one message at a Counter."""
    return len(encode(p.Publish(topic, bytes(size)), V311))


def numbers(found: Sequence[p.Publish]) -> list[int]:
    return [number_in(one.payload) for one in found]


def check_in_order(what: str, found: Sequence[int]) -> None:
    """Raise NoFigure unless the numbers rise when each is looked at where it came first (QoS 1 may repeat)."""
    seen = list(dict.fromkeys(found))
    if any(later < earlier for earlier, later in pairwise(seen)):
        raise NoFigure(f"{what}: not in order")


def pace(
    publisher: Publisher,
    watched: Sequence[Counter],
    count: int,
    interval_s: float,
    topic: Callable[[int], str] = lambda _: TOPIC,
) -> list[dict[int, int]]:
    """Publish that many, one each interval. Returns for each counter when a number arrived, in ns. topic: of one."""
    arrived: list[dict[int, int]] = [{} for _ in watched]
    parsers = [Parser(V311) for _ in watched]
    with selectors.DefaultSelector() as selector:
        for place, counter in enumerate(watched):
            counter.socket.setblocking(False)
            selector.register(counter.socket, selectors.EVENT_READ, place)
        due, sent, end = time.monotonic(), 0, 0.0
        while min(map(len, arrived)) < count:
            now = time.monotonic()
            if sent < count and now >= due:
                sent += 1
                publisher.publish_one(sent, topic(sent))
                due += interval_s
                end = now + 5
            elif sent == count and now > end:
                break
            for key, _ in selector.select(max(0.0, due - time.monotonic()) if sent < count else 0.1):
                stamp = time.monotonic_ns()
                data = watched[key.data].socket.recv(READ_BYTES)
                found = [one for one in parsers[key.data].feed(data) if isinstance(one, p.Publish)]
                for number in numbers(found):
                    arrived[key.data].setdefault(number, stamp)
        for counter in watched:
            counter.socket.setblocking(True)
    return arrived
