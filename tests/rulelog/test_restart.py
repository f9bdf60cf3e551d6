"""Windows, filters, marks and rows over kills, power cuts and restarts: the rows are those of an uninterrupted run."""

import asyncio
from pathlib import Path

import pytest

from edge.messages import Message, Outcome
from edge.rules import engine
from tests.log.disk import Disk, power_cuts
from tests.rulelog.rig import RULES, Board, Cloud, House, rows

READINGS, EACH = 66, 3


async def live(house: House, board: Board, first: int, *, each: int = EACH, until: int = READINGS) -> None:
    house.start()
    for number in range(first, until + 1, each):
        house.send(range(number, min(number + each, until + 1)), board)
        if number % 2:
            await house.rest()
    await house.rest()


def whole(folder: Path) -> dict[str, list[bytes]]:
    """The rows of a run that nothing interrupts."""
    cloud = Cloud()

    async def run() -> None:
        house = House(RULES, folder, cloud)
        await live(house, Board(), 1)
        house.stop()

    asyncio.run(run())
    found = rows([one for _, one in cloud.got])
    assert {topic: len(some) > 2 for topic, some in found.items()} == {
        f"rule/{name}": True
        for name in ("tumbling", "hopping", "session", "counted", "changed", "sliding", "join", "filtered", "on")
    }
    return found


