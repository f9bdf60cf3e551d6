"""What is in a function's folder: counted, remembered, and taken away again. Links are never followed, and nothing is
named by a path that its owner could turn elsewhere meanwhile; folders within each other may be as deep as he likes."""

import contextlib
import heapq
import os
import stat
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_PASSES: Final = 4  # another worker may be writing

Entered = Callable[[int], None]
"""Called with a folder's descriptor."""


class Size(msgspec.Struct, frozen=True):
    """bytes: on disk. files: folders too. apparent_bytes: what they say they are, which holes may become."""

    bytes: int = 0
    files: int = 0
    apparent_bytes: int = 0


class Before(msgspec.Struct, frozen=True):
    """What was there: a file that is written anew under its old name, or has another name now, counts as well. Of
    an inode alone it is not known, as the next file is given that of the last one removed."""

    paths: frozenset[int] = frozenset()
    files: frozenset[int] = frozenset()

    def had(self, entry: "Entry") -> bool:
        return entry.path in self.paths or _file(entry) in self.files


class Entry(msgspec.Struct, frozen=True, gc=False):
    """folder: the descriptor of the one it is in. path: a hash of where it is. is_left: a folder once more, after all
    that is in it."""

    folder: int
    name: str
    path: int
    facts: os.stat_result
    is_left: bool = False

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.facts.st_mode)


def size(folder: str, files_max: int = 0, entered: Entered | None = None) -> Size:
    """Counted up to one past files_max (0: all)."""
    total = apparent = count = 0
    for entry in _entries(folder, entered):
        if entry.is_left:
            continue
        count += 1
        total += entry.facts.st_blocks * 512
        apparent += entry.facts.st_size
        if 0 < files_max < count:
            break
    return Size(total, count, apparent)


def remember(folder: str, files_max: int = 0, entered: Entered | None = None) -> tuple[Before, Size]:
    """What is there now, up to one past files_max."""
    paths, files = set[int](), set[int]()
    total = apparent = count = 0
    for entry in _entries(folder, entered):
        if entry.is_left:
            continue
        count += 1
        total += entry.facts.st_blocks * 512
        apparent += entry.facts.st_size
        paths.add(entry.path)
        files.add(_file(entry))
        if 0 < files_max < count:
            break
    return Before(frozenset(paths), frozenset(files)), Size(total, count, apparent)


def take_away(folder: str, before: Before, bytes_max: int, files_max: int) -> tuple[Size, Size]:
    """Until no more than this is left: of what was not there before the newest first, by when it was last changed.
    Returns what was taken away, and what is left. 0: no bound."""
    taken_bytes = taken_files = 0
    left = size(folder)
    for _ in range(_PASSES):
        bytes_over = left.bytes - bytes_max if bytes_max else 0
        files_over = left.files - files_max if files_max else 0
        if bytes_over <= 0 and files_over <= 0:
            break
        since = _newest(folder, before, bytes_over, files_over)
        found = _remove(folder, before, since, bytes_over, files_over)
        taken_bytes += found.bytes
        taken_files += found.files
        left = size(folder)
        if not found.files:
            break
    return Size(taken_bytes, taken_files), left


def _file(entry: Entry) -> int:
    facts = entry.facts
    return hash((facts.st_ino, facts.st_mtime_ns, facts.st_size))


def _newest(folder: str, before: Before, bytes_over: int, files_over: int) -> int:
    """Since when those were changed that are together more than this. Holds no more of them than that."""
    newest: list[tuple[int, int]] = []
    total = 0
    for entry in _entries(folder):
        if entry.is_left or before.had(entry) or (entry.is_folder and files_over <= 0):
            continue
        size_bytes = entry.facts.st_blocks * 512
        heapq.heappush(newest, (entry.facts.st_ctime_ns, size_bytes))
        total += size_bytes
        while newest and total - newest[0][1] >= bytes_over and len(newest) > files_over:
            total -= heapq.heappop(newest)[1]
    return newest[0][0] if newest else 0


def _remove(folder: str, before: Before, since_ns: int, bytes_over: int, files_over: int) -> Size:
    total = count = 0
    for entry in _entries(folder):
        if total >= bytes_over and count >= files_over:
            break
        if entry.facts.st_ctime_ns < since_ns or entry.is_folder != entry.is_left or before.had(entry):
            continue
        with contextlib.suppress(OSError):
            if not entry.is_folder:
                os.unlink(entry.name, dir_fd=entry.folder)
            elif count < files_over:
                os.rmdir(entry.name, dir_fd=entry.folder)  # where it is empty
            else:
                continue
            total += entry.facts.st_blocks * 512
            count += 1
    return Size(total, count)


def _entries(folder: str, entered: Entered | None = None) -> Iterator[Entry]:
    """All below it. Two descriptors at a time, however deep: it goes up by `..`, and no further when that leads
    elsewhere than it came from."""
    try:
        here = os.open(folder, _FOLDER)
    except OSError:
        return
    above: list[tuple[int, int, int, list[Entry]]] = []  # its device, inode, path, and the folders in it still to enter
    path = 0
    try:
        while True:
            facts = os.fstat(here)
            if entered is not None:
                entered(here)
            inside: list[Entry] = []
            with contextlib.suppress(OSError), os.scandir(here) as found:
                for one in found:
                    try:
                        entry = Entry(here, one.name, hash((path, one.name)), one.stat(follow_symlinks=False))
                    except OSError:
                        continue
                    yield entry
                    if entry.is_folder:
                        inside.append(entry)
            above.append((facts.st_dev, facts.st_ino, path, inside))
            while not above[-1][3] or (below := _enter(here, above[-1][3][-1])) < 0:
                if above[-1][3]:
                    above[-1][3].pop()
                    continue
                above.pop()
                if not above:
                    return
                up = os.open("..", _FOLDER, dir_fd=here)
                os.close(here)
                here = up
                facts = os.fstat(here)
                device, inode, path, inside = above[-1]
                if (facts.st_dev, facts.st_ino) != (device, inode):
                    return
                left = inside.pop()
                yield Entry(here, left.name, left.path, left.facts, is_left=True)
            path = above[-1][3][-1].path
            os.close(here)
            here = below
    except OSError:
        return
    finally:
        os.close(here)


def _enter(here: int, entry: Entry) -> int:
    """-1: it may not be, or is none any more. One that is closed to us, who are its owner or root, is opened."""
    try:
        try:
            return os.open(entry.name, _FOLDER, dir_fd=here)
        except PermissionError:
            fd = os.open(entry.name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            try:
                os.chmod(f"/proc/self/fd/{fd}", 0o700)
            finally:
                os.close(fd)
            return os.open(entry.name, _FOLDER, dir_fd=here)
    except OSError:
        return -1
