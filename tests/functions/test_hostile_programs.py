"""The hostile functions once more as programs of any language (`exec`), and native code in a Python function.

All at once in one gateway that relays: as root, and as an ordinary user. The gateway is run once for each."""

import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_tools.mosquitto import Mosquitto
from tests.functions.gateway import USERS
from tests.functions.hostile_gateway import Neighbours, Outcome, World, let_loose

PROGRAMS = Path(__file__).with_name("hostile_programs")
FILES = {path.stem: path for path in sorted(PROGRAMS.iterdir())}
NATIVE = "python_with_native_code"
NAMES = [*FILES, NATIVE]
ENDLESS = ["endless_loop", "endless_output", "fork_bomb", "ignores_sigterm"]

FUNCTION = """
[[function]]
name = "{name}"
{code}
from = ["broker"]
subscribe = ["attack/{name}"]
publish = ["own/#"]
to = ["cloud"]
timeout_s = {timeout_s}
max_attempts = 1
memory_bytes_max = 50_000_000
"""

NATIVE_CODE = """\
import ctypes
from edge import on

@on("attack/#")
def attack(message):
    libc = ctypes.CDLL(None)
    print("reached", [libc.socket(family, 1, 0) for family in (2, 10)], libc.ptrace(16, 1, 0, 0))
"""


def sections(world: World) -> dict[str, str]:
    """C is compiled beside the gateway file."""
    given = {
        "reads_the_keys": world.keys,
        "opens_a_socket": [f"{world.broker}", world.control],
        "writes_anothers_folder": world.others_folders,
    }
    found = {}
    for name, path in FILES.items():
        program = path
        if path.suffix == ".c":
            program = world.folder / name
            subprocess.run(["cc", "-Wall", "-Wextra", "-Werror", "-O1", "-o", program, path], check=True)
        command = json.dumps([str(program), *given.get(name, [])])
        found[name] = FUNCTION.format(name=name, code=f"exec = {command}", timeout_s=5 if name in ENDLESS else 40)
    (world.folder / "native.py").write_text(NATIVE_CODE)
    return {**found, NATIVE: FUNCTION.format(name=NATIVE, code='file = "native.py"', timeout_s=40)}


@pytest.fixture(scope="module", params=USERS)
def outcome(request: pytest.FixtureRequest) -> Iterator[Outcome]:
    with (
        tempfile.TemporaryDirectory(prefix="edge-hostile-") as name,
        Mosquitto(Path(name) / "c") as cloud,
        Mosquitto(Path(name) / "b") as broker,
    ):
        yield let_loose(Path(name), cloud, broker, request.param, sections, lambda world: {})


def test_there_are_twelve() -> None:
    assert len(FILES) == 12


class TestNeighbours(Neighbours):
    """Of the hostile ones."""


# Its event, its counter, and what the status says of it.
REPORTED = {
    "disk_filler": ("function_worker_ended", "restarts", "in its folder"),
    "endless_loop": ("function_failed", "timeouts", "did not answer"),
    "endless_output": ("function_lines_dropped", "lines_dropped", "did not answer"),
    "exits_at_start": ("function_worker_ended", "restarts", "exit status 3"),
    "fork_bomb": ("function_limit_reached", "limits_reached", "its limit of 16 processes"),
    "ignores_sigterm": ("function_failed", "timeouts", "did not answer"),
    "memory_hog": ("function_failed", "errors", "emory"),
    "opens_a_socket": ("function_attempt_denied", "attempts_denied", "network: make a socket of AF_INET"),
    "publishes_elsewhere": ("function_publish_denied", "publishes_denied", "not in the function's `publish`"),
    "raises_much": ("function_failed", "errors", "line_too_long"),
    "reads_the_keys": ("function_attempt_denied", "attempts_denied", "privileges: process_vm_readv"),
    "writes_anothers_folder": ("function_failed", "errors", "/good/"),
    NATIVE: ("function_attempt_denied", "attempts_denied", "network: make a socket of AF_INET6"),
}


@pytest.mark.parametrize("name", NAMES)
def test_each_is_told_with_its_reason_by_an_event_a_counter_and_the_status(outcome: Outcome, name: str) -> None:
    assert outcome.is_told(name, *REPORTED[name])


