"""The connection on awsiotsdk (`edgeloop[aws]`): MQTT 5 over mutual TLS by awscrt's client. The only door to awscrt.

What the SDK does differently from our codec, as far as it can be told from outside:
- QoS 2 is published at QoS 1; the SDK and AWS IoT Core know no QoS 2.
- A PUBACK waits for `settled` as everywhere (the SDK's manual acknowledgement), but carries no reason code: a REFUSED
  message is acknowledged plainly. SDKs too old for manual acknowledgement (0.36 has it) acknowledge on receipt.
- Which of the two certificates was at fault in a failed TLS handshake the SDK does not say: the cause is `tls_failed`.
  A server's certificate that is not accepted is told only after 10 to 30 s.
- Flow control beyond MQTT's own is NONE: AWS_IOT_CORE_DEFAULTS caps at 100 messages a second, whatever the broker.

Invariants: the SDK's threads touch nothing but `_Attempt.post`; all else runs on the asyncio loop. An SDK client lives
for one connection, so that renewed certificates count; what it had not delivered when it ended goes back to the queue.
"""

import asyncio
import functools
import importlib
import itertools
import random as random_module
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from edge.cloud import failures
from edge.cloud.connection import SUBSCRIBE_QOS, ConnectionState
from edge.cloud.exchange import Exchange, OnExchange, call_later, loop_time
from edge.cloud.fitting import Fitting
from edge.cloud.held import HeldFilters
from edge.cloud.reconnect import Reconnect
from edge.cloud.refusals import HELD_S, Refusals
from edge.cloud.subscriptions import packets
from edge.cloud.tls import alpn_of, read_password, require_usable
from edge.config import ConnectionSettings
from edge.errors import ConfigError, ConnectionFailed
from edge.messages import Message, Origin, Outcome, Properties, others, refuse
from edge.metrics import Metrics
from edge.mqtt.codes import PACKET_TOO_LARGE

STOP_S = 3.0  # for the SDK to say goodbye and end
_NEVER_MS = 24 * 3600 * 1000  # the SDK is not to reconnect by itself: we do, with credentials read again


