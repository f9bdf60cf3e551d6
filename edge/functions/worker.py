"""The child process of a function: `python -I -m edge.functions.worker`, the number of its socket in EDGE_FUNCTION_FD.

Loads the code, says so, and runs its handlers as the gateway asks (see `wire`). stdout and stderr are the function's.
Ends by itself only when the gateway says stop, or is gone. What it imports, every function's process pays: asyncio is
loaded for async handlers alone, greengrasssdk when the code imports it.
"""

import atexit
import os
import signal
import sys
from _thread import allocate_lock, start_new_thread
from contextlib import suppress
from typing import Final, NoReturn

from edge.functions import api, lambda_, wire
from edge.functions.channel import Channel, Closed
from edge.functions.failures import describe
from edge.functions.program import Program, load
from edge.functions.running import flush, run
from edge.functions.watching import watch

FD_VARIABLE: Final = "EDGE_FUNCTION_FD"


# Greengrass v1's long-lived functions may never come to the end of their import. Less than the gateway waits for Ready.
LONG_LIVED_S: Final = 45.0


def main(long_lived_s: float = LONG_LIVED_S) -> NoReturn:
    """long_lived_s: after so long an import of Lambda's manner counts as loaded, so that it is not ended."""
    channel = Channel(_socket())
    with suppress(Closed):
        settings = channel.receive()
        if isinstance(settings, wire.Configure):
            _streams()
            _environment(settings)
            api.use(_Live(channel, settings))
            _offer_greengrass()
            if settings.handler:
                _be_lambda()
            if not settings.network:
                _spare_tls()
            watch(settings, channel.writer.send_soon)
            early = _Early(channel, long_lived_s if settings.handler else 0.0)
            program = _load(channel, settings, early)
            if program is None:
                _leave(1)
            _serve(program, channel, early)
    _leave()


def _socket() -> int:
    """It is the worker's alone: programs that the code starts do not get it."""
    fd = int(os.environ.pop(FD_VARIABLE))
    os.set_inheritable(fd, False)
    os.set_blocking(fd, True)
    return fd


def _streams() -> None:
    """The gateway takes lines, as soon as they are written. Ctrl-C is for the gateway, which then stops its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]


def _environment(settings: wire.Configure) -> None:
    """Lambda's names, Greengrass's, and what the gateway file grants."""
    os.environ.update(lambda_.environment(settings))
    os.environ.update({"EDGE_FUNCTION": settings.name, "EDGE_THING": settings.thing}, **settings.environment)


class _Early:
    """Says Ready after a time, for code that is still being imported. after_s: 0 for never."""

    def __init__(self, channel: Channel, after_s: float) -> None:
        self._channel, self._after_s = channel, after_s
        self._lock, self._over = allocate_lock(), allocate_lock()
        self._said = False
        self._over.acquire()
        if after_s:
            start_new_thread(self._wait, ())

    def _wait(self) -> None:
        if not self._over.acquire(timeout=self._after_s):
            with self._lock, suppress(Closed):
                if not self._said:
                    self._said = True
                    self._channel.writer.send(wire.Ready(takes_all=True))

    def end(self) -> bool:
        """It is loaded, or never will be. Whether Ready was said."""
        self._over.release()
        with self._lock:
            said, self._said = self._said, True
            return said


def _load(channel: Channel, settings: wire.Configure, early: _Early) -> Program | None:
    """None when the code cannot be loaded, which is told."""
    try:
        return load(settings, api.registry)
    except BaseException as error:  # noqa: BLE001 - the code may raise anything
        name, message, trace = describe(error)
        if early.end():
            with suppress(Exception):
                print(trace or f"{name}: {message}", file=sys.stderr)  # noqa: T201 - into the function's log
        else:
            with suppress(Closed):
                channel.writer.send(wire.StartFailed(name, message, trace))
        flush()
        return None


def _serve(program: Program, channel: Channel, early: _Early) -> None:
    ready = program.ready()
    said = early.end()

    def started() -> None:
        if not said:
            channel.writer.send(ready)

    if ready.concurrent:
        from edge.functions import running_async

        running_async.run(program, channel, started, _leave)
    else:
        started()
        run(program, channel)


class _Live:
    """What the functions of `edge` ask."""

    def __init__(self, channel: Channel, settings: wire.Configure) -> None:
        self._channel = channel
        self.settings = settings

    def tell(self, request: api.Request) -> None:
        self._channel.tell(request)

    def ask(self, request: api.Request) -> wire.Reply:
        return self._channel.ask(request)

    def deny(self, request: api.Request) -> wire.Reply:
        return self._channel.deny(request)

    async def aask(self, request: api.Request) -> wire.Reply:
        from edge.functions.running_async import aask

        return await aask(self._channel, request)


def _offer_greengrass() -> None:
    from edge.functions.greengrass_import import Finder

    sys.meta_path.insert(0, Finder())


def _be_lambda() -> None:
    """The folder is the code's and logs have a handler, as in AWS Lambda; what is written goes into TMPDIR."""
    from edge.functions.logging_import import Finder

    sys.meta_path.insert(0, Finder())
    with suppress(OSError):
        os.chdir(os.environ["LAMBDA_TASK_ROOT"])


def _spare_tls() -> None:
    from edge.functions.asyncio_import import Finder

    sys.meta_path.insert(0, Finder())


def _leave(code: int = 0) -> NoReturn:
    """Without waiting for threads of the code, which may never end."""
    with suppress(BaseException):
        atexit._run_exitfuncs()
    flush()
    os._exit(code)


if __name__ == "__main__":
    main()
