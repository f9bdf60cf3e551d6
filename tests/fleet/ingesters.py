"""A running `fleet ingest`, and a publisher apart from it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

import edge_tools
from edge_tools.fleet.cli import main
from edge_tools.mosquitto import HOST

PATIENCE_S = 30.0
TOOLS = Path(edge_tools.__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{TOOLS.parent}:{TOOLS}"}
FLEET = (sys.executable, "-m", "edge_tools.fleet.cli")


_KILLED = """
import os, signal, sys
from edge_tools.fleet import cli, ingest
point, at, seen = sys.argv[1], int(sys.argv[2]), 0
flush, commit = ingest.Ingest._flush, ingest.Ingest._commit
def die():
    os.kill(os.getpid(), signal.SIGKILL)
def committing(self, *rest):
    global seen
    seen += 1
    if seen == at and point == "before_commit":
        die()
    commit(self, *rest)
    if seen == at and point == "after_commit":
        die()
def flushing(self, *rest):
    flush(self, *rest)
    if seen == at and point == "after_acknowledge":
        die()
ingest.Ingest._commit, ingest.Ingest._flush = committing, flushing
sys.exit(cli.main(sys.argv[3:]))
"""


class Ingester:
    """`with Ingester(folder, port, database, "id") as one:`; ready once it has subscribed."""

    def __init__(self, folder: Path, broker: str, database: str, client_id: str, *options: str) -> None:
        self._command = [*FLEET, "ingest", "--broker", broker, "--database", database, "--client-id", client_id]
        self._command += ["--topic", "dt/#", "--batch-topic", "batch/#", "--json", *options]
        self.log = folder / f"{client_id}.log"
        self.process: subprocess.Popen[str] | None = None

    def start(self, *, wait: bool = True) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command, stdout=subprocess.PIPE, stderr=log, text=True, env=ENVIRONMENT
            )
        if wait:
            self.wait_subscribed()

    def kill_at(self, point: str, at: int) -> None:
        """Start it so that it dies by SIGKILL at this step of its at-th commit."""
        command = [sys.executable, "-c", _KILLED, point, str(at), *self._command[len(FLEET) :]]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=ENVIRONMENT)

    def wait(self) -> int:
        """Until it ends by itself; its exit code."""
        process, self.process = self.process, None
        assert process is not None
        process.communicate(timeout=PATIENCE_S)
        return process.returncode

    def wait_subscribed(self) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert json.loads(line or "{}").get("event") == "subscribed", self.log.read_text()

    def stop(self) -> dict[str, Any]:
        """SIGTERM; returns its totals."""
        process, self.process = self.process, None
        assert process is not None
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, self.log.read_text()
        totals: dict[str, Any] = json.loads(out.splitlines()[-1])
        return totals

    def kill(self) -> None:
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.communicate(timeout=PATIENCE_S)

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def __enter__(self) -> "Ingester":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


class Publisher:
    """QoS 1; `settle` waits until the broker has taken all."""

    def __init__(self, port: int) -> None:
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.max_inflight_messages_set(500)
        self._client.connect(HOST, port)
        self._client.loop_start()
        self._sent: list[paho.MQTTMessageInfo] = []

    def publish(
        self, topic: str, payload: bytes, user: Sequence[tuple[str, str]] = (), content_type: str = "", qos: int = 1
    ) -> None:
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        if user:
            properties.UserProperty = list(user)
        if content_type:
            properties.ContentType = content_type
        self._sent.append(self._client.publish(topic, payload, qos, properties=properties))

    def reading(self, thing: str, boot: int, seq: int) -> None:
        payload = b'{"c":%d.5}' % (seq % 40)
        self.publish(f"dt/{thing}/temp", payload, [("thing", thing), ("boot", str(boot)), ("seq", str(seq))])

    def settle(self) -> None:
        for one in self._sent:
            one.wait_for_publish(PATIENCE_S)
        self._sent.clear()

    def __enter__(self) -> "Publisher":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def rows(capsys: Any, *arguments: str) -> list[dict[str, Any]]:
    """What a `fleet telemetry … --json` prints."""
    capsys.readouterr()
    assert main(["telemetry", *arguments, "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def wait_until(done: Callable[[], bool], what: str = "") -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)