class AwsConnection(OnExchange):
    """The arguments are CodecConnection's; file: the gateway file, for messages. Raises ConfigError without the SDK."""

    def __init__(
        self,
        settings: ConnectionSettings,
        metrics: Metrics,
        *,
        name: str = "cloud",
        reply_topic: str = "",
        held: HeldFilters | None = None,
        file: str = "the gateway file",
        random: Callable[[], float] = random_module.random,
    ) -> None:
        self._io, self._mqtt5 = _load_sdk(file, name)
        self._settings = settings
        self._reconnect = Reconnect(settings, metrics, name, random)
        self._dropped = metrics.counter("connection_messages_dropped", connection=name, reason="connection_lost")
        self._exchange = exchange = Exchange(
            self,
            self._acknowledge,
            lambda: len(self._in_flight),
            settings,
            metrics,
            name=name,
            reply_topic=reply_topic,
            properties=True,
            random=random,
            held=held,
        )
        self._queue, self._inbox = exchange.queue, exchange.inbox
        self._in, self._out, self._taken = exchange.received, exchange.sent, exchange.taken
        self._in_flight: dict[int, tuple[Message, Origin]] = {}
        self._numbers = itertools.count(1)
        self._receipts = itertools.count(1)  # never the same again, so that a late one meets no other message
        self._handles: dict[int, Any] = {}
        self._attempt: _Attempt | None = None
        self._ready = False
        self._refusals = Refusals(name, metrics, loop_time)
        self._fitting = Fitting(name, settings.topic_bounds, metrics)
        self._careful = False
        self._window = settings.window  # less on a careful connection: see refusals.py
        self._oldest: tuple[Message, Origin] | None = None
        self.packet_bytes_max: int | None = None
        self._bootstrap: Any = None

    @property
    def state(self) -> ConnectionState:
        return self._exchange.state(self._reconnect.state)

    async def run(self) -> None:
        threads = self._io.EventLoopGroup(1)
        self._bootstrap = self._io.ClientBootstrap(threads, self._io.DefaultHostResolver(threads))
        try:
            await self._reconnect.run(self._once, self._ended)
        finally:
            self._reconnect.closed()
            self._queue.abandon()

    def send(self, messages: Sequence[Message], origin: Origin) -> None:
        messages = self._fitting.passing(messages, origin)
        if self._refusals.is_holding:
            messages = self._refusals.passing(messages, origin)
        if self._ready and not self._queue.messages and not self._careful:
            room = max(self._window - len(self._in_flight), 0)
            for message in messages[:room]:
                self._publish(message, origin)
            if room >= len(messages):
                return
            messages = messages[room:]
        self._queue.put(messages, origin)

    async def _once(self) -> None:
        """One SDK client from its start to its end, which it raises."""
        attempt = _Attempt(asyncio.get_running_loop(), self._handle, self._receipts)
        client = self._make_client(attempt)
        attempt.client = client
        self._attempt = attempt
        self._careful = self._refusals.careful
        self._window = 0 if self._careful else self._settings.window
        client.start()
        try:
            await attempt.ended
        finally:
            self._ready, self._attempt = False, None
            client.stop()
            await asyncio.wait([attempt.stopped], timeout=STOP_S)
            attempt.drain()  # what was acknowledged before the end counts
            attempt.over = True
            self._inbox.lost()
            self._handles.clear()
            self._oldest = next((entry for entry in self._in_flight.values() if entry[0].qos), None)
            self._take_back()

    def _ended(self, failure: ConnectionFailed) -> None:
        """A connection that had opened is over: take out of the way what the broker ended it for."""
        oldest, self._oldest = self._oldest, None
        message, origin = oldest or (None, None)
        given_up = self._refusals.ended(failure, message, origin)
        if given_up or self._refusals.is_holding:
            unwanted = self._queue.take_out(
                lambda one, whose: self._refusals.holds(one, whose) or (given_up and one is message)
            )
            for messages, whose in unwanted:
                is_oldest = given_up and any(one is message for one in messages)
                self._refusals.settle(messages, whose, too_large=None if is_oldest else False)

    def _try_alone(self, attempt: "_Attempt") -> None:
        """The broker stayed while nothing was published: now the message under suspicion."""
        if self._attempt is attempt and self._careful:
            if self._queue.messages:
                self._window = 1
            else:
                self._acquit()
            self._pump()

    def _acquit(self) -> None:
        self._careful, self._window = False, self._settings.window
        self._refusals.answered()

    def _take_back(self) -> None:
        """What was in flight waits again, at the front of the queue, in its order; QoS 0 is gone, and counted."""
        in_flight = list(self._in_flight.values())
        self._in_flight.clear()
        self._dropped.value += sum(1 for message, _ in in_flight if not message.qos)
        runs = itertools.groupby(((m, origin) for m, origin in in_flight if m.qos), key=lambda entry: entry[1])
        self._queue.put_back([([message for message, _ in run], origin) for origin, run in runs])

    def _make_client(self, attempt: "_Attempt") -> Any:
        settings, mqtt5 = self._settings, self._mqtt5
        options = mqtt5.ClientOptions(
            host_name=settings.host,
            port=settings.port,
            bootstrap=self._bootstrap,
            tls_ctx=self._tls_context(),
            connect_options=mqtt5.ConnectPacket(
                client_id=settings.client_id,
                keep_alive_interval_sec=settings.keepalive_s,
                session_expiry_interval_sec=settings.session_expiry_s,
                receive_maximum=settings.window,
                maximum_packet_size=settings.packet_bytes_max,
                username=settings.username or None,
                password=read_password(settings),
            ),
            session_behavior=getattr(
                mqtt5.ClientSessionBehaviorType, "REJOIN_ALWAYS" if settings.session_expiry_s else "CLEAN"
            ),
            extended_validation_and_flow_control_options=mqtt5.ExtendedValidationAndFlowControlOptions.NONE,
            offline_queue_behavior=mqtt5.ClientOperationQueueBehaviorType.FAIL_ALL_ON_DISCONNECT,
            min_reconnect_delay_ms=_NEVER_MS,
            max_reconnect_delay_ms=_NEVER_MS,
            ping_timeout_ms=min(10_000, settings.keepalive_s * 500),
            connack_timeout_ms=int(settings.connect_timeout_s * 1000),
            on_publish_callback_fn=attempt.on_publish,
            on_lifecycle_event_connection_success_fn=lambda data: attempt.post(self._opened, data),
            on_lifecycle_event_connection_failure_fn=lambda data: attempt.post(self._failed, data),
            on_lifecycle_event_disconnection_fn=lambda data: attempt.post(self._disconnected, data),
            on_lifecycle_event_stopped_fn=lambda data: attempt.post(attempt.set_stopped),
        )
        options.disable_metrics = True  # else the SDK writes its name into the user name
        return mqtt5.Client(options)

    def _tls_context(self) -> Any:
        settings = self._settings
        require_usable(settings)
        kind = self._io.TlsContextOptions
        options = kind.create_client_with_mtls_from_path(settings.certificate, settings.key) if settings.key else kind()
        if settings.ca:
            options.override_default_trust_store_from_path(None, settings.ca)
        options.min_tls_ver = self._io.TlsVersion.TLSv1_2
        if alpn := alpn_of(settings):
            options.alpn_list = [alpn]
        try:
            return self._io.ClientTlsContext(options)
        except Exception as error:
            remedy = "Make key and certificate again."
            raise ConnectionFailed("credentials_unusable", f"the SDK cannot use them: {error}", remedy) from error

    def _publish(self, message: Message, origin: Origin) -> None:
        attempt = self._attempt
        assert attempt is not None
        number = next(self._numbers)
        self._in_flight[number] = (message, origin)
        self._out.value += 1
        future = attempt.client.publish(self._packet(message))
        future.add_done_callback(lambda done: attempt.post(self._completed, number, done))

    def _packet(self, message: Message) -> Any:
        mqtt5 = self._mqtt5
        packet = mqtt5.PublishPacket(
            topic=message.topic,
            payload=message.payload,
            qos=mqtt5.QoS.AT_LEAST_ONCE if message.qos else mqtt5.QoS.AT_MOST_ONCE,
            retain=message.retain,
        )
        properties, reading = message.properties, message.reading
        user: list[tuple[str, str]] = list(properties.user) if properties is not None else []
        if reading is not None:
            user = [
                *others(user),
                ("thing", reading.thing),
                ("boot", str(reading.boot)),
                ("seq", str(reading.sequence)),
            ]
            if message.time_ms:
                user.append(("t", str(message.time_ms)))
        packet.user_properties = [mqtt5.UserProperty(name=name, value=value) for name, value in user]
        if properties is not None:
            packet.response_topic = properties.response_topic
            packet.correlation_data_bytes = properties.correlation_data
            packet.correlation_data = properties.correlation_data
            packet.content_type = properties.content_type
            packet.message_expiry_interval_sec = properties.expiry_s
            if properties.payload_is_utf8:
                packet.payload_format_indicator = mqtt5.PayloadFormatIndicator.AWS_MQTT5_PFI_UTF8
        return packet

    def _handle(self, arrived: list[tuple[Message, Any]]) -> None:
        """A batch of what came, in order."""
        self._in.value += len(arrived)
        for message, handle in arrived:
            if handle is not None:
                self._handles[message.receipt] = handle
        self._inbox.deliver([message for message, _ in arrived])

    def _opened(self, data: Any) -> None:
        if self._attempt is None:
            return  # it is being stopped
        session_present = bool(data.connack_packet.session_present)
        self.packet_bytes_max = data.connack_packet.maximum_packet_size
        self._reconnect.opened(session_present=session_present)
        self._ready = True
        if self._careful:
            call_later(HELD_S, functools.partial(self._try_alone, self._attempt))
        self._ask(self._exchange.opened(session_present=session_present))
        self._let_go()
        self._pump()

    def _failed(self, data: Any) -> None:
        if data.connack_packet is not None:
            code = int(data.connack_packet.reason_code or 0x80)
            self._end(failures.refused(code, data.connack_packet.reason_string or ""))
        else:
            self._end(_classify(data.exception, self._settings))

    def _disconnected(self, data: Any) -> None:
        if data.disconnect_packet is not None:
            packet = data.disconnect_packet
            self._end(failures.disconnected(int(packet.reason_code or 0), packet.reason_string or ""))
        else:
            self._end(_classify(data.exception, self._settings))

    def _end(self, failure: ConnectionFailed) -> None:
        self._ready = False
        if self._attempt is not None and not self._attempt.ended.done():
            self._attempt.ended.set_exception(failure)

    def _completed(self, number: int, done: Any) -> None:
        error = done.exception()
        if error is None:
            code = int(done.result().puback.reason_code or 0)
        elif "VALIDATION" in str(getattr(error, "name", error)):
            code = PACKET_TOO_LARGE
        else:
            return  # the connection ends, and it goes back to the queue
        message, origin = self._in_flight.pop(number)
        if code < 0x80:
            self._taken.value += bool(message.qos)
            outcome = Outcome.TAKEN
        else:
            outcome = Outcome.REFUSED
            self._exchange.not_taken(1, outcome, _hex(code))
            self._refusals.refused(message.topic, code, _hex(code))
        if self._careful and message.qos:
            self._acquit()
        if message.qos and outcome is Outcome.REFUSED:
            refuse(origin, [message.receipt], too_large=code == PACKET_TOO_LARGE)
        elif message.qos:
            origin.settled([message.receipt], outcome)
        self._pump()

    def _pump(self) -> None:
        self._queue.expire()
        while self._ready and self._queue.messages and (room := self._window - len(self._in_flight)) > 0:
            messages, origin = self._queue.head(room)
            self._queue.advance(len(messages))
            for message in messages:
                self._publish(message, origin)

    def _ask(self, filters: Sequence[str]) -> None:
        attempt, mqtt5 = self._attempt, self._mqtt5
        if attempt is None or not self._ready:
            return
        for some in packets(filters):
            wanted = [mqtt5.Subscription(topic_filter=one, qos=mqtt5.QoS(SUBSCRIBE_QOS)) for one in some]
            number = next(self._numbers)
            self._exchange.subscriptions.asked(number, some)
            future = attempt.client.subscribe(mqtt5.SubscribePacket(subscriptions=wanted))
            future.add_done_callback(lambda done, number=number: attempt.post(self._subscribed, number, done))

    def _subscribed(self, number: int, done: Any) -> None:
        if done.exception() is not None:
            return  # the connection ended; the next one asks again
        codes = [0x80 if code is None else int(code) for code in done.result().reason_codes]
        self._exchange.answered(number, codes, _hex)
        self._let_go()

    def _let_go(self) -> None:
        attempt = self._attempt
        if attempt is None or not self._ready:
            return
        for some in packets(self._exchange.subscriptions.due()):
            number = next(self._numbers)
            self._exchange.subscriptions.asked_to_let_go(number, some)
            future = attempt.client.unsubscribe(self._mqtt5.UnsubscribePacket(topic_filters=list(some)))
            future.add_done_callback(lambda done, number=number: attempt.post(self._unsubscribed, number, done))

    def _unsubscribed(self, number: int, done: Any) -> None:
        if done.exception() is None:
            codes = [0x80 if code is None else int(code) for code in done.result().reason_codes]
            self._exchange.let_go(number, codes, _hex)

    def _acknowledge(self, receipts: Sequence[int], outcome: Outcome) -> None:
        if self._attempt is not None:
            for receipt in receipts:
                handle = self._handles.pop(receipt, None)
                if handle is not None:
                    self._attempt.client.invoke_publish_acknowledgement(handle)


