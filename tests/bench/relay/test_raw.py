"""What the relay bench drives and counts with."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_tools.mosquitto import Mosquitto
from tests.bench.relay.contenders import BROKER_OPTIONS, Contender, gateway, script
from tests.bench.relay.raw import TOPIC, Counter, Publisher, numbers, pace, packet_bytes


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path / "broker", options=BROKER_OPTIONS) as broker:
        yield broker


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path / "cloud", options=BROKER_OPTIONS) as broker:
        yield broker


def test_all_that_is_published_is_counted_after_paced_messages_too(broker: Mosquitto) -> None:
    counter, publisher = Counter(broker.port, "counter", TOPIC), Publisher(broker.port, "publisher")
    (arrived,) = pace(publisher, [counter], 20, 0.001)
    assert list(arrived) == list(range(1, 21))
    counter.start()
    publisher.publish(range(1, 5001))
    counter.receive(5000 * packet_bytes(), 5)
    assert numbers(counter.found()) == list(range(1, 5001))
    counter.close()
    publisher.close()


@pytest.mark.parametrize("name", ["edgeloop", "gmqtt", "paho"])
def test_what_a_relay_is_held_back_from_waits_and_arrives_when_it_is_let_go(
    name: str, broker: Mosquitto, cloud: Mosquitto, tmp_path: Path
) -> None:
    relay: Contender = gateway(broker, cloud.port, tmp_path)
    if name != "edgeloop":
        relay = script(name, broker, cloud.port, tmp_path, None)
    counter, publisher = Counter(cloud.port, "counter", TOPIC), Publisher(broker.port, "publisher")
    relay.start()
    try:
        for _ in range(200):
            publisher.publish([0])
            counter.receive(1, 0.1)
            if counter.bytes:
                break
        counter.receive(1 << 40, 0.5)
        counter.start()
        relay.hold()
        publisher.publish(range(1, 1001))
        counter.receive(1, 0.2)
        assert counter.bytes == 0
        relay.release()
        counter.receive(1000 * packet_bytes(), 10)
        assert set(numbers(counter.found())) == set(range(1, 1001))
    finally:
        relay.release()
        relay.stop()
        counter.close()
        publisher.close()
