"""Starts functions' processes, each in its sandbox: `edge.functions.worker`, or a program of any kind."""

import os
import socket
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

import edge
from edge.functions.child import FD_VARIABLE, Launch, Listener, Pipe, Process
from edge.functions.sandbox import Containment, ControlGroups, Sandbox, spawn

# -I: nothing of its environment or folder changes what the worker imports. The package may stand outside site-packages.
_BEGIN: Final = "import sys; sys.path.append(sys.argv.pop(1)); from edge.functions.worker import main; main()"
_ROOT: Final = str(Path(edge.__file__).parents[1])


class Processes:
    """The real `Spawn`. create_task: of the group that lives as long as the functions. groups: control groups of the
    gateway, None where there are none. hidden: paths that no function sees, such as the gateway's keys."""

    def __init__(
        self,
        create_task: Callable[[Coroutine[Any, Any, None]], object],
        groups: ControlGroups | None,
        hidden: tuple[str, ...] = (),
    ) -> None:
        self._create_task, self._groups, self._hidden = create_task, groups, hidden

    async def __call__(self, launch: Launch, listener: Listener) -> Process:
        ours, theirs = socket.socketpair()
        pipes = [os.pipe(), os.pipe()]
        try:
            argv = [sys.executable, "-I", "-c", _BEGIN, _ROOT]
            child = await spawn(
                _sandbox(launch, self._hidden),
                argv,
                environment={FD_VARIABLE: f"{theirs.fileno()}"},
                pass_fds=[theirs.fileno()],
                output=pipes[0][1],
                errors=pipes[1][1],
                groups=self._groups,
            )
        except BaseException:
            ours.close()
            for fd, _ in pipes:
                os.close(fd)
            raise
        finally:
            theirs.close()
            for _, fd in pipes:
                os.close(fd)
        outputs: list[tuple[int, Pipe]] = [(pipes[0][0], "stdout"), (pipes[1][0], "stderr")]
        process = Process(child, ours, outputs, listener, describe(child.containment))
        self._create_task(process.watch())
        return process


def describe(containment: Containment) -> tuple[str, ...]:
    """A line a limit, for people."""
    rows = []
    for limit, held in containment.limits.items():
        but = f" ({held.but})" if held.but else ""
        rows.append(f"{limit}: {held.by or 'not held'}{but}")
    return tuple(rows)


def _sandbox(launch: Launch, hidden: tuple[str, ...]) -> Sandbox:
    settings = launch.settings
    read = [launch.code, launch.site, *launch.secrets.values(), *settings.read]
    return Sandbox(
        name=settings.name,
        folder=f"{launch.folder}/work",
        memory_bytes_max=settings.memory_bytes_max,
        processes_max=settings.processes_max,
        file_bytes_max=settings.file_bytes_max,
        files_open_max=settings.files_open_max,
        cpu_percent_max=settings.cpu_percent_max,
        user=settings.user,
        network=settings.network,
        read=tuple(path for path in read if path),
        write=settings.write,
        hidden=hidden,
        workers=settings.workers + 1,  # a new version is tried beside those that run
    )
