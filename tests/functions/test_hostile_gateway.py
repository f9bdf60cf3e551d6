"""All hostile functions at once in one gateway that relays: as root, and as an ordinary user.

The gateway is run once for each; the tests look at what came of it."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_tools.mosquitto import Mosquitto
from tests.functions.gateway import USERS
from tests.functions.hostile import handled
from tests.functions.hostile_gateway import Neighbours, Outcome, World, let_loose

HOSTILE = Path(__file__).with_name("hostile")
NAMES = sorted(path.stem for path in HOSTILE.glob("[a-z]*.py"))
FLOOD = 200
INVOKES = 2_000
ENDLESS = ["fork_bomb", "endless_loop", "endless_output", "ignores_sigterm"]

FUNCTION = """
[[function]]
name = "{name}"
file = "{file}"
from = ["broker"]
subscribe = ["attack/{name}"]
publish = ["own/#"]
to = ["cloud"]
timeout_s = {timeout_s}
max_attempts = 1
memory_bytes_max = 50_000_000
"""


def sections(world: World) -> dict[str, str]:
    return {
        one: FUNCTION.format(name=one, file=HOSTILE / f"{one}.py", timeout_s=5 if one in ENDLESS else 40)
        + handled(one, HOSTILE / f"{one}.py")
        for one in NAMES
    }


def events(world: World) -> dict[str, object]:
    processes = [f"/proc/{world.pid}/{name}" for name in ("environ", "maps", f"root{world.keys[0]}")]
    return {
        "floods": {"messages": FLOOD},
        "fork_bomb": {"budget": 120},
        "invokes": {"calls": INVOKES},
        "reads_the_keys": {"paths": [*world.keys, *processes]},
        "opens_a_socket": {"port": world.broker, "path": world.control},
        "writes_anothers_folder": {"folders": world.others_folders},
    }


@pytest.fixture(scope="module", params=USERS)
def outcome(request: pytest.FixtureRequest) -> Iterator[Outcome]:
    with (
        tempfile.TemporaryDirectory(prefix="edge-hostile-") as name,
        Mosquitto(Path(name) / "c") as cloud,
        Mosquitto(Path(name) / "b") as broker,
    ):
        yield let_loose(Path(name), cloud, broker, request.param, sections, events)


class TestNeighbours(Neighbours):
    """Of the hostile ones."""


@pytest.mark.parametrize("name", sorted({*NAMES} - {"exits_at_import"}))
def test_what_holds_each_is_told(outcome: Outcome, name: str) -> None:
    lines = outcome.contained_by[name]
    assert {line.partition(":")[0] for line in lines} >= {"memory", "processes", "network", "files", "end"}


@pytest.mark.parametrize("name", ENDLESS)
def test_what_does_not_end_is_ended_at_its_deadline(outcome: Outcome, name: str) -> None:
    assert outcome.problem(name).startswith("TimeoutError: it did not answer within 5 s, and was ended")
    assert outcome.functions[name]["timeouts"] == 1
    assert [row["reason"] for row in outcome.of(name, "function_worker_ended")] == ["killed"]


def test_the_fork_bomb_met_its_limit(outcome: Outcome) -> None:
    assert any(line.startswith("refused 11") for line in outcome.lines("fork_bomb"))
    reached = "reached its limit of 16 processes"
    assert outcome.problem("fork_bomb").endswith(reached)
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
    told = outcome.problem("memory_hog")
    assert "MemoryError" in told or "bytes of memory" in told
    assert not any(line.startswith("took") for line in outcome.lines("memory_hog"))


def test_the_disk_filler_is_ended(outcome: Outcome) -> None:
    assert "in its folder" in outcome.problem("disk_filler")
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
    tried = outcome.attempts("reads_the_keys", "files")
    assert any(row.startswith("files: open ") and row.endswith("/keys/gateway.key") for row in tried)
    assert "files: open /etc/shadow" in tried


def test_no_socket_reached_anybody(outcome: Outcome) -> None:
    assert outcome.lines("opens_a_socket") == ["reached []"]
    tried = outcome.attempts("opens_a_socket", "network")
    assert {f"network: make a socket of AF_{family}" for family in ("INET", "PACKET", "NETLINK")} <= set(tried)


def test_nobody_wrote_into_another_functions_folder(outcome: Outcome) -> None:
    assert outcome.lines("writes_anothers_folder") == ["done []"]
    assert outcome.planted == []
    tried = outcome.attempts("writes_anothers_folder", "files")
    assert any(row.startswith("files: open ") and row.endswith("/good/work/planted to write") for row in tried)


# Its event, its counter, and what the status says of it.
REPORTED = {
    "disk_filler": ("function_worker_ended", "restarts", "in its folder"),
    "endless_loop": ("function_failed", "timeouts", "did not answer"),
    "endless_output": ("function_lines_dropped", "lines_dropped", "did not answer"),
    "exits_at_import": ("function_worker_ended", "restarts", "exit status 3"),
    "floods": ("function_limit_reached", "limits_reached", "publishes: reached its share"),
    "fork_bomb": ("function_limit_reached", "limits_reached", "its limit of 16 processes"),
    "ignores_sigterm": ("function_failed", "timeouts", "did not answer"),
    "invokes": ("function_limit_reached", "limits_reached", "invokes: reached its share"),
    "memory_hog": ("function_failed", "errors", "emory"),
    "opens_a_socket": ("function_attempt_denied", "attempts_denied", "network: make a socket"),
    "publishes_elsewhere": ("function_publish_denied", "publishes_denied", "not in the function's `publish`"),
    "publishes_elsewhere_async": ("function_publish_denied", "publishes_denied", "not in the function's `publish`"),
    "raises_much": ("function_failed", "errors", "ValueError: much much"),
    "reads_the_keys": ("function_attempt_denied", "attempts_denied", "/keys/gateway.key"),
    "schedules": ("function_limit_reached", "limits_reached", "schedules: reached its share"),
    "writes_anothers_folder": ("function_attempt_denied", "attempts_denied", "/good/work/planted"),
}


@pytest.mark.parametrize("name", NAMES)
def test_each_is_told_with_its_reason_by_an_event_a_counter_and_the_status(outcome: Outcome, name: str) -> None:
    assert outcome.is_told(name, *REPORTED[name])


def test_an_error_of_ten_megabytes_is_told_cut(outcome: Outcome) -> None:
    told = outcome.problem("raises_much")
    assert told.startswith("ValueError: much much")
    assert len(told) <= 1_000
    assert len(outcome.functions["raises_much"]["last_error"]) < 5_000


def test_what_may_not_be_published_goes_nowhere(outcome: Outcome) -> None:
    assert outcome.lines("publishes_elsewhere") == ['refused ["publish", "greengrass", "wild", "system"]']
    assert outcome.counter("publishes_denied", "publishes_elsewhere") >= 1
    assert outcome.of("publishes_elsewhere", "function_publish_denied")
    assert {topic for topic, _ in outcome.heard} <= {"dt/x", "out/x", "own/flood"}
    outcome.problem("publishes_elsewhere")


def test_a_flood_of_what_may_be_published_is_slowed_and_told(outcome: Outcome) -> None:
    (event,) = outcome.of("floods", "function_limit_reached")
    assert (event["limit"], event["reached"]) == ("publishes", "its share of 8388608 bytes a second")
    assert 0 < len(outcome.payloads("own/flood")) <= FLOOD
    assert outcome.functions["floods"]["errors"] == 0


def test_floods_of_calls_are_slowed_and_told(outcome: Outcome) -> None:
    for name, reached in (
        ("invokes", "its share of 500 calls of other functions and shadows a second"),
        ("schedules", "its share of 100 scheduled calls a second"),
    ):
        (event,) = outcome.of(name, "function_limit_reached")
        assert (event["limit"], event["reached"]) == (name, reached)
        assert (outcome.functions[name]["errors"], outcome.functions[name]["state"]) == (0, "ready")
    assert outcome.counter("schedules_skipped", "schedules") > 0
    assert outcome.functions["invoked"]["calls"] > 0


def test_what_may_not_be_published_from_an_async_handler_goes_nowhere(outcome: Outcome) -> None:
    name, denied = "publishes_elsewhere_async", "RequestDenied"
    refused = {"publish": denied, "wait": denied, "apublish": denied, "greengrass": "InvocationException"}
    expected = [list(one) for one in {**refused, "wild": "ValueError", "system": denied}.items()]
    assert outcome.lines(name) == [f"refused {json.dumps(expected)}"]
    assert outcome.counter("publishes_denied", name) == 5
    assert outcome.of(name, "function_publish_denied")
    outcome.problem(name)
