"""What fills its folder again and again: how much is on the disk afterwards, and what was there before.

Beside them in the gateway one that hears nothing and spins.

Alone against the sandbox, run after run, and as functions of a gateway, call after call; as root and as a user."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from edge.functions.sandbox import Sandbox
from edge_tools.mosquitto import Mosquitto
from tests.functions.gateway import NOBODY, USERS, hold, open_folder
from tests.functions.hostile_gateway import GATEWAY, GOOD, Gateway, Outcome
from tests.processes import until

MEGA = 1 << 20
BOUND = 32 * MEGA
FILES = 1_000
RUNS = 5
FILLERS = {
    "sh": ["/bin/sh", "-c", 'i=0; while :; do head -c 10485760 /dev/zero >"$i.$$.$1"; i=$((i + 1)); done', "sh"],
    "sh_files": ["/bin/sh", "-c", 'i=0; while :; do : >"$i.$1"; i=$((i + 1)); done', "sh"],
    "sh_and_away": [
        "/bin/sh",
        "-c",
        'i=0; while [ $i -lt 5 ]; do head -c 10485760 /dev/zero >"$i.$1"; i=$((i + 1)); done',
        "sh",
    ],
    "python": [
        os.path.realpath("/usr/bin/python3"),
        "-c",
        "import itertools, sys\nfor i in itertools.count(): open(f'{i}.{sys.argv[1]}', 'wb').write(bytes(10485760))",
    ],
    "sh_unreadable": [
        "/bin/sh",
        "-c",
        'i=0; while :; do mkdir "$1.$i"; chmod 300 "$1.$i"; head -c 4194304 /dev/zero >"$1.$i/f"; i=$((i + 1)); done',
        "sh",
    ],
    "python_deep": [
        os.path.realpath("/usr/bin/python3"),
        "-c",
        "import os, sys\nwhile 1: os.mkdir(sys.argv[1]); os.chdir(sys.argv[1]); open('f', 'wb').write(bytes(1 << 16))",
    ],
}


@pytest.fixture
def place() -> Iterator[Path]:
    with open_folder() as folder:
        yield folder


def on_disk(folder: Path) -> tuple[int, int]:
    """Bytes and files, as du counts them."""
    shown = [
        subprocess.run(["du", *how, folder], check=True, capture_output=True, text=True).stdout.split()[0]
        for how in (["-s", "-B1"], ["-s", "--inodes"])
    ]
    return int(shown[0]), int(shown[1])


def sandbox(place: Path) -> Sandbox:
    return Sandbox(
        name=place.name, folder=f"{place}/work", folder_bytes_max=BOUND, folder_files_max=FILES, processes_max=8
    )


def fill(place: Path, user: str) -> None:
    """Of before, by the function's own user."""
    made = "import os; os.mkdir('data'); [open(f'data/{i}', 'wb').write(bytes(1 << 20)) for i in range(8)]"
    assert hold(sandbox(place), made, user=user).reason == "exited"


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("name", FILLERS)
def test_run_after_run_there_is_no_more_than_its_bound_and_all_that_was_there_before(
    user: str, name: str, place: Path
) -> None:
    fill(place, user)
    for run in range(RUNS):
        held = hold(sandbox(place), [*FILLERS[name], f"{run}"], user=user)
        assert held.reason == "disk", held
        assert held.ending is not None
        assert "were taken away" in held.ending.tidied
        size, files = on_disk(place / "work")
        assert size <= BOUND
        assert files <= FILES
    assert [path.stat().st_size for path in (place / "work" / "data").iterdir()] == [MEGA] * 8


@pytest.mark.parametrize("user", USERS)
def test_one_in_a_full_folder_may_clear_it_up_but_is_given_no_more(user: str, place: Path) -> None:
    made = "for i in range(33): open(f'{i}', 'wb').write(bytes(1 << 20))"
    large = sandbox(place)
    assert hold(Sandbox(name=large.name, folder=large.folder), made, user=user).reason == "exited"
    held = hold(sandbox(place), "open('more', 'wb').write(bytes(1 << 20)); input()", user=user, kill_after_s=20)
    assert held.reason == "disk"
    assert len(list((place / "work").iterdir())) == 33
    held = hold(sandbox(place), "import os; [os.remove(f'{i}') for i in range(20)]", user=user)
    assert (held.reason, len(list((place / "work").iterdir()))) == ("exited", 13)


