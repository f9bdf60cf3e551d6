"""Control groups: one a child, of version 2 or 1, below a group of this gateway's own.

Where the service manager delegated our group (systemd's Delegate=), below that; else, as root, below `edgeloop` at the
top. With version 2 a group has either processes or children with controllers: the gateway moves into a group beside.
Groups of gateways that are no more are emptied and removed."""

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Final

from edge.functions.sandbox.settings import Sandbox

_TOP: Final = "edgeloop"
_ASIDE: Final = "edgeloop-gateway"
_PERIOD_US: Final = 100_000
_WEIGHT: Final = 50  # of all functions together, in hundredths of the gateway's, when both want the processor
_WANTED: Final = ("memory", "pids", "cpu")
_HOLDS: Final = {"memory": "memory", "pids": "processes", "cpu": "cpu"}


class Group:
    """What one child runs in. folders: controller to folder; all the same one with version 2. Nothing here raises
    OSError: a group that is gone has no processes and no memory."""

    def __init__(self, version: int, folders: dict[str, Path]) -> None:
        self.version = version
        self.folders = folders

    @property
    def holds(self) -> list[str]:
        return [_HOLDS[name] for name in _WANTED if name in self.folders]

    def joins(self) -> list[str]:
        """The files a process writes "0" into to be in it."""
        return [str(folder / "cgroup.procs") for folder in dict.fromkeys(self.folders.values())]

    def limit(self, sandbox: Sandbox) -> None:
        """A limit that cannot be set: that controller is no longer counted upon."""
        second = self.version == 2
        values = {
            "memory": ("memory.max" if second else "memory.limit_in_bytes", sandbox.memory_bytes_max),
            "pids": ("pids.max", sandbox.processes_max),
        }
        for controller, (file, value) in values.items():
            if value and controller in self.folders and not _put(self.folders[controller] / file, f"{value}"):
                del self.folders[controller]
        if (memory := self.folders.get("memory")) is not None:
            if second:
                _put(memory / "memory.swap.max", "0")
                _put(memory / "memory.oom.group", "1")
            else:
                _put(memory / "memory.memsw.limit_in_bytes", f"{sandbox.memory_bytes_max}")
        if (cpu := self.folders.get("cpu")) is not None and sandbox.cpu_percent_max:
            quota = max(1_000, sandbox.cpu_percent_max * _PERIOD_US // 100)
            if second:
                done = _put(cpu / "cpu.max", f"{quota} {_PERIOD_US}")
            else:
                done = _put(cpu / "cpu.cfs_period_us", f"{_PERIOD_US}") and _put(cpu / "cpu.cfs_quota_us", f"{quota}")
            if not done:
                del self.folders["cpu"]

    def limit_processes(self, most: int) -> None:
        if (folder := self.folders.get("pids")) is not None:
            _put(folder / "pids.max", f"{most}")

    def pids(self) -> set[int]:
        return {pid for folder in set(self.folders.values()) for pid in _pids(folder)}

    def memory_bytes(self) -> int:
        """Anonymous and shared memory; the page cache, which can be taken back, is left out."""
        if (folder := self.folders.get("memory")) is None:
            return 0
        names = ("anon", "shmem") if self.version == 2 else ("total_rss", "total_shmem")
        rows = dict(line.split(" ", 1) for line in _text(folder / "memory.stat").splitlines() if " " in line)
        return sum(int(rows.get(name, 0)) for name in names)

    def cpu_s(self) -> float:
        """Of all that ever ran in it; 0 where that is not counted."""
        if (folder := self.folders.get("cpu")) is not None and self.version == 1:
            return int(_text(folder / "cpuacct.usage") or 0) / 1e9  # where both are mounted together
        for folder in self.folders.values():
            for line in _text(folder / "cpu.stat").splitlines():
                if line.startswith("usage_usec "):
                    return int(line.split()[1]) / 1e6
        return 0.0

    def oom_kills(self) -> int:
        return self._count("memory", "memory.events" if self.version == 2 else "memory.oom_control", "oom_kill")

    def forks_refused(self) -> int:
        """How often it had as many processes as it may."""
        return self._count("pids", "pids.events", "max")

    def kill(self) -> None:
        """All in it, also what is begun meanwhile. Does not wait for their end."""
        if self.version == 2 and _put(
            self.folders["memory" if "memory" in self.folders else "pids"] / "cgroup.kill", "1"
        ):
            return
        if (folder := self.folders.get("pids")) is not None:
            _put(folder / "pids.max", "0")
        for _ in range(100):
            pids = self.pids()
            for pid in pids:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            if not pids or "pids" in self.folders:
                return

    def _count(self, controller: str, file: str, row: str) -> int:
        if (folder := self.folders.get(controller)) is not None:
            for line in _text(folder / file).splitlines():
                name, _, value = line.partition(" ")
                if name == row:
                    return int(value)
        return 0

    def remove(self) -> bool:
        """Says whether it is gone; not while a process is in it."""
        gone = [_remove(folder) for folder in set(self.folders.values())]
        return all(gone)


class ControlGroups:
    """The groups of this gateway. version 0: none to be had; missed says why."""

    def __init__(self, mounts: str = "/proc/self/mountinfo", own: str = "/proc/self/cgroup") -> None:
        self.missed = ""
        self._count = 0
        self._bases = _bases(_text(Path(mounts)), _text(Path(own)))
        self._parents: dict[str, Path] = {}
        self.version = 0
        for version in (2, 1):
            self._parents = self._prepare(version, f"gateway-{os.getpid()}-{_started(os.getpid())}")
            if self._parents:
                self.version = version
                break
        if not self.version and not self.missed:
            self.missed = "no control groups that this user may write to"

    @property
    def label(self) -> str:
        return f"cgroup v{self.version}" if self.version else ""

    def new(self, sandbox: Sandbox) -> Group | None:
        if not self.version or "groups" in sandbox.without:
            return None
        self._count += 1
        name = f"{''.join(c if c.isalnum() or c in '-_' else '_' for c in sandbox.name)[:64]}-{self._count}"
        folders = {}
        for controller, parent in self._parents.items():
            folder = parent / name
            with contextlib.suppress(OSError):
                folder.mkdir(exist_ok=True)
                folders[controller] = folder
        if not folders:
            return None
        group = Group(self.version, folders)
        group.limit(sandbox)
        return group if group.folders else None

    def close(self) -> None:
        for folder in set(self._parents.values()):
            _remove(folder)
            _remove(folder.parent)

    def _prepare(self, version: int, ours: str) -> dict[str, Path]:
        parents: dict[str, Path] = {}
        for controller, (its_version, base, leaf) in self._bases.items():
            if its_version != version or controller not in _WANTED:
                continue
            try:
                base.mkdir(exist_ok=True)
                _sweep(base)
                if controller == "cpu":  # a group of its own would weigh as much as the gateway, each
                    file, value = ("cpu.weight", _WEIGHT) if version == 2 else ("cpu.shares", _WEIGHT * 1024 // 100)
                    _put(base / file, f"{value}")
                if version == 2:
                    _enable(base, controller, leaf)
                folder = base / ours
                folder.mkdir(exist_ok=True)
                if version == 2:
                    _enable(folder, controller, None)
                parents[controller] = folder
            except OSError as error:
                self.missed = f"{error.filename}: {error.strerror}"
        return parents


def _bases(mounts: str, own: str) -> dict[str, tuple[int, Path, Path | None]]:
    """Controller to version, the folder our groups go into, and with version 2 our own group when it was delegated."""
    found: dict[str, tuple[int, Path, Path | None]] = {}
    paths = {
        name: path for line in own.splitlines() for _, names, path in [line.split(":", 2)] for name in names.split(",")
    }
    for line in mounts.splitlines():
        fields, _, rest = line.partition(" - ")
        kind, _, options = rest.split(" ", 2)
        point = Path(fields.split(" ")[4])
        if kind == "cgroup2":
            group = point / paths.get("", "/").lstrip("/")
            group = group.parent if group.name == _ASIDE else group
            delegated = _delegated(group)
            base = group if delegated else point
            for controller in _text(base / "cgroup.controllers").split():
                found.setdefault(controller, (2, base / _TOP, group if delegated else None))
        elif kind == "cgroup":
            for controller in _WANTED:
                if controller in options.split(" ")[-1].split(","):
                    group = point / paths.get(controller, "/").lstrip("/")
                    found[controller] = (1, (group if _delegated(group) else point) / _TOP, None)
    return found


def _delegated(group: Path) -> bool:
    for name in ("user.delegate", "trusted.delegate"):
        with contextlib.suppress(OSError):
            if os.getxattr(group, name) == b"1":
                return True
    return False


def _enable(folder: Path, controller: str, leaf: Path | None) -> None:
    """So that the children of folder have the controller. leaf: our own group, above; we step aside out of it."""
    if leaf is not None:
        aside = leaf / _ASIDE
        aside.mkdir(exist_ok=True)
        for pid in _pids(leaf):
            _put(aside / "cgroup.procs", f"{pid}")
    for each in (folder.parent, folder):
        file = each / "cgroup.subtree_control"
        if controller not in file.read_text().split():
            file.write_text(f"+{controller}")


def _sweep(base: Path) -> None:
    """What a gateway that was killed left behind."""
    for folder in base.glob("gateway-*-*"):
        _, pid, started = folder.name.split("-", 2)
        if pid.isdigit() and _started(int(pid)) != started:
            for child in [path for path in folder.iterdir() if path.is_dir()]:
                for pid in map(str, _pids(child)):
                    with contextlib.suppress(OSError):
                        os.kill(int(pid), signal.SIGKILL)
                _remove(child, patience_s=0.2)
            _remove(folder)


def _started(pid: int) -> str:
    """When a process was begun, in ticks since boot: with its number, its name. Empty: no such process."""
    text = _text(Path(f"/proc/{pid}/stat"))
    return text.rpartition(")")[2].split()[19] if text else ""


def _pids(folder: Path) -> list[int]:
    """Without those of another process namespace, which read 0: to a signal that would be our own group."""
    return [pid for pid in map(int, _text(folder / "cgroup.procs").split()) if pid > 0]


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _put(path: Path, text: str) -> bool:
    """Only into a file that is there: control groups make their own."""
    try:
        fd = os.open(path, os.O_WRONLY)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
    except OSError:
        return False
    return True


def _remove(folder: Path, patience_s: float = 0.0) -> bool:
    until = time.monotonic() + patience_s
    while True:
        try:
            folder.rmdir()
        except FileNotFoundError:
            return True
        except OSError:
            if time.monotonic() >= until:
                return False
            time.sleep(0.01)
        else:
            return True
