"""Unix sockets at paths of any length.

The kernel takes 107 bytes of path. A folder's descriptor has a short name of its own, /proc/self/fd/N, so the
socket is reached through that.
"""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def connect(path: Path, timeout_s: float | None = None) -> socket.socket:
    """Raises OSError, such as FileNotFoundError or ConnectionRefusedError."""
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        link.settimeout(timeout_s)
        with _short(path) as name:
            link.connect(name)
    except OSError:
        link.close()
        raise
    return link


def listen(path: Path, backlog: int = 64) -> socket.socket:
    """A listening socket at path, non-blocking. A socket file left there by a dead process is replaced."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _short(path) as name:
            listener.bind(name)
        listener.listen(backlog)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener
