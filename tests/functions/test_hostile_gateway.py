"""All hostile functions at once in one gateway that relays: as root, and as an ordinary user.

The gateway is run once for each; the tests look at what came of it."""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_tools.mosquitto import Mosquitto
from tests.functions.gateway import NOBODY, ROOT, USERS
from tests.processes import Client, until

HOSTILE = Path(__file__).with_name("hostile")
NAMES = sorted(path.stem for path in HOSTILE.glob("[a-z]*.py"))
ENDLESS = ["fork_bomb", "endless_loop", "endless_output", "ignores_sigterm"]
RELAYED_PER_S = 200
RELAYED_S_MIN = 6.0

GATEWAY = """\
[gateway]
name = "g"
data_dir = "state"

[cloud]
host = "127.0.0.1"
port = {cloud}
tls = false

[broker]
host = "127.0.0.1"
port = {broker}
tls = false

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

FUNCTION = """
[[function]]
name = "{name}"
file = "{file}"
handler = "handler"
from = ["broker"]
subscribe = ["attack/{name}"]
publish = ["own/#"]
to = ["cloud"]
timeout_s = {timeout_s}
max_attempts = 1
memory_bytes_max = 50_000_000
"""

GOOD = """\
from edge import on, publish

@on("dt/+")
def good(message):
    publish("out/x", message.payload)
