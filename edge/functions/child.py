"""The seam to a function's process: it is fed frames and gives bytes; what it prints comes as bytes too.

Invariants: whatever it does, `ended` is told exactly once, and nothing after it; then nothing of it runs any more.
Nothing here blocks: what it does not read is kept (`unsent`), endless output is read slowly.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Final, Literal, Protocol

import msgspec

from edge.config_functions import FunctionSettings
from edge.functions.sandbox import Ending, Refused

READ_BYTES: Final = 32 * 1024  # of the smallest frames 1.6 ms of work, until others have their turn
BITE_BYTES: Final = 4 * 1024  # of one who says more than it may
LAST_READS: Final = 32  # more than a socket holds: one who outlived it may go on writing
OUTPUT_READ_BYTES: Final = 64 * 1024
OUTPUT_READS_PER_S: Final = 20.0  # however little each finds: endless output costs its function, not the gateway
OUTPUT_READS_BURST: Final = 50.0
FD_VARIABLE: Final = "EDGE_FUNCTION_FD"

Pipe = Literal["stdout", "stderr"]


class Launch(msgspec.Struct, frozen=True):
    """What to start. code: the file or folder as it was taken over; of `exec` the folder of its files, empty without
    any. folder: the function's own. argv: of `exec`, a program in PATH by its name."""

    settings: FunctionSettings
    code: str
    folder: str
    site: str = ""
    secrets: dict[str, str] = {}
    argv: tuple[str, ...] = ()


class Listener(Protocol):
    """Who hears a child, on the loop's thread."""

    def received(self, data: bytes) -> None: ...
    def printed(self, pipe: Pipe, data: bytes) -> None: ...
    def tried(self, what: Refused, detail: str) -> None:
        """The kernel refused it, and said so."""

    def ended(self, ending: Ending) -> None: ...


class Child(Protocol):
    """One running process with all its descendants."""

    @property
    def pid(self) -> int: ...
    @property
    def contained_by(self) -> Sequence[str]: ...
    @property
    def paths(self) -> Sequence[tuple[str, str]]:
        """What it is granted of the files, and for what each."""

    @property
    def sockets_told(self) -> bool:
        """Whether its listener hears from the kernel of sockets that it is refused."""

    @property
    def reached(self) -> Mapping[str, str]:
        """Limits that it came up against and that did not end it, in words; also when it has ended."""

    @property
    def unsent(self) -> int:
        """How many bytes are kept for it."""

    @property
    def cpu_s(self) -> float:
        """What all its processes have used of the processor, when they were last looked at."""

    def write(self, data: bytes) -> None:
        """Never blocks; what the pipe does not take is kept."""

    def finish(self) -> None:
        """Nothing more is written: a program ends at the end of its stdin."""

    def pause(self) -> None:
        """Read no more of it, for now."""

    def resume(self) -> None: ...
    def rest(self, seconds: float) -> None:
        """Read no more of it for so long, paused or not."""

    def kill(self) -> None:
        """The whole tree, at once; `ended` follows."""

    def memory_bytes(self) -> int: ...


class Spawn(Protocol):
    async def __call__(self, launch: Launch, listener: Listener) -> Child:
        """Raises OSError, EdgeLoopError when it cannot be started."""
        ...

    async def install(self, settings: FunctionSettings, folder: str) -> str:
        """Its requirements, below the function's own folder. Returns where they are. Raises EdgeLoopError."""
        ...

    def close(self) -> None:
        """When no process runs any more."""


class Contained(Protocol):
    """What runs it: a plain process, or one in a sandbox. `wait` is awaited once, by one task."""

    pid: int

    @property
    def reached(self) -> Mapping[str, str]: ...
    @property
    def cpu_s(self) -> float: ...
    def kill(self) -> None: ...
    def memory_bytes(self) -> int: ...
    async def wait(self) -> Ending: ...


