"""A plain MQTT-SN client in a test's hand: says packets on a board's line or through a forwarder, hears the answers."""

from collections.abc import Sequence

from edge.boards import mqttsn
from edge.boards import packets as sn
from edge.boards.frames import FrameReader, build_frame
from edge.messages import Outcome
from tests.boards.rig import Rig


class SnClient:
    """node: the wireless node id behind a forwarder; b'' for directly on the line. heard: all since the last `take`."""

    def __init__(self, rig: Rig, board: str, node: bytes = b"") -> None:
        self.rig, self.board, self.node = rig, board, node
        self.heard: list[sn.Packet] = []
        self.other: list[bytes] = []
        self._reader = FrameReader()

    def say(self, *packets: sn.Packet) -> list[sn.Packet]:
        """Say these in one read; returns what is heard at once."""
        return self.say_raw(*(mqttsn.encode(packet) for packet in packets))

    def say_raw(self, *packets: bytes) -> list[sn.Packet]:
        contents = [b"\x01" + (mqttsn.encode(sn.Forwarded(self.node, one)) if self.node else one) for one in packets]
        self.rig.boards[self.board].receive(b"".join(map(build_frame, contents)), self.rig.now)
        return self.take()

    def take(self) -> list[sn.Packet]:
        """What the gateway has sent to this client since the last time."""
        board = self.rig.boards[self.board]
        while data := board.output(self.rig.now):
            for content in self._reader.feed(data):
                self._hear(content)
        heard, self.heard = self.heard, []
        return heard

    def connect(self, client_id: str, *, clean: bool = True, keep_alive_s: int = 30) -> None:
        assert sn.ConnAck() in self.say(sn.Connect(client_id, keep_alive_s, clean_session=clean))

    def register(self, topic: str) -> int:
        for packet in self.say(sn.Register(0, 1, topic)):
            if isinstance(packet, sn.RegAck):
                assert packet.return_code == sn.ACCEPTED
                return packet.topic_id
        raise AssertionError("no REGACK")

    def subscribe(self, topic: str, qos: int = 1) -> int:
        for packet in self.say(sn.Subscribe(2, topic, qos=qos)):
            if isinstance(packet, sn.SubAck):
                assert packet.return_code == sn.ACCEPTED
                return packet.topic_id
        raise AssertionError("no SUBACK")

    def after(self, seconds: float) -> list[sn.Packet]:
        """Let time pass without a word from the client."""
        heard: list[sn.Packet] = []
        until = self.rig.now + seconds
        while self.rig.now < until:
            self.rig.now += 0.1
            self.rig.boards[self.board].tick(self.rig.now)
            heard += self.take()
        return heard

    def _hear(self, content: bytes) -> None:
        if content[0] != 1:
            self.other.append(content)
            return
        packet = mqttsn.decode(content, 1)
        if isinstance(packet, sn.Forwarded):
            if packet.node_id != self.node:
                return
            packet = mqttsn.decode(packet.message)
        elif self.node:
            return
        if not isinstance(packet, sn.Advertise):
            self.heard.append(packet)


class Told:
    """An origin that remembers how its receipts ended."""

    def __init__(self) -> None:
        self.ended: dict[int, str] = {}
        self.calls = 0

    def settled(self, receipts: Sequence[int], outcome: Outcome) -> None:
        self.calls += 1
        for receipt in receipts:
            assert receipt not in self.ended, "settled once"
            self.ended[receipt] = outcome.value
