"""One MQTT 5 connection to the broker, by paho-mqtt. A new one is made for each try: all that lasts is the broker's
session. Messages are acknowledged by `acknowledge` only, in the order in which they came."""

import logging
import ssl
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge.cloud import failures
from edge.config import ConnectionSettings
from edge.errors import ConfigError, ConnectionFailed
from edge.logs import log_event
from edge.topics import check_filter
from edge_tools.fleet.decode import UserProperties

PORT, TLS_PORT = 1883, 8883
KEEPALIVE_S = 60
CONNECT_TIMEOUT_S = 10.0
SESSION_EXPIRY_S = 7 * 24 * 3600  # what AWS IoT Core keeps at most
PACKET_BYTES_MAX = 16 * 1024 * 1024
_NO_SUBSCRIPTION = 0x11  # MQTT 5.0, 3.11.3

_log = logging.getLogger(__name__)


class Address(msgspec.Struct, frozen=True):
    """Where the broker is, and what to show it. ca: a file; "" for the system's."""

    host: str
    port: int
    tls: bool
    client_id: str
    ca: str = ""
    certificate: str = ""
    key: str = ""

    @property
    def settings(self) -> ConnectionSettings:
        """As those who name the cause of a failure know it."""
        return ConnectionSettings(host=self.host, port=self.port, client_id=self.client_id, tls=self.tls)


class Incoming(msgspec.Struct, frozen=True, gc=False):
    """mid: to acknowledge by; 0 for QoS 0. broken: why its properties could not be read, "" if they could."""

    topic: str
    payload: bytes
    mid: int
    content_type: str = ""
    user: UserProperties = ()
    broken: str = ""


