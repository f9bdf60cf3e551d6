"""The connection on our own MQTT codec, asyncio and the standard library's TLS: the default.

The straight line: bytes read -> session -> inbox -> receivers; `send` -> session (or queue) -> one write.
Invariants: at most one link at a time; `_ready` is true exactly while that link is connected and takes bytes; what is
queued goes before what is sent later; everything a turn of the loop produced leaves in one write.
"""

import asyncio
import functools
import random as random_module
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import assert_never

import msgspec

from edge.cloud import failures
from edge.cloud.connection import SUBSCRIBE_QOS, ConnectionState
from edge.cloud.exchange import Exchange, OnExchange, call_later, loop_time
from edge.cloud.held import HeldFilters
from edge.cloud.reconnect import Reconnect
from edge.cloud.refusals import HELD_S, Refusals
from edge.cloud.subscriptions import packets
from edge.cloud.tls import open_context, read_password
from edge.config import ConnectionSettings
from edge.errors import ConnectionFailed
from edge.messages import Message, Origin, Outcome
from edge.metrics import Metrics
from edge.mqtt.codes import NOT_AUTHORIZED, UNSPECIFIED_ERROR, V5, V311, name_of
from edge.mqtt.events import (
    AuthChallenge,
    Connected,
    Disconnected,
    Event,
    Options,
    ProtocolFailed,
    Received,
    Refused,
    Settled,
    Subscribed,
    Unsubscribed,
)
from edge.mqtt.packets import Subscription
from edge.mqtt.session import Session

GOODBYE_S = 1.0  # to write DISCONNECT and close in good order
READ_BYTES_MAX = 64 * 1024
WRITE_BUFFER_BYTES_MAX = 256 * 1024  # above it the broker reads too slowly, and messages queue

OpenTransport = Callable[[Callable[[], asyncio.BufferedProtocol], ssl.SSLContext | None], Awaitable[object]]


