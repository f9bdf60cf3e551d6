"""Takes on one limit after the other, in the order that lets each still be taken on, then becomes the program."""

import _socket  # what `socket` is made of: all that is needed here, and loaded faster
import contextlib
import json
import os
import resource
import select
import signal
import struct
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final, NoReturn, cast

from edge.functions.launch import kernel, landlock, seccomp
from edge.functions.launch.machine import machine
from edge.functions.launch.order import Access, Order, Report
from edge.functions.launch.root import change_root

_NAMESPACES: Final = (
    ("files", kernel.CLONE_NEWNS),
    ("network", kernel.CLONE_NEWNET),
    ("messages", kernel.CLONE_NEWIPC),
    ("processes", kernel.CLONE_NEWPID),
)
_TMP_BYTES_MAX: Final = 16_777_216
_STACK_BYTES: Final = 1_048_576
_FOREVER_S: Final = 2**31 - 1
_OOM_SCORE: Final = 500  # when the whole machine runs out of memory: functions first


def main(order_fd: int) -> NoReturn:
    with os.fdopen(order_fd, "rb") as file:
        order = cast(Order, json.load(file))
    try:
        _Launch(order).run()
    except OSError as error:
        _tell(order["report"], {"error": f"{error.filename or order['argv'][0]}: {error.strerror}"})
    except Exception as error:  # noqa: BLE001  whatever it is, the gateway must hear of it
        _tell(order["report"], {"error": f"{type(error).__name__}: {error}"})
    os._exit(127)


