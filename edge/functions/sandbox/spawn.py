"""Starts a program within its limits, by way of the launcher."""

import asyncio
import contextlib
import errno
import json
import os
import pwd
import signal
import socket
import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, cast

import edge.functions.launch
from edge.functions.launch.order import Access, Order, Report
from edge.functions.sandbox.child import Child
from edge.functions.sandbox.folder_watch import begin
from edge.functions.sandbox.groups import ControlGroups
from edge.functions.sandbox.limits import containment
from edge.functions.sandbox.quota import set_quota
from edge.functions.sandbox.refusals import Refusals, Tell
from edge.functions.sandbox.settings import NotHeld, Sandbox, SandboxError, number_of

START_TIMEOUT_S: Final = 20.0
_LAUNCHER: Final = str(Path(edge.functions.launch.__file__).with_name("__main__.py"))
_EDGE: Final = str(Path(edge.functions.launch.__file__).parents[2])
_DESCRIPTOR: Final = struct.Struct("i")
_SYSTEM: Final = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"),
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/localtime"),
    *("/etc/timezone", "/etc/os-release", "/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/mime.types"),
)
_NETWORK: Final = (
    *("/etc/hosts", "/etc/host.conf", "/etc/resolv.conf", "/etc/gai.conf", "/etc/services", "/etc/protocols"),
    *("/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/ca-certificates.conf"),
)


async def spawn(
    sandbox: Sandbox,
    argv: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    stdin: int | None = None,
    output: int | None = None,
    errors: int | None = None,
    groups: ControlGroups | None = None,
    refused: Tell | None = None,
) -> Child:
    """argv: the program by its absolute path, and its arguments. environment: all it gets beside PATH, HOME, TMPDIR,
    LANG. pass_fds: kept open under the same numbers. stdin, output, errors: file descriptors, None for nothing; errors
    go where output goes unless given. The caller closes its own copies of all these. refused: hears of system calls
    that are refused, as far as the kernel tells (Linux 5.0), until `Child.wait()` returns.

    Somebody must await `Child.wait()` from now on: it watches what nothing else holds. Raises SandboxError; NotHeld
    before the program has begun."""
    uid, gid = _identity(sandbox)
    alone = bool(uid) and not sandbox.user and sandbox.workers == 1
    _prepare(sandbox, uid, gid)
    quota = _quota(sandbox, uid)
    folder = await asyncio.to_thread(begin, sandbox)
    group = groups.new(sandbox) if groups is not None else None
    ours, theirs = socket.socketpair()
    order: Order = {
        "argv": list(argv),
        "environment": _environment(sandbox, environment or {}),
        "folder": sandbox.folder,
        "keep": list(pass_fds),
        "report": theirs.fileno(),
        "gateway": os.getpid(),
        "waits": bool(sandbox.demand),
        "listens": refused is not None,
        "control_groups": group.joins() if group is not None else [],
        "holds": group.holds if group is not None else [],
        "uid": uid,
        "gid": gid,
        "alone": alone,
        "network": sandbox.network,
        "paths": _paths(sandbox, argv[0]),
        "memory_bytes_max": sandbox.memory_bytes_max,
        "processes_max": sandbox.processes_max,
        "workers": sandbox.workers,
        "file_bytes_max": sandbox.file_bytes_max,
        "files_open_max": sandbox.files_open_max,
        "without": sorted(sandbox.without),
    }
    try:
        launcher = _launch(order, sandbox.niceness, stdin, output, errors)
    except OSError as error:
        ours.close()
        if group is not None:
            group.remove()
        if folder is not None:
            folder.end()
        raise SandboxError(f"{sandbox.name}: the launcher: {error.strerror}") from None
    finally:
        theirs.close()
    child = Child(launcher, sandbox, group, uid=uid if alone else 0, paths=order["paths"], folder=folder)

    def judge(report: Report) -> None:
        child.containment = found = containment(
            sandbox, [*report["held"], *quota], report["missed"], groups.label if groups else "", order["holds"]
        )
        if unmet := found.unmet(sandbox.demand):
            raise NotHeld(f"what it demands does not hold on this machine: {unmet}")
        if sandbox.demand:
            ours.send(b"1")

    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            await _report(ours, child, refused, judge)
    except BaseException as error:
        child.kill()
        await child.wait()
        if isinstance(error, TimeoutError):
            raise SandboxError(f"{sandbox.name}: did not begin within {START_TIMEOUT_S:g} s") from None
        raise
    finally:
        ours.close()
    return child


