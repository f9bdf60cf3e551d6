"""The gateway and its commands as processes beside real mosquittos, and an independent client to judge them."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

ROOT = Path(__file__).parent.parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tools'}"}

# The beginning of a gateway file, for two ports.
HEAD = """\
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
"""


def edge(*argv: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge.cli", *argv]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False)


def status_of(file: Path) -> dict[str, Any]:
    status: dict[str, Any] = json.loads(edge("status", "--config", str(file), "--json").stdout)
    return status


@contextmanager
def running(file: Path, *argv: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "edge.cli", "run", "--config", str(file), "--log", "json", *argv]
    process = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=30)


def wait_for_event(process: subprocess.Popen[str], name: str, times: int = 1) -> dict[str, object]:
    assert process.stderr is not None
    for line in process.stderr:
        row: dict[str, object] = json.loads(line)
        if row["event"] == name:
            times -= 1
            if not times:
                return row
    raise AssertionError(f"the gateway ended before {name}")


def until(condition: Callable[[], object], seconds: float = 15) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return bool(condition())


class Client:
    """On a broker; remembers what it hears by its filters."""

    def __init__(self, port: int, *filters: str) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.on_message = lambda client, data, got: self._take(got)
        answered = threading.Event()
        self._client.on_subscribe = lambda *rest: answered.set()
        if filters:
            self._client.on_connect = lambda client, *rest: client.subscribe([(one, 1) for one in filters])
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert not filters or answered.wait(20)

    def _take(self, got: paho.MQTTMessage) -> None:
        self.heard.append((got.topic, bytes(got.payload)))

    def publish(self, topic: str, *payloads: bytes) -> None:
        for sent in [self._client.publish(topic, payload, qos=1) for payload in payloads]:
            sent.wait_for_publish(20)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        self._client.on_message = None  # which knows us: the client closes the last of its sockets as it goes