@pytest.mark.parametrize(("each", "rows_a_turn"), [(1, 512), (4, 512), (13, 512), (13, 1), (22, 2)])
def test_kills_at_any_moment_change_no_row(
    tmp_path: Path, each: int, rows_a_turn: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = whole(tmp_path / "whole")
    monkeypatch.setattr(engine, "ROWS_A_TURN", rows_a_turn)
    cloud = Cloud()

    async def lives() -> None:
        done = 0
        for life in range(200):
            house, board = House(RULES, tmp_path, cloud), Board()
            house.start()
            for number in range(done + 1, READINGS + 1, each):  # all that is not acknowledged, again
                house.send(range(number, min(number + each, READINGS + 1)), board)
                for _ in range(life % 4):
                    await asyncio.sleep(0.001)
                if number > done + life % 3 * each:
                    break
            for _ in range(life % 5):
                await asyncio.sleep(0.001)
            house.kill()
            done = max([done, *(number for _, number in board.acknowledged)])
            if done == READINGS:
                break
        assert done == READINGS
        house, board = House(RULES, tmp_path, cloud), Board()
        house.start()
        await house.rest()
        house.stop()

    asyncio.run(lives())
    assert rows([one for _, one in cloud.got]) == expected


@pytest.mark.parametrize(("segment_bytes", "steps_a_turn"), [(32 * 1024, 4096), (1 << 20, 4096), (32 * 1024, 1)])
def test_a_power_cut_at_any_write_changes_no_row(
    tmp_path: Path, segment_bytes: int, steps_a_turn: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = whole(tmp_path / "whole")
    monkeypatch.setattr(engine, "STEPS_A_TURN", steps_a_turn)
    disk, before = Disk(), Disk()
    before.makedir("/rules")
    cloud, board = Cloud(lambda: len(disk.journal)), Board(lambda: len(disk.journal))

    async def first() -> None:
        house = House(RULES, tmp_path, cloud, files=disk, segment_bytes=segment_bytes)
        await live(house, board, 1)
        house.stop()

    asyncio.run(first())
    assert rows([one for _, one in cloud.got]) == expected
    count = 0

    async def go_on(after: Disk, sure: int, got: list[Message]) -> dict[str, list[bytes]]:
        later = Cloud()
        house = House(RULES, tmp_path, later, files=after, segment_bytes=segment_bytes)
        await live(house, Board(), sure + 1, each=8)
        house.stop()
        return rows([*got, *(one for _, one in later.got)])

    for cut in power_cuts(disk.journal, before, seed=1, random_choices=1):
        sure = max([0, *(number for at, number in board.acknowledged if at <= cut.operations)])
        got = [one for at, one in cloud.got if at <= cut.operations]
        found = asyncio.run(go_on(cut.disk, sure, got))
        assert found == expected, f"cut after {cut.operations} ({cut.choice}), {sure} acknowledged"
        count += 1
    assert count > 100


def test_an_end_that_takes_nothing_holds_up_its_own_rows_alone(tmp_path: Path) -> None:
    text = """
[[rule]]
name = "up"
sql = "SELECT t FROM 'dt/+'"
to = ["cloud"]
[[rule]]
name = "here"
sql = "SELECT t FROM 'dt/+'"
to = ["broker"]
"""

    async def lives() -> None:
        cloud, broker = Cloud(), Cloud()
        cloud.answers = Outcome.CONGESTED
        for life, numbers in enumerate([range(1, 5), range(5, 9)]):
            house, board = House(text, tmp_path, cloud), Board()
            house.router.attach("broker", broker)
            house.start()
            house.send(numbers, board)
            async with asyncio.timeout(10):
                while len(broker.got) < 4 * (life + 1) or house.stream.is_busy:
                    await asyncio.sleep(0.001)
            if not life:
                house.stop()
        assert [one.topic for _, one in broker.got] == ["rule/here"] * 8  # nothing twice over the restart
        cloud.answers = Outcome.TAKEN
        await house.rest()
        assert len(rows([one for _, one in cloud.got])["rule/up"]) == 8
        assert house.stream.sent().cursor == house.stream.log.next
        house.stop()

    asyncio.run(lives())


def test_a_rule_whose_state_is_not_understood_begins_anew_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cloud = Cloud()

    async def run() -> None:
        house, board = House(RULES, tmp_path, cloud), Board()
        house.start()
        house.send(range(1, 20), board)
        await house.rest()
        before = len(rows([one for _, one in cloud.got])["rule/counted"])
        house.stream.log.put_state("rule/counted/state/k.7", b"\xc1")
        house.stop()
        with caplog.at_level("WARNING"):
            house = House(RULES, tmp_path, cloud)
        house.start()
        house.send(range(20, 32), board)
        await house.rest()
        assert len(rows([one for _, one in cloud.got])["rule/counted"]) == before + 3
        assert not any(key.endswith("/k.7") for key in house.stream.log.state)
        house.stop()

    asyncio.run(run())
    told = [(record.message, vars(record)["fields"]) for record in caplog.records]
    assert told == [("rule_windows_dropped", {"rule": "counted", "reason": "damaged"})]


def test_more_ends_than_outlets_share_and_a_restart_repeats_nothing(tmp_path: Path) -> None:
    many = 11
    text = "".join(
        f'[[stream]]\nname = "s{n}"\nexport = ""\n'
        f'[[rule]]\nname = "r{n}"\nsql = "SELECT t FROM \'dt/+\'"\nto = ["stream:s{n}"]\n'
        for n in range(many)
    )
    ends = [Cloud() for _ in range(many)]

    async def life(numbers: range, stuck: set[int]) -> None:
        house = House(text, tmp_path, Cloud())
        for n, end in enumerate(ends):
            end.answers = Outcome.CONGESTED if n in stuck else Outcome.TAKEN
            house.router.attach(f"stream:s{n}", end)
        house.start()
        house.send(numbers, Board())
        async with asyncio.timeout(20):
            while house.stream.is_busy or any(
                len(rows([one for _, one in end.got]).get(f"rule/r{n}", ())) < numbers.stop - 1
                for n, end in enumerate(ends)
                if n not in stuck
            ):
                await asyncio.sleep(0.001)
        house.stop()

    async def lives() -> None:
        await life(range(1, 4), {0, 2})
        await life(range(4, 7), {2})
        await life(range(7, 10), set())

    asyncio.run(lives())
    for n, end in enumerate(ends):
        assert [one.topic for _, one in end.got] == [f"rule/r{n}"] * 9, n
