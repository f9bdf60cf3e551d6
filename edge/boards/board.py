"""One board on one serial link: bytes in, batches to the router, bytes out (the wire is frames.py's). Pure.

Invariants:
- One `receive` is one batch to the router for each client; what goes out since the last `output` leaves as one write.
- A board is trusted with LINK, READING and REQUEST frames only after its HELLO; until then it is a plain MQTT-SN client
  with a window of one, to which nothing else is sent than one HELLO_REQUEST at open.
- What waits to be written is bounded: from half the bound on no more messages are sent (QoS 0 is dropped, QoS 1 and 2
  wait), at the bound answers too are dropped and counted; the board asks again.
- Closing the port ends nothing but the hello: sessions end by their keep-alive. A board that said hello before is
  asked again for a while, as is whatever speaks as only such a board does; what wants its answer waits so long.
"""

import logging
from collections.abc import Callable, Hashable, Sequence
from enum import Enum
from typing import Final

import msgspec

from edge.boards.frames import REASONS, FrameReader, build_frame
from edge.boards.gateway import SETTLING_S, Gateway
from edge.boards.gateway_link import Link
from edge.boards.link import (
    CONTENT_BYTES_MAX_BEFORE_HELLO,
    LINK,
    MQTTSN,
    READING,
    REQUEST,
    Hello,
    HelloRequest,
    LinkMessage,
    Stats,
    StatsRequest,
    Time,
    Welcome,
    decode_link,
    decode_request,
    encode_link,
    reset_reason_name,
)
from edge.boards.mqttsn import encode
from edge.boards.packets import Forwarded
from edge.boards.readings import Marks, Readings
from edge.boards.requests import Requests
from edge.config import BoardSettings
from edge.errors import InputRejected
from edge.metrics import Metrics

INTER_BYTE_TIMEOUT_S: Final = 0.25
STATS_EVERY_S: Final = 10.0
TIME_EVERY_S: Final = 600.0
HELLO_AGAIN_S: Final = 1.0
TIME_AGAIN_S: Final = 10.0  # while the gateway itself does not know it
CLIENTS_MAX: Final = 64
LINES_A_SECOND_MAX: Final = 100


class PortState(Enum):
    """Of the port itself, not of the board behind it."""

    CLOSED = "closed"
    OPEN = "open"


class BoardStatus(msgspec.Struct, frozen=True):
    """One board, for `edge status`.

    port_cause: why the port is closed, '' while it is open; client_id, boot, firmware, reset_reason: as the board last
    said hello, '' or None before it ever did; counters (the board's own, by the names of link.STATS) and uptime_ms: of
    that boot; connected: by an open port, with a session; client_state: of the session, which outlasts the port for a
    while; last_sequence: of the last reading accepted, of the boot reading_boot; rejected: frames and messages refused,
    by reason.
    """

    name: str
    port: str
    port_state: str
    port_cause: str
    client_id: str
    connected: bool
    client_state: str
    boot: int | None
    reading_boot: int | None
    last_sequence: int | None
    firmware: str
    reset_reason: str
    uptime_ms: int | None
    window: int
    readings_under_way: int
    counters: dict[str, int]
    rejected: dict[str, int]


