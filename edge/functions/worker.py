"""The child process of a function: `python -I -m edge.functions.worker`, the number of its socket in EDGE_FUNCTION_FD.

Loads the code, says so, and runs its handlers as the gateway asks (see `wire`). stdout and stderr are the function's.
Ends by itself only when the gateway says stop, or is gone. What it imports, every function's process pays: asyncio is
loaded for async handlers alone, greengrasssdk when the code imports it.
"""

import atexit
import os
import signal
import sys
from contextlib import suppress
from typing import Final, NoReturn

from edge.functions import api, lambda_, wire
from edge.functions.channel import Channel, Closed
from edge.functions.failures import describe
from edge.functions.program import Program, load
from edge.functions.running import flush, run

FD_VARIABLE: Final = "EDGE_FUNCTION_FD"


def main() -> NoReturn:
    channel = Channel(_socket())
    with suppress(Closed):
        settings = channel.receive()
        if isinstance(settings, wire.Configure):
            _streams()
            _environment(settings)
            api.use(_Live(channel, settings))
            _offer_greengrass()
            program = _load(channel, settings)
            if program is None:
                _leave(1)
            _serve(program, channel)
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
    folder = settings.file if os.path.isdir(settings.file) else os.path.dirname(settings.file)
    os.environ.update(
        {
            "AWS_LAMBDA_FUNCTION_NAME": settings.name,
            "AWS_LAMBDA_FUNCTION_VERSION": lambda_.VERSION,
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(settings.memory_bytes_max // 1_048_576),
            "AWS_IOT_THING_NAME": settings.thing,
            "LAMBDA_TASK_ROOT": folder,
            "_HANDLER": settings.handler,
            "EDGE_FUNCTION": settings.name,
            "EDGE_THING": settings.thing,
        }
    )
    os.environ.update(settings.environment)


def _load(channel: Channel, settings: wire.Configure) -> Program | None:
    """None when the code cannot be loaded, which is told."""
    try:
        return load(settings, api.registry)
    except BaseException as error:  # noqa: BLE001 - the code may raise anything
        flush()
        with suppress(Closed):
            channel.writer.send(wire.StartFailed(*describe(error)))
        return None


def _serve(program: Program, channel: Channel) -> None:
    ready = program.ready()
    if ready.concurrent:
        from edge.functions import running_async

        running_async.run(program, channel, lambda: channel.writer.send(ready), _leave)
    else:
        channel.writer.send(ready)
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

    async def aask(self, request: api.Request) -> wire.Reply:
        from edge.functions.running_async import aask

        return await aask(self._channel, request)


def _offer_greengrass() -> None:
    from edge.functions.greengrass_import import Finder

    sys.meta_path.insert(0, Finder())


def _leave(code: int = 0) -> NoReturn:
    """Without waiting for threads of the code, which may never end."""
    with suppress(BaseException):
        atexit._run_exitfuncs()
    flush()
    os._exit(code)


if __name__ == "__main__":
    main()
