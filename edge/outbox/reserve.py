"""A file that only takes up room: given back when the disk is full, so that what is held can still be freed.

Invariants: it is made only while the disk has much more room than it takes; without it everything goes on.
"""

import contextlib
import os
from typing import Final

RESERVE_BYTES: Final = 8 * 1024 * 1024
RESERVE_BYTES_LEAST: Final = 1024 * 1024
ROOM_FACTOR: Final = 4


class Reserve:
    """path: the file. size: of a disk with room; a smaller disk gives a part of what is free."""

    def __init__(self, path: str, size: int = RESERVE_BYTES) -> None:
        self._path, self._size = path, size

    def give(self) -> None:
        """The disk is full: make room."""
        with contextlib.suppress(OSError):
            os.unlink(self._path)

    def take(self) -> None:
        """Make it again if there is room enough."""
        with contextlib.suppress(OSError):
            found = os.statvfs(os.path.dirname(self._path))
            size = min(self._size, found.f_bavail * found.f_frsize // ROOM_FACTOR)
            held = os.stat(self._path).st_size if os.path.exists(self._path) else 0
            if size < RESERVE_BYTES_LEAST or held >= size:
                return
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(fd, 0, size)
            finally:
                os.close(fd)
