"""The file system as the log sees it. Tests bring one that notes every operation and rebuilds every crash image.

What the log relies on: fdatasync makes what was written to the file before, and the file's size, durable; fsync_dir
makes what was created, renamed and removed in the folder before durable; rename replaces whole; a sector of 512 bytes
is written whole or not at all. Nothing else: what is not synced may be there in part and in any order.
"""

import os
from typing import Protocol


class File(Protocol):
    """An open file. All raise OSError."""

    def pread(self, size: int, offset: int) -> bytes:
        """Fewer bytes only at the end of the file."""

    def pwrite(self, data: bytes, offset: int) -> None:
        """All of it, or OSError."""

    def fdatasync(self) -> None: ...

    def allocate(self, size: int) -> None:
        """Give the file this size and blocks for all of it; what was not written reads as zeros."""

    def size(self) -> int: ...

    def close(self) -> None: ...


class Files(Protocol):
    """Paths are whole. All raise OSError."""

    def open(self, path: str, *, write: bool = False, create: bool = False) -> File:
        """create: makes an empty file, or empties the one that is there."""

    def rename(self, old: str, new: str) -> None: ...

    def unlink(self, path: str) -> None: ...

    def listdir(self, path: str) -> list[str]:
        """Raises FileNotFoundError when there is no such folder."""

    def makedir(self, path: str) -> None:
        """With those above it; no error if it is there. Durable when it returns."""

    def fsync_dir(self, path: str) -> None: ...

    def size(self, path: str) -> int: ...


class DiskFile:
    """A file of the operating system."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def pread(self, size: int, offset: int) -> bytes:
        data = os.pread(self._fd, size, offset)
        while len(data) < size and (more := os.pread(self._fd, size - len(data), offset + len(data))):
            data += more
        return data

    def pwrite(self, data: bytes, offset: int) -> None:
        done = os.pwrite(self._fd, data, offset)
        while done < len(data):
            done += os.pwrite(self._fd, data[done:], offset + done)

    def fdatasync(self) -> None:
        os.fdatasync(self._fd)

    def allocate(self, size: int) -> None:
        os.posix_fallocate(self._fd, 0, size)

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def close(self) -> None:
        os.close(self._fd)


class DiskFiles:
    """The operating system's files: readable by the owner alone."""

    def open(self, path: str, *, write: bool = False, create: bool = False) -> DiskFile:
        flags = os.O_RDWR if write or create else os.O_RDONLY
        if create:
            flags |= os.O_CREAT | os.O_TRUNC
        return DiskFile(os.open(path, flags | os.O_CLOEXEC, 0o600))

    def rename(self, old: str, new: str) -> None:
        os.rename(old, new)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def listdir(self, path: str) -> list[str]:
        return os.listdir(path)

    def makedir(self, path: str) -> None:
        if os.path.isdir(path):
            return
        parent = os.path.dirname(path)
        if parent and parent != path:
            self.makedir(parent)
        os.makedirs(path, mode=0o700, exist_ok=True)
        self.fsync_dir(parent or ".")

    def fsync_dir(self, path: str) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def size(self, path: str) -> int:
        return os.stat(path).st_size
