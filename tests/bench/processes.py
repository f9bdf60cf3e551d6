"""What a process costs, as Linux counts it. For processes the bench started itself."""

import os
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """Seconds on a core of all threads the process has now; its children are not in it.

    Counted to the nanosecond where the kernel does so (schedstat), else by the clock tick, which misses short turns."""
    try:
        turns = [task.joinpath("schedstat").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    except FileNotFoundError:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
    return sum(int(turn.split()[0]) for turn in turns) / 1e9


def pss_mb(pid: int) -> float:
    """Proportional set size now, in 10⁶ bytes."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise OSError(f"/proc/{pid}/smaps_rollup says no Pss")


def family(pid: int) -> list[int]:
    """The process and all that descend from it, as they are now; but for those that have ended and are not reaped."""
    found = [pid]
    for one in found:
        for thread in Path(f"/proc/{one}/task").glob("*/children"):
            found += [child for child in map(int, thread.read_text().split()) if not _has_ended(child)]
    return found


def _has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def pin(pid: int, core: int) -> None:
    """Keep the process and the threads it has now on one core; core: an index into those this process may use."""
    cores = sorted(os.sched_getaffinity(0))
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {cores[core % len(cores)]})
