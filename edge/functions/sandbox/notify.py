"""A descriptor that can be read when something in a folder has changed (inotify(7)). Of what is written through a
mapping into memory it does not tell."""

import contextlib
import ctypes
import os
from typing import Final

_CHANGES: Final = 0x2 | 0x80 | 0x100 | 0x0100_0000  # modified, moved here, made; folders alone are watched
_FOLDERS_MAX: Final = 64
_READS: Final = 16  # more than the kernel keeps

_libc: Final = ctypes.CDLL(None, use_errno=True)


class Notify:
    """fd: -1 where the kernel gives none: its user has too many."""

    def __init__(self) -> None:
        self.fd: int = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self._watched = 0

    def watch(self, folder: int) -> None:
        """A folder by its descriptor: as often as it is looked at, _FOLDERS_MAX of them at most."""
        if self.fd >= 0 and self._watched < _FOLDERS_MAX:
            self._watched += 1
            _libc.inotify_add_watch(self.fd, b"/proc/self/fd/%d" % folder, _CHANGES)

    def drain(self) -> None:
        """Before a look: it is to tell of what comes from now on."""
        self._watched = 0
        with contextlib.suppress(OSError):
            for _ in range(_READS):
                os.read(self.fd, 65_536)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