class _Launch:
    def __init__(self, order: Order) -> None:
        self.order = order
        self.held: list[str] = []
        self.missed: dict[str, str] = {}
        self.listener = -1
        self.gateway = -1
        """Readable once the gateway has ended; -1 where there is no such descriptor."""

    def run(self) -> None:
        order = self.order
        _close_all_but({0, 1, 2, order["report"], *order["keep"]})
        with contextlib.suppress(OSError):
            self.gateway = os.pidfd_open(order["gateway"])
        if os.getppid() != order["gateway"]:
            os._exit(127)
        self._join_groups()
        self._namespaces()
        if "session" not in self.held:
            self._session()
        self._try("oom_score", lambda: _put("/proc/self/oom_score_adj", f"{_OOM_SCORE}"))
        paths = order["paths"]
        if "namespace:files" in self.held and not self._try("root", lambda: self._root(paths)):
            self.held.remove("namespace:files")
            raise OSError(5, self.missed["root"], "the file tree")
        self._try("no_new_privileges", lambda: kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1))
        ruleset = self._ruleset(paths)
        self._user()
        self._limits()
        if ruleset is not None:
            self._try(f"landlock:{ruleset.version}", ruleset.apply, "landlock")
        self._end_with_gateway()
        self._try("seccomp", self._filter)
        os.umask(0o077)
        os.chdir(order["folder"])
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores these; a program may not expect that
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.set_inheritable(order["report"], False)
        _tell(order["report"], Report(held=self.held, missed=self.missed), self.listener)
        if order["waits"] and not os.read(order["report"], 1):
            os._exit(127)
        os.execve(order["argv"][0], order["argv"], order["environment"])  # noqa: S606

    def _try(self, name: str, step: Callable[[], object], missed: str = "") -> bool:
        if (missed or name) in self.order["without"]:
            self.missed[missed or name] = "left out"
            return False
        try:
            step()
        except OSError as error:
            self.missed[missed or name] = (
                f"{error.strerror}: {error.filename}" if error.filename else f"{error.strerror}"
            )
            return False
        self.held.append(name)
        return True

    def _join_groups(self) -> None:
        joined = [self._try(f"group:{path}", partial(_put, path, "0")) for path in self.order["control_groups"]]
        if not all(joined):
            self.order["holds"] = []

    def _namespaces(self) -> None:
        """An ordinary user may make these only within a user namespace."""
        if "namespaces" in self.order["without"]:
            self.missed["namespaces"] = "left out"
            return
        uid, gid = os.geteuid(), os.getegid()
        if uid != 0 and not self._try("namespace:user", lambda: kernel.unshare(kernel.CLONE_NEWUSER)):
            return
        if uid != 0:
            _put("/proc/self/setgroups", "deny")
            _put("/proc/self/uid_map", f"{uid} {uid} 1")
            _put("/proc/self/gid_map", f"{gid} {gid} 1")
        for name, flag in _NAMESPACES:
            if name == "network" and self.order["network"]:
                continue
            if name == "processes" and machine() is None:
                self.missed["namespace:processes"] = "not known for this processor"
                continue
            self._try(f"namespace:{name}", partial(kernel.unshare, flag))
        if "namespace:processes" in self.held:
            self._divide()

    def _divide(self) -> None:
        """The namespace's first process stays beside the program, which is its second: an orphan comes to the first,
        and no signal is ignored that is not handled. Both are the gateway's children."""
        begun, begins = os.pipe()  # the program's end is closed by its exec
        first = kernel.fork_beside()
        if not first:
            os.close(begins)
            self._stay(begun)
        _tell(self.order["report"], {"first": first})
        pid = kernel.fork_beside()
        if pid:
            _tell(self.order["report"], {"pid": pid})
            os._exit(0)
        os.close(begun)
        self._session()

    def _end_with_gateway(self) -> None:
        """Asked for after the change of user, which forgets it; the gateway may have ended before."""
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        if self.gateway >= 0 and select.select([self.gateway], [], [], 0)[0]:
            os._exit(127)  # nobody hears why

    def _stay(self, begun: int) -> NoReturn:
        """Until it is killed, as the smallest program there is: sleep(1), of which the kernel reaps what ended, for it
        ignores SIGCHLD. Held as the program is: one of the same user may write into its memory."""
        try:
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
            _close_all_but({begun, self.gateway})
            os.read(begun, 1)  # from now on the tree of files is the program's own
            os.close(begun)
            os.chdir("/")
            os.setsid()
            self._try("oom_score", lambda: _put("/proc/self/oom_score_adj", f"{_OOM_SCORE}"))
            self._try("no_new_privileges", lambda: kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1))
            self._user()
            self._limits()
            self._end_with_gateway()
            self.order["listens"] = False
            self._try("seccomp", self._filter)
            for folder in os.defpath.split(os.pathsep):
                with contextlib.suppress(OSError):
                    os.execve(f"{folder}/sleep", ["sleep", f"{_FOREVER_S}"], {})  # noqa: S606
            while True:
                signal.pause()
        finally:
            os._exit(127)

    def _session(self) -> None:
        """The one begun at start was the launcher's."""
        if os.getsid(0) != os.getpid():
            os.setsid()
        self.held.append("session")

    def _root(self, paths: list[tuple[str, Access]]) -> None:
        size = min(self.order["file_bytes_max"] or _TMP_BYTES_MAX, _TMP_BYTES_MAX)
        if change_root(paths, size, processes="namespace:processes" in self.held):
            self.held.append("proc")

    def _ruleset(self, paths: list[tuple[str, Access]]) -> landlock.Ruleset | None:
        if "landlock" in self.order["without"]:
            self.missed["landlock"] = "left out"
            return None
        try:
            rules = landlock.Ruleset(network=self.order["network"])
        except OSError as error:
            self.missed["landlock"] = error.strerror or ""
            return None
        rules.allow(paths)
        rules.allow([(f"/dev/{name}", "read") for name in ("zero", "full", "random", "urandom")])
        rules.allow([("/dev/null", "write")])
        if "namespace:files" in self.held:
            rules.allow([("/tmp", "write"), ("/proc", "read"), ("/", "read")])  # noqa: S108  of its own
        return rules

    def _user(self) -> None:
        order = self.order
        if os.geteuid() != 0:
            return
        if order["uid"]:
            if self._try("user", lambda: _become(order["uid"], order["gid"], (order["folder"], order["argv"][0]))):
                return
            os.chown(order["folder"], 0, 0)  # no longer able to write into another's
        self._try("no_capabilities", _drop_capabilities)

    def _limits(self) -> None:
        order = self.order
        _limit(resource.RLIMIT_CORE, 0)
        if order["file_bytes_max"]:
            _limit(resource.RLIMIT_FSIZE, order["file_bytes_max"])
        if order["files_open_max"]:
            _limit(resource.RLIMIT_NOFILE, order["files_open_max"])
        if order["memory_bytes_max"] and "memory" not in order["holds"]:
            _limit(resource.RLIMIT_STACK, _STACK_BYTES)  # each thread's is counted as data
            _limit(resource.RLIMIT_DATA, order["memory_bytes_max"])
        if (most := order["processes_max"]) and "processes" not in order["holds"]:
            most += "namespace:processes" in self.held  # its first
            if "user" in self.held:
                most *= order["workers"]
            elif "namespace:user" not in self.held or not _counts_by_namespace():
                most += _tasks_of_this_user()
            _limit(resource.RLIMIT_NPROC, most)
        self.held.append("limits")

    def _filter(self) -> None:
        here = machine()
        if here is None:
            raise OSError(38, "not known for this processor")
        held, order = self.held, self.order
        whole = (order["alone"] and "user" in held) or "namespace:processes" in held or "processes" in order["holds"]
        apart = "namespace:files" in held and "namespace:network" in held
        if not whole:
            held.append("group_kept")
        program = partial(
            seccomp.program,
            here,
            network=order["network"],
            local_sockets=apart,
            hold_group=not whole,
            hold_modes="namespace:files" not in held and "user" not in held,
        )

        def listen() -> None:
            self.listener = kernel.set_seccomp_filter(program(ask=True), listen=True)

        try:
            if not (order["listens"] and self._try("listener", listen)):
                kernel.set_seccomp_filter(program())
        except OSError:
            if not whole:
                held.remove("group_kept")
            raise


