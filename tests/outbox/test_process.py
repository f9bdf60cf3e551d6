"""Streams in the real gateway process beside real mosquittos: what is acknowledged arrives, whatever ends meanwhile."""

import json
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties

from edge_tools.mosquitto import Mosquitto
from tests.test_runtime import edge, running, until, wait_for_event

CONFIG = """\
[gateway]
name = "g"
data_dir = "state"

[cloud]
host = "127.0.0.1"
port = {cloud}
tls = false
backoff_s_min = 0.1
backoff_s_max = 0.2

[broker]
host = "127.0.0.1"
port = {broker}
tls = false

[[stream]]
name = "readings"
from = ["broker"]
topics = ["dt/#"]
"""

Name = tuple[str, str, str]


class Cloud:
    """Who hears what arrives, by name."""

    def __init__(self, port: int) -> None:
        self.heard: list[tuple[str, bytes, dict[str, str]]] = []
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.on_message = self._take
        self._client.on_connect = lambda client, *rest: client.subscribe("#", qos=1)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def _take(self, client: paho.Client, data: object, got: paho.MQTTMessage) -> None:
        assert isinstance(got.properties, Properties)
        self.heard.append((got.topic, bytes(got.payload), dict(getattr(got.properties, "UserProperty", []))))

    def named(self) -> dict[Name, bytes]:
        """Each once; fails where one name stands for two payloads."""
        found: dict[Name, bytes] = {}
        for _, payload, user in list(self.heard):
            name = user["thing"], user["boot"], user["seq"]
            assert found.setdefault(name, payload) == payload
        return found

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class Source:
    """Publishes QoS 1 at the local broker."""

    def __init__(self, port: int) -> None:
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def publish(self, topic: str, payloads: list[bytes]) -> None:
        for sent in [self._client.publish(topic, payload, qos=1) for payload in payloads]:
            sent.wait_for_publish(20)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def brokers(tmp_path: Path) -> Iterator[tuple[Mosquitto, Mosquitto]]:
    with (
        Mosquitto(tmp_path / "c", persistent=True) as cloud,
        Mosquitto(tmp_path / "b", persistent=True) as broker,
    ):
        yield cloud, broker


@pytest.fixture
def file(tmp_path: Path, brokers: tuple[Mosquitto, Mosquitto]) -> Path:
    path = tmp_path / "gateway.toml"
    path.write_text(CONFIG.format(cloud=brokers[0].port, broker=brokers[1].port))
    return path


def test_what_goes_into_a_stream_arrives_in_order_with_a_name_of_its_own(
    file: Path, brokers: tuple[Mosquitto, Mosquitto]
) -> None:
    payloads = [b"%d" % number for number in range(500)]
    with running(file) as process:
        wait_for_event(process, "connected", times=2)
        cloud, source = Cloud(brokers[0].port), Source(brokers[1].port)
        try:
            source.publish("dt/x", payloads)
            assert until(lambda: len(cloud.named()) == 500)
            assert [payload for _, payload, _ in cloud.heard] == payloads
            assert {thing for thing, _, _ in cloud.named()} == {"g/readings"}
            assert [seq for _, _, seq in cloud.named()] == [str(number) for number in range(1, 501)]
        finally:
            cloud.close()
            source.close()
        counters = json.loads(edge("status", "--config", str(file), "--json").stdout)["counters"]
        assert counters['stream_records_in{stream="readings"}'] == 500
        assert until(
            lambda: (
                json.loads(edge("status", "--config", str(file), "--json").stdout)["counters"][
                    'stream_records_out{stream="readings"}'
                ]
                == 500
            )
        )


def test_a_gateway_killed_while_the_cloud_is_away_loses_nothing_it_took(
    file: Path, brokers: tuple[Mosquitto, Mosquitto]
) -> None:
    cloud_broker, broker = brokers
    first, second = [b"a%d" % number for number in range(300)], [b"b%d" % number for number in range(300)]
    with running(file) as process:
        wait_for_event(process, "connected", times=2)
        source = Source(broker.port)
        cloud_broker.kill()
        try:
            source.publish("dt/x", first)
            assert until(lambda: "300" in edge("status", "--config", str(file)).stdout)
            process.kill()
            process.wait(15)
            source.publish("dt/x", second)
        finally:
            source.close()
    cloud_broker.start()
    cloud = Cloud(cloud_broker.port)
    try:
        with running(file):
            assert until(lambda: set(cloud.named().values()) >= {*first, *second})
    finally:
        cloud.close()
