"""Ctrl-C within the first moments of a command prints no traceback."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import edge

ROOT = Path(edge.__file__).parents[1]
ENTRIES = {"edge": "edge.entry", "mcu": "edge_tools.entry", "fleet": "edge_tools.entry"}
SIGINT = 1 << signal.SIGINT - 1


def catches_sigint(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    return bool(int(status.split("SigCgt:")[1].split()[0], 16) & SIGINT)


def begun(name: str) -> subprocess.Popen[bytes]:
    """Up to where the command begins: what Python does before is not ours."""
    code = f"from {ENTRIES[name]} import {name}; raise SystemExit({name}())"
    child = subprocess.Popen(
        [sys.executable, "-c", code, "--help"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tools'}"},
    )
    for caught in (True, False):
        while child.poll() is None and catches_sigint(child.pid) is not caught:
            pass
    return child


@pytest.mark.parametrize("name", ENTRIES)
def test_ctrl_c_in_the_first_moments_ends_a_command_in_silence(name: str) -> None:
    interrupted = 0
    for delay_s in (0.0, 0.0, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.15, 0.2):
        child = begun(name)
        time.sleep(delay_s)
        child.send_signal(signal.SIGINT)
        _, told = child.communicate(timeout=30)
        assert told == b"", told.decode()
        assert child.returncode in {0, -signal.SIGINT}
        interrupted += child.returncode != 0
    assert interrupted


def test_a_command_runs_and_its_exit_code_is_handed_on() -> None:
    code = "import sys; from edge.entry import edge; sys.argv[1:] = ['no-such-command']; raise SystemExit(edge())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT, check=False)
    assert done.returncode == 2