def _become(uid: int, gid: int, needed: Iterable[str]) -> None:
    """needed: what that user must reach, or it is of no use."""
    os.setegid(gid)
    os.seteuid(uid)
    try:
        for path in needed:
            os.stat(path)
    finally:
        os.seteuid(0)
        os.setegid(0)
    with contextlib.suppress(OSError):  # the change of user takes them all the same
        _drop_capabilities()
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def _drop_capabilities() -> None:
    """None can come back with the next program."""
    for capability in range(64):
        try:
            kernel.prctl(kernel.PR_CAPBSET_DROP, capability)
        except OSError as error:
            if error.errno == 22:  # past the last
                return
            raise


def _limit(which: int, most: int) -> None:
    hard = resource.getrlimit(which)[1]
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(which, (most, most))


def _counts_by_namespace() -> bool:
    """Since Linux 5.14 a user's processes are counted within the user namespace."""
    major, minor = os.uname().release.split(".")[:2]
    return (int(major), int("".join(c for c in minor if c.isdigit()) or 0)) >= (5, 14)


def _tasks_of_this_user() -> int:
    """What RLIMIT_NPROC counts already, of all that this user runs."""
    uid, count = os.getuid(), 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if os.stat(f"/proc/{name}").st_uid == uid:
                    count += len(os.listdir(f"/proc/{name}/task"))
            except OSError:
                continue
    return count


def _close_all_but(kept: set[int]) -> None:
    before = 0
    for fd in sorted(kept):
        if before < fd:  # an empty range would be taken for all
            os.closerange(before, fd)
        before = fd + 1
    os.closerange(before, 65_536)


def _put(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _tell(fd: int, line: object, given: int = -1) -> None:
    """given: a descriptor that goes with it."""
    data = json.dumps(line, separators=(",", ":")).encode() + b"\n"
    if given < 0:
        os.write(fd, data)
        return
    report = _socket.socket(fileno=fd)
    report.sendmsg([data], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("i", given))])
    report.detach()