@pytest.mark.parametrize("user", USERS)
def test_one_whose_folder_is_far_too_full_is_not_begun_and_told_what_to_do(user: str, place: Path) -> None:
    made = "for i in range(41): open(f'{i}', 'wb').write(bytes(1 << 20))"
    large = sandbox(place)
    assert hold(Sandbox(name=large.name, folder=large.folder), made, user=user).reason == "exited"
    held = hold(sandbox(place), "print('begun')", user=user)
    assert held.ending is None
    assert f"bytes, of {BOUND}: remove what is not needed from {large.folder}" in held.error
    assert len(list((place / "work").iterdir())) == 41


FUNCTION = """
[[function]]
name = "{name}"
{code}
every = "1 s"
timeout_s = 30
max_attempts = 3
"""
CODE = """\
import os

def handler(event, context):
    number = 0
    while True:
        with open(f"{os.environ['TMPDIR']}/{os.getpid()}.{number}", "wb") as file:
            file.write(bytes(10 << 20))
        number += 1
"""
PROGRAM = """\
#!/bin/sh
while read -r line; do
    number=0
    while :; do
        head -c 10485760 /dev/zero >"$$.$number"
        number=$((number + 1))
    done
done
"""


def _has_ended(outcome: Outcome, name: str, runs: int) -> bool:
    return len(outcome.of(name, "function_worker_ended")) >= runs


@pytest.mark.parametrize("user", USERS)
def test_call_after_call_there_is_no_more_than_its_bound_and_the_gateway_tells(user: str) -> None:
    bound, runs = 64 * MEGA, 4
    with tempfile.TemporaryDirectory(prefix="edge-filled-") as name, Mosquitto(Path(name) / "c") as cloud:
        folder = Path(name) / "g"
        folder.mkdir()
        (folder / "code.py").write_text(CODE)
        (folder / "program.sh").write_text(PROGRAM)
        (folder / "program.sh").chmod(0o755)
        (folder / "good.py").write_text(GOOD)
        (folder / "deaf.sh").write_text("#!/bin/sh\nwhile :; do :; done\n")
        (folder / "deaf.sh").chmod(0o755)
        deaf = f'\n[[function]]\nname = "deaf"\nexec = ["{folder}/deaf.sh"]\n'
        ways = {"python": 'file = "code.py"\nhandler = "handler"', "sh": f'exec = ["{folder}/program.sh"]'}
        text = GATEWAY.format(cloud=cloud.port, broker=cloud.port)
        (folder / "gateway.toml").write_text(
            text + deaf + "".join(FUNCTION.format(name=one, code=code) for one, code in ways.items())
        )
        if user == "user" and os.geteuid() == 0:
            for path in (Path(name), folder):
                path.chmod(0o755)
            shutil.chown(folder, NOBODY, NOBODY)
        gateway = Gateway(folder, user)
        outcome = gateway.outcome
        try:
            for one in ways:
                assert until(partial(_has_ended, outcome, one, runs), 120), outcome.events
            assert until(lambda: bool(outcome.of("deaf", "function_busy_without_call")), 60)
            gateway.look()
        finally:
            gateway.stop()
        for one in ways:
            assert on_disk(folder / "state" / "functions" / one / "work")[0] <= bound
            assert {row["reason"] for row in outcome.of(one, "function_worker_ended")} == {"disk"}
            assert len(outcome.of(one, "function_folder_tidied")) >= runs - 1
            assert "were taken away" in outcome.functions[one]["tidied"], json.dumps(outcome.functions[one])
        assert outcome.functions["deaf"]["cpu_percent_without_call"] >= 10
        assert outcome.functions["deaf"]["state"] == "ready"
        assert outcome.exit_code == 0
