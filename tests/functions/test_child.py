"""The gateway's ends of a function's process: a real socket and pipes, and a process that ends when it is told."""

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from edge.functions.child import BITE_BYTES, READ_BYTES, Pipe, Process
from edge.functions.sandbox import Ending, Refused

ENDING = Ending("exited", 0, "exit status 0")


class Contained:
    """Ends when `over` is set."""

    pid = 1

    def __init__(self) -> None:
        self.reached: dict[str, str] = {}
        self.cpu_s = 0.0
        self.over = asyncio.Event()

    def kill(self) -> None:
        self.over.set()

    def memory_bytes(self) -> int:
        return 1

    async def wait(self) -> Ending:
        await self.over.wait()
        return ENDING


class Ear:
    """received: what is done with what is heard."""

    def __init__(self, received: Callable[[bytes], None]) -> None:
        self.received = received
        self.printed_lines: list[tuple[Pipe, bytes]] = []
        self.endings: list[Ending] = []

    def printed(self, pipe: Pipe, data: bytes) -> None:
        self.printed_lines.append((pipe, data))

    def tried(self, what: Refused, detail: str) -> None:
        """Nothing is, here."""

    def ended(self, ending: Ending) -> None:
        self.endings.append(ending)


@contextmanager
def made(received: Callable[[bytes], None]) -> Iterator[tuple[Process, Contained, Ear, socket.socket, int]]:
    """On the running loop: the process, what it is made of, its end of the socket and of its stderr."""
    ours, theirs = socket.socketpair()
    read, end = os.pipe()
    contained, ear = Contained(), Ear(received)
    process = Process(contained, ours, [(read, "stderr")], ear)
    try:
        with theirs:
            yield process, contained, ear, theirs, end
    finally:
        os.close(end)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


def test_what_the_socket_does_not_take_is_kept_and_goes_out_in_order() -> None:
    async def test() -> None:
        with made(lambda data: None) as (process, contained, _, theirs, _end):
            watching = asyncio.create_task(process.watch())
            data = os.urandom(1 << 20)
            for at in range(0, len(data), 1000):
                process.write(data[at : at + 1000])
            process.finish()
            assert process.unsent > 100_000
            theirs.setblocking(False)
            got = bytearray()
            while more := await asyncio.get_running_loop().sock_recv(theirs, READ_BYTES):
                got += more
            assert (got == data, process.unsent) == (True, 0)
            contained.over.set()
            await watching

    run(test)


def test_what_is_written_at_once_is_heard_in_pieces_so_that_others_have_their_turn() -> None:
    async def test() -> None:
        def received(data: bytes) -> None:
            heard.append(len(data))

        async def others() -> None:
            while sum(heard) < 150_000:
                turns.append(len(heard))
                await asyncio.sleep(0)

        heard: list[int] = []
        turns: list[int] = []
        with made(received) as (process, contained, _, theirs, _end):
            watching = asyncio.create_task(process.watch())
            theirs.sendall(bytes(150_000))
            await others()
            assert max(heard) <= READ_BYTES
            assert set(range(len(heard))) <= set(turns)
            contained.over.set()
            await watching

    run(test)


def test_one_that_says_more_than_it_may_is_heard_in_small_bites_until_it_says_less() -> None:
    async def test() -> None:
        def received(data: bytes) -> None:
            heard.append(len(data))
            if sum(heard) < 100_000:
                process.rest(0.001)

        heard: list[int] = []
        with made(received) as (process, contained, _, theirs, _end):
            watching = asyncio.create_task(process.watch())
            theirs.sendall(bytes(180_000))
            while sum(heard) < 180_000:
                await asyncio.sleep(0.001)
            assert heard[0] == READ_BYTES
            assert heard[1:5] == [BITE_BYTES] * 4
            assert max(heard[5:]) == READ_BYTES
            contained.over.set()
            await watching

    run(test)


def test_one_who_outlives_its_process_and_writes_on_does_not_hold_up_its_end() -> None:
    async def test() -> None:
        def received(data: bytes) -> None:
            heard.append(len(data))
            theirs.send(data)

        heard: list[int] = []
        with made(received) as (process, contained, ear, theirs, _end):
            theirs.send(b"on and on")
            contained.over.set()
            await process.watch()
            assert heard
            assert ear.endings == [ENDING]

    run(test)


def test_the_end_is_told_whatever_goes_wrong_with_its_last_words() -> None:
    async def test() -> None:
        def received(data: bytes) -> None:
            raise ValueError(data)

        with made(received) as (process, contained, ear, theirs, _end):
            theirs.send(b"last words")
            contained.over.set()
            with pytest.raises(ValueError, match="last words"):
                await process.watch()
            assert ear.endings == [ENDING]
            assert process.memory_bytes() == 0

    run(test)
