import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTEST = (sys.executable, "-m", "pytest", "-q", "--co", "-p", "no:cacheprovider", "-p", "tests.hil.options")

TESTS = """
import pytest
from edge_tools.hil.board import Can

@pytest.mark.needs(Can.POWER)
def test_power(): pass

@pytest.mark.needs(boards=2)
def test_two(): pass

@pytest.mark.needs(Can.PACE)
def test_pace(): pass

def test_any(): pass
"""


def collected(tmp_path: Path, *options: str) -> str:
    """What pytest says when it collects TESTS with these options."""
    (tmp_path / "test_sample.py").write_text(TESTS)
    done = subprocess.run(
        [*PYTEST, "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path), str(tmp_path), *options],
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'tools'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("board", ["mps2_an385", "posix"])
def test_an_emulated_board_runs_all_it_can(tmp_path: Path, board: str) -> None:
    said = collected(tmp_path, "--board", board)
    assert "4 tests collected" in said


def test_a_real_board_runs_what_its_hardware_can_and_the_rest_is_named_with_the_reason(tmp_path: Path) -> None:
    said = collected(tmp_path, "--board", "/dev/null")
    assert "test_power: not run, /dev/null lacks power" in said
    assert "test_two: not run, /dev/null lacks 2 boards" in said
    assert "test_pace: not run, /dev/null lacks pace" in said
    assert "1/4 tests collected (3 deselected)" in said


def test_a_port_that_is_not_there_stops_the_run(tmp_path: Path) -> None:
    said = collected(tmp_path, "--board", "/dev/none")
    assert "--board: no port /dev/none. Plug the board in" in said
    assert "Traceback" not in said
