"""The whole demo on emulated boards, as a newcomer runs it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from edge_tools.demo.tally import Result

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 120

pytestmark = pytest.mark.system


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "edge_tools.demo", *options],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/tools", "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def left_running(folder: Path) -> Sequence[str]:
    """Processes whose command line or working folder is in the folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_text().replace("\0", " ")
            place = str((process / "cwd").readlink())
        except OSError:
            continue
        if str(folder) in words or place.startswith(str(folder)):
            found.append(words)
    return found


def test_every_reading_arrives_commands_are_answered_and_the_set_temperature_is_seen(tmp_path: Path) -> None:
    demo = start(tmp_path, "--seconds", "5", "--json")
    out, err = demo.communicate(timeout=PATIENCE_S)
    assert demo.returncode == 0, err
    shown = json.loads(out)
    assert tuple(shown) == Result.__struct_fields__
    assert shown["boards"] == 2
    assert shown["readings_received"] == shown["readings_produced"] >= 6
    assert shown["commands_answered"] == shown["commands_sent"] >= 6
    assert shown["temperature_seen_c"] == shown["temperature_set_c"] == 31.25
    assert shown["rule_readings"] == shown["readings_produced"]
    assert shown["rule_windows"] >= 4
    assert shown["function_results_received"] == shown["readings_produced"] <= shown["function_calls"]
    assert left_running(tmp_path) == []
    named = re.search(r"logs, keys and the boards' flash are in (\S+)", err)
    assert named is not None
    assert (Path(named[1]) / "gateway.log").stat().st_size


def test_an_outage_with_a_kill_in_its_middle_loses_nothing_and_shows_nothing_twice(tmp_path: Path) -> None:
    demo = start(tmp_path, "--seconds", "12", "--outage", "4", "--kill", "--json")
    out, err = demo.communicate(timeout=PATIENCE_S)
    assert demo.returncode == 0, err
    assert "kills the gateway with SIGKILL" in err
    shown = json.loads(out)
    assert shown["readings_visible"] == shown["readings_received"] == shown["readings_produced"] >= 16
    assert (shown["readings_visible_twice"], shown["readings_shed"]) == (0, 0)
    assert shown["rule_readings"] == shown["readings_produced"]
    assert left_running(tmp_path) == []


@pytest.mark.parametrize(
    "options",
    [["--kill"], ["--outage", "5"], ["--seconds", "20", "--outage", "11"], ["--seconds", "20", "--outage", "-1"]],
)
def test_faults_that_cannot_be_are_a_usage_error(tmp_path: Path, options: list[str]) -> None:
    demo = start(tmp_path, *options)
    _, err = demo.communicate(timeout=PATIENCE_S)
    assert demo.returncode == 2
    assert "--outage" in err


def test_an_interrupt_still_counts_all_and_leaves_nothing_running(tmp_path: Path) -> None:
    demo = start(tmp_path, "--json")
    assert demo.stderr is not None
    seen = ""
    while "all is connected" not in seen:
        line = demo.stderr.readline()
        assert line, seen
        seen += line
    demo.send_signal(signal.SIGINT)
    out, err = demo.communicate(timeout=PATIENCE_S)
    assert demo.returncode == 0, err
    shown = json.loads(out)
    assert shown["readings_received"] == shown["readings_produced"]
    assert left_running(tmp_path) == []


def test_an_interrupt_while_it_starts_ends_it_at_once(tmp_path: Path) -> None:
    demo = start(tmp_path)
    assert demo.stderr is not None
    demo.stderr.readline()
    demo.send_signal(signal.SIGINT)
    out, err = demo.communicate(timeout=PATIENCE_S)
    assert (demo.returncode, out) == (130, ""), err
    assert "interrupted; the logs are in" in err
    assert left_running(tmp_path) == []


def test_a_killed_demo_takes_all_it_started_with_it(tmp_path: Path) -> None:
    demo = start(tmp_path)
    assert demo.stderr is not None
    seen = ""
    while "all is connected" not in seen:
        line = demo.stderr.readline()
        assert line, seen
        seen += line
    assert len(left_running(tmp_path)) >= 6  # two machines, two cables, the broker, the gateway
    demo.kill()
    demo.communicate(timeout=PATIENCE_S)
    deadline = time.monotonic() + PATIENCE_S
    while left_running(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left_running(tmp_path) == []