class CodecConnection(OnExchange):
    """name: of the connection in logs and metrics. no_local: the broker returns nothing that we published ourselves
    (MQTT 5 only). reply_topic: the stem of response topics, by default `reply/CLIENT_ID`. held: where the filters are
    kept over a restart. open_transport: for tests.
    """

    def __init__(
        self,
        settings: ConnectionSettings,
        metrics: Metrics,
        *,
        name: str = "cloud",
        no_local: bool = False,
        reply_topic: str = "",
        held: HeldFilters | None = None,
        random: Callable[[], float] = random_module.random,
        open_transport: OpenTransport | None = None,
    ) -> None:
        self._settings = settings
        self._no_local = no_local and settings.protocol == "5"
        self._open_transport = open_transport or self._open_socket
        self._session = Session(_options(settings))
        self._reconnect = Reconnect(settings, metrics, name, random)
        self._exchange = exchange = Exchange(
            self,
            self._acknowledge,
            lambda: self._session.in_flight,
            settings,
            metrics,
            name=name,
            reply_topic=reply_topic,
            properties=settings.protocol == "5",
            random=random,
            held=held,
        )
        self._queue, self._inbox = exchange.queue, exchange.inbox
        self._in, self._out, self._taken = exchange.received, exchange.sent, exchange.taken
        self._link: _Link | None = None
        self._ready = False
        self._refusals = Refusals(name, metrics, loop_time)
        self._careful = False
        self._oldest: Message | None = None

    @property
    def state(self) -> ConnectionState:
        return self._exchange.state(self._reconnect.state)

    async def run(self) -> None:
        try:
            await self._reconnect.run(self._once, self._ended)
        finally:
            self._reconnect.closed()
            self._handle(self._session.abandon(Outcome.CONGESTED))
            self._queue.abandon()

    def send(self, messages: Sequence[Message], origin: Origin) -> None:
        if self._refusals.held:
            messages = self._refusals.passing(messages, origin)
        if self._ready and not self._queue.messages:
            taken = self._session.publish(messages, origin)
            self._out.value += taken
            self._link.dirty()  # type: ignore[union-attr]  # _ready says that there is one
            if taken == len(messages):
                return
            messages = messages[taken:]
        self._queue.put(messages, origin)

    async def _once(self) -> None:
        """One connection from its opening to its end, which it raises."""
        loop = asyncio.get_running_loop()
        context = open_context(self._settings)
        self._session.options = msgspec.structs.replace(self._session.options, password=read_password(self._settings))
        patience_s = self._settings.keepalive_s + _ping_timeout_s(self._settings)
        link = _Link(self._session, self._handle, self._can_write, loop, patience_s)
        self._careful = self._refusals.careful
        self._session.restrict(0 if self._careful else None)
        try:
            self._link = link
            async with asyncio.timeout(self._settings.connect_timeout_s):
                await self._open_transport(lambda: link, context)
            await asyncio.wait([link.ended])  # cancelling this leaves it open, to say goodbye
            link.ended.result()
        except asyncio.CancelledError:
            await link.say_goodbye()
            raise
        finally:
            self._ready, self._link = False, None
            self._oldest = self._session.oldest_sent()
            link.abort()
            self._inbox.lost()
            self._handle(self._session.transport_lost())

    async def _open_socket(
        self, make_link: Callable[[], asyncio.BufferedProtocol], context: ssl.SSLContext | None
    ) -> object:
        settings = self._settings
        name = settings.host if context else None
        # Happy eyeballs: an address that does not answer costs a quarter of a second, not the whole time-out.
        return await asyncio.get_running_loop().create_connection(
            make_link, settings.host, settings.port, ssl=context, server_hostname=name, happy_eyeballs_delay=0.25
        )

    def _handle(self, events: Sequence[Event]) -> None:
        for event in events:
            try:
                self._handle_one(event)
            except Exception as error:  # noqa: BLE001  a fault in a receiver must not keep others from being settled
                self._end(error)
        if self._queue.messages and self._ready:
            self._pump()

    def _handle_one(self, event: Event) -> None:
        match event:
            case Settled():
                self._settle(event)
            case Received():
                self._in.value += len(event.messages)
                self._inbox.deliver(event.messages)
            case Connected():
                self._opened(event)
            case Subscribed():
                self._subscribed(event)
            case Unsubscribed():
                self._exchange.let_go(event.packet_id, event.codes, name_of)
            case Refused():
                self._end(failures.refused(event.code, event.text or event.name))
            case Disconnected():
                self._end(failures.disconnected(event.code, event.text or event.name))
            case ProtocolFailed():
                self._end(failures.broke_standard(event.code, event.reason, event.text))
            case AuthChallenge():
                problem = f"the broker asks for the authentication method {event.method}"
                self._end(ConnectionFailed("bad_credentials", problem, "Use a broker that takes certificates."))
            case _:
                assert_never(event)

    def _settle(self, event: Settled) -> None:
        if event.outcome is Outcome.TAKEN:
            self._taken.value += len(event.receipts)
        else:
            reason = name_of(event.reason_code)
            self._exchange.not_taken(len(event.receipts), event.outcome, reason)
            if event.topic and self._link is not None:
                self._refusals.refused(event.topic, event.reason_code, reason)
        if event.origin is not None:
            event.origin.settled(event.receipts, event.outcome)
        if self._careful and self._link is not None:
            self._acquit()

    def _acquit(self) -> None:
        self._careful = False
        self._refusals.answered()
        self._session.restrict(None)

    def _ended(self, failure: ConnectionFailed) -> None:
        """A connection that had opened is over: take out of the way what the broker ended it for."""
        oldest, self._oldest = self._oldest, None
        if self._refusals.ended(failure, oldest):
            self._handle(self._session.refuse(lambda message: message is oldest, UNSPECIFIED_ERROR))
        if self._refusals.held:
            self._handle(self._session.refuse(self._refusals.holds, NOT_AUTHORIZED))
            for messages, origin in self._queue.take_out(self._refusals.holds):
                self._refusals.settle(messages, origin)

    def _try_alone(self, link: "_Link") -> None:
        """The broker stayed while nothing was published: now the message under suspicion."""
        if self._link is link and self._careful and self._session.connected:
            if self._session.in_flight:
                self._session.restrict(1)
            else:
                self._acquit()
            link.dirty()

    def _opened(self, event: Connected) -> None:
        self._reconnect.opened(session_present=event.session_present)
        self._ask(self._exchange.opened(session_present=event.session_present))
        self._let_go()
        if self._link is not None:
            self._link.arm()
            if self._careful:
                call_later(HELD_S, functools.partial(self._try_alone, self._link))
        self._can_write(True)

    def _ask(self, filters: Sequence[str]) -> None:
        if not self._session.connected:
            return
        for some in packets(filters):
            wanted = [Subscription(one, qos=SUBSCRIBE_QOS, no_local=self._no_local) for one in some]
            self._exchange.subscriptions.asked(self._session.subscribe(wanted), some)
        if self._link is not None:
            self._link.dirty()

    def _subscribed(self, event: Subscribed) -> None:
        self._exchange.answered(event.packet_id, event.codes, name_of)
        self._let_go()

    def _let_go(self) -> None:
        if self._link is None or not self._session.connected:
            return
        for some in packets(self._exchange.subscriptions.due()):
            self._exchange.subscriptions.asked_to_let_go(self._session.unsubscribe(some), some)
            self._link.dirty()

    def _can_write(self, can: bool) -> None:
        self._ready = can and self._link is not None and self._session.connected
        if self._ready and self._queue.messages:
            self._pump()

    def _pump(self) -> None:
        """Publish from the queue what there is room for."""
        queue, session = self._queue, self._session
        queue.expire()
        while queue.messages:
            messages, origin = queue.head(max(session.room(), 1))
            taken = session.publish(messages, origin)
            queue.advance(taken)
            self._out.value += taken
            if taken < len(messages):
                break
        if self._link is not None:
            self._link.dirty()

    def _acknowledge(self, receipts: Sequence[int], outcome: Outcome) -> None:
        self._session.acknowledge(receipts, 0 if outcome is Outcome.TAKEN else NOT_AUTHORIZED)
        if self._link is not None:
            self._link.dirty()

    def _end(self, failure: Exception) -> None:
        self._ready = False
        if self._link is not None:
            self._link.end(failure)


class _Link(asyncio.BufferedProtocol):
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
        for timer in (self._timer, self._stalled):
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


def _options(settings: ConnectionSettings) -> Options:
    return Options(
        client_id=settings.client_id,
        version=V5 if settings.protocol == "5" else V311,
        clean_start=settings.session_expiry_s == 0,
        keepalive_s=settings.keepalive_s,
        session_expiry_s=settings.session_expiry_s,
        window=settings.window,
        receive_maximum=settings.window,
        packet_bytes_max=settings.message_bytes_max,
        username=settings.username or None,
        connect_timeout_s=settings.connect_timeout_s,
        ping_timeout_s=_ping_timeout_s(settings),
    )


def _ping_timeout_s(settings: ConnectionSettings) -> float:
    return min(10.0, settings.keepalive_s)
