"""MQTT-SN over UDP: the same gateway for clients on the network, each known by its address. Off unless configured.

Invariants: one datagram is one message; what arrives in one turn of the loop, up to a bound, is one batch; addresses,
and datagrams waiting to be sent, are bounded, and what a bound sheds is counted.
"""

import asyncio
import logging
import random
import socket
from collections import deque
from collections.abc import Hashable, Sequence
from typing import Final

from edge.boards.gateway import Gateway
from edge.boards.gateway_link import Link
from edge.boards.mqttsn import encode
from edge.boards.packets import Forwarded
from edge.config import UdpSettings
from edge.errors import ConnectionFailed
from edge.logs import log_event
from edge.metrics import Metrics

DATAGRAM_BYTES_MAX: Final = 65507
DATAGRAMS_A_TURN_MAX: Final = 64
RECEIVE_BYTES_MAX: Final = 1024 * 1024
WAITING_MAX: Final = 1024
TICK_EVERY_S: Final = 0.25
BACKOFF_S: Final = (0.5, 10.0)

_log = logging.getLogger(__name__)

Address = tuple[str | int, ...]


class UdpClients:
    """address: where it is bound, once it is; a port of 0 takes a free one."""

    def __init__(self, settings: UdpSettings, gateway: Gateway, metrics: Metrics) -> None:
        self.address: Address | None = None
        self._settings, self._gateway, self._metrics = settings, gateway, metrics
        self._link = Link(
            self,
            name="udp",
            source="udp",
            owner="",
            targets=("udp",),
            patterns=settings.clients,
            predefined=settings.predefined,
            clients_max=settings.addresses_max,
            message_bytes_max=DATAGRAM_BYTES_MAX,
        )
        gateway.attach(self._link)
        self._socket: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: deque[tuple[Address, bytes]] = deque()
        self._starved = self._flushing = self._blocked = False
        self._in = metrics.counter("datagrams_in")
        self._out = metrics.counter("datagrams_out")
        self._dropped = metrics.counter("output_dropped", board="udp")
        metrics.gauge("link_up", lambda: self._socket is not None, board="udp")

    async def run(self) -> None:
        """Serve until cancelled; an address that cannot be bound is tried again."""
        wait_s, last_problem = BACKOFF_S[0], ""
        while True:
            try:
                await self._serve()
            except OSError as error:
                problem = _problem(self._settings, error)
                if str(problem) != last_problem:
                    last_problem = str(problem)
                    log_event(_log, "udp_failed", level=logging.WARNING, problem=problem.problem, remedy=problem.remedy)
                self._metrics.counter("port_failed", board="udp", cause=problem.cause).value += 1
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))  # noqa: S311 (jitter)
            wait_s = min(wait_s * 2, BACKOFF_S[1])

    async def _serve(self) -> None:
        loop = self._loop = asyncio.get_running_loop()
        host, port = self._settings.host, self._settings.port
        infos = await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        family, kind, protocol, _, address = infos[0]
        with socket.socket(family, kind, protocol) as bound:
            bound.setblocking(False)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES_MAX)
            bound.bind(address)
            self._socket, self.address = bound, bound.getsockname()
            log_event(_log, "udp_opened", address=f"{self.address[0]}:{self.address[1]}")
            loop.add_reader(bound, self._on_readable)
            try:
                while True:
                    await asyncio.sleep(TICK_EVERY_S)
                    self._gateway.tick(self._link, loop.time())
            finally:
                loop.remove_reader(bound)
                loop.remove_writer(bound)
                self._socket = self.address = None
                self._waiting.clear()
                self._blocked = False

    def _on_readable(self) -> None:
        assert self._socket is not None
        assert self._loop is not None
        now = self._loop.time()
        receive, gateway, link = self._socket.recvfrom, self._gateway, self._link
        for _ in range(DATAGRAMS_A_TURN_MAX):
            try:
                data, address = receive(65536)
            except BlockingIOError:
                break
            except OSError:
                continue  # an earlier datagram of ours found nobody (ICMP)
            self._in.value += 1
            gateway.receive(link, address, data, now)
        gateway.flush()
        self._flush()

    # What the gateway writes (gateway.Wire).

    def transmit(self, key: Hashable, packets: Sequence[bytes]) -> None:
        if self._socket is None or not isinstance(key, tuple):
            return
        if isinstance(key[1], bytes):
            address, node = key[0], key[1]
            packets = [encode(Forwarded(node, packet)) for packet in packets]
        else:
            address = key
        for packet in packets:
            if len(self._waiting) >= WAITING_MAX:
                self._dropped.value += 1
            else:
                self._waiting.append((address, packet))
        if not self._flushing and not self._blocked and self._loop is not None:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def transmit_request(self, request_id: int, packet: bytes) -> None:
        """Never called: clients on UDP do not say hello."""

    def room(self) -> bool:
        if self._socket is not None and len(self._waiting) < WAITING_MAX // 2:
            return True
        self._starved = True
        return False

    def _flush(self) -> None:
        self._flushing = False
        if self._socket is None or self._loop is None or self._blocked:
            return
        while self._waiting:
            address, packet = self._waiting[0]
            try:
                self._socket.sendto(packet, address)
            except BlockingIOError:
                self._blocked = True
                self._loop.add_writer(self._socket, self._on_writable)
                return
            except OSError:
                self._dropped.value += 1
            else:
                self._out.value += 1
            self._waiting.popleft()
        if self._starved:
            self._starved = False
            self._gateway.pump(self._link, self._loop.time())

    def _on_writable(self) -> None:
        assert self._socket is not None
        assert self._loop is not None
        self._loop.remove_writer(self._socket)
        self._blocked = False
        self._flush()


def _problem(settings: UdpSettings, error: OSError) -> ConnectionFailed:
    where = f"UDP {settings.host}:{settings.port}"
    fix = "Free the port, or set mqttsn.udp to an address of this machine."
    return ConnectionFailed("bind", f"{where} cannot be listened on: {error.strerror or error}", fix)
