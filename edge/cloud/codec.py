"""The connection on our own MQTT codec, asyncio and the standard library's TLS: the default.

The straight line: bytes read -> session -> inbox -> receivers; `send` -> session (or queue) -> one write.
Invariants: at most one link (edge/cloud/link.py) at a time; `_ready` is true exactly while that link is connected and
takes bytes; what is queued goes before what is sent later.
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
from edge.cloud.fitting import Fitting
from edge.cloud.held import HeldFilters
from edge.cloud.link import Link
from edge.cloud.reconnect import Reconnect
from edge.cloud.refusals import HELD_S, Refusals
from edge.cloud.subscriptions import packets
from edge.cloud.tls import open_context, read_password
from edge.config import ConnectionSettings
from edge.errors import ConnectionFailed
from edge.messages import Message, Origin, Outcome, Packer, refuse
from edge.metrics import Metrics
from edge.mqtt.codes import NOT_AUTHORIZED, PACKET_TOO_LARGE, UNSPECIFIED_ERROR, V5, V311, name_of
from edge.mqtt.events import (
    AuthChallenge,
    Connected,
    Disconnected,
    Event,
    Options,
    PassedOver,
    ProtocolFailed,
    Received,
    Refused,
    Settled,
    Subscribed,
    Unsubscribed,
)
from edge.mqtt.packets import Subscription
from edge.mqtt.session import Session

OpenTransport = Callable[[Callable[[], Link], ssl.SSLContext | None], Awaitable[object]]


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
        self._link: Link | None = None
        self._ready = False
        self._refusals = Refusals(name, metrics, loop_time)
        self._fitting = Fitting(name, settings.topic_bounds, metrics)
        self._careful = False
        self._oldest: tuple[Message, Origin | None] | None = None
        self.packet_bytes_max: int | None = None

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
        messages = self._fitting.passing(messages, origin)
        if self._refusals.is_holding:
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
        link = Link(self._session, self._handle, self._can_write, loop, patience_s)
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

    async def _open_socket(self, make_link: Callable[[], Link], context: ssl.SSLContext | None) -> object:
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
            case PassedOver():
                self._exchange.passed_over(event.topic, event.bytes)
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
            if event.outcome is Outcome.REFUSED:
                # Given up for the broker's hanging up on it: its size may be why, all that MQTT 3.1.1 can say of it.
                given_up = self._link is None and event.reason_code == UNSPECIFIED_ERROR
                refuse(
                    event.origin,
                    event.receipts,
                    too_large=event.reason_code == PACKET_TOO_LARGE or (None if given_up else False),
                )
            else:
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
        message, origin = oldest or (None, None)
        if self._refusals.ended(failure, message, origin):
            code = PACKET_TOO_LARGE if failure.cause == "packet_too_large" else UNSPECIFIED_ERROR
            self._handle(self._session.refuse(lambda one, _: one is message, code))
            if message is not None and isinstance(origin, Packer):
                self._hand_back(message.topic, origin)
        if self._refusals.is_holding:
            self._handle(self._session.refuse(self._refusals.holds, NOT_AUTHORIZED))
            for messages, whose in self._queue.take_out(self._refusals.holds):
                self._refusals.settle(messages, whose)

    def _hand_back(self, topic: str, origin: Origin) -> None:
        """The other batches that go there may be as large: they are to be made smaller before they are sent again."""

        def is_its(message: Message, whose: Origin | None) -> bool:
            return whose is origin and message.topic == topic

        self._handle(self._session.refuse(is_its, PACKET_TOO_LARGE, Outcome.CONGESTED))
        for messages, _ in self._queue.take_out(is_its):
            origin.settled([message.receipt for message in messages], Outcome.CONGESTED)

    def _try_alone(self, link: Link) -> None:
        """The broker stayed while nothing was published: now the message under suspicion."""
        if self._link is link and self._careful and self._session.connected:
            if self._session.in_flight:
                self._session.restrict(1)
            else:
                self._acquit()
            link.dirty()

    def _opened(self, event: Connected) -> None:
        self.packet_bytes_max = event.packet_bytes_max
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


def _options(settings: ConnectionSettings) -> Options:
    return Options(
        client_id=settings.client_id,
        version=V5 if settings.protocol == "5" else V311,
        clean_start=settings.session_expiry_s == 0,
        keepalive_s=settings.keepalive_s,
        session_expiry_s=settings.session_expiry_s,
        window=settings.window,
        receive_maximum=settings.window,
        packet_bytes_max=settings.packet_bytes_max,
        username=settings.username or None,
        connect_timeout_s=settings.connect_timeout_s,
        ping_timeout_s=_ping_timeout_s(settings),
    )


def _ping_timeout_s(settings: ConnectionSettings) -> float:
    return min(10.0, settings.keepalive_s)