class Board:
    """unix_time_ms: the wall clock, 0 when unknown. wake: called when there is output after there was none.

    lines: takes the board's log lines. An I/O-free end of a port: whoever has the bytes calls `receive`, writes
    `output`, and calls `tick` at `deadline`.
    """

    def __init__(
        self,
        settings: BoardSettings,
        gateway: Gateway,
        metrics: Metrics,
        marks: Marks,
        *,
        unix_time_ms: Callable[[], int],
        advertise_s: float = 900.0,
        lines: Callable[[Sequence[str]], None] = lambda lines: None,
    ) -> None:
        self.settings = settings
        self.name = settings.name
        self.wake: Callable[[], None] = lambda: None
        self.port_state, self.port_cause = PortState.CLOSED, "not opened yet"
        self._gateway, self._metrics, self._marks = gateway, metrics, marks
        self._unix_time_ms, self._lines, self._advertise_s = unix_time_ms, lines, advertise_s
        self._link = Link(
            self,
            name=settings.name,
            source=f"board:{settings.name}",
            owner=settings.name,
            targets=("boards", f"board:{settings.name}"),
            patterns=settings.clients,
            predefined=settings.predefined,
            clients_max=CLIENTS_MAX,
            message_bytes_max=CONTENT_BYTES_MAX_BEFORE_HELLO - 1,
        )
        gateway.attach(self._link)
        self._reader = FrameReader(settings.content_bytes_max)
        self._readings: Readings | None = None
        self._requests = Requests()
        self._hello: Hello | None = None
        self._known: Hello | None = None
        self._hello_asked = 0.0
        self._stats: Stats | None = None
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._starved = False
        self._heard = 0.0
        self._stats_due = self._time_due = self._advertise_due = self._hello_due = float("inf")
        self._dropped = metrics.counter("output_dropped", board=self.name)
        self._bytes_in = metrics.counter("link_bytes_in", board=self.name)
        self._bytes_out = metrics.counter("link_bytes_out", board=self.name)
        self._text_lines = metrics.counter("board_log_lines", board=self.name)
        self._text_dropped = metrics.counter("board_log_lines_dropped", board=self.name)
        self._lines_from, self._lines_left = 0.0, LINES_A_SECOND_MAX
        for reason in REASONS:
            metrics.gauge("frames_rejected", self._rejections_of(reason), board=self.name, reason=reason)
        metrics.gauge("frames_accepted", lambda: self._reader.frames, board=self.name)
        metrics.gauge("link_up", lambda: self.port_state is PortState.OPEN, board=self.name)
        metrics.gauge("requests_expired", lambda: self._requests.expired, board=self.name)
        metrics.gauge("requests_lost", lambda: self._requests.lost, board=self.name)

    # The port.

    def opened(self, now: float) -> None:
        """The port is open: ask for a hello, say that there is a gateway."""
        self.port_state, self.port_cause = PortState.OPEN, ""
        self._heard = now
        self._link.settling_until = now + SETTLING_S
        self._ask_hello(now)
        if self._known is not None:
            self._link.direct.hello_until = now + SETTLING_S
            self._hello_due = now + HELLO_AGAIN_S
        self._advertise(now)

    def closed(self, cause: str) -> None:
        """cause: for people. Also called when opening failed."""
        self.port_state, self.port_cause = PortState.CLOSED, cause
        self._reader.expire()
        self._out.clear()
        self._out_bytes = 0
        self._forget_hello()

    def receive(self, data: bytes, now: float) -> None:
        """data: what one read of the port gave. Raises nothing."""
        self._bytes_in.value += len(data)
        self._heard = now  # only `tick` finds the line silent: a late read may be our own lateness, not the board's
        gateway, link = self._gateway, self._link
        readings: list[bytes] = []
        for content in self._reader.feed(data):
            channel = content[0]
            if channel == READING:
                readings.append(content)
                continue
            if readings:
                self._take_readings(readings, now)
                readings = []
            if channel == MQTTSN:
                gateway.receive(link, b"", content[1:], now)
            elif channel == LINK:
                self._on_control(content, now)
            elif channel == REQUEST:
                self._on_answer(content, now)
        if readings:
            self._take_readings(readings, now)
        gateway.flush()
        self._hand_on_lines()

    def output(self, now: float) -> bytes:
        """All that is to be written, b'' for nothing; it is the caller's then."""
        data = b"".join(self._out)
        self._out.clear()
        self._out_bytes = 0
        self._bytes_out.value += len(data)
        if self._starved:
            self._starved = False
            self._gateway.pump(self._link, now)
        return data

    def tick(self, now: float) -> None:
        """Do what is due; also while the port is closed."""
        if self._reader.pending and now - self._heard >= INTER_BYTE_TIMEOUT_S:
            self._reader.expire()
            self._hand_on_lines()
        self._gateway.tick(self._link, now)
        if self.port_state is not PortState.OPEN:
            return
        if now >= self._stats_due:
            self.ask_stats(now)
        if now >= self._time_due:
            self._tell_time(now)
        if now >= self._advertise_due:
            self._advertise(now)
        if now >= self._hello_due:
            self._ask_hello(now)
            again = now + HELLO_AGAIN_S
            self._hello_due = again if again < self._link.direct.hello_until else float("inf")

    def deadline(self) -> float | None:
        """When `tick` has something to do."""
        due = [self._gateway.deadline(self._link)]
        if self._reader.pending:
            due.append(self._heard + INTER_BYTE_TIMEOUT_S)
        if self.port_state is PortState.OPEN:
            due.append(min(self._stats_due, self._time_due, self._advertise_due, self._hello_due))
        return min((at for at in due if at is not None), default=None)

    # The runtime.

    def ask_stats(self, now: float) -> None:
        """Ask for the board's counters; done every 10 s by itself."""
        if self._hello is not None:
            self._stats_due = now + STATS_EVERY_S
            self._control(StatsRequest())

    def status(self) -> BoardStatus:
        hello, stats = self._known, self._stats
        client = self._link.clients.get(b"")
        last = self._readings.last if self._readings is not None else self._marks.last(self.name)
        reason = stats.reset_reason if stats is not None else hello.reset_reason if hello is not None else 0
        rejected = {reason: count for reason, count in self._reader.rejected.items() if count}
        rejected |= self._gateway.rejections(self.name)
        return BoardStatus(
            name=self.name,
            port=self.settings.port,
            port_state=self.port_state.value,
            port_cause=self.port_cause,
            client_id=client.id if client is not None else hello.board_id if hello is not None else "",
            connected=client is not None and client.connected and self.port_state is PortState.OPEN,
            client_state=client.state.value if client is not None else "disconnected",
            boot=hello.boot if hello is not None else None,
            reading_boot=last[0] if last is not None else None,
            last_sequence=last[1] if last is not None else None,
            firmware=hello.firmware_version if hello is not None else "",
            reset_reason=reset_reason_name(reason) if hello is not None else "",
            uptime_ms=stats.uptime_ms if stats is not None else None,
            window=self._link.direct.window,
            readings_under_way=self._readings.under_way if self._readings is not None else 0,
            counters=stats.named() if stats is not None else {},
            rejected=rejected,
        )

    # What the gateway writes (gateway.Wire).

    def transmit(self, key: Hashable, packets: Sequence[bytes]) -> None:
        if key == b"":
            self._write(b"".join([build_frame(b"\x01" + packet) for packet in packets]), len(packets))
        elif isinstance(key, tuple):
            contents = [b"\x01" + encode(Forwarded(key[1], packet)) for packet in packets]
            self._write(b"".join(map(build_frame, contents)), len(packets))

    def transmit_request(self, request_id: int, packet: bytes) -> None:
        self._write(build_frame(bytes((REQUEST, request_id >> 8, request_id & 0xFF)) + packet), 1)

    def room(self) -> bool:
        if self.port_state is PortState.OPEN and self._out_bytes < self.settings.output_bytes_max // 2:
            return True
        self._starved = True
        return False

    # Within.

    def _ask_hello(self, now: float) -> None:
        self._hello_asked = now
        self._control(HelloRequest())

    def _miss_hello(self, now: float) -> None:
        """The board speaks as only one does that has said hello: its hello, or our asking for it, was lost."""
        self._hello_due = min(self._hello_due, max(now, self._hello_asked + HELLO_AGAIN_S))

    def _take_readings(self, contents: Sequence[bytes], now: float) -> None:
        if self._hello is None:
            self._miss_hello(now)
        client = self._link.clients.get(b"")
        if client is None or not client.connected:
            for _ in contents:
                self._gateway.count_rejected(self._link, "not_connected")
            self._gateway.tell_unknown(self._link, b"", now)
            return
        client.heard = now
        readings = self._readings
        if readings is None or readings.thing != client.id:
            readings = self._readings = Readings(
                client.id,
                self.name,
                self._metrics,
                self._marks,
                send=lambda packets: self.transmit(b"", packets),
                rewind=self._control,
                reject=lambda reason: self._gateway.count_rejected(self._link, reason),
            )
            readings.window = self._link.direct.window if self._hello is not None else self.settings.window
        messages = readings.take(contents, client.ids, now)
        if messages:
            self._gateway.route(self._link, client.id, messages, readings)

    def _on_control(self, content: bytes, now: float) -> None:
        try:
            message = decode_link(content)
        except InputRejected as error:
            self._gateway.count_rejected(self._link, error.reason)
            return
        if isinstance(message, Hello):
            self._on_hello(message, now)
        elif isinstance(message, Stats):
            if self._hello is not None and self._hello.boot == message.boot:
                self._stats = message
            else:
                self._gateway.count_rejected(self._link, "link_before_hello")
                self._miss_hello(now)
        else:
            self._gateway.count_rejected(self._link, "link_unexpected")

    def _on_hello(self, hello: Hello, now: float) -> None:
        if not self._link.allows(hello.board_id) or self._gateway.is_foreign(self._link, hello.board_id):
            self._gateway.count_rejected(self._link, "hello_foreign")
            fix = "Plug in the board that belongs here, or correct the port or the name in the gateway file."
            self._gateway.note(self._link, "board_refused", logging.WARNING, said=hello.board_id, remedy=fix)
            return
        before, self._hello, self._known = self._known, hello, hello
        client = self._link.clients.get(b"")
        if client is not None:
            client.outbound.greeted(now)
        if before is not None and before.boot != hello.boot:
            self._stats = None
            self._requests.lose(client.outbound.requests_under_way() if client is not None else ())
        self._hello_due = float("inf")
        self._link.direct.hello_until = 0.0
        if self._readings is not None:
            self._readings.reset()
        peer = self._link.direct
        peer.window = max(1, min(hello.window, self.settings.window))
        peer.requests = self._requests
        self._link.message_bytes_max = max(hello.content_bytes_max, CONTENT_BYTES_MAX_BEFORE_HELLO) - 1
        if self._readings is not None:
            self._readings.window = peer.window
        self._control(Welcome(peer.window, self.settings.content_bytes_max, self._unix_time_ms()))
        self._time_due = now + (TIME_EVERY_S if self._unix_time_ms() else TIME_AGAIN_S)
        self.ask_stats(now)
        self._gateway.pump(self._link, now)

    def _forget_hello(self) -> None:
        self._hello = None
        self._stats_due = self._time_due = self._advertise_due = self._hello_due = float("inf")
        peer = self._link.direct
        peer.window, peer.requests = 1, None
        self._link.message_bytes_max = CONTENT_BYTES_MAX_BEFORE_HELLO - 1

    def _on_answer(self, content: bytes, now: float) -> None:
        client = self._link.clients.get(b"")
        try:
            frame = decode_request(content)
        except InputRejected as error:
            self._gateway.count_rejected(self._link, error.reason)
            return
        if client is None or not client.connected:
            self._gateway.count_rejected(self._link, "not_connected")
            self._gateway.tell_unknown(self._link, b"", now)
            return
        client.answered(frame, now)

    def _control(self, message: LinkMessage) -> None:
        self._write(build_frame(encode_link(message)), 1)

    def _tell_time(self, now: float) -> None:
        unix_time_ms = self._unix_time_ms()
        self._time_due = now + (TIME_EVERY_S if unix_time_ms else TIME_AGAIN_S)
        if unix_time_ms:
            self._control(Time(unix_time_ms))

    def _advertise(self, now: float) -> None:
        self._advertise_due = now + self._advertise_s
        self.transmit(b"", (self._gateway.advertisement(),))

    def _write(self, data: bytes, frames: int) -> None:
        if self.port_state is not PortState.OPEN or not data:
            return
        if self._out_bytes + len(data) > self.settings.output_bytes_max:
            self._dropped.value += frames
            return
        if not self._out_bytes:
            self.wake()
        self._out.append(data)
        self._out_bytes += len(data)

    def _hand_on_lines(self) -> None:
        """At most so many a second: a board that babbles does not fill the gateway's log."""
        self._reader.take_smp()
        lines = self._reader.take_text()
        if not lines:
            return
        if self._heard >= self._lines_from + 1.0:
            self._lines_from, self._lines_left = self._heard, LINES_A_SECOND_MAX
        allowed = lines[: self._lines_left]
        self._lines_left -= len(allowed)
        self._text_lines.value += len(lines)
        self._text_dropped.value += len(lines) - len(allowed)
        if allowed:
            self._lines(allowed)

    def _rejections_of(self, reason: str) -> Callable[[], float]:
        return lambda: self._reader.rejected[reason]
