"""Runs calls one after the other, in the main thread: for functions whose handlers are all sync."""

import sys
from collections.abc import Coroutine
from types import CoroutineType
from typing import Any

from edge.functions import wire
from edge.functions.api import current_call, encoded
from edge.functions.channel import Channel, Closed
from edge.functions.failures import describe
from edge.functions.handlers import is_async
from edge.functions.program import Program


def run(program: Program, channel: Channel) -> None:
    """Until the gateway says stop, or goes."""
    try:
        while True:
            asked = channel.receive()
            if isinstance(asked, wire.Call):
                answer = _answer(program, asked)
                flush()
                send_answer(channel, answer)
            elif isinstance(asked, wire.Stop):
                return
    except Closed:
        return


def _answer(program: Program, call: wire.Call) -> wire.Done | wire.Failed:
    """Whatever the handler does, even sys.exit, ends in one of the two. Each handler that takes it runs; the first
    result that is one counts."""
    result = None
    current_call.set(call.id)
    try:
        for handler, arguments in program.steps(call):
            value = handler.run(*arguments)
            if isinstance(value, CoroutineType) and is_async(handler.run):
                value = _awaited(value)
            if value is not None:
                value = result_bytes(value)
                result = value if result is None else result
        return wire.Done(call.id, result)
    except BaseException as error:  # noqa: BLE001 - the handler's code may raise anything
        return failed(call.id, error)
    finally:
        current_call.set(0)


def _awaited(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Of a handler that wraps an async one."""
    import asyncio

    return asyncio.run(coroutine)


def result_bytes(value: Any) -> bytes:
    """Raises PayloadInvalid, TypeError, ValueError."""
    if isinstance(value, CoroutineType):
        value.close()
        raise TypeError("the handler returned a coroutine: make it `async def`")
    result = encoded(value)
    if len(result) > wire.FRAME_BYTES_MAX - 64:
        raise ValueError(f"a result of {len(result)} bytes; at most {wire.FRAME_BYTES_MAX - 64}")
    return result


def failed(call: int, error: BaseException) -> wire.Failed:
    try:
        return wire.Failed(call, *describe(error))
    except MemoryError:
        return wire.Failed(call, "MemoryError", "no memory left, not even to tell where", "")


def send_answer(channel: Channel, answer: wire.Done | wire.Failed) -> None:
    """But for a fork of the worker by the handler's code: that one answers nothing, and ends. Raises Closed."""
    if channel.writer.forked:
        raise Closed("a fork")
    channel.writer.send(answer)


def flush() -> None:
    """A print without a line's end is seen before its call is answered. The handler may have closed the streams."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BaseException:  # noqa: BLE001, S112 - the function's own stream, or None
            continue
