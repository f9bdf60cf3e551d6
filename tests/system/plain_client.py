"""An MQTT-SN 1.2 client as others write them, at the board's end of a cable: no hello, one publish at a time.

Its frames are made with the `cobs` package and zlib, so it is an independent witness of the wire.
"""

import select
import socket
import struct
import time
import zlib
from pathlib import Path

from cobs import cobs  # type: ignore[import-untyped]

from edge_tools.hil import sockets
from edge_tools.hil.board import CableProcess
from tests.system.cloud import PATIENCE_S

MQTTSN = 0x01
LINK = 0x03
_HELLO_REQUEST = 0x03
CONNECT, CONNACK, REGISTER, REGACK, PUBLISH, PUBACK = 0x04, 0x05, 0x0A, 0x0B, 0x0C, 0x0D
SUBSCRIBE, SUBACK, PINGREQ, PINGRESP, DISCONNECT = 0x12, 0x13, 0x16, 0x17, 0x18
_QOS_1 = 0x20


class PlainClient:
    """name: its client id, and its folder's name in folder. Its cable runs until `close`."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        place = folder / name
        place.mkdir()
        self._cable = CableProcess(place, 115_200, seed=1)
        self._cable.wait_ready()
        self.port = place / "port"
        self._uart: socket.socket = sockets.connect(place / "uart.sock")
        self._half = b""
        self._waiting: list[bytes] = []
        self._id = 0
        self.others: list[bytes] = []  # contents on other channels

    def close(self) -> None:
        self._uart.close()
        self._cable.end()

    def send(self, kind: int, body: bytes) -> None:
        message = bytes([len(body) + 2, kind]) + body
        content = bytes([MQTTSN]) + message
        framed = cobs.encode(content + struct.pack("<I", zlib.crc32(content)))
        self._uart.sendall(b"\0" + framed + b"\0")

    def babble(self, data: bytes) -> None:
        """Any bytes, as they are."""
        self._uart.sendall(data)

    def hear(self, kind: int, patience_s: float = PATIENCE_S) -> bytes | None:
        """The body of the next message of this kind; others wait their turn. None: it did not come."""
        deadline_s = time.monotonic() + patience_s
        while True:
            for message in self._waiting:
                if message[1] == kind:
                    self._waiting.remove(message)
                    return message[2:]
            if not select.select([self._uart], [], [], max(0.0, deadline_s - time.monotonic()))[0]:
                return None
            self._half += self._uart.recv(4096)
            *segments, self._half = self._half.split(b"\0")
            for segment in filter(None, segments):
                self._take(cobs.decode(segment))

    def _take(self, framed: bytes) -> None:
        content, crc = framed[:-4], struct.unpack("<I", framed[-4:])[0]
        assert zlib.crc32(content) == crc
        if content[0] == MQTTSN:
            assert content[1] == len(content) - 1, content
            self._waiting.append(content[1:])
        else:
            self.others.append(content)

    def next_id(self) -> bytes:
        self._id += 1
        return struct.pack(">H", self._id)

    def connect(self) -> int:
        """The return code; asks again until the gateway's port is open. Retried as MQTT-SN 1.2, 6.13 says."""
        for _ in range(60):
            self.send(CONNECT, bytes([0x04, 0x01]) + struct.pack(">H", 60) + self.name.encode())
            answer = self.hear(CONNACK, 1.0)
            if answer is not None:
                return answer[0]
        raise AssertionError("no CONNACK")

    def register(self, topic: str) -> bytes:
        """The topic id given."""
        number = self.next_id()
        self.send(REGISTER, b"\0\0" + number + topic.encode())
        answer = self.hear(REGACK)
        assert answer is not None
        assert answer[2:] == number + b"\0", answer
        return answer[:2]

    def publish(self, topic_id: bytes, payload: bytes) -> int:
        """QoS 1: the return code of the PUBACK."""
        number = self.next_id()
        self.send(PUBLISH, bytes([_QOS_1]) + topic_id + number + payload)
        answer = self.hear(PUBACK)
        assert answer is not None
        assert answer[:4] == topic_id + number
        return answer[4]

    def subscribe(self, topic_filter: str) -> None:
        number = self.next_id()
        self.send(SUBSCRIBE, bytes([_QOS_1]) + number + topic_filter.encode())
        answer = self.hear(SUBACK)
        assert answer is not None
        assert answer[3:] == number + b"\0", answer

    def receive(self) -> tuple[str, bytes]:
        """The next message for a wildcard subscription: REGISTER first, then PUBLISH, both acknowledged."""
        register = self.hear(REGISTER)
        assert register is not None
        self.send(REGACK, register[:4] + b"\0")
        message = self.hear(PUBLISH)
        assert message is not None
        assert message[1:3] == register[:2]
        self.send(PUBACK, message[1:5] + b"\0")
        return register[4:].decode(), message[5:]