class _Attempt:
    """One SDK client's life. post may be called from any thread; everything posted runs on the loop, in order."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        handle: Callable[[list[tuple[Message, Any]]], None],
        receipts: Iterator[int],
    ) -> None:
        self._loop, self._handle, self._receipts = loop, handle, receipts
        self._posted: deque[tuple[Callable[..., None], tuple[Any, ...]] | tuple[Message, Any]] = deque()
        self._wake_due = False
        self.client: Any = None
        self.over = False
        self.ended: asyncio.Future[None] = loop.create_future()
        self.stopped: asyncio.Future[None] = loop.create_future()

    def post(self, call: Callable[..., None], *arguments: Any) -> None:
        self._posted.append((call, arguments))
        self._wake()

    def on_publish(self, data: Any) -> None:
        packet = data.publish_packet
        acquire = getattr(data, "acquire_publish_acknowledgement_control", None)
        handle = acquire() if acquire is not None else None
        qos = int(packet.qos or 0)
        message = Message(
            topic=packet.topic,
            payload=packet.payload or b"",
            qos=qos,
            retain=bool(packet.retain),
            receipt=next(self._receipts) if qos else 0,
            properties=_properties(packet),
        )
        self._posted.append((message, handle))
        self._wake()

    def set_stopped(self) -> None:
        if not self.stopped.done():
            self.stopped.set_result(None)

    def drain(self) -> None:
        """Run what was posted; messages that came one after the other go on as one batch."""
        self._wake_due = False
        arrived: list[tuple[Message, Any]] = []
        while self._posted and not self.over:
            first, second = self._posted.popleft()
            if isinstance(first, Message):
                arrived.append((first, second))
                continue
            if arrived:
                self._run(self._handle, arrived)
                arrived = []
            self._run(first, *second)
        if arrived:
            self._run(self._handle, arrived)

    def _run(self, call: Callable[..., None], *arguments: Any) -> None:
        try:
            call(*arguments)
        except Exception as error:  # noqa: BLE001  a fault in a receiver must not keep others from being settled
            if not self.ended.done():
                self.ended.set_exception(error)

    def _wake(self) -> None:
        if not self._wake_due:
            self._wake_due = True
            try:
                self._loop.call_soon_threadsafe(self.drain)
            except RuntimeError:  # the loop is closed: nobody is left to tell
                self.over = True


def _properties(packet: Any) -> Properties | None:
    user = tuple((one.name, one.value) for one in packet.user_properties or ())
    correlation = getattr(packet, "correlation_data_bytes", None) or packet.correlation_data
    properties = Properties(
        response_topic=packet.response_topic,
        correlation_data=correlation.encode() if isinstance(correlation, str) else correlation,
        content_type=packet.content_type,
        payload_is_utf8=packet.payload_format_indicator == 1,
        expiry_s=packet.message_expiry_interval_sec,
        user=user,
    )
    return None if properties == Properties() else properties


def _classify(error: Any, settings: ConnectionSettings) -> ConnectionFailed:
    """By the SDK's own names of errors (aws-c-common, aws-c-io, aws-c-mqtt)."""
    name = str(getattr(error, "name", error))
    place = f"{settings.host}:{settings.port}"
    problem = f"{place}: {getattr(error, 'message', error)} ({name})"
    if "DNS" in name or ("SOCKET" in name and "CLOSED" not in name):
        return ConnectionFailed("unreachable", problem, "Check the network, host, port and whether the broker runs.")
    if "PING_RESPONSE_TIMEOUT" in name:
        return ConnectionFailed("keepalive_timeout", problem, "See whether the broker runs and the line to it is up.")
    if "CONNACK_TIMEOUT" in name:
        return ConnectionFailed("unreachable", problem, "See whether an MQTT broker listens there.")
    if "TLS" in name:
        remedy = "Compare ca, certificate, host name and the clock with the broker's; its log says more."
        return ConnectionFailed("tls_failed", problem, remedy)
    if "PROTOCOL" in name or "DECODE" in name or "MALFORMED" in name:
        return ConnectionFailed("protocol_error", problem, "See that host and port are an MQTT 5 broker's.")
    return ConnectionFailed("broker_closed", problem, "See the broker's log.")


def _load_sdk(file: str, section: str) -> tuple[Any, Any]:
    try:
        return importlib.import_module("awscrt.io"), importlib.import_module("awscrt.mqtt5")
    except ImportError:
        problem = 'is "aws", but awsiotsdk is not installed'
        fix = "Install it: pip install 'edgeloop[aws]'."
        raise ConfigError(file, f"{section}.implementation", problem, fix) from None


def _hex(code: int) -> str:
    return f"0x{code:02x}"
