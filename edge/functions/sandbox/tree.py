"""The processes of a child where no control group counts them, and what they hold open."""

import contextlib
import os
import resource
import stat
import subprocess
from collections.abc import Collection, Iterable
from typing import Final

_OWN: Final = ("RssAnon:", "RssShmem:")
_SHARES: Final = ("Pss_Anon:", "Pss_Shmem:")


def descendants(*pids: int) -> set[int]:
    """The processes, their children and theirs, and who is of their groups or sessions."""
    parents: dict[int, int] = {}
    found = set(pids)
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        parents[int(name)] = int(fields[1])
        if int(fields[2]) in pids or int(fields[3]) in pids:
            found.add(int(name))
    while True:
        more = {child for child, parent in parents.items() if parent in found} - found
        if not more:
            return found
        found |= more


def is_full(pid: int) -> bool:
    """Whether the user of this process runs as many tasks as the process's rlimit lets it begin."""
    try:
        most, uid, count = resource.prlimit(pid, resource.RLIMIT_NPROC)[0], os.stat(f"/proc/{pid}").st_uid, 0
    except OSError:
        return False
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                if os.stat(f"/proc/{name}").st_uid == uid:
                    count += len(os.listdir(f"/proc/{name}/task"))
    return 0 <= most <= count


def cpu_s(pids: Iterable[int]) -> float:
    """What they and those of their children that have ended have used of the processor."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", "rb") as file:
            ticks += sum(map(int, file.read().rpartition(b")")[2].split()[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def memory_bytes(pids: Collection[int], doubt_bytes: int) -> int:
    """Anonymous and shared memory. What processes share is counted for each, which is quick; beyond doubt_bytes it is
    counted once."""
    total = _resident_bytes(pids)
    return _shares_bytes(pids) or total if total > doubt_bytes and len(pids) > 1 else total


def _shares_bytes(pids: Iterable[int]) -> int:
    """0 where the kernel does not say, before Linux 5.15, or not to us."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup") as file:
            total += sum(int(line.split()[1]) for line in file if line.startswith(_SHARES))
    return total * 1024


def _resident_bytes(pids: Iterable[int]) -> int:
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/status") as file:
            total += sum(int(line.split()[1]) for line in file if line.startswith(_OWN))
    return total * 1024


def unlinked_bytes(folder: str, pids: Iterable[int]) -> int:
    """What these hold open of the folder's file system, and nobody else finds any more."""
    try:
        device = os.stat(folder).st_dev
    except OSError:
        return 0
    sizes: dict[int, int] = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            for fd in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    facts = os.stat(f"/proc/{pid}/fd/{fd}")
                    if facts.st_nlink == 0 and facts.st_dev == device and stat.S_ISREG(facts.st_mode):
                        sizes[facts.st_ino] = facts.st_blocks * 512
    return sum(sizes.values())


def kill_user(uid: int) -> None:
    """All that runs as this user, at once (kill(2), -1). Only for a user that is the function's own."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        subprocess.run(["/bin/sh", "-c", "kill -9 -1"], user=uid, group=uid, extra_groups=(), check=False, timeout=5)
