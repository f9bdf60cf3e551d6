"""Our session against a real broker, with paho as the judge at the other end."""

import itertools
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties as PahoProperties
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge.messages import Message, Outcome, Properties, Reading
from edge.mqtt.codes import V5, V311
from edge.mqtt.events import Connected, Event, Options, Received, Refused, Settled, Subscribed, Will
from edge.mqtt.packets import Subscription
from edge.mqtt.session import Session
from edge_tools.mosquitto import Mosquitto

PATIENCE_S = 20.0


class Ours:
    """The session on a plain socket, driven by hand."""

    def __init__(self, broker: Mosquitto, version: int, name: str = "ours", **options: object) -> None:
        self.broker = broker
        options.setdefault("clean_start", False)
        options.setdefault("window", 4)  # the broker's own
        self.session = Session(Options(client_id=name, version=version, session_expiry_s=60, **options))  # type: ignore[arg-type]
        self.received: list[Message] = []
        self.settled: list[int] = []
        self.events: list[Event] = []
        self.acknowledge = True

    def open(self) -> Connected:
        self.socket = socket.create_connection(("127.0.0.1", self.broker.port))
        self.session.connect(time.monotonic())
        self.events.clear()
        self.until(lambda: self.session.connected)
        (event,) = [event for event in self.events if isinstance(event, Connected)]
        return event

    def drop(self) -> None:
        """As a cut cable: no DISCONNECT."""
        self.socket.close()
        self.session.transport_lost()

    def close(self) -> None:
        self.session.disconnect()
        self.socket.sendall(self.session.output())
        self.drop()

    def step(self, wait_s: float) -> None:
        if data := self.session.output():
            self.socket.sendall(data)
        if not select.select([self.socket], [], [], wait_s)[0]:
            return
        data = self.socket.recv(65536)
        assert data, "the broker closed the connection"
        for event in self.session.receive(data, time.monotonic()):
            self.events.append(event)
            match event:
                case Received(messages):
                    self.received += messages
                    if self.acknowledge:
                        self.session.acknowledge([message.receipt for message in messages if message.qos])
                case Settled(_, receipts, outcome, _):
                    assert outcome is Outcome.TAKEN
                    self.settled += receipts
        if data := self.session.output():
            self.socket.sendall(data)

    def until(self, done: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE_S
        while not done():
            self.step(0.05)
            assert time.monotonic() < end, "it never came"

    def publish(self, messages: list[Message]) -> None:
        """All of them, as far as the window allows at a time, until they are settled."""
        expected = len(self.settled) + sum(1 for message in messages if message.qos)
        left = messages
        while left:
            taken = self.session.publish(left, None)
            assert self.session.events() == []
            left = left[taken:]
            self.step(0 if taken else 0.05)
        self.until(lambda: len(self.settled) >= expected)

    def subscribe(self, *entries: Subscription) -> None:
        self.session.subscribe(entries)
        self.until(lambda: any(isinstance(event, Subscribed) for event in self.events))


MakeClient = Callable[..., Ours]


class Judge:
    """An independent client."""

    def __init__(self, broker: Mosquitto, version: int) -> None:
        protocol = MQTTProtocolVersion.MQTTv5 if version == V5 else MQTTProtocolVersion.MQTTv311
        self.got: list[paho.MQTTMessage] = []
        self._ready = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, f"judge-{version}", protocol=protocol)
        self._client.on_message = lambda client, data, message: self.got.append(message)
        self._client.on_subscribe = lambda *given: self._ready.set()
        self._client.connect("127.0.0.1", broker.port)
        self._client.loop_start()

    def subscribe(self, topic_filter: str, qos: int = 2) -> None:
        if self._client._protocol == MQTTProtocolVersion.MQTTv5:
            self._client.subscribe(topic_filter, options=SubscribeOptions(qos, retainAsPublished=True))
        else:
            self._client.subscribe(topic_filter, qos)
        assert self._ready.wait(PATIENCE_S)

    def publish(self, topic: str, payload: bytes, qos: int, properties: PahoProperties | None = None) -> None:
        self._client.publish(topic, payload, qos, properties=properties).wait_for_publish(PATIENCE_S)

    def wait(self, count: int) -> list[paho.MQTTMessage]:
        """That many with unequal payloads, or what came in good time."""
        end = time.monotonic() + PATIENCE_S
        while len({one.payload for one in self.got}) < count and time.monotonic() < end:
            time.sleep(0.01)
        return self.got

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture(params=[V5, V311], ids=["mqtt5", "mqtt311"])
def version(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def client() -> Iterator[MakeClient]:
    """Makes clients of ours, and closes them in the end."""
    made: list[Ours] = []

    def make(broker: Mosquitto, version: int, **options: Any) -> Ours:
        made.append(Ours(broker, version, **options))
        return made[-1]

    yield make
    for ours in made:
        ours.socket.close()


@pytest.fixture
def judge(mosquitto: Mosquitto, version: int) -> Iterator[Judge]:
    judge = Judge(mosquitto, version)
    yield judge
    judge.close()


def test_messages_of_each_level_arrive_at_an_independent_client_in_order(
    mosquitto: Mosquitto, judge: Judge, version: int, client: MakeClient
) -> None:
    judge.subscribe("up/#")
    ours = client(mosquitto, version)
    ours.open()
    sent = [Message(f"up/{number % 5}/ü", b"%d" % number, number // 100, receipt=number) for number in range(300)]
    for start in (0, 100, 200):  # mosquitto itself changes the order of queued messages of unequal levels
        ours.publish(sent[start : start + 100])
        judge.wait(start + 100)
    assert [(one.topic, one.payload, one.qos) for one in judge.got] == [
        (message.topic, message.payload, message.qos) for message in sent
    ]
    assert sorted(ours.settled) == [message.receipt for message in sent if message.qos]
    ours.close()


def test_messages_of_each_level_arrive_from_an_independent_client(
    mosquitto: Mosquitto, judge: Judge, version: int, client: MakeClient
) -> None:
    ours = client(mosquitto, version)
    ours.open()
    ours.subscribe(Subscription("down/#", 2))
    for number in range(60):
        judge.publish("down/t", b"%d" % number, number % 3)
    ours.until(lambda: len(ours.received) >= 60)
    for qos in (0, 1, 2):
        wanted = [b"%d" % number for number in range(60) if number % 3 == qos]
        assert [message.payload for message in ours.received if message.qos == qos] == wanted
    ours.close()


def test_a_retained_message_is_kept_by_the_broker_and_given_to_us(
    mosquitto: Mosquitto, version: int, client: MakeClient
) -> None:
    ours = client(mosquitto, version)
    ours.open()
    ours.publish([Message("kept", b"here", 1, True)])
    ours.subscribe(Subscription("kept", 1))
    ours.until(lambda: bool(ours.received))
    assert (ours.received[0].payload, ours.received[0].retain) == (b"here", True)
    ours.close()


def test_the_will_is_published_when_the_cable_is_cut(
    mosquitto: Mosquitto, judge: Judge, version: int, client: MakeClient
) -> None:
    judge.subscribe("will")
    ours = client(mosquitto, version, will=Will("will", b"gone", 1))
    ours.open()
    ours.drop()
    (message,) = judge.wait(1)
    assert (message.topic, message.payload) == ("will", b"gone")


def test_the_session_outlives_the_connection(
    mosquitto: Mosquitto, judge: Judge, version: int, client: MakeClient
) -> None:
    ours = client(mosquitto, version)
    assert ours.open().session_present is False
    ours.subscribe(Subscription("down/#", 2))
    ours.acknowledge = False
    for number in range(6):
        judge.publish("down/t", b"%d" % number, 1 + number % 2)
    ours.until(lambda: len(ours.received) >= 4)  # mosquitto's own window
    ours.drop()
    judge.publish("down/t", b"6", 1)
    ours.acknowledge = True
    assert ours.open().session_present is True
    # The QoS 2 messages handed over before are not handed over again, but have to be answered.
    ours.session.acknowledge([message.receipt for message in ours.received if message.qos == 2])
    ours.until(lambda: {message.payload for message in ours.received} == {b"%d" % number for number in range(7)})
    twice = [message.payload for message in ours.received if message.qos == 2]
    assert sorted(twice) == [b"1", b"3", b"5"]
    ours.close()


def test_what_was_in_flight_when_the_cable_was_cut_arrives(
    mosquitto: Mosquitto, judge: Judge, version: int, client: MakeClient
) -> None:
    judge.subscribe("up")
    ours = client(mosquitto, version)
    ours.open()
    sent = [Message("up", b"%d" % number, 1 + number % 2, receipt=number) for number in range(20)]
    left = sent
    for size in itertools.cycle((40, 90, 1, 200)):
        left = left[ours.session.publish(left, None) :]
        data = ours.session.output()
        ours.socket.sendall(data[:size])
        ours.step(0.02)
        if len(ours.settled) >= len(sent):
            break
        if len(data) > size:
            ours.drop()
            ours.open()
    got = judge.wait(20)
    assert {one.payload for one in got} == {message.payload for message in sent}
    assert sorted(one.payload for one in got if one.qos == 2) == sorted(m.payload for m in sent if m.qos == 2)
    assert sorted(ours.settled) == [message.receipt for message in sent]
    ours.close()


def test_a_broker_that_lost_the_session_gets_all_as_new(mosquitto: Mosquitto, version: int, client: MakeClient) -> None:
    ours = client(mosquitto, version)
    ours.open()
    assert ours.session.publish([Message("up", b"x", 1, receipt=1), Message("up", b"y", 2, receipt=2)], None) == 2
    ours.session.output()
    mosquitto.stop()
    ours.drop()
    mosquitto.start()
    judge = Judge(mosquitto, version)
    judge.subscribe("up")
    assert ours.open().session_present is False
    ours.until(lambda: sorted(ours.settled) == [1, 2])
    assert [one.payload for one in judge.wait(2)] == [b"x", b"y"]
    judge.close()
    ours.close()


def test_a_large_payload_passes_both_ways(mosquitto: Mosquitto, version: int, client: MakeClient) -> None:
    ours = client(mosquitto, version, packet_bytes_max=4_000_000)
    ours.open()
    ours.subscribe(Subscription("large", 1))
    payload = bytes(range(256)) * 12_000
    ours.session.publish([Message("large", payload, 1)], None)
    ours.socket.setblocking(True)
    ours.until(lambda: bool(ours.received))
    assert ours.received[0].payload == payload
    ours.close()


def test_a_window_of_our_own_holds_back_the_broker(mosquitto: Mosquitto, version: int, client: MakeClient) -> None:
    ours = client(mosquitto, version, receive_maximum=2)
    ours.open()
    ours.subscribe(Subscription("t", 1))
    ours.acknowledge = False
    ours.publish([Message("t", b"%d" % number, 1, receipt=number) for number in range(10)])
    most = 2 if version == V5 else 4  # under 3.1.1 it is the broker's own
    ours.until(lambda: len(ours.received) >= most)
    for _ in range(5):
        ours.step(0.01)
    assert len(ours.received) == most
    ours.acknowledge = True
    ours.session.acknowledge([message.receipt for message in ours.received])
    ours.until(lambda: len(ours.received) == 10)
    ours.close()


def test_aliases_and_properties_are_understood_by_the_broker(mosquitto: Mosquitto, client: MakeClient) -> None:
    judge = Judge(mosquitto, V5)
    judge.subscribe("#")
    ours = client(mosquitto, V5)
    assert ours.open().topic_alias_maximum == 10
    bag = Properties("answers", b"\0\1", "text/plain", True, 60, (("k", "v"),))
    ours.publish(
        [
            Message(f"t/{number % 12}", b"%d" % number, 1, False, number, bag, Reading("board", 2, number))
            for number in range(40)
        ]
    )
    got = judge.wait(40)
    assert [one.topic for one in got] == [f"t/{number % 12}" for number in range(40)]
    assert got[-1].properties is not None
    seen = got[-1].properties.json()  # type: ignore[no-untyped-call]
    seen.pop("MessageExpiryInterval")
    assert seen == {
        "ResponseTopic": "answers",
        "CorrelationData": "0001",
        "ContentType": "text/plain",
        "PayloadFormatIndicator": 1,
        "UserProperty": [("k", "v"), ("thing", "board"), ("boot", "2"), ("seq", "39")],
    }
    judge.close()
    ours.close()


def test_properties_of_an_independent_client_are_understood_by_us(mosquitto: Mosquitto, client: MakeClient) -> None:
    judge = Judge(mosquitto, V5)
    ours = client(mosquitto, V5)
    ours.open()
    ours.subscribe(Subscription("cmd/#", 1))
    bag = PahoProperties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    bag.ResponseTopic, bag.CorrelationData, bag.UserProperty = "answers", b"id", [("k", "v")]
    judge.publish("cmd/a", b"go", 1, bag)
    ours.until(lambda: bool(ours.received))
    (message,) = ours.received
    assert message.properties == Properties("answers", b"id", None, False, None, (("k", "v"),))
    judge.close()
    ours.close()


def test_a_refused_connect_is_understood(mosquitto_of_others: Mosquitto, version: int, client: MakeClient) -> None:
    ours = client(mosquitto_of_others, version)
    with pytest.raises(AssertionError):
        ours.open()
    (event,) = ours.events
    assert isinstance(event, Refused)
    assert event.name == "not_authorized"
