"""A program within its limits: watched while it runs, and ended as a whole.

After `wait` has returned nothing of it runs, and its control group is gone."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Collection, Sequence
from typing import Final, Literal

import msgspec

from edge.functions.launch.order import Access
from edge.functions.sandbox import tree
from edge.functions.sandbox.folder_watch import FolderWatch
from edge.functions.sandbox.groups import Group
from edge.functions.sandbox.limits import Containment
from edge.functions.sandbox.refusals import Refusals
from edge.functions.sandbox.settings import Sandbox

WATCH_INTERVAL_S: Final = 0.5
_POLL_S: Final = 0.02
_SOON_S: Final = 0.002
_PATIENCE_S: Final = 5.0
_NEAR: Final = 0.98  # of a quota: what no longer fits is refused before it is full

Reason = Literal["exited", "signal", "killed", "memory", "disk"]


class Ending(msgspec.Struct, frozen=True):
    """reason: `memory` and `disk`, it went beyond; `killed`, the gateway ended it; `signal`, another did, or itself.
    code: the exit status, or the signal's number. detail: for people. tidied: as well, what was taken out of its
    folder, which was beyond its bounds."""

    reason: Reason
    code: int
    detail: str
    tidied: str = ""


class Child:
    """pid: of the program's process. containment: what holds for it. paths: what it is granted of the files. reached:
    the limits that it came up against and that did not end it, in words. refusals: who hears of its refused system
    calls; None where the kernel does not tell, or nobody wants to know."""

    def __init__(
        self,
        pid: int,
        sandbox: Sandbox,
        group: Group | None,
        *,
        uid: int = 0,
        paths: Sequence[tuple[str, Access]] = (),
        folder: FolderWatch | None = None,
    ) -> None:
        """uid: of a user as whom nothing else runs, or 0. folder: begun, None where it has no bounds."""
        self.pid = pid
        self.sandbox = sandbox
        self.containment = Containment({})
        self.paths = paths
        self.reached: dict[str, str] = {}
        self.refusals: Refusals | None = None
        self.cpu_s = 0.0
        """What all of it had used of the processor when it was last looked at."""
        self._group = group
        self._uid = uid
        self._folder = folder
        self._stirred = asyncio.Event()
        """Its end, or something in its folder: there may be something to do."""
        self._launcher = self._first = 0
        self._why: Reason | None = None
        self._detail = self._tidied = ""
        self._code: int | None = None

    def moved(self, pid: int) -> None:
        """The launcher has begun the program beside itself; its own end is near."""
        self._launcher, self.pid = self.pid, pid

    def divided(self, first: int) -> None:
        """It has a process namespace, with this as its first: with it all of it ends. It is not one of those that it
        may have."""
        self._first = first
        if self._group is not None and self.sandbox.processes_max:
            self._group.limit_processes(self.sandbox.processes_max + 1)

    def begun(self) -> None:
        """The launcher has become the program, or has ended: then it counts no longer."""
        if self._launcher:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._launcher, 0)
            self._launcher = 0

    def kill(self, reason: Reason = "killed", detail: str = "ended by the gateway") -> None:
        """All of it, at once. The first reason given stays. `wait` returns soon after."""
        if self._code is not None:
            return
        if self._why is None:
            self._why, self._detail = reason, detail
        for pid in (self.pid, self._launcher):
            if pid:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
        self._kill_rest()

    def memory_bytes(self) -> int:
        """Of all its processes, without the page cache; 0 when it has ended."""
        if self._code is not None:
            return 0
        if self._group is not None and "memory" in self._group.folders:
            return self._group.memory_bytes()
        return tree.memory_bytes(self._pids(), self.sandbox.memory_bytes_max)

    @property
    def oom_killed(self) -> bool:
        return self._why == "memory"

    async def wait(self) -> Ending:
        """Until it has ended. One task awaits it, once; cancelled, it ends the child."""
        try:
            await self._watch()
        except BaseException:
            self.kill()
            raise
        finally:
            await self._clean_up()
        assert self._code is not None
        if self._why is None:
            self._why, self._detail = _reason(self._code)
        return Ending(self._why, abs(self._code), self._detail, self._tidied)

    async def _watch(self) -> None:
        loop, stirred = asyncio.get_running_loop(), self._stirred
        try:
            fd = os.pidfd_open(self.pid)
        except OSError:  # before Linux 5.3, or kept from us by a filter
            fd = -1
        else:
            loop.add_reader(fd, stirred.set)
        self._listen(loop)
        look_at = time.monotonic() + WATCH_INTERVAL_S
        try:
            while not self._has_ended():
                now = time.monotonic()
                due_at = look_at if self._folder is None else min(look_at, self._folder.pace.due_at)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(due_at - now, 0)):
                        await stirred.wait()
                stirred.clear()
                if self._has_ended():
                    break
                now = time.monotonic()
                if now >= look_at:
                    look_at = now + WATCH_INTERVAL_S
                    self._look()
                if self._folder is not None and now >= self._folder.pace.due_at:
                    await self._look_at_folder(self._folder)
                    self._listen(loop)
        finally:
            if fd >= 0:
                loop.remove_reader(fd)
                os.close(fd)
            self._hear_no_more(loop)

    def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._folder is not None and self._folder.notify.fd >= 0:
            loop.add_reader(self._folder.notify.fd, self._stir, loop)

    def _stir(self, loop: asyncio.AbstractEventLoop) -> None:
        """What it tells of next is heard after the next look."""
        self._hear_no_more(loop)
        assert self._folder is not None
        self._folder.pace.stirred(time.monotonic())
        self._stirred.set()

    def _hear_no_more(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._folder is not None and self._folder.notify.fd >= 0:
            loop.remove_reader(self._folder.notify.fd)

    def _look(self) -> None:
        """For what no mechanism of the kernel holds."""
        sandbox = self.sandbox
        if self._group is not None and self._group.oom_kills():
            return self.kill("memory", f"beyond {sandbox.memory_bytes_max} bytes of memory")
        held = self._group is not None and "memory" in self._group.folders
        if not held and 0 < sandbox.memory_bytes_max < (used := self.memory_bytes()):
            return self.kill("memory", f"{used} bytes of memory, of {sandbox.memory_bytes_max}")
        pids = self._pids()
        self._look_at_processes(pids)
        self.cpu_s = (self._group.cpu_s() if self._group is not None else 0.0) or tree.cpu_s(pids)
        return None

    async def _look_at_folder(self, folder: FolderWatch) -> None:
        beyond = await folder.look(self._pids)
        held = self.containment.limits.get("folder")
        if held is not None and not held.but and folder.size_bytes > _NEAR * self.sandbox.folder_bytes_max > 0:
            self.reached["folder"] = f"its limit of {self.sandbox.folder_bytes_max} bytes in its folder"
        if beyond:
            self.kill("disk", beyond)

    def _look_at_processes(self, pids: Collection[int] = ()) -> None:
        """The group counts what it refused; without one, how many there are must do."""
        most, group = self.sandbox.processes_max, self._group
        if group is not None and "pids" in group.folders:
            reached = group.forks_refused() > 0
        elif (held := self.containment.limits.get("processes")) is not None and held.but:
            reached = bool(pids) and tree.is_full(self.pid)
        else:
            reached = len(pids) - (self._first != 0) >= most
        if most and reached:
            self.reached["processes"] = f"its limit of {most} processes"

    def _pids(self) -> set[int]:
        if self._group is not None:
            return self._group.pids()
        return tree.descendants(self.pid, self._first) if self._first else tree.descendants(self.pid)

    def _kill_rest(self) -> None:
        """Must come before the first process is reaped: its number names the group."""
        if self._group is not None:
            self._group.kill()
        with contextlib.suppress(OSError):
            os.killpg(self.pid, signal.SIGKILL)
        if self._first:
            with contextlib.suppress(OSError):
                os.kill(self._first, signal.SIGKILL)
        elif self._group is None and self._uid:
            tree.kill_user(self._uid)

    def _has_ended(self) -> bool:
        return _has_ended(self.pid)

    async def _clean_up(self) -> None:
        """The program has been killed, or has ended; it is not reaped yet, so that its number is still its."""
        if self.refusals is not None:
            self.refusals.close()
        while not self._has_ended():  # noqa: ASYNC110  there may be no descriptor to await
            await asyncio.sleep(_POLL_S)
        if self._group is not None and self._why is None and self._group.oom_kills():
            self._why, self._detail = "memory", f"beyond {self.sandbox.memory_bytes_max} bytes of memory"
        self._look_at_processes()
        self._kill_rest()
        try:
            self._code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])  # noqa: ASYNC222  it has ended
        except ChildProcessError:
            self._code = 0
        self.begun()
        await self._end_first()
        if self._group is not None:
            for _ in range(int(_PATIENCE_S / _POLL_S)):
                if self._group.remove():
                    break
                self._group.kill()
                await asyncio.sleep(_POLL_S)
        if self._folder is not None:
            self._tidied = await asyncio.to_thread(self._folder.end)
            if self._why is None and self._tidied:
                self._why, self._detail = "disk", self._tidied

    async def _end_first(self) -> None:
        """It was killed, and ends after all others of its namespace."""
        if not self._first:
            return
        while not _has_ended(self._first):  # noqa: ASYNC110  there may be no descriptor to await
            await asyncio.sleep(_SOON_S)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._first, 0)  # noqa: ASYNC222  it has ended
        self._first = 0


def _has_ended(pid: int) -> bool:
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _reason(code: int) -> tuple[Reason, str]:
    if code >= 0:
        return "exited", f"exit status {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    if -code == signal.SIGXFSZ:
        return "disk", "a file beyond the size allowed"
    return "signal", name