def _launch(order: Order, niceness: int, stdin: int | None, output: int | None, errors: int | None) -> int:
    memory_fd = os.memfd_create("order", os.MFD_CLOEXEC)
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        with os.fdopen(memory_fd, "wb", closefd=False) as file:
            file.write(json.dumps(order).encode())
        os.lseek(memory_fd, 0, os.SEEK_SET)
        kept = [order["report"], memory_fd, *order["keep"]]
        streams = [nothing if fd is None else fd for fd in (stdin, output, output if errors is None else errors)]
        return os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", "-S", _LAUNCHER, f"{memory_fd}", f"{niceness}"],
            {"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
            file_actions=[
                *((os.POSIX_SPAWN_DUP2, fd, target) for target, fd in enumerate(streams)),
                *((os.POSIX_SPAWN_DUP2, fd, fd) for fd in kept),
            ],
            setsid=True,
            setsigmask=(),
            setsigdef=[signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP],
        )
    finally:
        os.close(memory_fd)
        os.close(nothing)


async def _report(sock: socket.socket, child: Child, refused: Tell | None, judge: Callable[[Report], None]) -> None:
    """What the launcher says until the program begins, which closes its end. judge: raises where it must not begin."""
    loop = asyncio.get_running_loop()
    judged = False
    sock.setblocking(False)
    while True:
        ready = asyncio.Event()
        loop.add_reader(sock, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(sock)
        with contextlib.suppress(BlockingIOError):
            more, given = _received(sock)
            if given >= 0 and refused is not None:
                child.refusals = Refusals(given, refused)
            if not more:
                break
            for row in map(json.loads, more.splitlines()):  # each is sent at once, and shorter than what is received
                if "first" in row:
                    child.divided(cast(int, row["first"]))
                elif "pid" in row:
                    child.moved(cast(int, row["pid"]))
                elif "error" in row:
                    raise SandboxError(f"{child.sandbox.name}: {row['error']}")
                else:
                    judge(cast(Report, row))
                    judged = True
    if not judged:
        raise SandboxError(f"{child.sandbox.name}: ended before it began, perhaps for want of memory")
    child.begun()


def _received(sock: socket.socket) -> tuple[bytes, int]:
    """The descriptor that came with it, or -1."""
    size = socket.CMSG_SPACE(_DESCRIPTOR.size)
    data, ancillary, _, _ = sock.recvmsg(65_536, size, socket.MSG_CMSG_CLOEXEC)
    return data, _DESCRIPTOR.unpack(ancillary[0][2])[0] if ancillary else -1


def _identity(sandbox: Sandbox) -> tuple[int, int]:
    """0, 0: the service's own."""
    if os.geteuid() != 0 or "user" in sandbox.without:
        return 0, 0
    if not sandbox.user:
        number = number_of(sandbox.name)
        return number, number
    try:
        account = pwd.getpwnam(sandbox.user)
    except KeyError:
        raise SandboxError(f"{sandbox.name}: there is no account {sandbox.user!r}") from None
    return account.pw_uid, account.pw_gid


def _prepare(sandbox: Sandbox, uid: int, gid: int) -> None:
    """The folder is made, and given to the user with all in it if it is another's."""
    folder = sandbox.folder
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        if uid and os.stat(folder).st_uid != uid:
            for _, folders, files, fd in os.fwalk(folder, follow_symlinks=False):
                os.fchown(fd, uid, gid)
                for name in (*folders, *files):
                    os.chown(name, uid, gid, dir_fd=fd, follow_symlinks=False)
        os.chmod(folder, 0o700)
    except OSError as error:
        raise SandboxError(f"{sandbox.name}: {error.filename or folder}: {error.strerror or errno.errorcode}") from None


def _quota(sandbox: Sandbox, uid: int) -> list[str]:
    """["quota"] where the disk keeps the folder's bounds. Beside other folders of that disk which it may write none is
    kept: they would count as well."""
    if not uid or sandbox.user or "quota" in sandbox.without:
        return []
    device = _device(sandbox.folder)
    if any(_device(path) == device for path in sandbox.write):
        set_quota(sandbox.folder, uid, 0, 0)  # there may be one of before
        return []
    held = set_quota(sandbox.folder, uid, sandbox.folder_bytes_max, sandbox.folder_files_max)
    return ["quota"] if held else []


def _device(path: str) -> int | None:
    try:
        return os.stat(path).st_dev
    except OSError:
        return None


def _environment(sandbox: Sandbox, granted: Mapping[str, str]) -> dict[str, str]:
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": sandbox.folder,
        "TMPDIR": sandbox.folder,
        "LANG": "C.UTF-8",
        **granted,
    }


def _paths(sandbox: Sandbox, program: str) -> list[tuple[str, Access]]:
    """The last said of a path counts."""
    paths: dict[str, Access] = dict.fromkeys(_SYSTEM, "read")
    if sandbox.network:
        paths |= dict.fromkeys(_NETWORK, "read")
    python = {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix} - {"/"}
    paths[os.path.dirname(_EDGE)] = "list"
    paths |= dict.fromkeys((*sorted(python), _EDGE, program), "read")
    paths |= dict.fromkeys(sandbox.hidden, "hide")
    paths |= dict.fromkeys(sandbox.read, "read")
    paths |= dict.fromkeys((*sandbox.write, sandbox.folder), "write")
    return list(paths.items())
