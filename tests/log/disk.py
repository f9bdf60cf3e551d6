"""A disk in memory for the log: notes every operation, fails or dies at any of them, and rebuilds what a power cut at
any point could leave behind.

What is kept apart, as on a real disk: what a process sees (the cache), what is durable, and what is in between. Of
that a power cut may leave any part: per file any subset of the 512-byte sectors written since its last fdatasync (of
several writes to one sector any), its new size or its old one; of the folder's changes since its last fsync any first
few, as a journalling file system keeps their order. After a failed fdatasync what was dirty is clean, and never reaches
the disk by a later one.
"""

import errno
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

SECTOR = 512


class Killed(BaseException):
    """The process dies here: kill -9."""


class Operation(NamedTuple):
    """kind: create, write, size, sync, sync_failed, rename, unlink, sync_dir."""

    kind: str
    path: str
    inode: int = 0
    offset: int = 0
    data: bytes = b""
    size: int = 0
    new: str = ""


class Disk:
    """A Files. fault: called with (index, kind) before each changing operation; may raise OSError or Killed. bytes_max:
    beyond it nothing grows, 0 for no bound; greedy: what is freed is gone at once, others take it."""

    def __init__(self, bytes_max: int = 0) -> None:
        self.bytes_max, self.greedy = bytes_max, False
        self.held_open: Counter[int] = Counter()
        self.names: dict[str, int] = {}
        self.inodes: dict[int, bytearray] = {}
        self.folders: set[str] = set()
        self.journal: list[Operation] = []
        self.fault: Callable[[int, str], None] = lambda index, kind: None
        self.read_fault: Callable[[str, int, int], None] = lambda path, offset, size: None
        self.index = 0
        self.opens = 0

    def note(self, operation: Operation) -> None:
        self.journal.append(operation)

    def strike(self, kind: str) -> None:
        index = self.index
        self.index += 1
        self.fault(index, kind)

    def open(self, path: str, *, write: bool = False, create: bool = False) -> "OpenFile":
        self.opens += 1
        if create:
            self.strike("create")
            inode = max(self.inodes, default=0) + 1
            self.inodes[inode] = bytearray()
            self.names[path] = inode
            self.note(Operation("create", path, inode))
        elif path not in self.names:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return OpenFile(self, self.names[path], path, writable=write or create)

    def rename(self, old: str, new: str) -> None:
        self.strike("rename")
        if old not in self.names:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), old)
        self.names[new] = self.names.pop(old)
        self.note(Operation("rename", old, new=new))
        self.look_at_room()

    def unlink(self, path: str) -> None:
        self.strike("unlink")
        if path not in self.names:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        del self.names[path]
        self.note(Operation("unlink", path))
        self.look_at_room()

    def listdir(self, path: str) -> list[str]:
        if path not in self.folders:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        files = [os.path.basename(name) for name in self.names if os.path.dirname(name) == path]
        return files + [os.path.basename(name) for name in self.folders if os.path.dirname(name) == path]

    def makedir(self, path: str) -> None:
        self.folders.add(path)

    def fsync_dir(self, path: str) -> None:
        self.strike("sync_dir")
        self.note(Operation("sync_dir", path))

    def size(self, path: str) -> int:
        if path in self.folders:
            return 0
        if path not in self.names:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return len(self.inodes[self.names[path]])

    def copy(self) -> "Disk":
        """The same files as a process sees them, with no past and no faults."""
        disk = Disk()
        disk.folders = set(self.folders)
        disk.names = dict(self.names)
        disk.inodes = {inode: bytearray(self.inodes[inode]) for inode in self.names.values()}
        return disk

    def content(self, path: str) -> bytearray:
        return self.inodes[self.names[path]]

    def grow(self, inode: int, size: int) -> None:
        """With zeros, if there is room."""
        content = self.inodes[inode]
        more = size - len(content)
        if more <= 0:
            return
        if self.bytes_max and self.taken() + more > self.bytes_max:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        content.extend(bytes(more))

    def taken(self) -> int:
        """Bytes of all files, of those too that are open and have no name any more."""
        there = {*self.names.values(), *self.held_open}
        return sum(len(self.inodes[inode]) for inode in there)

    def look_at_room(self) -> None:
        if self.greedy:
            self.bytes_max = min(self.bytes_max, self.taken())

    def used(self, folder: str) -> int:
        """Bytes of the files directly in the folder."""
        return sum(len(self.inodes[inode]) for name, inode in self.names.items() if os.path.dirname(name) == folder)


