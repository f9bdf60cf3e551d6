"""A board as the firmware behaves towards the gateway, in Python and without I/O: hello, session, ring, commands.

It keeps readings in a ring, sends a window of them, goes back on REWIND, congestion and T_retry (go-back-N), and
counts what it sheds. Time comes in as `now`; bytes come in by `receive` and are fetched by `output`.
"""

import random
from collections.abc import Callable
from typing import Any

import msgspec

from edge.boards import mqttsn
from edge.boards import packets as sn
from edge.boards.frames import FrameReader, build_frame
from edge.boards.link import (
    LINK,
    MQTTSN,
    READING,
    REQUEST,
    STATS,
    Hello,
    HelloRequest,
    ReadingFrame,
    RequestFrame,
    Rewind,
    Stats,
    StatsRequest,
    Time,
    Welcome,
    decode_link,
    decode_request,
    encode_link,
    encode_mqttsn,
    encode_reading,
    encode_request,
)
from edge.errors import InputRejected

_STAT_IDS = {name: number for number, name in STATS.items()}


class _Held(msgspec.Struct):
    boot: int
    sequence: int
    message_id: int
    payload: bytes
    acknowledged: bool = False


class FakeBoard:
    """answer: what a command's payload is answered with; None for no answer."""

    def __init__(
        self,
        board_id: str,
        *,
        boot: int = 1,
        window: int = 16,
        ring: int = 256,
        retry_s: float = 2.0,
        keep_alive_s: int = 30,
        content_bytes_max: int = 512,
        clean: bool = True,
        answer: Callable[[str, bytes], bytes | None] = lambda topic, payload: payload,
        seed: int = 1,
    ) -> None:
        self.id, self.boot, self.ring_max, self.retry_s = board_id, boot, ring, retry_s
        self.wanted_window, self.keep_alive_s, self.content_bytes_max = window, keep_alive_s, content_bytes_max
        self.clean, self.answer = clean, answer
        self.rng = random.Random(seed)
        self.sequence = 0
        self.ring: list[_Held] = []
        self.shed: list[tuple[int, int]] = []
        self.refused: list[tuple[int, int]] = []
        self.counters: dict[str, int] = dict.fromkeys(STATS.values(), 0)
        self.commands: list[tuple[str, bytes]] = []
        self.unix_time_ms = 0
        self._message_id = 0
        self._cursor = 0
        self._retry_due = self._ping_due = 0.0
        self._back_off_until: float | None = None
        self._hello_due: float | None = None
        self._start(0.0)

    # What a test does to it.

    def produce(self, payload: bytes = b"") -> tuple[int, int]:
        """One more reading into the ring; the oldest gives way when it is full. Returns (boot, sequence)."""
        self.sequence += 1
        self.counters["readings_produced"] += 1
        held = _Held(self.boot, self.sequence, self._next_id(), payload or b'{"c":%d}' % self.sequence)
        if len(self.ring) >= self.ring_max:
            gone = self.ring.pop(0)
            self._cursor = max(0, self._cursor - 1)
            if not gone.acknowledged:
                self.shed.append((gone.boot, gone.sequence))
                self.counters["readings_shed"] += 1
        self.ring.append(held)
        return held.boot, held.sequence

    def restart(self, now: float, *, cold: bool = False) -> None:
        """A reset: a new boot; the ring survives a warm one."""
        self.boot += 1
        self.sequence = 0
        if cold:
            self.shed += [(held.boot, held.sequence) for held in self.ring if not held.acknowledged]
            self.ring.clear()
        self._start(now)
        self._say_hello()
        self._connect(now)

    @property
    def ready(self) -> bool:
        return self._step == "ready"

    @property
    def idle(self) -> bool:
        """Nothing is left to send or to be acknowledged."""
        return not self.ring

    def output(self) -> bytes:
        data = b"".join(self._out)
        self._out.clear()
        return data

    def receive(self, data: bytes, now: float) -> None:
        for content in self._reader.feed(data):
            try:
                match content[0]:
                    case 0x01:
                        self._on_packet(mqttsn.decode(content, 1), now)
                    case 0x03:
                        self._on_link(decode_link(content), now)
                    case 0x05:
                        self._on_request(decode_request(content), now)
                    case other:
                        raise AssertionError(f"the gateway sent a frame on channel {other}")
            except InputRejected:
                self.counters["mqttsn_rejected"] += 1
        self._send_readings(now)

    def tick(self, now: float) -> None:
        if self._hello_due is None:
            self._hello_due = now + 1.0
        elif not self._welcomed and now >= self._hello_due:
            self._hello_due = now + 1.0
            self._say_hello()
            if self._step == "idle":
                self._connect(now)
        if self._step not in {"idle", "ready"} and now >= self._step_due:
            self._connect(now)
        if self._step == "ready":
            if now >= self._ping_due:
                self._ping_due = now + self.keep_alive_s * 0.75
                self._say(sn.PingReq())
            if self.ring and self._cursor and now >= self._retry_due:
                self._go_back(0, now)
            if self._back_off_until is not None and now >= self._back_off_until:
                self._back_off_until = None
            for request in list(self._unanswered.values()):
                if now >= request[1]:
                    request[1] = now + self.retry_s
                    self._out.append(request[0])
        self._send_readings(now)

    # The session.

    def _start(self, now: float) -> None:
        self._out: list[bytes] = []
        self._reader = FrameReader(self.content_bytes_max)
        self._step, self._step_due = "idle", now
        self._welcomed = False
        self._hello_due = None
        self._cursor = 0
        self._retry_due = self._ping_due = now
        self._back_off_until = None
        self._topic_ids: dict[int, str] = {}
        self._topic_id = 0
        self._window = 1
        self._unanswered: dict[int, list[Any]] = {}
        self._seen_requests: dict[int, None] = {}

    def _connect(self, now: float) -> None:
        self._step, self._step_due = "connecting", now + self.retry_s
        self._say(sn.Connect(self.id, self.keep_alive_s, clean_session=self.clean))

    def _say_hello(self) -> None:
        hello = Hello(self.wanted_window, self.content_bytes_max, self.boot, self.id, "fake-1.0", 1)
        self._out.append(build_frame(encode_link(hello)))

    def _on_link(self, message: object, now: float) -> None:
        match message:
            case HelloRequest():
                self._welcomed = False
                self._say_hello()
                if self._step == "idle":
                    self._connect(now)
            case Welcome():
                self._welcomed = True
                self._window = message.window
                self.unix_time_ms = message.unix_time_ms
                self._go_back(0, now)
            case Time():
                self.unix_time_ms = message.unix_time_ms
            case StatsRequest():
                values = tuple((_STAT_IDS[name], count) for name, count in self.counters.items())
                self._out.append(build_frame(encode_link(Stats(self.boot, int(now * 1000), 1, values))))
            case Rewind():
                self._go_back(self._place(message.boot, message.sequence), now)
            case _:
                raise AssertionError(f"the gateway sent {message}")

    def _on_packet(self, packet: sn.Packet, now: float) -> None:
        match packet:
            case sn.ConnAck(return_code=sn.ACCEPTED):
                self._step, self._step_due = "registering", now + self.retry_s
                self._say(sn.Register(0, self._next_id(), f"dt/{self.id}/temp"))
            case sn.RegAck(return_code=sn.ACCEPTED):
                self._topic_id = packet.topic_id
                self._step, self._step_due = "subscribing", now + self.retry_s
                self._say(sn.Subscribe(self._next_id(), f"cmd/{self.id}/#", qos=1))
            case sn.SubAck(return_code=sn.ACCEPTED):
                self._step = "ready"
                self._ping_due = now + self.keep_alive_s * 0.75
                self._go_back(0, now)
            case sn.Register():
                self._topic_ids[packet.topic_id] = packet.topic
                self._say(sn.RegAck(packet.topic_id, packet.message_id))
            case sn.PubAck():
                self._on_puback(packet, now)
            case sn.Publish():
                self._on_command(packet, None, now)
            case sn.Disconnect():
                self.counters["reconnects"] += 1
                self._topic_ids.clear()
                self._connect(now)
            case _:
                pass

    def _on_request(self, frame: RequestFrame, now: float) -> None:
        self._on_command(frame.publish, frame.request_id, now)

    def _on_command(self, publish: sn.Publish, request_id: int | None, now: float) -> None:
        topic = self._topic_ids.get(publish.topic_id)
        if topic is None:
            self._say(sn.PubAck(publish.topic_id, publish.message_id, sn.INVALID_TOPIC_ID))
            return
        if publish.qos:
            self._say(sn.PubAck(publish.topic_id, publish.message_id))
        if request_id is not None and publish.dup and request_id in self._seen_requests:
            return
        self.commands.append((topic, publish.payload))
        self.counters["commands_received"] += 1
        answer = self.answer(topic, publish.payload)
        if request_id is None or answer is None:
            return
        self._seen_requests[request_id] = None
        reply = sn.Publish(publish.topic_id, answer, self._next_id(), 1)
        frame = build_frame(encode_request(RequestFrame(request_id, reply)))
        self._unanswered[reply.message_id] = [frame, now + self.retry_s]
        self._out.append(frame)

    def _on_puback(self, packet: sn.PubAck, now: float) -> None:
        if packet.message_id in self._unanswered:
            if packet.return_code != sn.CONGESTION:
                del self._unanswered[packet.message_id]
                self.counters["commands_answered"] += 1
            return
        place = next((n for n, held in enumerate(self.ring) if held.message_id == packet.message_id), None)
        if place is None:
            return
        held = self.ring[place]
        if packet.return_code == sn.CONGESTION:
            self._cursor = min(self._cursor, place)
            self._back_off_until = now + self.rng.uniform(0.1, 0.3)
            return
        if packet.return_code == sn.INVALID_TOPIC_ID:
            self._connect(now)
            return
        if packet.return_code == sn.NOT_SUPPORTED:
            self.refused.append((held.boot, held.sequence))
        else:
            self.counters["readings_acknowledged"] += 1
        held.acknowledged = True
        self._retry_due = now + self.retry_s
        while self.ring and self.ring[0].acknowledged:
            self.ring.pop(0)
            self._cursor = max(0, self._cursor - 1)

    # The ring.

    def _place(self, boot: int, sequence: int) -> int:
        for n, held in enumerate(self.ring):
            if held.boot == boot and held.sequence >= sequence:
                return n
        return 0

    def _go_back(self, place: int, now: float) -> None:
        self.counters["readings_sent_again"] += max(0, self._cursor - place)
        self._cursor = min(self._cursor, place)
        self._retry_due = now + self.retry_s

    def _send_readings(self, now: float) -> None:
        if self._step != "ready" or self._back_off_until is not None:
            return
        while self._cursor < len(self.ring) and self._cursor < self._window:
            held = self.ring[self._cursor]
            if held.boot != self.ring[0].boot:
                return  # a lost last reading of an old boot would otherwise be overtaken unseen
            self._cursor += 1
            if held.acknowledged:
                continue
            oldest = next(one.sequence for one in self.ring if one.boot == held.boot and not one.acknowledged)
            publish = sn.Publish(self._topic_id, held.payload, held.message_id, 1)
            frame = ReadingFrame(held.boot, held.sequence, min(255, held.sequence - oldest), publish)
            self._out.append(build_frame(encode_reading(frame)))
            if self._cursor == 1:
                self._retry_due = now + self.retry_s

    def _say(self, packet: sn.Packet) -> None:
        self._out.append(build_frame(encode_mqttsn(packet)))

    def _next_id(self) -> int:
        self._message_id = self._message_id % 0xFFFF + 1
        return self._message_id


CHANNELS = (MQTTSN, READING, LINK, REQUEST)
