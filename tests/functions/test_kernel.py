"""The sandbox on a kernel with cgroup v2, a disk with quotas and no Landlock: a real Linux 6.1, as a process
(user-mode-linux)."""

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
    def said(tmp_path_factory: pytest.TempPathFactory) -> str:
        """On its console."""
        disk = tmp_path_factory.mktemp("kernel") / "disk"
        with disk.open("wb") as file:
            file.truncate(192 << 20)
        mkfs = shutil.which("mkfs.ext4", path="/usr/sbin:/sbin")
        assert mkfs is not None, "missing: apt-get install --no-install-recommends e2fsprogs"
        subprocess.run([mkfs, "-q", "-O", "quota", "-E", "quotatype=usrquota", disk], check=True)
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
            f"ubd0={disk}",
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
        return done.stdout

    @pytest.fixture(scope="module")
    def found(said: str) -> dict[tuple[str, bool], dict[str, Any]]:
        rows = [json.loads(line.partition("FOUND ")[2]) for line in said.splitlines() if "FOUND {" in line]
        assert len(rows) == 4, said
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

    def test_a_folder_is_held_by_the_disk_where_it_keeps_quotas_and_watched_elsewhere(said: str) -> None:
        rows = [json.loads(line.partition("FILLED ")[2]) for line in said.splitlines() if "FILLED {" in line]
        held = {(row["options"], row["write"]): (row["filler"], row["many"]) for row in rows}
        assert len(held) == 4, said
        (by, reason, error, size, _, *reached), many = held["usrquota", False]
        assert (by, reason, error, reached) == ("quota", "exited", "Disk quota exceeded", ["folder"])
        assert 3 << 20 < size <= 4 << 20
        assert (many[0], many[2]) == ("quota", "Disk quota exceeded")
        assert 0 < many[4] <= 100
        for case in (("usrquota", True), ("", False), ("", True)):  # it may fill other folders of the disk, or no quota
            by, reason, error, *_ = held[case][0]
            assert (by, reason, error) == ("a watch", "disk", "")
