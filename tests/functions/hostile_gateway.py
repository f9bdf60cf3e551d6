"""A gateway that relays while hostile functions are let loose in it, as root or as a user; what came of it."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from edge_tools.mosquitto import Mosquitto
from tests.functions.gateway import NOBODY, ROOT
from tests.processes import HEAD, Client, until

RELAYED_PER_S = 200
RELAYED_S_MIN = 6.0
NEVER_READY = {"exits_at_import"}

GATEWAY = (
    HEAD
    + """
[[route]]
from = "broker"
topic = "dt/#"
to = ["cloud"]

[[function]]
name = "good"
file = "good.py"
from = ["broker"]
subscribe = ["dt/+"]
publish = ["out/#"]
to = ["cloud"]
"""
)

GOOD = """\
from edge import on, publish

@on("dt/+")
def good(message):
    publish("out/x", message.payload)
"""


class World(msgspec.Struct, frozen=True):
    """What there is to attack. broker: its port. pid: of the gateway, 0 before it runs."""

    folder: Path
    broker: int
    pid: int = 0

    @property
    def control(self) -> str:
        return f"{self.folder}/state/control.sock"

    @property
    def keys(self) -> list[str]:
        state = self.folder / "state"
        return [f"{self.folder}/keys/gateway.key", f"{state}/lock", f"{self.folder}/gateway.toml"]

    @property
    def others_folders(self) -> list[str]:
        good = self.folder / "state" / "functions" / "good"
        return [str(good / part) for part in ("", "work", "code", "inbox")]


Sections = Callable[[World], dict[str, str]]
Events = Callable[[World], Mapping[str, object]]


class Outcome:
    """events: all that the gateway logged. relayed: what went in. heard: what came out, by topic. functions: as `edge
    status` shows them at the end, and counters its counters. contained_by: as it was shown last, by function."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.relayed: list[bytes] = []
        self.heard: list[tuple[str, bytes]] = []
        self.functions: dict[str, dict[str, Any]] = {}
        self.contained_by: dict[str, list[str]] = {}
        self.counters: dict[str, float] = {}
        self.exit_code: int | None = None
        self.planted: list[str] = []

    def payloads(self, topic: str) -> list[bytes]:
        return [payload for heard, payload in self.heard if heard == topic]

    def of(self, name: str, event: str) -> list[dict[str, Any]]:
        return [row for row in self.events if row["event"] == event and row.get("function") == name]

    def lines(self, name: str) -> list[str]:
        return [row["line"] for row in self.of(name, "function_logged")]

    def counter(self, name: str, function: str) -> float:
        return self.counters.get(f'function_{name}{{function="{function}"}}', 0)

    def problem(self, name: str) -> str:
        """What the event says of the call, which the status says as well."""
        (event,) = self.of(name, "function_failed")
        assert self.functions[name]["last_error"]
        assert self.counter("errors", name) >= 1
        assert self.counter("dead_letters", name) == 1
        error: str = event["error"]
        return error

    def attempts(self, name: str, what: str) -> list[str]:
        """What the status shows of its attempts, which an event and a counter say as well."""
        rows: list[str] = self.functions[name]["attempts"]
        (event, *_) = [one for one in self.of(name, "function_attempt_denied") if one["what"] == what]
        assert event["tried"]
        kind = [row for row in rows if row.startswith(f"{what}: ")]
        assert self.counters[f'function_attempts_denied{{function="{name}",what="{what}"}}'] >= len(kind) > 0
        return rows

    def is_told(self, name: str, event: str, counter: str, reason: str) -> bool:
        """By the event, a counter, and the reason in the status."""
        counted = [
            value
            for title, value in self.counters.items()
            if title.startswith(f"function_{counter}{{") and f'function="{name}"' in title
        ]
        status = self.functions[name]
        shown = " ".join([status["last_error"], *status["attempts"]])
        return bool(self.of(name, event)) and sum(counted) >= 1 and reason in shown


