"""What the contract test runs a Connection in: a broker that can be stopped, and an independent client who judges."""

import asyncio
import contextlib
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties as PahoProperties

from edge.cloud.aws import AwsConnection
from edge.cloud.codec import CodecConnection
from edge.cloud.connection import Connection
from edge.cloud.held import HeldFilters
from edge.config import ConnectionSettings
from edge.messages import Message, Origin, Outcome, Properties
from edge.metrics import Metrics
from edge_tools.mosquitto import Mosquitto
from edge_tools.pki import Credential
from tests.fakes.connection import FakeCloud, FakeConnection

WAIT_S = 20.0


async def until(true: Callable[[], bool]) -> None:
    """Wait until it holds; the test fails if it does not for long."""
    async with asyncio.timeout(WAIT_S):
        while not true():
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def running(connection: Connection) -> AsyncIterator[None]:
    """The connection runs within."""
    task = asyncio.create_task(connection.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


class Ledger:
    """An origin that writes down how everything ended."""

    def __init__(self) -> None:
        self.outcomes: dict[int, list[Outcome]] = {}

    def settled(self, receipts: Sequence[int], outcome: Outcome) -> None:
        for receipt in receipts:
            self.outcomes.setdefault(receipt, []).append(outcome)

    def receipts(self, outcome: Outcome) -> list[int]:
        """Those that ended so, in the order they did; fails if any ended twice."""
        assert all(len(found) == 1 for found in self.outcomes.values())
        return [receipt for receipt, found in self.outcomes.items() if found == [outcome]]


class Inbound:
    """A receiver that writes down what came, and settles as told: TAKEN at once unless `answer` says otherwise."""

    def __init__(self, answer: Callable[[Message], Outcome | None] = lambda message: Outcome.TAKEN) -> None:
        self.messages: list[Message] = []
        self.origins: list[Origin] = []
        self._answer = answer

    def __call__(self, messages: Sequence[Message], origin: Origin) -> None:
        for message in messages:
            self.messages.append(message)
            self.origins.append(origin)
            outcome = self._answer(message)
            if outcome is not None and message.qos:
                origin.settled([message.receipt], outcome)

    @property
    def payloads(self) -> list[bytes]:
        return [message.payload for message in self.messages]


class World(Protocol):
    """received: what arrived at the broker on `dt/#`, in order, as the independent client saw it. A publish to
    `ask/#` is answered by that client with b"answer to " and the payload."""

    refuses: bool
    metrics: Metrics

    def connection(self, held: HeldFilters | None = None, **settings: Any) -> Connection: ...
    def publish(self, topic: str, payload: bytes, properties: Properties | None = None) -> None: ...
    @property
    def received(self) -> list[tuple[str, bytes]]: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...
    def close(self) -> None: ...


class MosquittoWorld:
    def __init__(self, kind: str, directory: Path, server: Credential, thing: Credential, observer: Credential) -> None:
        self.metrics = Metrics()
        self.refuses = kind != "codec 3.1.1"
        self._kind, self._thing = kind, thing
        acl = ("user observer", "topic readwrite #", "pattern readwrite +/%u/#")
        options = ["max_inflight_messages 1000"]
        self._broker = Mosquitto(directory, plain=False, tls=server, acl=acl, persistent=True, options=options)
        self._broker.start()
        self._observer = Observer(self._broker.tls_port, observer)
        self._broker.save()  # from now on it keeps for the observer what comes while the observer is away

    def connection(self, held: HeldFilters | None = None, **settings: Any) -> Connection:
        given = ConnectionSettings(
            **{
                "host": "localhost",
                "port": self._broker.tls_port,
                "client_id": "gateway-1",
                "protocol": "3.1.1" if self._kind == "codec 3.1.1" else "5",
                "ca": str(self._thing.ca),
                "certificate": str(self._thing.certificate),
                "key": str(self._thing.key),
                "backoff_s_min": 0.02,
                "backoff_s_max": 0.2,
                **settings,
            }
        )
        if self._kind == "aws":
            return AwsConnection(given, self.metrics, held=held)
        return CodecConnection(given, self.metrics, held=held)

    def publish(self, topic: str, payload: bytes, properties: Properties | None = None) -> None:
        self._observer.publish(topic, payload, properties)

    @property
    def received(self) -> list[tuple[str, bytes]]:
        return self._observer.received

    def start(self) -> None:
        self._broker.start()
        self._observer.wait_connected()

    def stop(self) -> None:
        self._observer.connected.clear()
        self._broker.stop()

    def kill(self) -> None:
        self._observer.connected.clear()
        self._broker.kill()

    def close(self) -> None:
        self._observer.close()
        self._broker.stop()


class Observer:
    """paho-mqtt as the independent client, in its own thread, with a session that outlives restarts of the broker."""

    def __init__(self, port: int, credential: Credential) -> None:
        self.received: list[tuple[str, bytes]] = []
        self.connected = threading.Event()
        client = paho.Client(CallbackAPIVersion.VERSION2, "observer", protocol=MQTTProtocolVersion.MQTTv5)
        context = ssl.create_default_context(cafile=str(credential.ca))
        context.load_cert_chain(credential.certificate, credential.key)
        client.tls_set_context(context)
        client.on_message = self._on_message
        client.on_subscribe = lambda *_: self.connected.set()
        client.on_connect = self._on_connect
        client.reconnect_delay_set(1, 1)
        client.max_inflight_messages_set(1000)
        expiry: Any = _properties(PacketTypes.CONNECT)
        expiry.SessionExpiryInterval = 3600
        client.connect("localhost", port, clean_start=False, properties=expiry)
        client.loop_start()
        self._client = client
        self.wait_connected()

    def wait_connected(self) -> None:
        assert self.connected.wait(WAIT_S)

    def publish(self, topic: str, payload: bytes, properties: Properties | None = None) -> None:
        given = _properties(PacketTypes.PUBLISH)
        if properties is not None:
            if properties.response_topic:
                given.ResponseTopic = properties.response_topic
            if properties.correlation_data:
                given.CorrelationData = properties.correlation_data
            given.UserProperty = list(properties.user)
        self._client.publish(topic, payload, 1, properties=given).wait_for_publish(WAIT_S)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(self, client: paho.Client, *_: Any) -> None:
        client.subscribe([("dt/#", 1), ("ask/#", 1)])

    def _on_message(self, client: paho.Client, _: Any, message: paho.MQTTMessage) -> None:
        if message.topic.startswith("dt/"):
            self.received.append((message.topic, bytes(message.payload)))
            return
        response_topic = getattr(message.properties, "ResponseTopic", None)
        payload = message.payload
        if response_topic is None:  # MQTT 3.1.1: the request says where to
            place, _, payload = payload.partition(b" ")
            response_topic = place.decode()
        answer = _properties(PacketTypes.PUBLISH)
        if hasattr(message.properties, "CorrelationData"):
            answer.CorrelationData = getattr(message.properties, "CorrelationData")  # noqa: B009
        client.publish(response_topic, b"answer to " + payload, 1, properties=answer)


def _properties(packet: int) -> Any:
    return PahoProperties(packet)  # type: ignore[no-untyped-call]


class FakeWorld:
    def __init__(self) -> None:
        self.metrics = Metrics()
        self.refuses = True
        self._cloud = FakeCloud()
        self._cloud.refuse.add("dt/gateway-2/x")
        self._asked = 0

    def connection(self, held: HeldFilters | None = None, **settings: Any) -> Connection:
        known = {"queue_messages_max", "queue_bytes_max"}
        given = {name: value for name, value in settings.items() if name in known}
        return _Answered(self._cloud, metrics=self.metrics, held=held, **given)

    def publish(self, topic: str, payload: bytes, properties: Properties | None = None) -> None:
        self._cloud.publish(topic, payload, properties=properties)

    @property
    def received(self) -> list[tuple[str, bytes]]:
        return [(m.topic, m.payload) for m in self._cloud.received if m.topic.startswith("dt/")]

    def start(self) -> None:
        self._cloud.up()

    def stop(self) -> None:
        self._cloud.down()

    def kill(self) -> None:
        self._cloud.down()

    def close(self) -> None:
        pass


class _Answered(FakeConnection):
    """The fake with someone behind the cloud who answers what is published to `ask/#`."""

    def __init__(self, cloud: FakeCloud, **arguments: Any) -> None:
        super().__init__(cloud, **arguments)
        self._answers = FakeConnection(cloud, "observer")
        self._answers.subscribe(["ask/#"], self._answer)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(super().run())
            group.create_task(self._answers.run())

    def _answer(self, messages: Sequence[Message], origin: Origin) -> None:
        for message in messages:
            found = message.properties
            assert found is not None
            assert found.response_topic is not None
            properties = Properties(correlation_data=found.correlation_data)
            answer = Message(found.response_topic, b"answer to " + message.payload, qos=1, properties=properties)
            self._answers.send([answer], Ledger())
            origin.settled([message.receipt], Outcome.TAKEN)
