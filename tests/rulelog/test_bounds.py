"""The rules' log at its bound: rows are shed by the declared policy and counted, or sources keep what they have."""

import asyncio
import random
from pathlib import Path

import pytest

from edge.config import STREAM_BYTES_LEAST
from edge.messages import Message, Outcome, Reading
from edge.outbox.sizes import segment_bytes
from edge.rulelog.rulelog import STATE_SHARE
from tests.rulelog import rig
from tests.rulelog.rig import Board, Cloud, House, rows

RULE = """
[[rule]]
name = "all"
sql = "SELECT * FROM 'dt/+'"
to = ["cloud"]
[[rule]]
name = "here"
sql = "SELECT g FROM 'dt/+'"
to = ["broker"]
"""


def batch(numbers: range) -> list[Message]:
    noise = random.Random(numbers.start)
    return [
        Message(
            "dt/b1", b'{"g":%d,"pad":"%s"}' % (n, noise.randbytes(2000).hex().encode()), 1, False, n, None,
            Reading("b1", 1, n),
        )
        for n in numbers
    ]  # fmt: skip


JOIN = """
[[rule]]
name = "join"
sql = "SELECT a.pad AS pad FROM 'dt/+' AS a JOIN 'dt/b1' AS b ON a.g = b.g GROUP BY TUMBLINGWINDOW(ss, 1000)"
time = "g"
to = ["cloud"]
[[rule]]
name = "small"
sql = "SELECT count(*) AS n FROM 'dt/+' GROUP BY COUNTWINDOW(10)"
to = ["cloud"]
"""
SLIDING = """
[[rule]]
name = "sliding"
sql = "SELECT collect(pad) AS p, last(g) AS g, count(*) AS n FROM 'dt/+' GROUP BY SLIDINGWINDOW(ss, 1000)"
time = "g"
to = ["cloud"]
"""
GROWING = """
[[rule]]
name = "growing"
sql = "SELECT last(pad) AS p, count(*) AS n FROM 'dt/+' GROUP BY mod(g, 60), COUNTWINDOW(5)"
to = ["cloud"]
"""


@pytest.mark.parametrize("text", [JOIN, SLIDING, GROWING])
def test_what_rules_remember_never_takes_the_room_of_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    bytes_max = STREAM_BYTES_LEAST
    monkeypatch.setattr(rig, "HEAD", rig.HEAD.replace("[rules]", f"[rules]\nbytes_max = {bytes_max}"))
    many = 600

    async def run() -> None:
        cloud, board = Cloud(), Board()
        house = House(text, tmp_path, cloud, segment_bytes=segment_bytes(bytes_max))
        house.start()
        most = 0
        for first in range(1, many, 10):
            house.router.route("board:b1", "b1", batch(range(first, first + 10)), board)
            await house.rest()
            most = max(most, sum(len(key) + len(raw) for key, raw in house.stream.log.state.items()))
            assert house.stream.log.bytes_held <= bytes_max
            async with asyncio.timeout(20):
                while not house.log.has_room():  # with the commit of the cursor
                    await asyncio.sleep(0.001)
        assert (board.congested, len(board.acknowledged)) == ([], many)
        assert most < bytes_max // STATE_SHARE + 1024
        house.log.tick()
        counts = house.metrics.snapshot()
        if text is GROWING:
            assert counts['rule_states_dropped{rule="growing"}'] >= 1
        else:
            name = "join" if text is JOIN else "sliding"
            assert counts[f'rule_dropped{{reason="state_max",rule="{name}"}}'] > 100
        if text is JOIN:
            assert len(rows([one for _, one in cloud.got])["rule/small"]) == many // 10
            later = Message("dt/b1", b'{"g":2000000}', 1, False, many + 1, None, Reading("b1", 1, many + 1))
            house.router.route("board:b1", "b1", [later], board)
            await house.rest()
            assert len(rows([one for _, one in cloud.got])["rule/join"]) > 10  # what was held is paired
        house.stop()

    asyncio.run(run())


@pytest.mark.parametrize("policy", ["drop_oldest", "reject"])
def test_what_finds_no_room_is_shed_and_counted_or_kept_by_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    bound = f'commit = "every message"\nbytes_max = 2097152\nwhen_full = "{policy}"'
    monkeypatch.setattr(rig, "HEAD", rig.HEAD.replace('commit = "every message"', bound))
    many = 1500

    async def run() -> None:
        cloud, broker, board = Cloud(), Cloud(), Board()
        cloud.answers = Outcome.CONGESTED
        house = House(RULE, tmp_path, cloud, segment_bytes=256 * 1024)
        house.router.attach("broker", broker)
        house.start()
        for first in range(1, many, 10):
            house.router.route("board:b1", "b1", batch(range(first, first + 10)), board)
            while house.stream.is_busy:
                await asyncio.sleep(0.001)
            if board.congested:
                break
        taken = len(board.acknowledged)
        assert house.stream.log.bytes_held <= 2097152
        async with asyncio.timeout(20):
            while len(broker.got) < taken:
                await asyncio.sleep(0.001)
        cloud.answers = Outcome.TAKEN
        await house.rest()
        shed = house.stream.ledger.totals
        if policy == "reject":
            assert (taken < many, shed) == (True, {})
            assert len(cloud.got) == taken
            async with asyncio.timeout(20):
                while not house.log.has_room():  # with the commit of the cursor
                    await asyncio.sleep(0.001)
            house.router.route("board:b1", "b1", batch(range(taken + 1, taken + 11)), board)
            await house.rest()
            assert len(board.acknowledged) == taken + 10
        else:
            assert taken == many
            left = {one.reading for _, one in cloud.got}
            assert shed == {"dropped_oldest": many - len(left)}  # not one of those that the broker took
            assert shed["dropped_oldest"] > 100
            assert list(house.stream.ledger.things) == ["g/rule/all"]
        house.stop()

    asyncio.run(run())
