"""Starts functions' processes: `edge.functions.worker`, or a program that speaks lines of JSON."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from edge.functions.child import FD_VARIABLE, Ending, Launch, Listener, Process


class Plain:
    """Without containment: in a session of its own, nothing more."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process
        self.pid = process.pid

    def kill(self) -> None:
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    def memory_bytes(self) -> int:
        """Resident, of the process itself."""
        try:
            with open(f"/proc/{self.pid}/statm", encoding="ascii") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, IndexError, ValueError):
            return 0

    async def wait(self) -> Ending:
        loop = asyncio.get_running_loop()
        ended = loop.create_future()
        fd = os.pidfd_open(self.pid)
        loop.add_reader(fd, lambda: None if ended.done() else ended.set_result(None))
        try:
            await ended
        finally:
            loop.remove_reader(fd)
            os.close(fd)
            self.kill()  # if cancelled itself, and what it left behind in its session
            code = self._process.wait()
        return ending_of(code)


def ending_of(code: int) -> Ending:
    """code: as subprocess gives it, negative for a signal."""
    if code >= 0:
        return Ending("exited", code, f"exit status {code}")
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return Ending("signal", -code, name)


class Processes:
    """The real `Spawn`. create_task: of the group that lives as long as the functions."""

    def __init__(self, create_task: Callable[[Coroutine[Any, Any, None]], object]) -> None:
        self._create_task = create_task

    async def __call__(self, launch: Launch, listener: Listener) -> Process:
        ours, theirs = socket.socketpair()
        try:
            environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            environment |= {**launch.settings.environment, FD_VARIABLE: str(theirs.fileno())}
            started = subprocess.Popen(  # noqa: ASYNC220 - it begins by vfork, within a millisecond or two
                [sys.executable, "-m", "edge.functions.worker"],
                env=environment,
                cwd=launch.folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        assert started.stdout is not None
        assert started.stderr is not None
        stdout, stderr = os.dup(started.stdout.fileno()), os.dup(started.stderr.fileno())
        started.stdout.close()
        started.stderr.close()
        process = Process(Plain(started), ours, ((stdout, "stdout"), (stderr, "stderr")), listener)
        self._create_task(process.watch())
        return process
