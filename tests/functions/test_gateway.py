"""Functions in the real gateway process beside real mosquittos."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

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

[[function]]
name = "double"
file = "double.py"
from = ["broker"]
subscribe = ["dt/#"]
publish = ["out/#"]
to = ["cloud"]
"""

DOUBLE = """\
from edge import on, publish

@on("dt/+")
def double(message):
    publish("out/" + message.topic[3:], str(2 * int(message.payload)))
"""


class Client:
    """An independent client on a broker."""

    def __init__(self, port: int, *filters: str) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.on_message = lambda client, data, got: self.heard.append((got.topic, bytes(got.payload)))
        if filters:
            self._client.on_connect = lambda client, *rest: client.subscribe([(one, 1) for one in filters])
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def publish(self, topic: str, *payloads: bytes) -> None:
        for sent in [self._client.publish(topic, payload, qos=1) for payload in payloads]:
            sent.wait_for_publish(20)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class World:
    """Two brokers, and clients on them."""

    def __init__(self, folder: Path, cloud: Mosquitto, broker: Mosquitto) -> None:
        self.folder, self.cloud_broker, self.broker = folder, cloud, broker
        self.file = folder / "gateway.toml"
        self.file.write_text(CONFIG.format(cloud=cloud.port, broker=broker.port))
        self.cloud = Client(cloud.port, "#")
        self.source = Client(broker.port)
        self.code(DOUBLE)

    def code(self, text: str, name: str = "double.py") -> None:
        (self.folder / name).write_text(dedent(text))

    def more(self, text: str) -> None:
        """Add to the gateway file."""
        self.file.write_text(self.file.read_text() + dedent(text))

    def function(self, name: str = "double") -> dict[str, Any]:
        done = edge("function", "show", name, "--config", str(self.file), "--json")
        assert done.returncode == 0, done.stderr
        shown: dict[str, Any] = json.loads(done.stdout)
        return shown

    def wait_subscribed(self) -> None:
        self.broker.wait_log("Sending SUBACK to g")

    def payloads(self, topic: str) -> list[bytes]:
        return [payload for heard, payload in list(self.cloud.heard) if heard == topic]

    def close(self) -> None:
        self.cloud.close()
        self.source.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with Mosquitto(tmp_path / "c") as cloud, Mosquitto(tmp_path / "b") as broker:
        one = World(tmp_path, cloud, broker)
        try:
            yield one
        finally:
            one.close()


def test_a_message_reaches_the_function_and_what_it_publishes_goes_on(world: World) -> None:
    with running(world.file) as process:
        wait_for_event(process, "function_ready")
        world.wait_subscribed()
        world.source.publish("dt/x", *[b"%d" % number for number in range(200)])
        assert until(lambda: len(world.payloads("out/x")) >= 200)
        assert world.payloads("out/x") == [b"%d" % (2 * number) for number in range(200)]


INVOKED = """\
from edge import on, publish

@on("dt/+")
def run(message):
    print("got", message.payload)
    publish("out/x", b"published")
    if message.payload == b"bad":
        raise ValueError("bad payload")
    return {"topic": message.topic}
"""


def invoke(world: World, payload: bytes, *argv: str) -> tuple[int, dict[str, Any]]:
    event = world.folder / "event"
    event.write_bytes(payload)
    done = edge(
        "invoke", "double", "--event", str(event), "--topic", "dt/x", "--config", str(world.file), "--json", *argv
    )
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize("gateway_runs", [True, False])
def test_invoke_shows_what_a_call_gives_publishes_and_prints(world: World, *, gateway_runs: bool) -> None:
    world.code(INVOKED)
    with contextlib.ExitStack() as stack:
        if gateway_runs:
            wait_for_event(stack.enter_context(running(world.file)), "function_ready")
        code, row = invoke(world, b"good")
        assert (code, row["ok"], row["result"]) == (0, True, '{"topic":"dt/x"}')
        assert row["publishes"] == [{"topic": "out/x", "payload": "published", "qos": 1}]
        assert row["logs"] == ["got b'good'"]
        assert row["duration_ms"] > 0
        code, row = invoke(world, b"bad")
        assert (code, row["ok"], row["error"]) == (1, False, "ValueError")
        assert 'raise ValueError("bad payload")' in row["traceback"]
        if gateway_runs:
            assert until(lambda: world.payloads("out/x") == [b"published"] * 2)
        else:
            assert world.payloads("out/x") == []


def test_invoke_without_a_gateway_says_why_code_cannot_be_loaded(world: World) -> None:
    world.code("import nothing_of_this_name")
    code, row = invoke(world, b"")
    assert (code, row["error"]) == (1, "NotLoaded")
    assert "nothing_of_this_name" in row["message"]


def test_a_function_is_listed_with_what_holds_it(world: World) -> None:
    with running(world.file) as process:
        wait_for_event(process, "function_ready")
        shown = world.function()
        assert (shown["state"], shown["subscribed"], shown["last_error"]) == ("ready", ["dt/+"], "")
        assert any(line.startswith("memory: ") for line in shown["contained_by"])
        assert shown["memory_bytes"] > 0
        listed = json.loads(edge("function", "list", "--config", str(world.file), "--json").stdout)
        assert [one["name"] for one in listed] == ["double"]
        assert "function double: ready" in edge("status", "--config", str(world.file)).stdout
        assert edge("function", "show", "none", "--config", str(world.file)).returncode == 2
