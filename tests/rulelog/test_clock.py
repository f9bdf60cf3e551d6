"""Windows by the gateway's clock, which is put back in the middle: a kill changes no row, and none is missing."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from edge.messages import Message, Reading
from edge.rules import engine
from tests.rulelog.rig import BY_THE_CLOCK, Board, Cloud, House, reading, rows

READINGS, PUT_RIGHT = 60, 31
START_MS = 960_000_000


def clock(number: int) -> int:
    """When a reading comes: the first thirty by a clock that is two minutes ahead."""
    if number < PUT_RIGHT:
        return START_MS + 120_000 + number * 3_000
    return START_MS + (number - PUT_RIGHT) * 3_000


def send(house: House, number: int, board: Board) -> None:
    house.now_ms = clock(number)
    payload = msgspec.json.encode({**reading(number), "now": clock(number)})
    message = Message("dt/b1", payload, 1, False, number, None, Reading("b1", 1, number))
    house.router.route("board:b1", "b1", [message], board)


async def life(folder: Path, cloud: Cloud, first: int, until: int, turns: int) -> int:
    """Sends the readings from the first on, each until it is taken; killed so many turns of the loop after the last.
    The newest that is acknowledged."""
    house, board = House(BY_THE_CLOCK, folder, cloud), Board()
    house.start()
    for number in range(first, until + 1):
        send(house, number, board)
        while number in board.congested:
            board.congested.clear()
            await asyncio.sleep(0)
            send(house, number, board)
    if turns < 0:
        await house.rest()
    for _ in range(turns):
        await asyncio.sleep(0)
    house.kill()
    return max([first - 1, *(number for _, number in board.acknowledged)])


@pytest.mark.parametrize("rows_a_turn", [512, 1])
def test_kills_around_the_moment_at_which_the_clock_is_put_back_change_no_row(
    tmp_path: Path, rows_a_turn: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Cloud()
    asyncio.run(life(tmp_path / "whole", whole, 1, READINGS, -1))
    expected = rows([one for _, one in whole.got])
    count = sum(msgspec.json.decode(row)["n"] for row in expected["rule/tumbling"])
    assert count > READINGS - 10  # all but the last windows
    assert len(expected["rule/sliding"]) == READINGS
    assert sum(len(msgspec.json.decode(row)["c"]) for row in expected["rule/in_the_payload"]) == PUT_RIGHT - 1
    monkeypatch.setattr(engine, "ROWS_A_TURN", rows_a_turn)
    for turns in range(0, 24, 2 if rows_a_turn == 1 else 8):
        folder, cloud = tmp_path / f"killed{turns}", Cloud()
        done = asyncio.run(life(folder, cloud, 1, PUT_RIGHT - 2, -1))
        for until in (PUT_RIGHT, PUT_RIGHT, PUT_RIGHT + 1):
            done = asyncio.run(life(folder, cloud, done + 1, until, turns))
        asyncio.run(life(folder, cloud, done + 1, READINGS, -1))
        assert rows([one for _, one in cloud.got]) == expected, turns