def parse_broker(text: str, client_id: str, ca: str, certificate: str, key: str) -> Address:
    """From mqtt://HOST[:PORT] or mqtts://HOST[:PORT]. Raises ConfigError."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in {"mqtt", "mqtts"} or not parts.hostname or parts.username or parts.path.strip("/"):
        fix = "Use mqtts://HOST:PORT, or mqtt://HOST:PORT without TLS."
        raise ConfigError("--broker", "", "it is no address of a broker", fix)
    tls = parts.scheme == "mqtts"
    if not tls and (ca or certificate or key):
        raise ConfigError("--broker", "", "certificates need TLS", "Use mqtts:// instead of mqtt://.")
    if bool(certificate) != bool(key):
        raise ConfigError("--certificate", "", "certificate and key go together", "Give both, or neither.")
    address = Address(parts.hostname, port or (TLS_PORT if tls else PORT), tls, client_id, ca, certificate, key)
    try:
        _context(address)
    except ConnectionFailed as problem:
        raise ConfigError("--ca, --certificate, --key", "", problem.problem, problem.remedy) from None
    return address


class Link:
    """receive_max: messages that the broker may send before the first of them is acknowledged. leave: end the
    subscriptions rather than ask for them; what the broker holds already comes all the same.

    answered: whether the broker has answered for the subscriptions.
    """

    def __init__(self, address: Address, receive_max: int, *, leave: bool = False) -> None:
        self._address, self._leave = address, leave
        self._client = client = _Client(
            CallbackAPIVersion.VERSION2,
            client_id=address.client_id,
            protocol=paho.MQTTv5,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_unsubscribe = self._on_unsubscribe
        client.receive = self._receive
        self._receive_max = receive_max
        self._incoming: list[Incoming] = []
        self._failure: ConnectionFailed | None = None
        self._filters: Sequence[str] = ()
        self._answer_by = 0.0
        self._connected = self.session_present = self.answered = False

    def open(self, filters: Sequence[str]) -> None:
        """Connect, and ask for the subscriptions, or for their end: messages of the kept session come before the
        answer does, so that it is `receive` that sees to it. Raises ConnectionFailed."""
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = SESSION_EXPIRY_S
        properties.ReceiveMaximum = self._receive_max
        properties.MaximumPacketSize = PACKET_BYTES_MAX
        address = self._address
        if address.tls:
            self._client.tls_set_context(_context(address))
        try:
            self._client.connect(address.host, address.port, KEEPALIVE_S, clean_start=False, properties=properties)
        except (OSError, ValueError) as error:
            raise failures.classify(error, address.settings, connected=False) from error
        self._wait(lambda: self._connected)
        self._filters, self._answer_by = filters, time.monotonic() + CONNECT_TIMEOUT_S
        if self._leave:
            self._client.unsubscribe(list(filters))
            return
        wanted = [
            (one, SubscribeOptions(qos=1, retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB)) for one in filters
        ]
        self._client.subscribe(wanted)

    def receive(self, wait_s: float) -> Sequence[Incoming]:
        """What came, as soon as something is there, at the latest after wait_s. Raises ConnectionFailed."""
        code = self._client.loop(wait_s) if not self._incoming else MQTTErrorCode.MQTT_ERR_SUCCESS
        if not self.answered and self._failure is None and time.monotonic() > self._answer_by:
            asked = "UNSUBSCRIBE" if self._leave else "SUBSCRIBE"
            self._failure = failures.silent(f"the broker did not answer {asked}")
        incoming, self._incoming = self._incoming, []
        if not incoming:
            self._check(code)
        elif code != MQTTErrorCode.MQTT_ERR_SUCCESS and self._failure is None:
            self._failure = self._ended()
        return incoming

    def acknowledge(self, mids: Sequence[int]) -> None:
        """PUBACK. What does not reach the broker is delivered again."""
        for mid in mids:
            self._client.ack(mid, 1)

    def close(self) -> None:
        """In good order; the broker keeps the session. Never raises."""
        if self._connected and self._failure is None:
            self._client.disconnect()
            for _ in range(100):
                if not self._client.want_write() or self._client.loop(0.01) != MQTTErrorCode.MQTT_ERR_SUCCESS:
                    break
        self._client.drop()

    def _wait(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + CONNECT_TIMEOUT_S
        while not done():
            if time.monotonic() > deadline:
                raise failures.silent("the broker sent no answer")
            self._check(self._client.loop(0.1))

    def _check(self, code: MQTTErrorCode) -> None:
        if self._failure is not None:
            raise self._failure
        if code != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise self._ended()

    def _ended(self) -> ConnectionFailed:
        return failures.classify(None, self._address.settings, connected=self._connected)

    def _on_connect(self, _client: Any, _data: Any, flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            self._failure = failures.refused(reason.value, reason.getName())
            return
        self._connected, self.session_present = True, flags.session_present

    def _on_disconnect(self, _client: Any, _data: Any, flags: Any, reason: Any, _properties: Any) -> None:
        if self._failure is None and flags.is_disconnect_packet_from_server:
            self._failure = failures.disconnected(reason.value, reason.getName())

    def _on_subscribe(self, _client: Any, _data: Any, _mid: Any, codes: Any, _properties: Any) -> None:
        for one, code in zip(self._filters, codes, strict=False):
            if code.is_failure:
                problem = f"the broker refused the subscription to {one}: {code.getName()}"
                remedy = "Allow this client to subscribe to it."
                self._failure = ConnectionFailed("subscription_refused", problem, remedy)
                return
        self.answered = True

    def _on_unsubscribe(self, _client: Any, _data: Any, _mid: Any, codes: Any, _properties: Any) -> None:
        for one, code in zip(self._filters, codes, strict=False):
            if code.is_failure:
                problem = f"the broker does not end the subscription to {one}: {code.getName()}"
                self._failure = ConnectionFailed("unsubscribe_refused", problem, "See the broker's log.")
                return
            if code.value == _NO_SUBSCRIPTION:
                log_event(_log, "subscription_unknown", level=logging.WARNING, filter=one)
        self.answered = True

    def _receive(self, incoming: Incoming) -> None:
        self._incoming.append(incoming)


class _Client(paho.Client):
    """paho, but for two things: a message whose properties it cannot read is received as broken, rather than ending
    the connection each time the broker sends it; and its sockets can be dropped at once."""

    receive: Any = None

    def _handle_publish(self) -> MQTTErrorCode:
        packet, qos = self._in_packet["packet"], (self._in_packet["command"] >> 1) & 3
        size = int.from_bytes(packet[:2], "big")
        raw_topic = bytes(packet[2 : 2 + size])
        try:
            return super()._handle_publish()
        except Exception as error:  # noqa: BLE001  paho raises many for what it cannot read
            mid = int.from_bytes(packet[2 + size : 4 + size], "big") if qos else 0
            topic = raw_topic.decode("utf-8", "replace")
            self.receive(Incoming(topic, bytes(packet), mid, broken=str(error) or type(error).__name__))
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _handle_on_message(self, message: paho.MQTTMessage) -> None:
        mid = message.mid if message.qos else 0
        try:
            topic = message.topic
        except UnicodeDecodeError as error:
            self.receive(Incoming("", bytes(message.payload), mid, broken=str(error)))
            return
        properties = message.properties
        content_type = getattr(properties, "ContentType", "")
        self.receive(
            Incoming(topic, bytes(message.payload), mid, content_type, getattr(properties, "UserProperty", ()))
        )

    def drop(self) -> None:
        self._sock_close()
        self._reset_sockets()


def share(group: str, filters: Sequence[str]) -> list[str]:
    """As a shared subscription (MQTT 5.0, 4.8.2). Raises ConfigError, InputRejected."""
    for one in filters:
        check_filter(one)
    if not group:
        return list(filters)
    if any(character in group for character in "/+#\0"):
        raise ConfigError("--shared", "", "a group's name holds no /, + or #", "Choose another name.")
    return [f"$share/{group}/{one}" for one in filters]


def _context(address: Address) -> ssl.SSLContext | None:
    """From the files as they are now: a renewed certificate counts at the next connection. Raises ConnectionFailed."""
    if not address.tls:
        return None
    for file in (address.ca, address.certificate, address.key):
        if file and not Path(file).is_file():
            raise ConnectionFailed("credentials_unusable", f"{file} does not exist", "Correct its path.")
    try:
        context = ssl.create_default_context(cafile=address.ca or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if address.certificate:
            context.load_cert_chain(address.certificate, address.key)
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(file for file in (address.ca, address.certificate, address.key) if file)
        problem = f"one of {files} cannot be used: {error}"
        raise ConnectionFailed(
            "credentials_unusable", problem, "Check that they are PEM, and the key the certificate's."
        ) from None
    return context
