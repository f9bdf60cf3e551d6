"""Runs calls side by side on an asyncio loop: for functions with an async handler. Their sync handlers take turns in
one thread, so that none of them holds up the loop.

Of the worker only this module loads asyncio.
"""

import asyncio
import contextvars
import os
from _thread import get_ident
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from inspect import isawaitable
from typing import Any

from edge.functions import wire
from edge.functions.api import Request, RequestFailed, current_call
from edge.functions.channel import ANSWER_TIMEOUT_S, READ_BYTES, Channel, Closed, ToMain
from edge.functions.program import Program
from edge.functions.running import failed, flush, result_bytes, send_answer


class _Awaiting:
    """An answer that a coroutine awaits."""

    def __init__(self) -> None:
        self.future: asyncio.Future[wire.Reply] = asyncio.get_running_loop().create_future()

    def give(self, reply: wire.Reply) -> None:
        if not self.future.done():
            self.future.set_result(reply)

    def stir(self) -> None:
        """The loop reads until the worker ends."""


async def aask(channel: Channel, request: Request) -> wire.Reply:
    """Raises ValueError as `Writer.send`, RequestFailed when no answer comes."""
    if channel.loop_thread != get_ident():  # a loop that the code began itself
        return await asyncio.to_thread(channel.ask, request)
    awaiting = _Awaiting()
    with channel.asking(request, awaiting):
        done, _ = await asyncio.wait([awaiting.future], timeout=ANSWER_TIMEOUT_S)
    if not done:
        raise RequestFailed("timeout", "the gateway has not answered")
    return awaiting.future.result()


def run(program: Program, channel: Channel, started: Callable[[], None], gone: Callable[[], None]) -> None:
    """Until the gateway says stop, and what has begun has ended. started: called when calls may come; gone: when the
    gateway has gone, with nobody left to answer to."""
    asyncio.run(_Runner(program, channel, gone).run(started))


class _Runner:
    """What comes in becomes tasks of one group, none of which ever fails."""

    def __init__(self, program: Program, channel: Channel, gone: Callable[[], None]) -> None:
        self._program = program
        self._channel = channel
        self._gone = gone
        self._sync = ThreadPoolExecutor(1, "edge-sync")
        self._stopped = asyncio.Event()

    async def run(self, started: Callable[[], None]) -> None:
        loop, fd = asyncio.get_running_loop(), self._channel.writer.fd
        async with asyncio.TaskGroup() as group:
            self._take(self._channel.take_over(), group)
            loop.add_reader(fd, self._readable, group)
            started()
            await self._stopped.wait()
        loop.remove_reader(fd)

    def _readable(self, group: asyncio.TaskGroup) -> None:
        try:
            self._take(self._channel.feed(os.read(self._channel.writer.fd, READ_BYTES)), group)
        except (OSError, Closed):
            self._gone()

    def _take(self, asked: list[ToMain], group: asyncio.TaskGroup) -> None:
        for one in asked:
            if isinstance(one, wire.Call) and not self._stopped.is_set():
                group.create_task(self._answer(one))
            elif isinstance(one, wire.Stop):
                self._stopped.set()

    async def _answer(self, call: wire.Call) -> None:
        answer: wire.Done | wire.Failed
        current_call.set(call.id)
        scope = asyncio.timeout(None)
        try:
            async with scope:
                answer = wire.Done(call.id, await self._result(call, scope))
        except BaseException as error:  # noqa: BLE001 - the handler's code may raise anything
            if isinstance(error, TimeoutError) and scope.expired():
                error = TimeoutError(f"took longer than {call.deadline_s:g} s")
            answer = failed(call.id, error)
        flush()
        try:
            send_answer(self._channel, answer)
        except Closed:
            self._gone()

    async def _result(self, call: wire.Call, scope: asyncio.Timeout) -> bytes | None:
        """A sync handler cannot be interrupted: then the gateway ends the process, which is told by no answer."""
        steps = self._program.steps(call)
        if all(handler.is_async for handler, _ in steps):
            scope.reschedule(asyncio.get_running_loop().time() + call.deadline_s)
        result = None
        for handler, arguments in steps:
            run = handler.run
            value = run(*arguments) if handler.is_async else await self._in_thread(run, arguments)
            if isawaitable(value):
                value = await value
            if value is not None:
                value = result_bytes(value)
                result = value if result is None else result
        return result

    async def _in_thread(self, run: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        def keep() -> tuple[Any, BaseException | None]:
            try:
                return run(*arguments), None
            except BaseException as error:  # noqa: BLE001 - a future does not carry every exception
                return None, error

        loop = asyncio.get_running_loop()
        value, error = await loop.run_in_executor(self._sync, contextvars.copy_context().run, keep)
        if error is not None:
            raise error
        return value
