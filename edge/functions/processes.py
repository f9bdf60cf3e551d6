"""Starts functions' processes, each in its sandbox: `edge.functions.worker`, or a program of any kind."""

import os
import socket
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

import edge
from edge.config_functions import FunctionSettings
from edge.functions import ndjson, words
from edge.functions.child import FD_VARIABLE, Launch, Listener, Pipe, Process
from edge.functions.requirements import install
from edge.functions.sandbox import Child, Containment, ControlGroups, Sandbox, SandboxError, spawn
from edge.functions.wire import Configure

# -I: nothing of its environment or folder changes what the worker imports. The package may stand outside site-packages.
_BEGIN: Final = "import sys; sys.path.append(sys.argv.pop(1)); from edge.functions.worker import main; main()"
_ROOT: Final = str(Path(edge.__file__).parents[1])


class Processes:
    """The real `Spawn`. create_task: of the group that lives as long as the functions. thing: the gateway's name.
    hidden: paths that no function sees, such as the gateway's keys."""

    def __init__(
        self,
        create_task: Callable[[Coroutine[Any, Any, None]], object],
        thing: str,
        hidden: tuple[str, ...] = (),
    ) -> None:
        self._create_task, self._thing, self._hidden = create_task, thing, hidden
        self._groups: ControlGroups | None = None

    def close(self) -> None:
        """When no process runs any more."""
        if self._groups is not None:
            self._groups.close()
            self._groups = None

    def _control_groups(self) -> ControlGroups:
        """Made with the first process: a gateway without functions changes no control group."""
        if self._groups is None:
            self._groups = ControlGroups()
        return self._groups

    async def __call__(self, launch: Launch, listener: Listener) -> Process:
        ours, theirs = socket.socketpair()
        pipes: list[tuple[int, int, Pipe]] = [(*os.pipe(), "stderr")]
        if not launch.settings.exec:
            pipes.append((*os.pipe(), "stdout"))
        try:
            start = self._start_worker if not launch.settings.exec else self._start_program
            child = await start(launch, listener, theirs.fileno(), [fd for _, fd, _ in pipes])
        except BaseException:
            ours.close()
            for fd, _, _ in pipes:
                os.close(fd)
            raise
        finally:
            theirs.close()
            for _, fd, _ in pipes:
                os.close(fd)
        outputs = [(fd, name) for fd, _, name in pipes]
        process = Process(
            child,
            ours,
            outputs,
            listener,
            contained_by=(*describe(child.containment), told_by(child)),
            paths=child.paths,
            sockets_told=child.refusals is not None,
        )
        self._create_task(process.watch())
        return process

    async def install(self, settings: FunctionSettings, folder: str) -> str:
        if not settings.requirements:
            return ""
        into = Path(folder) / "site"
        found = await install(Path(settings.requirements), into, groups=self._control_groups())
        return str(found)

    async def _start_worker(self, launch: Launch, listener: Listener, fd: int, outputs: list[int]) -> Child:
        return await spawn(
            _sandbox(launch, self._hidden),
            [sys.executable, "-I", "-c", _BEGIN, _ROOT],
            environment={FD_VARIABLE: f"{fd}"},
            pass_fds=[fd],
            output=outputs[1],
            errors=outputs[0],
            groups=self._control_groups(),
            refused=listener.tried,
        )

    async def _start_program(self, launch: Launch, listener: Listener, fd: int, outputs: list[int]) -> Child:
        settings, (named, *arguments) = launch.settings, launch.argv
        program = words.program(named)
        if program is None:
            raise SandboxError(f"{settings.exec[0]}: no program that may be run")
        given = Configure(
            settings.name, self._thing, "", environment=dict(settings.environment), secrets=dict(launch.secrets)
        )
        return await spawn(
            _sandbox(launch, self._hidden),
            [program, *arguments],
            environment=ndjson.environment(given),
            stdin=fd,
            output=fd,
            errors=outputs[0],
            groups=self._control_groups(),
            refused=listener.tried,
        )


def describe(containment: Containment) -> tuple[str, ...]:
    """A line a limit, for people."""
    rows = []
    for limit, held in containment.limits.items():
        but = f" ({held.but})" if held.but else ""
        rows.append(f"{limit}: {held.by or 'not held'}{but}")
    return tuple(rows)


def told_by(child: Child) -> str:
    """A line as well: from whom its attempts are known."""
    if child.refusals is not None:
        return "attempts: told by the kernel and, of Python code, by its worker"
    missed = child.containment.missed
    why = missed.get("listener") or missed.get("seccomp") or "it does not tell"
    return f"attempts: told by the worker, of Python code alone (the kernel: {why})"


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
        demand=settings.demand,
        workers=settings.workers + 1,  # a new version is tried beside those that run
    )
