"""The sandbox on a kernel with cgroup v2 and without Landlock: a real Linux 6.1, as a process (user-mode-linux)."""

import json
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.functions.gateway import ROOT

INIT = Path(__file__).with_name("kernel_init.py")

if platform.machine() == "x86_64":  # there is none for other machines

    @pytest.fixture(scope="module")
    def found() -> dict[tuple[str, bool], dict[str, Any]]:
        linux = shutil.which("linux.uml")
        assert linux is not None, "missing: apt-get install --no-install-recommends user-mode-linux"
        command = [
            linux,
            "mem=512M",
            "rootfstype=hostfs",
            "root=/dev/root",
            "rw",
            "quiet",
            "con=null",
            "con0=fd:0,fd:1",
        ]
        done = subprocess.run(
            [*command, f"init={sys.executable}", "--", "-I", str(INIT), str(ROOT)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=180,
            check=False,
        )
        rows = [json.loads(line.partition("FOUND ")[2]) for line in done.stdout.splitlines() if "FOUND {" in line]
        assert len(rows) == 4, done.stdout
        return {(row["user"], row["delegated"]): row for row in rows}

    CASES = [("root", False), ("root", True), ("user", False), ("user", True)]

    @pytest.mark.parametrize("case", CASES)
    def test_control_groups_hold_wherever_they_may_be_written(
        found: dict[tuple[str, bool], dict[str, Any]], case: tuple[str, bool]
    ) -> None:
        limits = found[case]["limits"]
        for limit in ("memory", "processes", "cpu"):
            assert (limits[limit] == "cgroup v2") == (case != ("user", False))
        assert "process namespace" in limits["end"]
        assert limits["files"] == "mount namespace"
        assert limits["network"] == "network namespace, seccomp"

    @pytest.mark.parametrize("case", CASES)
    def test_a_hog_and_a_bomb_are_contained_and_leave_nothing(
        found: dict[tuple[str, bool], dict[str, Any]], case: tuple[str, bool]
    ) -> None:
        row = found[case]
        assert row["hog"] == ("memory" if case != ("user", False) else "exited")  # there it meets MemoryError
        assert 1 <= row["bomb"] <= 16
        assert row["refused"] == ["network: make a socket of AF_INET"]
        assert (row["groups_left"], row["processes_left"]) == ([], 0)