class OpenFile:
    """A File."""

    def __init__(self, disk: Disk, inode: int, path: str, *, writable: bool) -> None:
        self._disk, self._inode, self._path, self._writable = disk, inode, path, writable
        disk.held_open[inode] += 1

    def pread(self, size: int, offset: int) -> bytes:
        self._disk.read_fault(self._path, offset, size)
        return bytes(memoryview(self._disk.inodes[self._inode])[offset : offset + size])

    def pwrite(self, data: bytes, offset: int) -> None:
        assert self._writable
        try:
            self._disk.strike("write")
        except (OSError, Killed):
            # As far as it came.
            self._write(data[: len(data) // 2], offset)
            raise
        self._write(data, offset)

    def _write(self, data: bytes, offset: int) -> None:
        content = self._disk.inodes[self._inode]
        self._disk.grow(self._inode, offset + len(data))
        content[offset : offset + len(data)] = data
        self._disk.note(Operation("write", self._path, self._inode, offset, bytes(data)))

    def fdatasync(self) -> None:
        try:
            self._disk.strike("sync")
        except OSError:
            self._disk.note(Operation("sync_failed", self._path, self._inode))
            raise
        self._disk.note(Operation("sync", self._path, self._inode))

    def allocate(self, size: int) -> None:
        self._disk.strike("allocate")
        self._disk.grow(self._inode, size)
        self._disk.note(Operation("size", self._path, self._inode, size=size))

    def size(self) -> int:
        return len(self._disk.inodes[self._inode])

    def close(self) -> None:
        held_open = self._disk.held_open
        held_open[self._inode] -= 1
        if held_open[self._inode] <= 0:
            del held_open[self._inode]
        self._disk.look_at_room()


class _Inode:
    """durable: as of the last sync; dirty: what the next makes durable; forgotten: what no sync will."""

    def __init__(self, content: bytes | bytearray = b"") -> None:
        self.durable = bytearray(content)
        self.dirty: list[tuple[int, bytes]] = []
        self.forgotten: list[tuple[int, bytes]] = []
        self.size = self.durable_size = len(content)

    def write(self, offset: int, data: bytes) -> None:
        at = 0
        # What was forgotten in these sectors is written with them.
        sectors = range(offset // SECTOR, -(-(offset + len(data)) // SECTOR))
        self.dirty += [write for write in self.forgotten if write[0] // SECTOR in sectors]
        self.forgotten = [write for write in self.forgotten if write[0] // SECTOR not in sectors]
        while at < len(data):
            piece = min(SECTOR - (offset + at) % SECTOR, len(data) - at)
            self.dirty.append((offset + at, data[at : at + piece]))
            at += piece
        self.size = max(self.size, offset + len(data))

    def sync(self) -> None:
        self.durable_size = self.size
        self.durable = self.built([], whole=True)
        self.dirty = []

    def built(self, chosen: list[tuple[int, bytes]], *, whole: bool) -> bytearray:
        size = self.size if whole else self.durable_size
        content = bytearray(self.durable)
        content.extend(bytes(max(size - len(content), 0)))
        for offset, data in self.dirty if whole and not chosen else chosen:
            end = offset + len(data)
            content.extend(bytes(max(end - len(content), 0)))
            content[offset:end] = data
        del content[size:]
        return content


class Cut(NamedTuple):
    """What a power cut after the first `operations` of the journal left, and which choice it was."""

    operations: int
    choice: str
    disk: Disk


def power_cuts(
    journal: list[Operation], base: Disk, *, seed: int, random_choices: int = 2, since: int = 0
) -> Iterator[Cut]:
    """Every crash image: for each prefix of the journal nothing, everything, and parts of what was not yet synced.
    base: what was there, durable, before the journal; since: the shortest prefix."""
    rng = random.Random(seed)
    folders = base.folders | {operation.path for operation in journal if operation.kind == "sync_dir"}
    inodes = {number: _Inode(content) for number, content in base.inodes.items()}
    names = dict(base.names)
    pending: list[Operation] = []
    for count, operation in enumerate([*journal, None]):
        if count >= since:
            yield from _cuts(count, inodes, names, pending, folders, rng, random_choices)
        match operation:
            case None:
                return
            case Operation(kind="create"):
                inodes[operation.inode] = _Inode()
                pending.append(operation)
            case Operation(kind="write"):
                inodes[operation.inode].write(operation.offset, operation.data)
            case Operation(kind="size"):
                inode = inodes[operation.inode]
                inode.size = max(inode.size, operation.size)
            case Operation(kind="sync"):
                inodes[operation.inode].sync()
            case Operation(kind="sync_failed"):
                inode = inodes[operation.inode]
                inode.forgotten += inode.dirty
                inode.dirty = []
            case Operation(kind="rename" | "unlink"):
                pending.append(operation)
            case Operation(kind="sync_dir"):
                _link(names, pending)
                pending = []


def _link(names: dict[str, int], changes: list[Operation]) -> None:
    for change in changes:
        match change.kind:
            case "create":
                names[change.path] = change.inode
            case "rename":
                names[change.new] = names.pop(change.path)
            case "unlink":
                del names[change.path]


def _cuts(
    count: int,
    inodes: dict[int, _Inode],
    names: dict[str, int],
    pending: list[Operation],
    folders: set[str],
    rng: random.Random,
    random_choices: int,
) -> Iterator[Cut]:
    def image(choice: str, linked: int, choose: Callable[[list[tuple[int, bytes]]], list[tuple[int, bytes]]]) -> Cut:
        disk = Disk()
        disk.folders = set(folders)
        disk.names = dict(names)
        _link(disk.names, pending[:linked])
        for number in set(disk.names.values()):
            inode = inodes[number]
            open_writes = inode.forgotten + inode.dirty
            chosen = choose(open_writes) if open_writes else []
            whole = choice == "all" or (choice != "none" and rng.random() < 0.5) or bool(chosen)
            disk.inodes[number] = inode.built(chosen, whole=False) if not whole else _whole(inode, chosen)
        return Cut(count, choice, disk)

    yield image("none", 0, lambda writes: [])
    yield image("all", len(pending), lambda writes: writes)
    if pending:
        yield image("no data", len(pending), lambda writes: [])
    if any(inode.dirty or inode.forgotten for inode in inodes.values()):
        yield image("no names", 0, lambda writes: writes)
        yield image("first sector missing", len(pending), lambda writes: writes[1:])
        yield image("last sector missing", len(pending), lambda writes: writes[:-1])
        for _ in range(random_choices):
            share = rng.choice((0.2, 0.5, 0.9))
            linked = rng.randint(0, len(pending))
            yield image("some", linked, partial(_some, rng, share))


def _some(rng: random.Random, share: float, writes: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    return [write for write in writes if rng.random() < share]


def _whole(inode: _Inode, chosen: list[tuple[int, bytes]]) -> bytearray:
    """With the file's new size, whatever of the content came along."""
    content = bytearray(inode.durable)
    content.extend(bytes(max(inode.size - len(content), 0)))
    for offset, data in chosen:
        content[offset : offset + len(data)] = data
    return content
