"""A worker tells what its code tries and is not granted, also where the code swallows the error.

This reports; it holds nothing. It sees what Python code of this process asks for (PEP 578's audit events, which come
before the operation) and names what the grants leave out: the sandbox refuses it, as far as this machine can. Code that
does not want to be seen is not: what C code asks the system, another program, a fork of the worker. Of those the kernel
tells some (`sandbox.refusals`), sockets among them. Each thing is told once, TOLD_MAX of a kind at most.
"""

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from edge.functions.wire import DETAIL_CHARACTERS_MAX, Configure, Denied, Tried

TOLD_MAX: Final = 16
_WRITES: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_DEVICES: Final = frozenset(("null", "zero", "full", "random", "urandom", "fd", "shm", "stdin", "stdout", "stderr"))
_FAMILIES: Final = {2: "AF_INET", 10: "AF_INET6", 16: "AF_NETLINK", 17: "AF_PACKET"}
_LOCAL: Final = (1, -1)  # AF_UNIX, whose addresses are looked at; of a descriptor that is there already
# Event to what it is called, and which of its arguments are paths that it changes.
_CHANGES: Final[Mapping[str, tuple[str, tuple[int, ...]]]] = {
    "os.chmod": ("change the mode of", (0,)),
    "os.chown": ("change the owner of", (0,)),
    "os.link": ("link", (0, 1)),
    "os.mkdir": ("make", (0,)),
    "os.remove": ("remove", (0,)),
    "os.rename": ("rename", (0, 1)),
    "os.rmdir": ("remove", (0,)),
    "os.symlink": ("link", (1,)),
    "os.truncate": ("cut", (0,)),
    "os.utime": ("change the times of", (0,)),
}
_ADDRESSED: Final = {
    "socket.connect": "connect to",
    "socket.bind": "listen at",
    "socket.sendto": "send to",
    "socket.sendmsg": "send to",
}
_LOOKED_UP: Final = frozenset(("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"))

Tell = Callable[[Tried], None]


def watch(settings: Configure, tell: Tell) -> None:
    """From now on, for the life of the process; once. tell: may be called from any thread, anywhere in its code."""
    cached = os.path.join(os.path.dirname(settings.file), "__pycache__")  # where Python looks, and tries to keep it
    paths = (*settings.paths, (cached, "write")) if settings.paths else ()
    watching = Watching(paths, network=settings.network, tell=tell, sockets_told=settings.sockets_told)
    sys.addaudithook(watching.heard)
    os.fork = _told(os.fork, watching)


class Watching:
    """paths: what each path is granted for (see `launch.order`), the longest that fits counts; without any, files are
    not watched. sockets_told: the kernel tells of new sockets. It raises nothing: an audit hook that raises would undo
    the operation."""

    def __init__(
        self, paths: Iterable[tuple[str, str]], *, network: bool, tell: Tell, sockets_told: bool = False
    ) -> None:
        self._paths: dict[str, str] = {}
        for path, access in paths:
            self._paths[path] = access
            self._paths.setdefault(os.path.realpath(path), access)
        self._network, self._tell, self._sockets_told = network, tell, sockets_told
        self._told: dict[Denied, set[str]] = {"files": set(), "network": set(), "processes": set()}

    def heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in _WATCHED:
            return
        try:
            if event == "open":
                self._open(*arguments)
            elif event in _CHANGES:
                verb, places = _CHANGES[event]
                for place in places:
                    self._file(verb, arguments[place], "write")
            elif not self._network:
                self._socket(event, arguments)
        except Exception:  # noqa: BLE001 - whatever the code passed: the operation itself says what is wrong with it
            return

    def tried(self, what: Denied, detail: str) -> None:
        told = self._told[what]
        if detail in told or len(told) >= TOLD_MAX:
            return
        told.add(detail)
        self._tell(Tried(what, _clean(detail)))

    def _open(self, path: Any, mode: str | None, flags: int) -> None:
        self._file("open", path, "write" if flags & _WRITES else "read")

    def _file(self, verb: str, given: Any, access: str) -> None:
        if isinstance(given, int) or not self._paths:
            return
        path = os.path.abspath(os.fsdecode(given))
        if self._may(path, access) or _is_of_the_system(path, access) or self._may(os.path.realpath(path), access):
            return
        self.tried("files", f"{verb} {path}{' to write' if verb == 'open' and access == 'write' else ''}")

    def _may(self, path: str, access: str) -> bool:
        paths, cached = self._paths, "/__pycache__" in path
        while True:
            granted = paths.get(path)
            if granted is not None:
                # Python itself tries to keep what it compiled, wherever code is.
                return granted == "write" or (granted == "read" and (access == "read" or cached))
            if path == "/":
                return False
            path = path.rpartition("/")[0] or "/"

    def _socket(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.__new__":
            if (family := int(arguments[1])) not in _LOCAL and not self._sockets_told:
                self.tried("network", f"make a socket of {_FAMILIES.get(family, f'family {family}')}")
        elif event in _LOOKED_UP:
            self.tried("network", f"look up {_text(arguments[0])}")
        elif (address := arguments[1]) is not None:
            place = _text(address[0]) + f":{address[1]}" if isinstance(address, tuple) else _text(address)
            if not isinstance(address, tuple) and not place.startswith("\0"):
                path = os.path.abspath(place)
                if self._may(path, "write") or self._may(os.path.realpath(path), "write"):
                    return
            self.tried("network", f"{_ADDRESSED[event]} {place.replace(chr(0), '@', 1)}")


_WATCHED: Final = frozenset(("open", "socket.__new__", *_CHANGES, *_ADDRESSED, *_LOOKED_UP))


def _is_of_the_system(path: str, access: str) -> bool:
    """What every function has beside its grants, some of it only where it has a file tree of its own: `/proc` of its
    own processes, a few devices, a `/tmp`."""
    _, top, *rest = path.split("/")
    if top == "proc":
        first = rest[0] if rest else ""
        return not first.isdigit() or first == f"{os.getpid()}" or os.access(path, os.R_OK)
    if top == "dev":
        return bool(rest) and rest[0] in _DEVICES
    if top == "tmp":
        mode = os.W_OK if access == "write" else os.R_OK
        return os.access(path, mode) or (not os.path.lexists(path) and os.access(os.path.dirname(path), os.W_OK))
    return False


def _told(fork: Callable[[], int], watching: Watching) -> Callable[[], int]:
    def told() -> int:
        try:
            return fork()
        except BlockingIOError:
            watching.tried("processes", "begin one more process than it may have")
            raise

    return told


def _text(given: Any) -> str:
    return os.fsdecode(given) if isinstance(given, str | bytes) else str(given)


def _clean(text: str) -> str:
    text = text[:DETAIL_CHARACTERS_MAX].encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else "?" for c in text)[:DETAIL_CHARACTERS_MAX]
