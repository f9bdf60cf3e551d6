"""A worker's end of the socket, for code in any thread.

Invariants: whoever waits reads, one at a time, and gives what it reads to whom it belongs; when the reader leaves, the
others wake and one of them reads on. So a call costs no change of threads, and an answer finds a thread that waits
while the main thread runs a handler. Frames are written whole, one after the other.
"""

import os
import select
import time
from _thread import LockType, allocate_lock, get_ident
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from edge.errors import InputRejected
from edge.functions import wire
from edge.functions.api import Request, RequestFailed

READ_BYTES: Final = 262_144
ANSWER_TIMEOUT_S: Final = 60.0  # the gateway has its own, shorter ones

ToMain = wire.Configure | wire.Call | wire.Stop


class Closed(Exception):
    """The gateway has gone, or cannot be understood."""


class Writer:
    """Writes frames, from any thread; names requests."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.forked = False
        self._writing = allocate_lock()
        self._last_id = 0
        self._late: list[wire.FromWorker] = []
        os.register_at_fork(after_in_child=self._fork)

    def _fork(self) -> None:
        """A child of the handler's code is not the worker: two would speak on one socket."""
        self.forked = True

    def check(self) -> None:
        """Raises RequestFailed in a fork, whose locks may never open."""
        if self.forked:
            raise RequestFailed("unavailable", "a forked process is not the function any more")

    def next_id(self) -> int:
        with self._writing:
            self._last_id += 1
            return self._last_id

    def send(self, struct: wire.FromWorker) -> None:
        """Blocks while the gateway does not read. Raises ValueError for what no frame can carry, Closed."""
        try:
            rest = memoryview(wire.frame(struct))
        except InputRejected as rejected:
            raise ValueError(str(rejected)) from None
        except (TypeError, OverflowError) as error:
            raise ValueError(str(error)) from None
        self.check()
        with self._writing:
            late, self._late = self._late, []
            self._write(memoryview(b"".join(map(wire.frame, late))))
            self._write(rest)

    def send_soon(self, struct: wire.FromWorker) -> None:
        """Now, or with the next frame when one is being written: perhaps by the code below this call, in a destructor.
        A fork says nothing. Raises Closed."""
        if self.forked:
            return
        if not self._writing.acquire(blocking=False):
            self._late.append(struct)
            return
        try:
            self._write(memoryview(wire.frame(struct)))
        finally:
            self._writing.release()

    def _write(self, rest: memoryview) -> None:
        try:
            while rest:
                rest = rest[os.write(self.fd, rest) :]
        except OSError as error:
            raise Closed(str(error)) from None


class Asking(Protocol):
    """One who waits for an answer. Called with the channel's lock held, from whichever thread reads."""

    def give(self, reply: wire.Reply) -> None: ...

    def stir(self) -> None:
        """Look again: nobody may be reading any more, or the gateway has gone."""


class _Waiting:
    """A thread. `wake` is locked while there is nothing to wake for."""

    __slots__ = ("reply", "wake")

    def __init__(self) -> None:
        self.reply: wire.Reply | None = None
        self.wake: LockType = allocate_lock()
        self.wake.acquire()

    def give(self, reply: wire.Reply) -> None:
        self.reply = reply
        self.stir()

    def stir(self) -> None:
        if self.wake.locked():
            self.wake.release()


