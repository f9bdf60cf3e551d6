"""The limits of one function, as the gateway file gives them."""

import hashlib
from typing import Final

import msgspec

from edge.errors import EdgeLoopError

# Beyond what Debian, systemd and container runtimes hand out (systemd.io/UIDS-GIDS), below 2^31.
FIRST_NUMBER: Final = 1_900_000_000
NUMBERS: Final = 1 << 24


class SandboxError(EdgeLoopError):
    """The program could not be begun within its limits; says which and why."""

    code = "sandbox"


class NotHeld(SandboxError):
    """What is demanded does not hold on this machine. It was not begun."""

    code = "demand"


class Sandbox(msgspec.Struct, frozen=True, kw_only=True):
    """folder: its own, which it may write, made if need be; at most folder_bytes_max in it altogether. read, write:
    further paths, absolute. hidden: paths that stay out of reach even within those, but for what of
    them is named itself; only a mount namespace can. user: an account, empty for a
    number of its own; only root can give either. workers: how many run at a time under this name. cpu_percent_max: of
    one core. demand: limits that must hold, with nothing left open, or it is not begun. without: mechanisms not to use
    (`groups`, `namespaces`, `namespace:…`, `landlock`, `seccomp`, `user`). 0: no limit."""

    name: str
    folder: str
    memory_bytes_max: int = 67_108_864
    processes_max: int = 16
    file_bytes_max: int = 16_777_216
    folder_bytes_max: int = 67_108_864
    folder_files_max: int = 10_000
    files_open_max: int = 64
    cpu_percent_max: int = 0
    niceness: int = 5
    user: str = ""
    network: bool = False
    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    workers: int = 1
    demand: tuple[str, ...] = ()
    without: frozenset[str] = frozenset()


def number_of(name: str) -> int:
    """The user and group id of a function when the service runs as root: always the same for the same name."""
    return FIRST_NUMBER + int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") % NUMBERS
