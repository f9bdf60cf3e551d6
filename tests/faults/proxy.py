"""A TCP proxy with bad habits, to stand in front of a broker: cut, latency, throttle, reset, half-open."""

import asyncio
import contextlib
import socket
import struct

from tests.faults.held_port import HOST, HeldPort
from tests.faults.loop_thread import LoopThread

CHUNK_BYTES = 16 * 1024


class Proxy:
    """`port` leads to `target`. Every wish is an attribute that may be set at any time from any thread.

    latency_s: each chunk waits that long, both ways; bytes_per_s: at most so many each way, 0 for no bound; black_hole:
    what comes in is swallowed while the connections stay open; reset_after_bytes: a connection is reset once that many
    went up in it, in the middle of a packet most likely; 0 for never.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.latency_s = 0.0
        self.bytes_per_s = 0
        self.black_hole = False
        self.reset_after_bytes = 0
        self.connections = 0
        self.resets = 0
        self.carried_up = 0
        self._links: set[_Link] = set()
        self._server: asyncio.Server | None = None
        self._thread = LoopThread("proxy")
        self._port = HeldPort()
        self.port = self._port.number
        self._thread.run(self._listen())

    def cut(self) -> None:
        """Close what is open, take nothing new: nobody listens at the port."""
        self._thread.run(self._stop(reset=False))

    def restore(self) -> None:
        """The end of a cut, of a black hole, of latency and throttling."""
        self.latency_s, self.bytes_per_s, self.black_hole, self.reset_after_bytes = 0.0, 0, False, 0
        if self._server is None:
            self._thread.run(self._listen())

    def reset(self) -> None:
        """RST to both ends of every connection; new ones are taken."""
        self._thread.call(self._end_links, True)

    def close(self) -> None:
        self._thread.run(self._stop(reset=False))
        self._thread.close()
        self._port.close()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._take, sock=self._port.socket())

    async def _stop(self, *, reset: bool) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
            self._port.refuse()
        self._end_links(reset)

    def _end_links(self, reset: bool) -> None:
        for link in list(self._links):
            link.end(reset=reset)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(HOST, self.target)
        except OSError:
            writer.transport.abort()
            return
        self.connections += 1
        link = _Link(self, writer, far_writer)
        self._links.add(link)
        try:
            async with asyncio.TaskGroup() as group:
                link.tasks = [
                    group.create_task(link.pump(reader, far_writer, up=True)),
                    group.create_task(link.pump(far_reader, writer, up=False)),
                ]
        finally:
            link.end(reset=False)
            self._links.discard(link)


class _Link:
    def __init__(self, proxy: Proxy, near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        self._proxy, self._ends = proxy, (near, far)
        self.tasks: list[asyncio.Task[None]] = []
        self._up = 0
        for end in self._ends:
            end.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def end(self, *, reset: bool) -> None:
        for end in self._ends:
            if reset and not end.transport.is_closing():
                self._proxy.resets += 1
                # Lingering for no time makes close() a RST.
                end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.transport.abort()
        for task in self.tasks:
            task.cancel()

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool) -> None:
        """One way, until either end is gone; then the other way ends as well."""
        proxy, loop = self._proxy, asyncio.get_running_loop()
        free_at = 0.0
        waiting: asyncio.Queue[tuple[float, bytes, bool]] = asyncio.Queue(64)  # when, what, whether it is the last

        async def deliver() -> None:
            while True:
                due, data, last = await waiting.get()
                await asyncio.sleep(max(0.0, due - loop.time()))
                if data and not proxy.black_hole and not writer.is_closing():
                    writer.write(data)
                    await writer.drain()
                if last:
                    self.end(reset=bool(data))
                    return

        with contextlib.suppress(ConnectionError):
            async with asyncio.TaskGroup() as group:
                group.create_task(self._quietly(deliver()))
                while True:
                    data = await self._read(reader)
                    last = not data
                    if up:
                        proxy.carried_up += len(data)
                        self._up += len(data)
                        bound = proxy.reset_after_bytes
                        if bound and self._up >= bound:
                            data, last = data[: max(1, len(data) - (self._up - bound))], True
                    if proxy.bytes_per_s:
                        free_at = max(free_at, loop.time()) + len(data) / proxy.bytes_per_s
                        await asyncio.sleep(free_at - loop.time())
                    await waiting.put((loop.time() + proxy.latency_s, data, last))
                    if last:
                        return

    async def _read(self, reader: asyncio.StreamReader) -> bytes:
        try:
            return await reader.read(CHUNK_BYTES)
        except ConnectionError:
            return b""

    async def _quietly(self, work: object) -> None:
        with contextlib.suppress(ConnectionError):
            await work  # type: ignore[misc]
