"""Functions that mean harm, each alone against the sandbox, with all mechanisms and with fewer, as root and as a user.

What they publish is not the sandbox's to hold: see test_hostile_gateway."""

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.functions.sandbox import Sandbox
from tests.functions.gateway import OUTPUT_BYTES_MAX, USERS, Held, beats, end_all_in, hold, open_folder

HOSTILE = Path(__file__).with_name("hostile")
WAYS = {
    "all": frozenset[str](),
    "no_groups": frozenset({"groups"}),
    "no_namespaces": frozenset({"namespaces"}),
    "neither": frozenset({"groups", "namespaces"}),
}

pytestmark = [
    pytest.mark.parametrize("user", USERS),
    pytest.mark.parametrize("without", WAYS.values(), ids=WAYS),
]


@pytest.fixture
def place() -> Iterator[Path]:
    with open_folder() as folder:
        yield folder


def let_loose(
    name: str,
    place: Path,
    user: str,
    without: frozenset[str],
    event: object = None,
    kill_after_s: float = 20,
    kill_at: str = "",
) -> Held:
    sandbox = Sandbox(
        name=place.name,
        folder=f"{place}/work",
        read=(f"{HOSTILE}",),
        without=without,
        memory_bytes_max=48 << 20,
        folder_bytes_max=32 << 20,
    )
    command = ["/usr/bin/env", "python3", f"{HOSTILE}/{name}.py", json.dumps(event or {})]
    command[:2] = [os.path.realpath("/usr/bin/python3")]
    return hold(sandbox, command, user=user, kill_after_s=kill_after_s, kill_at=kill_at)


def test_a_fork_bomb_stays_within_its_processes_and_ends_as_a_whole(
    user: str, place: Path, without: frozenset[str]
) -> None:
    held = let_loose("fork_bomb", place, user, without, {"budget": 60}, kill_at="refused 11")
    assert "refused 11" in held.output  # EAGAIN
    assert held.reason in {"killed", "memory"}


def test_a_fork_bomb_is_known_to_have_reached_its_limit(user: str, place: Path, without: frozenset[str]) -> None:
    held = let_loose("fork_bomb", place, user, without, {"budget": 60}, kill_after_s=1.5)
    assert held.reached == {"processes": "its limit of 16 processes"}


def test_a_memory_hog_is_ended_or_refused(user: str, place: Path, without: frozenset[str]) -> None:
    held = let_loose("memory_hog", place, user, without)
    assert "took" not in held.output
    assert held.reason == "memory" or "MemoryError" in held.output


def test_a_disk_filler_is_ended(user: str, place: Path, without: frozenset[str]) -> None:
    held = let_loose("disk_filler", place, user, without)
    assert held.reason in {"disk", "memory"}  # its folder may be in memory


def test_an_endless_loop_is_ended_when_its_time_is_up(user: str, place: Path, without: frozenset[str]) -> None:
    held = let_loose("endless_loop", place, user, without, kill_after_s=0.5)
    assert held.reason == "killed"


def test_endless_output_costs_no_more_than_is_read(user: str, place: Path, without: frozenset[str]) -> None:
    held = let_loose("endless_output", place, user, without, kill_at="all is read")
    assert len(held.output) == OUTPUT_BYTES_MAX
    assert held.memory_bytes < 48 << 20


def test_one_that_exits_at_import_is_told(user: str, place: Path, without: frozenset[str]) -> None:
    held = let_loose("exits_at_import", place, user, without)
    assert held.ending is not None
    assert (held.ending.reason, held.ending.code) == ("exited", 3)


def test_one_that_hears_no_signal_is_ended_with_its_grandchildren(
    user: str, place: Path, without: frozenset[str]
) -> None:
    held = let_loose("ignores_sigterm", place, user, without, kill_at="deaf")
    assert held.reason == "killed"
    assert "deaf" in held.output
    left = beats(place / "work" / "alive")
    end_all_in(place)
    assert not left or not held.holds("end")


def test_keys_and_other_processes_cannot_be_read(user: str, place: Path, without: frozenset[str]) -> None:
    (place / "keys").mkdir()
    key = place / "keys" / "gateway.key"
    key.write_text("secret")
    key.chmod(0o600)
    paths = [str(key), "/proc/self/../1/environ", f"/proc/{os.getpid()}/environ", f"/proc/{os.getpid()}/root{key}"]
    held = let_loose("reads_the_keys", place, user, without, {"paths": paths})
    found = set(json.loads(held.output.removeprefix("found ")))
    found -= {"/proc/self/../1/environ"}  # in a namespace of its own the first process is itself
    assert not held.holds("files") or not found


def test_no_socket_reaches_anybody(user: str, place: Path, without: frozenset[str]) -> None:
    (place / "control").mkdir()
    (place / "control").chmod(0o755)
    abstract = f"edge-test-{os.getpid()}"
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_UNIX) as path,
        socket.socket(socket.AF_UNIX) as hidden,
    ):
        path.bind(f"{place}/control/socket")
        path.listen()
        (place / "control" / "socket").chmod(0o777)
        hidden.bind(f"\0{abstract}")
        hidden.listen()
        event = {"port": tcp.getsockname()[1], "path": f"{place}/control/socket", "abstract": abstract}
        held = let_loose("opens_a_socket", place, user, without, event)
    assert not held.holds("network") or held.output == "reached []\n"


def test_anothers_folder_stays_as_it_is(user: str, place: Path, without: frozenset[str]) -> None:
    other = place / "other"
    other.mkdir(mode=0o700)
    (other / "mine.txt").write_text("mine")
    if os.geteuid() == 0:
        owner = 65_534 if user == "user" else 1_900_000_001
        os.chown(other, owner, owner)
        os.chown(other / "mine.txt", owner, owner)
    mode = other.stat().st_mode
    held = let_loose("writes_anothers_folder", place, user, without, {"folders": [str(other)]})
    if not held.holds("files"):
        return
    assert held.output == "done []\n"
    assert [(path.name, path.read_text()) for path in other.iterdir()] == [("mine.txt", "mine")]
    assert other.stat().st_mode == mode


def test_an_error_of_ten_megabytes_costs_no_more_than_is_read(user: str, place: Path, without: frozenset[str]) -> None:
    held = let_loose("raises_much", place, user, without, kill_after_s=2)
    assert len(held.output) <= OUTPUT_BYTES_MAX
    assert held.reason in {"killed", "exited"}