class Gateway:
    """As this user, in its folder."""

    def __init__(self, folder: Path, user: str) -> None:
        self.file, self.outcome = folder / "gateway.toml", Outcome()
        self._drop: dict[str, Any] = {}
        if user == "user" and os.geteuid() == 0:
            self._drop = {"user": NOBODY, "group": NOBODY, "extra_groups": ()}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "edge.cli", "run", "--config", str(self.file), "--log", "json"],
            stderr=subprocess.PIPE,
            text=True,
            **self._options(),
        )
        self.pid = self._process.pid
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _options(self) -> dict[str, Any]:
        paths = f"{ROOT}{os.pathsep}{ROOT / 'tools'}"
        return {"env": {**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}, **self._drop}

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.outcome.events.append(json.loads(line))

    def ready(self) -> set[str]:
        return {row["function"] for row in self.outcome.events if row["event"] == "function_ready"}

    def look(self) -> None:
        command = [sys.executable, "-m", "edge.cli", "status", "--config", str(self.file), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, **self._options())
        status = json.loads(done.stdout)
        self.outcome.functions = {one["name"]: one for one in status["functions"]}
        self.outcome.counters = status["counters"]
        held = {one["name"]: one["contained_by"] for one in status["functions"] if one["contained_by"]}
        self.outcome.contained_by.update(held)

    def stop(self) -> None:
        self._process.terminate()
        try:
            self.outcome.exit_code = self._process.wait(30)
        finally:
            self._process.kill()
            self._reader.join()
            assert self._process.stderr is not None
            self._process.stderr.close()


def let_loose(
    folder: Path, cloud: Mosquitto, broker: Mosquitto, user: str, sections: Sections, events: Events
) -> Outcome:
    """sections: of the gateway file, by function; without events of their own they get {}."""
    world = World(folder, broker.port)
    functions = sections(world)
    text = GATEWAY.format(cloud=cloud.port, broker=broker.port) + "".join(functions.values())
    (folder / "gateway.toml").write_text(text)
    (folder / "good.py").write_text(GOOD)
    (folder / "keys").mkdir()
    (folder / "keys" / "gateway.key").write_text("secret")
    folder.chmod(0o755)
    if user == "user" and os.geteuid() == 0:
        for path in (folder, folder / "keys", folder / "keys" / "gateway.key"):
            os.chown(path, NOBODY, NOBODY)
    state = folder / "state"
    gateway = Gateway(folder, user)
    outcome = gateway.outcome
    sink, source = Client(cloud.port, "#"), Client(broker.port)
    try:
        assert until(lambda: gateway.ready() >= {"good", *functions} - NEVER_READY, 60), gateway.ready()
        broker.wait_log("Sending SUBACK to g")
        gateway.look()
        given = events(msgspec.structs.replace(world, pid=gateway.pid))
        done = threading.Event()
        relaying = threading.Thread(target=_relay, args=(source, outcome, done))
        relaying.start()
        try:
            for name in functions:
                source.publish(f"attack/{name}", json.dumps(given.get(name, {})).encode())
            began = time.monotonic()
            until(lambda: _all_told(gateway, set(functions)), 60)
            time.sleep(max(0.0, RELAYED_S_MIN - (time.monotonic() - began)))
        finally:
            done.set()
            relaying.join()
        expected = len(outcome.relayed)
        until(lambda: all(sum(one == topic for one, _ in sink.heard) >= expected for topic in ("dt/x", "out/x")), 30)
        outcome.heard = list(sink.heard)
        outcome.planted = [str(path) for path in state.rglob("planted")]
        gateway.look()
    finally:
        sink.close()
        source.close()
        gateway.stop()
    return outcome


def _relay(source: Client, outcome: Outcome, done: threading.Event) -> None:
    while not done.is_set():
        payloads = [b"%d" % (len(outcome.relayed) + place) for place in range(RELAYED_PER_S // 20)]
        source.publish("dt/x", *payloads)
        outcome.relayed += payloads
        time.sleep(0.05)


def _all_told(gateway: Gateway, names: set[str]) -> bool:
    gateway.look()
    told = {
        name
        for name, one in gateway.outcome.functions.items()
        if one["calls"] or (name in NEVER_READY and one["restarts"])
    }
    return told >= names


class Neighbours:
    """What must hold beside the hostile ones, as tests: those who let such loose bring the fixture `outcome`."""

    def test_all_that_came_in_was_relayed_once_and_in_order(self, outcome: Outcome) -> None:
        assert len(outcome.relayed) > RELAYED_PER_S
        assert outcome.payloads("dt/x") == outcome.relayed

    def test_a_function_beside_them_got_and_answered_all_in_order(self, outcome: Outcome) -> None:
        assert outcome.payloads("out/x") == outcome.relayed
        good = outcome.functions["good"]
        assert (good["errors"], good["restarts"], good["state"]) == (0, 0, "ready")
        assert good["attempts"] == []

    def test_the_gateway_ends_when_asked_to(self, outcome: Outcome) -> None:
        assert outcome.exit_code == 0