class Process:
    """A contained process at the gateway's ends of its socket and its pipes. `watch` must run from the start on."""

    def __init__(
        self,
        contained: Contained,
        sock: socket.socket,
        outputs: Sequence[tuple[int, Pipe]],
        listener: Listener,
        *,
        contained_by: Sequence[str] = (),
        paths: Sequence[tuple[str, str]] = (),
        sockets_told: bool = False,
    ) -> None:
        self._contained, self._socket, self._listener = contained, sock, listener
        self.contained_by, self.paths, self.sockets_told = contained_by, paths, sockets_told
        self._loop = asyncio.get_running_loop()
        self._unsent = bytearray()
        self._read_bytes = READ_BYTES
        self._ended = self._at_end = self._paused = self._resting = self._finishing = False
        self._outputs = dict(outputs)
        self._reads = dict.fromkeys(self._outputs, (OUTPUT_READS_BURST, self._loop.time()))
        sock.setblocking(False)
        self._loop.add_reader(sock, self._readable)
        for fd in self._outputs:
            os.set_blocking(fd, False)
            self._loop.add_reader(fd, self._printed, fd)

    @property
    def pid(self) -> int:
        return self._contained.pid

    @property
    def reached(self) -> Mapping[str, str]:
        return self._contained.reached

    @property
    def cpu_s(self) -> float:
        return self._contained.cpu_s

    @property
    def unsent(self) -> int:
        return len(self._unsent)

    async def watch(self) -> None:
        """Until it has ended."""
        ending: Ending | None = None
        try:
            ending = await self._contained.wait()
        finally:
            try:
                self._hear_last()
            finally:
                self._close()
                self._listener.ended(ending or Ending("killed", 9, "the gateway ended"))

    def write(self, data: bytes) -> None:
        if self._ended:
            return
        is_waiting = bool(self._unsent)
        self._unsent += data
        if not is_waiting and not self._send():
            self._loop.add_writer(self._socket, self._writable)

    def finish(self) -> None:
        if self._unsent:
            self._finishing = True
        elif not self._ended:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)

    def pause(self) -> None:
        if not self._ended:
            self._paused = True
            self._loop.remove_reader(self._socket)

    def resume(self) -> None:
        if self._paused:
            self._paused = False
            self._read_again()

    def rest(self, seconds: float) -> None:
        self._read_bytes = BITE_BYTES
        if not self._resting and not self._ended:
            self._resting = True
            self._loop.remove_reader(self._socket)
            self._loop.call_later(seconds, self._rested)

    def _rested(self) -> None:
        self._resting = False
        self._read_again()

    def _read_again(self) -> None:
        if not self._paused and not self._resting and not self._ended and not self._at_end:
            self._loop.add_reader(self._socket, self._readable)

    def kill(self) -> None:
        if not self._ended:
            self._contained.kill()

    def memory_bytes(self) -> int:
        return 0 if self._ended else self._contained.memory_bytes()

    def _send(self) -> bool:
        """Whether nothing is left."""
        try:
            sent = self._socket.send(self._unsent)
        except BlockingIOError:
            return False
        except OSError:  # it has closed its end: its process ends, or is ended for not answering
            sent = len(self._unsent)
        del self._unsent[:sent]
        return not self._unsent

    def _writable(self) -> None:
        if self._send():
            self._loop.remove_writer(self._socket)
            if self._finishing:
                self.finish()

    def _readable(self) -> None:
        try:
            data = self._socket.recv(self._read_bytes)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._read_bytes = min(2 * self._read_bytes, READ_BYTES)
        if data:
            self._listener.received(data)
        else:
            self._loop.remove_reader(self._socket)
            self._at_end = True

    def _printed(self, fd: int) -> None:
        try:
            data = os.read(fd, OUTPUT_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(fd)
            return
        self._listener.printed(self._outputs[fd], data)
        left, before = self._reads[fd]
        now = self._loop.time()
        left = min(left + (now - before) * OUTPUT_READS_PER_S, OUTPUT_READS_BURST) - 1
        self._reads[fd] = left, now
        if left < 1 and not self._ended:
            self._loop.remove_reader(fd)
            self._loop.call_later((1 - left) / OUTPUT_READS_PER_S, self._read_output_again, fd)

    def _read_output_again(self, fd: int) -> None:
        if not self._ended:
            self._loop.add_reader(fd, self._printed, fd)

    def _hear_last(self) -> None:
        """Take what it said and printed last."""
        with contextlib.suppress(OSError):
            for _ in range(LAST_READS):
                if not (data := self._socket.recv(READ_BYTES)):
                    break
                self._listener.received(data)
        for fd, name in self._outputs.items():
            with contextlib.suppress(OSError):
                if data := os.read(fd, OUTPUT_READ_BYTES):
                    self._listener.printed(name, data)

    def _close(self) -> None:
        self._ended = True
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        for fd in self._outputs:
            self._loop.remove_reader(fd)
            os.close(fd)
