import asyncio
import json
import os
import socket
import stat
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import pytest

from edge.control import BrokenOff, Control, ask_rows, ask_status, watch
from edge.errors import InputRejected, TransientError
from edge.messages import Message, Outcome, Properties, Reading
from edge.metrics import Metrics
from edge.router import Router


class Nobody:
    def settled(self, receipts: Sequence[int], outcome: Outcome) -> None:
        raise AssertionError("QoS 0 is never settled")


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[Router]:
    router = Router([], Metrics())
    control = Control(str(path), lambda: {"gateway": "g"}, router)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(control.run())
        while not path.exists():
            await asyncio.sleep(0.005)
        yield router
        task.cancel()


async def exchange(path: Path, line: bytes) -> dict[str, object]:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(line)
    answer: dict[str, object] = json.loads(await reader.readline())
    writer.close()
    return answer


def test_status_is_answered_and_the_socket_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"

    async def main() -> None:
        async with serving(path):
            assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
            assert await asyncio.to_thread(ask_status, str(path)) == {"gateway": "g"}

    asyncio.run(main())
    assert not path.exists()


def test_a_socket_left_by_a_killed_gateway_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"

    async def main() -> None:
        server = await asyncio.start_unix_server(lambda r, w: None, str(path))
        server.close()
        async with serving(path):
            while True:
                try:
                    assert await exchange(path, b'{"do": "status"}\n') == {"gateway": "g"}
                    break
                except ConnectionError:
                    await asyncio.sleep(0.005)

    asyncio.run(main())


def test_a_watcher_sees_what_its_filter_takes(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"

    async def main() -> None:
        async with serving(path) as router:
            reader, writer = await asyncio.open_unix_connection(str(path))
            writer.write(b'{"do": "watch", "filter": "dt/#"}\n')
            assert json.loads(await reader.readline()) == {"watching": "dt/#"}
            messages = [
                Message("dt/b1", b"21.5", reading=Reading("b1", 3, 9)),
                Message("other", b"x"),
                Message("dt/b2", b"\xff", retain=True, properties=Properties(response_topic="r")),
            ]
            router.route("board:b1", "b1", messages, Nobody())
            first, second = json.loads(await reader.readline()), json.loads(await reader.readline())
            assert (first["payload"], first["thing"], first["boot"], first["sequence"]) == ("21.5", "b1", 3, 9)
            assert (second["payload_base64"], second["retain"], second["response_topic"]) == ("/w==", True, "r")
            writer.close()

    asyncio.run(main())


def test_a_watcher_that_does_not_read_is_told_what_it_lost_and_memory_stays_bounded(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"

    async def main() -> None:
        async with serving(path) as router:
            reader, writer = await asyncio.open_unix_connection(str(path), limit=2**20)
            writer.write(b'{"do": "watch"}\n')
            await reader.readline()
            for _ in range(600):
                router.route("cloud", "", [Message("t", b"x" * 10_000)] * 10, Nobody())
                await asyncio.sleep(0)
            shown = 0
            while (row := json.loads(await reader.readline())).get("payload") != "last":
                shown += "topic" in row
                if "lost" in row:
                    break
                router.route("cloud", "", [Message("t", b"last")], Nobody())
            assert row["lost"] > 0
            assert shown < 6_000
            writer.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"\n", "bad_request"),
        (b"not json\n", "bad_request"),
        (b"\xff\xfe\n", "bad_request"),
        (b"[" * 30_000 + b"\n", "bad_request"),
        (b'{"do": "status", "more": 1}\n', "bad_request"),
        (b'{"do": 5}\n', "bad_request"),
        (b'{"do": "dance"}\n', "unknown_request"),
        (b'{"do": "watch", "filter": "a/#/b"}\n', "filter_wildcard"),
        (b'"' + b"x" * 70_000 + b'"\n', "bad_request"),
    ],
)
def test_a_hostile_request_gets_an_error_and_the_next_one_is_served(tmp_path: Path, line: bytes, error: str) -> None:
    path = tmp_path / "control.sock"

    async def main() -> None:
        async with serving(path):
            assert (await exchange(path, line))["error"] == error
            assert await exchange(path, b'{"do": "status"}\n') == {"gateway": "g"}

    asyncio.run(main())


def test_no_gateway_is_said_with_the_place_and_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(TransientError, match="Is the gateway running"):
        ask_status(str(tmp_path / "none.sock"))
    with pytest.raises(TransientError, match=r"none\.sock"):
        next(watch(str(tmp_path / "none.sock"), "#"))


def test_a_refused_watch_raises_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"

    async def main() -> None:
        async with serving(path):
            with pytest.raises(InputRejected, match="filter_wildcard"):
                await asyncio.to_thread(lambda: next(watch(str(path), "a#")))

    asyncio.run(main())


def test_a_gateway_that_ends_before_its_answer_does_is_told_from_one_that_has_nothing_to_say(tmp_path: Path) -> None:
    """Killed with the question unread, after it, within a row, between two rows; and what a whole answer is."""
    path = str(tmp_path / "control.sock")
    whole = b'{"n":1}\n{"n":2}\n{"rows":2}\n'

    def serve(listener: socket.socket, read: bool, answer: bytes) -> None:
        connection, _ = listener.accept()
        while read and not connection.recv(4096).endswith(b"\n"):
            pass
        connection.sendall(answer)
        if not read:
            connection.recv(1)  # the rest is unread: its end resets the connection
        connection.close()

    for read, answer, count in ((False, b"", 0), (True, b"", 0), (True, whole[:5], 0), (True, whole[:20], 2)):
        found: list[object] = []
        with broken_off(path, partial(serve, read=read, answer=answer)), pytest.raises(BrokenOff, match="Ask again"):
            found.extend(ask_rows(path, "stream"))
        assert len(found) == count
    with broken_off(path, partial(serve, read=False, answer=b"")), pytest.raises(TransientError, match="Ask again"):
        ask_status(path)
    with broken_off(path, partial(serve, read=True, answer=whole)):
        assert list(ask_rows(path, "stream")) == [{"n": 1}, {"n": 2}]
    with broken_off(path, partial(serve, read=True, answer=b'{"rows":0}\n')):
        assert list(ask_rows(path, "stream")) == []


@contextmanager
def broken_off(path: str, serve: Callable[[socket.socket], None]) -> Iterator[None]:
    """Somebody answers one question there, and is gone."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen()
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        try:
            yield
        finally:
            thread.join()
            os.unlink(path)
