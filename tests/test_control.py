import asyncio
import json
import os
import stat
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from edge.control import Control, ask_status, watch
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
