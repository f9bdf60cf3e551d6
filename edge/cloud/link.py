"""One transport under an MQTT session: when it is read, written and ticked, and how it ends.

Invariants: everything a turn of the loop produced leaves in one write; while too much is unacknowledged nothing is
read; while many publishes are under way their answers gather, for GATHER_S at most.
"""

import asyncio
import socket
from collections.abc import Callable, Sequence

from edge.cloud import failures
from edge.mqtt.events import Event
from edge.mqtt.session import Session

GOODBYE_S = 1.0  # to write DISCONNECT and close in good order
READ_BYTES_MAX = 64 * 1024
WRITE_BUFFER_BYTES_MAX = 256 * 1024  # above it the broker reads too slowly, and messages queue
# While so many publishes are under way the socket wakes us only for so many bytes, or after so long: a broker writes
# its answers one by one, and to be woken for a few of them costs ten times what they do themselves. The window does not
# run dry meanwhile; what else comes is late by no more.
GATHER_IN_FLIGHT = 256
GATHER_BYTES = 16 * 1024
GATHER_S = 0.001


class Link(asyncio.BufferedProtocol):
    """One transport. ended: a future that fails with what ended it. patience_s: so long the broker may read nothing
    while the write buffer is full; a broker that still sends would not be found out by its keep-alive.

    It is read into one buffer, as asyncio's own reads take 256 KiB anew each time.
    """

    def __init__(
        self,
        session: Session,
        handle: Callable[[Sequence[Event]], None],
        can_write: Callable[[bool], None],
        loop: asyncio.AbstractEventLoop,
        patience_s: float,
    ) -> None:
        self._session, self._handle, self._can_write, self._loop = session, handle, can_write, loop
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._patience_s = patience_s
        self._stalled: asyncio.TimerHandle | None = None
        self._gathering: asyncio.TimerHandle | None = None
        self._flush_due = self._held = False
        self._read = memoryview(bytearray(READ_BYTES_MAX))
        self._gone = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES_MAX)
        self._transport = transport
        self._session.connect(self._loop.time())
        self._flush()
        self.arm()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._read

    def buffer_updated(self, nbytes: int) -> None:
        if self.ended.done():
            return
        self._flush_due = True  # what comes of it is written below, not later
        self._handle(self._session.receive(bytes(self._read[:nbytes]), self._loop.time()))
        self._flush()
        self._pace()
        if self._gathering is None and self._session.in_flight >= GATHER_IN_FLIGHT:
            self._wake_at_bytes(GATHER_BYTES)
            self._gathering = self._loop.call_later(GATHER_S, self._gathered)

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone.set_result(None)
        if not self.ended.done():
            if exc is not None:
                self.ended.set_exception(exc)
            else:
                self.ended.set_result(None)

    def pause_writing(self) -> None:
        failure = failures.silent(f"the broker has read nothing for {self._patience_s:g} s")
        self._stalled = self._loop.call_later(self._patience_s, self.end, failure)
        self._can_write(False)

    def resume_writing(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
        self._can_write(True)

    def dirty(self) -> None:
        """The session has something to write: once, at the end of this turn of the loop."""
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def arm(self) -> None:
        """Call the session's tick when it is due. Traffic only ever puts that off, so one timer is set at a time."""
        if self._timer is not None:
            self._timer.cancel()
        deadline = self._session.deadline()
        self._timer = None if deadline is None else self._loop.call_at(deadline, self._tick)

    def end(self, failure: Exception) -> None:
        if not self.ended.done():
            self.ended.set_exception(failure)

    def abort(self) -> None:
        """Close at once; what is not written is not."""
        for timer in (self._timer, self._stalled, self._gathering):
            if timer is not None:
                timer.cancel()
        if self.ended.done():
            self.ended.exception()  # whoever wanted to know knows
        else:
            self.ended.cancel()
        if self._transport is not None:
            self._transport.abort()

    async def say_goodbye(self) -> None:
        if self._transport is None or self.ended.done():
            return
        self._session.disconnect()
        self._flush()
        self._wake_at_bytes(1)  # TLS waits for a word more
        self._transport.close()
        await asyncio.wait([self._gone], timeout=GOODBYE_S)

    def _tick(self) -> None:
        if self.ended.done():
            return
        self._handle(self._session.tick(self._loop.time()))
        self._flush()
        if self._held and self._transport is not None:
            self._held = False  # one read, else the answer to the ping would never be seen
            self._transport.resume_reading()
        self.arm()

    def _pace(self) -> None:
        """Stop reading while too much is unacknowledged: what bounds memory against a broker that sends on and on."""
        transport = self._transport
        if self._session.wants_input is self._held and transport is not None and not transport.is_closing():
            self._held = not self._held
            if self._held:
                transport.pause_reading()
            else:
                transport.resume_reading()

    def _gathered(self) -> None:
        self._gathering = None
        self._wake_at_bytes(1)

    def _wake_at_bytes(self, count: int) -> None:
        """Let the socket count as readable when so much is there, or its end."""
        transport = self._transport
        if transport is not None and not transport.is_closing():
            wire = transport.get_extra_info("socket")
            if wire is not None:
                wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)

    def _flush(self) -> None:
        self._flush_due = True
        while events := self._session.events():
            self._handle(events)
        self._flush_due = False
        transport = self._transport
        if transport is not None and not transport.is_closing() and (data := self._session.output()):
            transport.write(data)
        if self._held:
            self._pace()