class Channel:
    """The main thread alone calls `receive`, or `take_over` once and `feed` from then on."""

    def __init__(self, fd: int) -> None:
        self.writer = Writer(fd)
        self.loop_thread: int | None = None  # who took over
        self._reader = wire.to_worker()
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)
        self._lock = allocate_lock()  # guards what follows
        self._reading = False
        self._closed: Closed | None = None
        self._inbox: deque[ToMain] = deque()
        self._asking: dict[int, Asking] = {}
        self._main: _Waiting | None = None

    def receive(self) -> ToMain:
        """What comes next. Raises Closed."""
        while True:
            with self._lock:
                if self._inbox:
                    return self._inbox.popleft()
                if self._closed is not None:
                    raise self._closed
                lead = not self._reading
                if lead:
                    self._reading = True
                else:
                    waiting = self._main = _Waiting()
            if lead:
                self._read(None)
            else:
                waiting.wake.acquire()

    def take_over(self) -> list[ToMain]:
        """From now on the caller reads, and calls `feed`. Returns what came before."""
        while True:
            with self._lock:
                if not self._reading:
                    self._reading = True
                    self.loop_thread = get_ident()
                    early = list(self._inbox)
                    self._inbox.clear()
                    return early
                waiting = self._main = _Waiting()
            waiting.wake.acquire()

    def feed(self, data: bytes) -> list[ToMain]:
        """What was read, nothing at its end. Answers go to whom they belong. Raises Closed."""
        try:
            if not data:
                raise Closed("it closed the socket")
            found = self._reader.feed(data)
        except (InputRejected, Closed) as error:
            closed = error if isinstance(error, Closed) else Closed(str(error))
            with self._lock:
                self._closed = closed
                for asking in self._asking.values():
                    asking.stir()
            raise closed from None
        with self._lock:
            for one in found:
                self._give(one)
            rest = list(self._inbox)
            self._inbox.clear()
        return rest

    def ask(self, request: Request, timeout_s: float = ANSWER_TIMEOUT_S) -> wire.Reply:
        """Send a request and wait for its answer. Raises ValueError as `send`, RequestFailed when none comes,
        RuntimeError in the thread that took over: it would wait for itself."""
        if self.loop_thread == get_ident():
            raise RuntimeError("in an async handler, await the function of this name with an `a` before it")
        waiting = _Waiting()
        with self.asking(request, waiting):
            return self._answer(waiting, time.monotonic() + timeout_s)

    @contextmanager
    def asking(self, request: Request, asking: Asking) -> Iterator[None]:
        """Send a request, whose answer is given within the context. Raises as `ask`."""
        self.writer.check()
        id_ = self.writer.next_id()
        struct = request(id_)
        with self._lock:
            self._asking[id_] = asking
        try:
            self.writer.send(struct)
            yield
        except Closed as closed:
            raise RequestFailed("unavailable", f"the gateway has gone: {closed}") from None
        finally:
            with self._lock:
                del self._asking[id_]

    def deny(self, request: Request) -> wire.Reply:
        """As `ask`; in the thread that took over the answer is not awaited, as it is known. Raises as `ask`."""
        if self.loop_thread != get_ident():
            return self.ask(request)
        self.tell(request, self.writer.next_id())
        return wire.Reply(0, ok=False, error="denied", message="it is not in the function's `publish`")

    def tell(self, request: Request, id_: int = 0) -> None:
        """Raises ValueError as `send`, RequestFailed."""
        try:
            self.writer.send(request(id_))
        except Closed as closed:
            raise RequestFailed("unavailable", f"the gateway has gone: {closed}") from None

    def _answer(self, waiting: _Waiting, until: float) -> wire.Reply:
        while True:
            with self._lock:
                if waiting.reply is not None:
                    return waiting.reply
                if self._closed is not None:
                    raise self._closed
                left = until - time.monotonic()
                if left <= 0:
                    raise RequestFailed("timeout", "the gateway has not answered")
                lead = not self._reading
                self._reading = True
            if lead:
                self._read(left)
            else:
                waiting.wake.acquire(timeout=left)

    def _read(self, timeout_s: float | None) -> None:
        """Read once, as the one who reads; others may then. None: for as long as it takes."""
        try:
            if timeout_s is not None and not self._poll.poll(timeout_s * 1000):
                return
            data = os.read(self.writer.fd, READ_BYTES)
            if not data:
                raise Closed("it closed the socket")
            found = self._reader.feed(data)
            with self._lock:
                for one in found:
                    self._give(one)
        except (OSError, InputRejected, Closed) as error:
            with self._lock:
                self._closed = error if isinstance(error, Closed) else Closed(str(error))
        finally:
            with self._lock:
                self._reading = False
                for asking in self._asking.values():
                    asking.stir()
                if self._main is not None:
                    self._main.stir()

    def _give(self, one: wire.ToWorker) -> None:
        if not isinstance(one, wire.Reply):
            self._inbox.append(one)
        elif (asking := self._asking.get(one.id)) is not None:  # else it asks no more
            asking.give(one)