"""


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


@pytest.fixture(scope="module", params=USERS)
def outcome(request: pytest.FixtureRequest) -> Iterator[Outcome]:
    with (
        tempfile.TemporaryDirectory(prefix="edge-hostile-") as name,
        Mosquitto(Path(name) / "c") as cloud,
        Mosquitto(Path(name) / "b") as broker,
    ):
        yield let_loose(Path(name), cloud, broker, request.param)


def let_loose(folder: Path, cloud: Mosquitto, broker: Mosquitto, user: str) -> Outcome:
    functions = "".join(
        FUNCTION.format(name=one, file=HOSTILE / f"{one}.py", timeout_s=5 if one in ENDLESS else 40) for one in NAMES
    )
    (folder / "gateway.toml").write_text(GATEWAY.format(cloud=cloud.port, broker=broker.port) + functions)
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
        assert until(lambda: gateway.ready() >= {"good", *NAMES} - {"exits_at_import"}, 60), gateway.ready()
        broker.wait_log("Sending SUBACK to g")
        gateway.look()
        events = {
            "fork_bomb": {"budget": 120},
            "reads_the_keys": {
                "paths": [
                    f"{folder}/keys/gateway.key",
                    f"{state}/lock",
                    str(gateway.file),
                    *(f"/proc/{gateway.pid}/{name}" for name in ("environ", "maps", f"root{folder}/keys/gateway.key")),
                ]
            },
            "opens_a_socket": {"port": broker.port, "path": str(next(state.rglob("*.sock"), state / "control"))},
            "writes_anothers_folder": {
                "folders": [str(state / "functions" / "good" / part) for part in ("", "work", "code", "inbox")]
            },
        }
        done = threading.Event()
        relaying = threading.Thread(target=_relay, args=(source, outcome, done))
        relaying.start()
        try:
            for name in NAMES:
                source.publish(f"attack/{name}", json.dumps(events.get(name, {})).encode())
            began = time.monotonic()
            until(lambda: _all_told(gateway), 60)
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


def _all_told(gateway: Gateway) -> bool:
    gateway.look()
    told = {
        name
        for name, one in gateway.outcome.functions.items()
        if one["calls"] or (name == "exits_at_import" and one["restarts"])
    }
    return told >= set(NAMES)


def test_all_that_came_in_was_relayed_once_and_in_order(outcome: Outcome) -> None:
    assert len(outcome.relayed) > RELAYED_PER_S
    assert outcome.payloads("dt/x") == outcome.relayed


def test_a_function_beside_them_got_and_answered_all_in_order(outcome: Outcome) -> None:
    assert outcome.payloads("out/x") == outcome.relayed
    good = outcome.functions["good"]
    assert (good["errors"], good["restarts"], good["state"]) == (0, 0, "ready")
    assert good["attempts"] == []


def test_the_gateway_ends_when_asked_to(outcome: Outcome) -> None:
    assert outcome.exit_code == 0


@pytest.mark.parametrize("name", sorted({*NAMES} - {"exits_at_import"}))
def test_what_holds_each_is_told(outcome: Outcome, name: str) -> None:
    lines = outcome.contained_by[name]
    assert {line.partition(":")[0] for line in lines} >= {"memory", "processes", "network", "files", "end"}


def problem(outcome: Outcome, name: str) -> str:
    """What the event says of the call, which the status says as well."""
    (event,) = outcome.of(name, "function_failed")
    assert outcome.functions[name]["last_error"]
    assert outcome.counter("errors", name) >= 1
    assert outcome.counter("dead_letters", name) == 1
    error: str = event["error"]
    return error


@pytest.mark.parametrize("name", ENDLESS)
def test_what_does_not_end_is_ended_at_its_deadline(outcome: Outcome, name: str) -> None:
    assert problem(outcome, name).startswith("TimeoutError: it did not answer within 5 s, and was ended")
    assert outcome.functions[name]["timeouts"] == 1
    assert [row["reason"] for row in outcome.of(name, "function_worker_ended")] == ["killed"]


def test_the_fork_bomb_met_its_limit(outcome: Outcome) -> None:
    assert any(line.startswith("refused 11") for line in outcome.lines("fork_bomb"))
    reached = "reached its limit of 16 processes"
    assert problem(outcome, "fork_bomb").endswith(reached)
    (event,) = outcome.of("fork_bomb", "function_limit_reached")
    assert (event["limit"], event["reached"]) == ("processes", "its limit of 16 processes")
    assert outcome.counters['function_limits_reached{function="fork_bomb",limit="processes"}'] == 1
    assert f"processes: {reached}" in outcome.functions["fork_bomb"]["attempts"]
    assert outcome.functions["fork_bomb"]["last_error"].endswith(reached)


def test_endless_output_is_cut_and_counted(outcome: Outcome) -> None:
    assert len(outcome.lines("endless_output")) < 1_000
    assert outcome.counter("lines_dropped", "endless_output") > 0
    assert all(len(line) < 5_000 for line in outcome.lines("endless_output"))


def test_the_memory_hog_is_ended_or_refused(outcome: Outcome) -> None:
    told = problem(outcome, "memory_hog")
    assert "MemoryError" in told or "bytes of memory" in told
    assert not any(line.startswith("took") for line in outcome.lines("memory_hog"))


def test_the_disk_filler_is_ended(outcome: Outcome) -> None:
    assert "in its folder" in problem(outcome, "disk_filler")
    reasons = {row["reason"] for row in outcome.of("disk_filler", "function_worker_ended")}
    assert reasons == {"disk"}  # so are those after it, while its folder is as full


def test_one_that_exits_at_import_backs_off(outcome: Outcome) -> None:
    one = outcome.functions["exits_at_import"]
    assert (one["last_error"], one["pids"]) == ("exit status 3", [])
    waits = [row["again_in_s"] for row in outcome.of("exits_at_import", "function_worker_ended")]
    assert waits[:3] == [1, 2, 4][: len(waits)]
    assert outcome.counter("restarts", "exits_at_import") == one["restarts"] > 0


def test_no_key_was_read(outcome: Outcome) -> None:
    assert outcome.lines("reads_the_keys") == ["found []"]
    tried = attempts(outcome, "reads_the_keys", "files")
    assert any(row.startswith("files: open ") and row.endswith("/keys/gateway.key") for row in tried)
    assert "files: open /etc/shadow" in tried


def test_no_socket_reached_anybody(outcome: Outcome) -> None:
    assert outcome.lines("opens_a_socket") == ["reached []"]
    tried = attempts(outcome, "opens_a_socket", "network")
    assert {f"network: make a socket of AF_{family}" for family in ("INET", "PACKET", "NETLINK")} <= set(tried)


def test_nobody_wrote_into_another_functions_folder(outcome: Outcome) -> None:
    assert outcome.lines("writes_anothers_folder") == ["done []"]
    assert outcome.planted == []
    tried = attempts(outcome, "writes_anothers_folder", "files")
    assert any(row.startswith("files: open ") and row.endswith("/good/work/planted to write") for row in tried)


# Its event, its counter, and what the status says of it.
REPORTED = {
    "disk_filler": ("function_worker_ended", "restarts", "in its folder"),
    "endless_loop": ("function_failed", "timeouts", "did not answer"),
    "endless_output": ("function_lines_dropped", "lines_dropped", "did not answer"),
    "exits_at_import": ("function_worker_ended", "restarts", "exit status 3"),
    "fork_bomb": ("function_limit_reached", "limits_reached", "its limit of 16 processes"),
    "ignores_sigterm": ("function_failed", "timeouts", "did not answer"),
    "memory_hog": ("function_failed", "errors", "emory"),
    "opens_a_socket": ("function_attempt_denied", "attempts_denied", "network: make a socket"),
    "publishes_elsewhere": ("function_publish_denied", "publishes_denied", "not in the function's `publish`"),
    "publishes_elsewhere_async": ("function_publish_denied", "publishes_denied", "not in the function's `publish`"),
    "raises_much": ("function_failed", "errors", "ValueError: much much"),
    "reads_the_keys": ("function_attempt_denied", "attempts_denied", "/keys/gateway.key"),
    "writes_anothers_folder": ("function_attempt_denied", "attempts_denied", "/good/work/planted"),
}


@pytest.mark.parametrize("name", NAMES)
def test_each_is_told_with_its_reason_by_an_event_a_counter_and_the_status(outcome: Outcome, name: str) -> None:
    event, counter, reason = REPORTED[name]
    assert outcome.of(name, event)
    counted = [
        value
        for title, value in outcome.counters.items()
        if title.startswith(f"function_{counter}{{") and f'function="{name}"' in title
    ]
    assert sum(counted) >= 1
    status = outcome.functions[name]
    assert reason in " ".join([status["last_error"], *status["attempts"]])


def attempts(outcome: Outcome, name: str, what: str = "") -> list[str]:
    """What the status shows of its attempts, which an event and a counter say as well."""
    rows: list[str] = outcome.functions[name]["attempts"]
    if what:
        (event,) = outcome.of(name, "function_attempt_denied")
        assert event["what"] == what
        assert outcome.counters[f'function_attempts_denied{{function="{name}",what="{what}"}}'] >= len(rows) > 0
    return rows


def test_an_error_of_ten_megabytes_is_told_cut(outcome: Outcome) -> None:
    told = problem(outcome, "raises_much")
    assert told.startswith("ValueError: much much")
    assert len(told) <= 1_000
    assert len(outcome.functions["raises_much"]["last_error"]) < 5_000


def test_what_may_not_be_published_goes_nowhere(outcome: Outcome) -> None:
    assert outcome.lines("publishes_elsewhere") == ['refused ["publish", "greengrass", "wild", "system"]']
    assert outcome.counter("publishes_denied", "publishes_elsewhere") >= 1
    assert outcome.of("publishes_elsewhere", "function_publish_denied")
    assert {topic for topic, _ in outcome.heard} <= {"dt/x", "out/x"}
    problem(outcome, "publishes_elsewhere")


def test_what_may_not_be_published_from_an_async_handler_goes_nowhere(outcome: Outcome) -> None:
    name, denied = "publishes_elsewhere_async", "RequestDenied"
    refused = {"publish": denied, "wait": denied, "apublish": denied, "greengrass": "InvocationException"}
    expected = [list(one) for one in {**refused, "wild": "ValueError", "system": denied}.items()]
    assert outcome.lines(name) == [f"refused {json.dumps(expected)}"]
    assert outcome.counter("publishes_denied", name) == 5
    assert outcome.of(name, "function_publish_denied")
    problem(outcome, name)
