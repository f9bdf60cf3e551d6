"""A control group for a process that a bench starts: so much memory, so much of a core. Needs root, v1 or v2."""

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path("/sys/fs/cgroup")
PERIOD_US: Final = 100_000


class NoControl(Exception):
    """Control groups are not to be had here; says why."""


@contextlib.contextmanager
def limits(memory_bytes: int, cores: float) -> Iterator[Sequence[str]]:
    """Gives the prefix of a command that runs it, and all it starts, within these. Memory holds the page cache too.

    Raises NoControl. When the context ends so must have what ran in it."""
    name = _name()
    quota = int(cores * PERIOD_US)
    if (ROOT / "cgroup.controllers").exists():
        folders = [ROOT / name]
        values = {"memory.max": f"{memory_bytes}", "cpu.max": f"{quota} {PERIOD_US}"}
    else:
        folders = [ROOT / "memory" / name, ROOT / "cpu" / name]
        values = {
            "memory.limit_in_bytes": f"{memory_bytes}",
            "cpu.cfs_period_us": f"{PERIOD_US}",
            "cpu.cfs_quota_us": f"{quota}",
        }
    made: list[Path] = []
    try:
        try:
            for folder in folders:
                folder.mkdir()
                made.append(folder)
                os.setxattr(folder, "trusted.delegate", b"1")  # as systemd says: what runs in it makes groups below it
            for file, value in values.items():
                _put(folders, file, value)
        except OSError as error:
            raise NoControl(f"{error.filename}: {error.strerror}") from None
        joins = "; ".join(f"echo $$ > {folder}/cgroup.procs" for folder in folders)
        yield ("sh", "-ec", f'{joins}; exec "$@"', "sh")
    finally:
        for folder in made:
            _remove(folder)


def is_held(pid: int) -> bool:
    """Whether the process is within the limits of this process's `limits`, in a group below them perhaps."""
    rows = [row.split(":", 2)[1:] for row in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    held = {controller for names, path in rows if f"/{_name()}" in path for controller in names.split(",")}
    return "" in held or {"cpu", "memory"} <= held


def _name() -> str:
    return f"edgeloop-bench-{os.getpid()}"


def _put(folders: Sequence[Path], file: str, value: str) -> None:
    controller = file.partition(".")[0]
    folder = folders[-1] if controller == "cpu" else folders[0]
    if not (folder / file).exists():
        raise NoControl(f"the controller {controller} is not enabled")
    (folder / file).write_text(value)


def _remove(folder: Path) -> None:
    """With those below it. A process that has ended may take a moment to leave its group."""
    for below in [path for path in folder.iterdir() if path.is_dir()]:
        _remove(below)
    for _ in range(50):
        with contextlib.suppress(OSError):
            folder.rmdir()
            return
        time.sleep(0.02)
