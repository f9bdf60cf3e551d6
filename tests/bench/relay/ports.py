"""Boards as a bench needs them: ptys that give readings as fast as the gateway acknowledges them, built beforehand."""

import os
import selectors
import time
import tty
from collections.abc import Sequence
from typing import Final

from edge.boards import mqttsn
from edge.boards import packets as sn
from edge.boards.frames import FrameReader, build_frame
from edge.boards.link import (
    MQTTSN,
    Hello,
    ReadingFrame,
    StatsRequest,
    Time,
    Welcome,
    decode_link,
    encode_link,
    encode_mqttsn,
    encode_reading,
)
from tests.bench.figures import NoFigure
from tests.bench.relay.raw import Counter, payload

WINDOW: Final = 255
READ_BYTES: Final = 65536
_READY_S: Final = 20.0
_BOOT: Final = 1


class Port:
    """One board on a pty, without a ring: readings are sent once, and anything but a PUBACK ends the bench."""

    def __init__(self, name: str) -> None:
        self.name, self.topic = name, f"bench/{name}"
        self._master, slave = os.openpty()
        tty.setraw(slave)
        self.path = os.ttyname(slave)
        self._slave = slave  # held open, so that the master lives while the gateway is not there yet
        os.set_blocking(self._master, False)
        self._reader = FrameReader()
        self._window = self._topic_id = self._sequence = 0

    def fileno(self) -> int:
        return self._master

    def close(self) -> None:
        os.close(self._master)
        os.close(self._slave)

    def connect(self) -> None:
        """Hello, CONNECT, REGISTER."""
        end, asked = time.monotonic() + _READY_S, 0.0
        while not (self._topic_id and self._window):
            now = time.monotonic()
            if now > end:
                raise NoFigure(f"{self.name}: the gateway does not answer")
            if not self._topic_id and now > asked + 1.0:
                asked = now
                hello = Hello(WINDOW, 2048, _BOOT, self.name)
                self._write(encode_link(hello), encode_mqttsn(sn.Connect(self.name, 300, clean_session=True)))
            for content in self._read():
                self._meet(content)
            time.sleep(0.005)

    def _meet(self, content: bytes) -> None:
        if content[0] != MQTTSN:
            message = decode_link(content)
            if isinstance(message, Welcome):
                self._window = message.window
            return
        match mqttsn.decode(content, 1):
            case sn.ConnAck():
                self._write(encode_mqttsn(sn.Register(0, 1, self.topic)))
            case sn.RegAck(topic_id=topic_id):
                self._topic_id = topic_id

    def _write(self, *contents: bytes) -> None:
        os.write(self._master, b"".join(map(build_frame, contents)))

    def _read(self) -> list[bytes]:
        try:
            return self._reader.feed(os.read(self._master, READ_BYTES))
        except BlockingIOError:
            return []

    def load(self, numbers: Sequence[int]) -> None:
        """Build the readings that `serve` is to send."""
        frames, self._ends = [], [0]
        for number in numbers:
            self._sequence += 1
            publish = sn.Publish(self._topic_id, payload(number), self._sequence % 65535 + 1, qos=1)
            back = min(self._sequence - 1, self._window - 1)
            frames.append(build_frame(encode_reading(ReadingFrame(_BOOT, self._sequence, back, publish))))
            self._ends.append(self._ends[-1] + len(frames[-1]))
        self._stream = memoryview(b"".join(frames))
        self.acknowledged, self._sent_bytes = 0, 0
        self.sent_ns: list[int] = []
        self.acknowledged_ns: list[int] = []

    @property
    def loaded(self) -> int:
        return len(self._ends) - 1

    @property
    def done(self) -> bool:
        return self.acknowledged == self.loaded

    def send(self) -> bool:
        """What the window allows; whether it all went out."""
        stop = self._ends[min(self.acknowledged + self._window, len(self._ends) - 1)]
        if stop > self._sent_bytes:
            try:
                self._sent_bytes += os.write(self._master, self._stream[self._sent_bytes : stop])
            except BlockingIOError:
                return False
        return self._sent_bytes == stop

    def send_one(self) -> None:
        """The next reading, stamped with the time."""
        at, stop = self._sent_bytes, self._ends[len(self.sent_ns) + 1]
        self.sent_ns.append(time.monotonic_ns())
        self._sent_bytes += os.write(self._master, self._stream[at:stop])
        if self._sent_bytes != stop:
            raise NoFigure(f"{self.name}: the gateway does not read")

    def receive(self) -> None:
        now_ns = time.monotonic_ns()
        for content in self._read():
            if content[0] == MQTTSN and content[2] == 0x0D:  # PUBACK
                if content[7]:
                    raise NoFigure(f"{self.name}: the gateway answered with return code {content[7]}")
                self.acknowledged += 1
                self.acknowledged_ns.append(now_ns)
            elif not isinstance(decode_link(content), Time | StatsRequest):
                raise NoFigure(f"{self.name}: the gateway sent {content.hex()}")


def serve(ports: Sequence[Port], counter: Counter, bytes_min: int, patience_s: float) -> float:
    """Send all that is loaded, and have the counter read; returns when the last of so many bytes arrived, after all
    is acknowledged."""
    last = time.monotonic()
    with selectors.DefaultSelector() as selector:
        selector.register(counter.socket, selectors.EVENT_READ)
        for one in ports:
            selector.register(one, selectors.EVENT_READ | selectors.EVENT_WRITE, one)
        while counter.bytes < bytes_min or not all(port.done for port in ports):
            if not (ready := selector.select(patience_s)):
                raise NoFigure("the gateway acknowledges nothing")
            for key, events in ready:
                if key.data is None:
                    counter.take()
                    last = time.monotonic()
                    continue
                port: Port = key.data
                if events & selectors.EVENT_READ:
                    port.receive()
                wanted = selectors.EVENT_READ if port.send() else selectors.EVENT_READ | selectors.EVENT_WRITE
                if key.events != wanted:
                    selector.modify(port, wanted, port)
    return last


def pace_readings(ports: Sequence[Port], interval_s: float, patience_s: float) -> list[float]:
    """Send all that is loaded, one reading each interval, the ports in turn; returns when all is acknowledged. The
    delays in ms from a reading's first byte to the board's having read its PUBACK; PUBACKs come in order of reading."""
    due = time.monotonic()
    turns = [port for _ in range(ports[0].loaded) for port in ports]
    with selectors.DefaultSelector() as selector:
        for one in ports:
            selector.register(one, selectors.EVENT_READ, one)
        place, last = 0, due
        while not all(port.done for port in ports):
            now = time.monotonic()
            if place < len(turns) and now >= due:
                turns[place].send_one()
                place, due, last = place + 1, due + interval_s, now
            elif now > last + patience_s:
                raise NoFigure("the gateway acknowledges nothing")
            for key, _ in selector.select(max(0.0, due - time.monotonic()) if place < len(turns) else 0.1):
                key.data.receive()
    pairs = [pair for port in ports for pair in zip(port.sent_ns, port.acknowledged_ns, strict=True)]
    return [(acknowledged - sent) / 1e6 for sent, acknowledged in pairs]
