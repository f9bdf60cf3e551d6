"""Where control groups go, from what the kernel says of mounts; and the real ones of this machine, if it has any."""

import os
from pathlib import Path

import pytest

from edge.functions.sandbox import ControlGroups, Sandbox
from edge.functions.sandbox.groups import Group, _bases, _pids, _started

V1 = """\
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct
33 31 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
34 31 0:31 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
35 31 0:32 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer
22 27 0:21 / /proc rw,relatime - proc proc rw
"""


def test_with_version_1_each_controller_has_a_tree() -> None:
    found = _bases(V1, "4:memory:/a/b\n3:cpu,cpuacct:/\n1:name=systemd:/a\n")
    assert found == {
        "cpu": (1, Path("/sys/fs/cgroup/cpu/edgeloop"), None),
        "memory": (1, Path("/sys/fs/cgroup/memory/edgeloop"), None),
        "pids": (1, Path("/sys/fs/cgroup/pids/edgeloop"), None),
    }


def test_with_version_2_the_controllers_share_one_tree(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu io memory pids\n")
    mounts = f"30 23 0:26 / {tmp_path} rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
    found = _bases(mounts, "0::/user.slice/session-1.scope\n")
    assert found["memory"] == (2, tmp_path / "edgeloop", None)
    assert set(found) >= {"memory", "cpu", "pids"}


def test_where_both_are_mounted_the_version_that_has_the_controller_counts(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("hugetlb\n")
    found = _bases(f"{V1}42 31 0:39 / {tmp_path} rw - cgroup2 cgroup2 rw\n", "0::/\n4:memory:/\n")
    assert found["memory"][0] == 1


def test_without_control_groups_the_reason_is_told(tmp_path: Path) -> None:
    nothing = tmp_path / "nothing"
    nothing.write_text("")
    groups = ControlGroups(str(nothing), str(nothing))
    assert (groups.version, groups.label) == (0, "")
    assert groups.missed
    assert groups.new(Sandbox(name="mean", folder="/work")) is None
    groups.close()


def test_groups_of_this_machine_are_limited_and_leave_nothing_behind() -> None:
    groups = ControlGroups()
    group = groups.new(Sandbox(name="mean/../x", folder="/work", memory_bytes_max=32 << 20, processes_max=5))
    if group is None:
        assert groups.missed
        return
    folders = set(group.folders.values())
    assert all(folder.is_dir() and ".." not in str(folder) for folder in folders)
    assert (group.folders["pids"] / "pids.max").read_text() == "5\n"
    assert group.pids() == set()
    assert group.oom_kills() == 0
    assert group.remove()
    groups.close()
    assert not any(folder.exists() or folder.parent.exists() for folder in folders)


def test_a_process_is_named_by_its_start() -> None:
    assert _started(os.getpid()).isdigit()
    assert _started(2**22 + 1) == ""


def test_processes_of_another_namespace_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "cgroup.procs").write_text("0\n12\n0\n")
    assert _pids(tmp_path) == [12]


@pytest.mark.parametrize("version", [1, 2])
def test_what_a_group_refused_and_killed_is_read_from_its_events(tmp_path: Path, version: int) -> None:
    group = Group(version, {"memory": tmp_path, "pids": tmp_path})
    assert (group.forks_refused(), group.oom_kills()) == (0, 0)
    (tmp_path / "pids.events").write_text("max 7\n")
    (tmp_path / "memory.events").write_text("low 0\nmax 9\noom 3\noom_kill 2\n")
    (tmp_path / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    assert (group.forks_refused(), group.oom_kills()) == (7, 2)
    assert Group(version, {}).forks_refused() == 0
