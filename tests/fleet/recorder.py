"""Every write and sync of a program below one folder, as strace saw them, in the words of tests/log/disk.py.

SQLite maps its -shm file and rebuilds it at start: it is left out, as if the power cut had taken it.
"""

import os
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

from tests.log.disk import Operation

ROOT = Path(__file__).parents[2]
CALLS = "openat,write,pwrite64,fdatasync,fsync,ftruncate,unlink,rename"
_LINE = re.compile(r"^(\w+)\((.*)\) += (\d+)(?:<.*>)?$")
_TEXT = re.compile(r"\"((?:\\x[0-9a-f]{2})*)\"")
_FILE = re.compile(r"^(\d+)<((?:\\x[0-9a-f]{2})*)>")


class Recorded(NamedTuple):
    """journal: below the folder; said: (operations before it, what the program printed)."""

    journal: list[Operation]
    said: list[tuple[int, str]]


def record(command: list[str], folder: Path, trace: Path) -> Recorded:
    strace = ["strace", "-y", "-qq", "-xx", "-s", "1000000", "-e", "signal=none", "-e", f"trace={CALLS}"]
    path = os.pathsep.join((str(ROOT), str(ROOT / "tools")))
    subprocess.run(
        [*strace, "-o", str(trace), *command],
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
        timeout=120,
    )
    return _read(trace.read_text(), str(folder))


def _read(trace: str, folder: str) -> Recorded:
    journal: list[Operation] = []
    said: list[tuple[int, str]] = []
    inodes: dict[str, int] = {}
    made = 0

    def ours(path: str) -> bool:
        return path.startswith(folder + "/") and not path.endswith("-shm")

    for line in trace.splitlines():
        found = _LINE.match(line)
        if found is None:
            continue
        call, given, result = found.groups()
        texts = [bytes.fromhex(one.replace("\\x", "")) for one in _TEXT.findall(given)]
        file = _FILE.match(given)
        path = bytes.fromhex(file[2].replace("\\x", "")).decode() if file else ""
        match call:
            case "write" if given.startswith("1<"):
                said.append((len(journal), texts[0].decode().strip()))
            case "openat" if ours(texts[0].decode()) and "O_CREAT" in given:
                path = texts[0].decode()
                if path not in inodes:
                    made += 1
                    inodes[path] = made
                    journal.append(Operation("create", path, made))
            case "pwrite64" if ours(path):
                assert int(result) == len(texts[0])
                journal.append(Operation("write", path, inodes[path], int(given.rsplit(", ", 1)[1]), texts[0]))
            case "fdatasync" | "fsync" if path == folder:
                journal.append(Operation("sync_dir", folder))
            case "fdatasync" | "fsync" if ours(path):
                journal.append(Operation("sync", path, inodes[path]))
            case "ftruncate" if ours(path):
                journal.append(Operation("size", path, inodes[path], size=int(given.rsplit(", ", 1)[1])))
            case "unlink" if ours(texts[0].decode()):
                path = texts[0].decode()
                del inodes[path]
                journal.append(Operation("unlink", path))
            case "write" | "rename":
                assert not ours(path), f"{call} is not read here"
    return Recorded(journal, [one for one in said if one[1]])
