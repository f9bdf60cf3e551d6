"""Runs calls side by side on an asyncio loop: for functions with an async handler. Their sync handlers take turns in
one thread, so that none of them holds up the loop.

A call's time counts from when it begins; the gateway, which gives many at once, is told where it cannot know that.
Of the worker only this module loads asyncio.
"""

import asyncio
import contextvars
import os
from _thread import get_ident
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from inspect import isawaitable
from typing import Any, Final

from edge.functions import wire
from edge.functions.api import Request, RequestFailed, current_call
from edge.functions.channel import ANSWER_TIMEOUT_S, READ_BYTES, Channel, Closed, ToMain
from edge.functions.program import Program
from edge.functions.running import failed, flush, result_bytes, send_answer

WAITED_S: Final = 0.02  # so late a call may begin without the gateway being told
TELL_S: Final = 0.25  # how long before it is told that one is under way; less than the grace it gives


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
        self._waiting: deque[tuple[wire.Call, float]] = deque()
        self._read_at = 0.0
        self._untold: dict[int, float] = {}
        """When calls began that are under way, and of which the gateway is not told yet."""
        self._telling: asyncio.TimerHandle | None = None
        self._open = 0
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
        since, self._read_at = self._read_at, asyncio.get_running_loop().time()
        if asked and not self._waiting:
            asyncio.get_running_loop().call_soon(self._start, group)
        for one in asked:
            if isinstance(one, wire.Call) and not self._stopped.is_set():
                self._waiting.append((one, since))
            elif isinstance(one, wire.Stop):
                while self._waiting:
                    self._start(group)
                self._stopped.set()

    def _start(self, group: asyncio.TaskGroup) -> None:
        """One in each turn of the loop, so that those that compute hold up others for no more than one."""
        if self._waiting:
            self._open += 1
            group.create_task(self._answer(*self._waiting.popleft()))
            if self._telling is None:
                self._telling = asyncio.get_running_loop().call_later(TELL_S, self._tell)
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._start, group)

    async def _answer(self, call: wire.Call, since: float) -> None:
        """since: it may have come as early; the loop may have been busy."""
        answer: wire.Done | wire.Failed
        current_call.set(call.id)
        scope = asyncio.timeout(None)
        try:
            async with scope:
                answer = wire.Done(call.id, await self._result(call, scope, since))
        except BaseException as error:  # noqa: BLE001 - the handler's code may raise anything
            if isinstance(error, TimeoutError) and scope.expired():
                error = TimeoutError(f"took longer than {call.deadline_s:g} s")
            answer = failed(call.id, error)
        flush()
        self._open -= 1
        self._untold.pop(call.id, None)
        try:
            send_answer(self._channel, answer)
        except Closed:
            self._gone()

    async def _result(self, call: wire.Call, scope: asyncio.Timeout, since: float) -> bytes | None:
        """A sync handler cannot be interrupted: then the gateway ends the process, which is told by no answer."""
        steps, loop = self._program.steps(call), asyncio.get_running_loop()
        if not all(handler.is_async for handler, _ in steps):
            context = contextvars.copy_context()
            result, error = await loop.run_in_executor(self._sync, context.run, self._take_turn, call, loop, since)
            if error is not None:
                raise error
            return result
        self._begin(call.id, loop.time(), since)
        scope.reschedule(loop.time() + call.deadline_s)
        result = None
        for handler, arguments in steps:
            value = handler.run(*arguments)
            result = _first(result, await value if isawaitable(value) else value)
        return result

    def _take_turn(
        self, call: wire.Call, loop: asyncio.AbstractEventLoop, since: float
    ) -> tuple[bytes | None, BaseException | None]:
        """In the thread, which is the call's to its end: also while what it awaits runs on the loop. An error is
        returned, as a future does not carry every exception."""
        result = None
        try:
            self._begin(call.id, loop.time(), since)
            for handler, arguments in self._program.steps(call):  # whose deadline runs from now
                if handler.is_async:
                    value = _on_loop(loop, handler.run, *arguments)
                else:
                    value = handler.run(*arguments)
                    if isawaitable(value):
                        value = _on_loop(loop, lambda awaitable: awaitable, value)
                result = _first(result, value)
        except BaseException as error:  # noqa: BLE001 - the handler's code may raise anything
            return None, error
        return result, None

    def _begin(self, id_: int, now: float, since: float) -> None:
        """From either thread. Raises Closed, RequestFailed."""
        if now - since >= WAITED_S:
            self._channel.writer.send(wire.Begun(id_))
        else:
            self._untold[id_] = now

    def _tell(self) -> None:
        """Of what is not answered soon: otherwise it might be waiting as well."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        try:
            for id_, at in list(self._untold.items()):
                if now - at >= WAITED_S:
                    del self._untold[id_]
                    self._channel.writer.send(wire.Begun(id_, now - at))
        except (Closed, RequestFailed):
            self._gone()
        self._telling = loop.call_later(TELL_S, self._tell) if self._open else None


def _on_loop(loop: asyncio.AbstractEventLoop, run: Callable[..., Any], *arguments: Any) -> Any:
    """From the thread."""
    value, error = asyncio.run_coroutine_threadsafe(_awaited(run, arguments), loop).result()
    if error is not None:
        raise error
    return value


async def _awaited(run: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, BaseException | None]:
    try:
        value = run(*arguments)
        return await value if isawaitable(value) else value, None
    except BaseException as error:  # noqa: BLE001 - a future does not carry every exception
        return None, error


def _first(result: bytes | None, value: Any) -> bytes | None:
    """The first result that is one counts; each has to be one that can be sent."""
    if value is None:
        return result
    written = result_bytes(value)
    return written if result is None else result
