"""Rules that change while they work: what is unchanged keeps its windows, over a restart too."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from edge.messages import Outcome
from tests.rulelog.rig import Board, Cloud, House, rows

SUM = """
[[rule]]
name = "sum"
sql = "SELECT g, collect(c) AS c FROM 'dt/+' GROUP BY g, {window}"
time = "t"
lateness_s = {lateness}
to = ["{to}"]
"""
MORE = """
[[rule]]
name = "more"
sql = "SELECT {column} FROM 'dt/+'"
to = ["cloud"]
"""


def text(window: str = "COUNTWINDOW(4)", lateness: float = 0.0, to: str = "cloud", more: str = "") -> str:
    return SUM.format(window=window, lateness=lateness, to=to) + (MORE.format(column=more) if more else "")


async def play(folder: Path, cloud: Cloud, texts: list[str], *, restart: bool) -> House:
    """A few readings under each of the texts."""
    board = Board()
    house = House(texts[0], folder, cloud)
    house.router.attach("broker", cloud)
    house.start()
    for turn, now in enumerate(texts):
        if turn and restart:
            house.kill()
            house = House(now, folder, cloud)
            house.router.attach("broker", cloud)
            house.start()
        elif turn:
            house.change(now)
        house.send(range(1 + turn * 5, 6 + turn * 5), board)
        await house.rest()
    assert [number for _, number in board.acknowledged] == list(range(1, 1 + 5 * len(texts)))
    return house


@pytest.mark.parametrize("restart", [False, True])
def test_other_rules_bounds_and_ends_leave_a_rules_windows_alone(tmp_path: Path, restart: bool) -> None:
    texts = [
        text(),
        text(more="c"),
        text(lateness=5.0, more="c"),
        text(lateness=5.0, to="broker", more="t"),
        text(lateness=2.0),
    ]
    expected, found = Cloud(), Cloud()

    async def both() -> None:
        (await play(tmp_path / "plain", expected, [text()] * 5, restart=False)).stop()
        house = await play(tmp_path / "changed", found, texts, restart=restart)
        left = {key for key in house.stream.log.state if key.startswith("rule/")}
        assert not any(key.startswith("rule/more/") for key in left)
        house.stop()

    asyncio.run(both())
    wanted, got = (rows([one for _, one in cloud.got]) for cloud in (expected, found))
    assert got["rule/sum"] == wanted["rule/sum"]
    assert [msgspec.json.decode(row) for row in got["rule/more"]] == [
        *({"c": number * 5 % 13} for number in range(6, 16)),
        *({"t": number * 2 + number * 7 % 5} for number in range(16, 21)),
    ]


@pytest.mark.parametrize("restart", [False, True])
def test_a_rule_that_means_something_else_begins_anew(
    tmp_path: Path, restart: bool, caplog: pytest.LogCaptureFixture
) -> None:
    cloud = Cloud()

    async def run() -> None:
        window = "COUNTWINDOW(3)"
        (await play(tmp_path, cloud, [text(), text(window), text(window)], restart=restart)).stop()

    with caplog.at_level("WARNING"):
        asyncio.run(run())
    found = [msgspec.json.decode(row) for row in rows([one for _, one in cloud.got])["rule/sum"]]
    assert all(len(row["c"]) == 3 for row in found)
    assert {number for row in found for number in row["c"]} <= {number * 5 % 13 for number in range(6, 16)}
    assert [record.message for record in caplog.records] == ["rule_windows_dropped"]


def test_a_change_and_a_kill_right_after_it_leave_one_of_both(tmp_path: Path) -> None:
    async def run(wait_s: float) -> None:
        cloud, board = Cloud(), Board()
        house = House(text(), tmp_path / str(wait_s), cloud)
        house.start()
        house.send(range(1, 6), board)
        await house.rest()
        house.change(text("COUNTWINDOW(3)"))
        house.change(text("COUNTWINDOW(2)", more="c"))
        await asyncio.sleep(wait_s)
        house.kill()
        house = House(text("COUNTWINDOW(2)", more="c"), tmp_path / str(wait_s), cloud)
        house.start()
        house.send(range(6, 12), board)
        await house.rest()
        house.stop()
        assert [len(msgspec.json.decode(row)["c"]) for row in rows([one for _, one in cloud.got])["rule/sum"]] == [
            2
        ] * 3

    for wait_s in (0, 0.001, 0.01):
        asyncio.run(run(wait_s))


def test_rows_of_a_rule_that_went_are_refused_and_counted(tmp_path: Path) -> None:
    async def run() -> None:
        cloud, board = Cloud(), Board()
        cloud.answers = Outcome.CONGESTED
        house = House(text(more="c"), tmp_path, cloud)
        house.start()
        house.send(range(1, 4), board)
        while house.stream.is_busy:
            await asyncio.sleep(0.001)
        house.change(text())
        cloud.answers = Outcome.TAKEN
        await house.rest()
        assert house.stream.ledger.totals == {"refused": 3}
        assert house.stream.ledger.things["g/rule/more"][0].count == 3
        house.stop()

    asyncio.run(run())