@pytest.mark.parametrize("name", ENDLESS)
def test_what_does_not_end_is_ended_at_its_deadline(outcome: Outcome, name: str) -> None:
    assert outcome.problem(name).startswith("TimeoutError: it did not answer within 5 s, and was ended")
    assert outcome.functions[name]["timeouts"] == 1
    assert [row["reason"] for row in outcome.of(name, "function_worker_ended")] == ["killed"]


def test_the_fork_bomb_met_its_limit(outcome: Outcome) -> None:
    assert "refused 11" in outcome.lines("fork_bomb")
    assert outcome.problem("fork_bomb").endswith("reached its limit of 16 processes")


def test_endless_output_is_cut_and_counted(outcome: Outcome) -> None:
    assert len(outcome.lines("endless_output")) < 1_000
    assert {row["pipe"] for row in outcome.of("endless_output", "function_logged")} == {"stdout", "stderr"}
    assert outcome.counter("lines_dropped", "endless_output") > 10_000


def test_the_memory_hog_is_ended_or_refused(outcome: Outcome) -> None:
    outcome.problem("memory_hog")
    assert not any(line.startswith("took") for line in outcome.lines("memory_hog"))


def test_the_disk_filler_is_ended(outcome: Outcome) -> None:
    assert "in its folder" in outcome.problem("disk_filler")
    assert {row["reason"] for row in outcome.of("disk_filler", "function_worker_ended")} == {"disk"}


def test_one_that_exits_at_its_start_backs_off(outcome: Outcome) -> None:
    one = outcome.functions["exits_at_start"]
    assert (one["last_error"], one["pids"]) == ("exit status 3", [])
    waits = [row["again_in_s"] for row in outcome.of("exits_at_start", "function_worker_ended")]
    assert waits[:3] == [1, 2, 4][: len(waits)]


def test_no_key_and_no_memory_was_read_and_what_stood_in_the_way_is_told(outcome: Outcome) -> None:
    lines = outcome.lines("reads_the_keys")
    assert not any(line.startswith("found") for line in lines)
    assert any("/keys/gateway.key: " in line for line in lines)
    assert outcome.problem("reads_the_keys").startswith("Refused: ")
    assert "privileges: ptrace" in outcome.attempts("reads_the_keys", "privileges")


def test_no_socket_reached_anybody_and_silence_does_not_hide_it(outcome: Outcome) -> None:
    assert outcome.lines("opens_a_socket") == []
    assert outcome.functions["opens_a_socket"]["last_error"] == ""
    tried = outcome.attempts("opens_a_socket", "network")
    assert set(tried) == {f"network: make a socket of AF_{one}" for one in ("INET", "INET6", "PACKET", "NETLINK")}


@pytest.mark.parametrize("name", sorted({*NAMES} - {"exits_at_start"}))
def test_who_tells_of_each_is_shown(outcome: Outcome, name: str) -> None:
    assert outcome.contained_by[name][-1] == "attempts: told by the kernel and, of Python code, by its worker"


def test_native_code_in_a_python_function_is_told_as_well(outcome: Outcome) -> None:
    assert outcome.lines(NATIVE) == ["reached [-1, -1] -1"]
    assert "privileges: ptrace" in outcome.attempts(NATIVE, "privileges")
    assert "network: make a socket of AF_INET" in outcome.attempts(NATIVE, "network")


def test_nobody_wrote_into_another_functions_folder(outcome: Outcome) -> None:
    assert outcome.planted == []
    assert not any(line.startswith("done") for line in outcome.lines("writes_anothers_folder"))
    assert any("/good/work/planted" in line for line in outcome.lines("writes_anothers_folder"))
    assert outcome.problem("writes_anothers_folder").startswith("Refused: ")


def test_an_error_of_ten_megabytes_is_told_cut(outcome: Outcome) -> None:
    told = outcome.problem("raises_much")
    assert told.startswith("WorkerEnded: it sent what is none of the protocol: ")
    assert "line_too_long" in told


def test_what_may_not_be_published_goes_nowhere_and_fails_the_call(outcome: Outcome) -> None:
    name = "publishes_elsewhere"
    told = [json.loads(line.removeprefix("told ")) for line in outcome.lines(name)]
    assert [(one["ref"], one["ok"], one["error"]) for one in told] == [(1, False, "denied"), (2, False, "denied")]
    assert outcome.counter("publishes_denied", name) == 4
    assert outcome.problem(name).startswith("PublishDenied: ")
    assert {topic for topic, _ in outcome.heard} <= {"dt/x", "out/x"}
