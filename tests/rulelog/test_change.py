"""Rules that change while they work: what is unchanged keeps its windows, over a restart too."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from edge.messages import Outcome
from edge.rulelog import rulelog
from edge.rules import engine
from edge.rules.payloads import Decoder, decoder
from tests.rulelog.rig import Board, Cloud, House, message, reading, rows

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


READERS = """
[[rule]]
name = "one"
sql = "SELECT g, sum(c) AS s FROM 'dt/+' GROUP BY g, COUNTWINDOW(2)"
from = ["broker"]
to = ["cloud"]
"""
MORE_READERS = """
[[rule]]
name = "two"
sql = "SELECT c FROM 'dt/+'"
from = ["broker", "boards"]
to = ["cloud"]
[[rule]]
name = "three"
sql = "SELECT t FROM 'dt/+'"
from = ["board:b1"]
to = ["cloud"]
"""
BOARD = '[[board]]\nname = "b1"\nport = "/dev/null"\n'


def test_a_payload_is_decoded_once_whatever_rules_read_it_and_while_they_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[bytes] = []

    def counting(form: str, columns: Sequence[str]) -> Decoder:
        decode = decoder(form, columns)
        return lambda payload: decoded.append(payload) or decode(payload)  # type: ignore[func-returns-value]

    monkeypatch.setattr(rulelog, "decoder", counting)
    both = BOARD + READERS + MORE_READERS

    async def run() -> None:
        cloud, board = Cloud(), Board()
        house = House(BOARD + READERS, tmp_path, cloud)
        house.start()
        sent = 0
        for turn, now in enumerate([BOARD + READERS, both, both, BOARD + READERS]):
            if turn == 2:
                house.kill()
                house = House(now, tmp_path, cloud)
                house.start()
            elif turn:
                house.change(now)
            for source in ("broker", "board:b1"):
                sent += 1
                one = msgspec.structs.replace(message(sent), reading=None) if source == "broker" else message(sent)
                one = msgspec.structs.replace(one, payload=b'{"g":"a","c":%d,"t":%d}' % (sent, turn))
                house.router.route(source, "b1", [one], board)
                await house.rest()
        house.stop()
        found = rows([one for _, one in cloud.got])
        assert found["rule/one"] == [b'{"g":"a","s":4}', b'{"g":"a","s":12}']
        assert found["rule/two"] == [b'{"c":%d}' % number for number in (3, 4, 5, 6)]
        assert found["rule/three"] == [b'{"t":1}', b'{"t":2}']
        refused = 'messages_refused{reason="no_route",source="board:b1"}'
        assert house.count(refused) == 1  # of the last life, when no rule read it any more

    asyncio.run(run())
    assert len(decoded) == 8 - 2


def test_what_a_gateway_before_this_one_kept_keeps_none_from_starting(tmp_path: Path) -> None:
    async def run() -> None:
        cloud, board = Cloud(), Board()
        house = House(text(), tmp_path, cloud)
        house.start()
        house.send(range(1, 3), board)
        await house.rest()
        log = house.stream.log
        state = {key: raw for key, raw in log.state.items() if key.startswith(("seen/", "rule/"))}
        assert any(key.startswith("seen/") for key in state)
        log.put_state("seen/0123456789ab/b1", next(raw for key, raw in state.items() if key.startswith("seen/")))
        log.put_state("rule/sum/plan", b"of version 1")
        log.put_state("rule/sum/state/meta", msgspec.msgpack.encode([1, 2]))
        house.stop()
        house = House(text(), tmp_path, cloud)
        house.start()
        house.send(range(3, 7), board)
        await house.rest()
        assert not any(key.startswith("seen/0123456789ab/") for key in house.stream.log.state)
        house.stop()
        assert len(board.acknowledged) == 6
        assert house.count('rule_messages_in{rule="sum"}') == 4

    asyncio.run(run())


def test_a_window_that_is_being_given_goes_on_under_a_rule_with_another_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "ROWS_A_TURN", 1)
    window = "TUMBLINGWINDOW(ms, 1000)"

    async def run() -> None:
        cloud, board = Cloud(), Board()
        house = House(text(window).replace("SELECT g,", "SELECT t,").replace("BY g,", "BY t,"), tmp_path, cloud)
        house.router.attach("broker", cloud)
        house.start()
        house.send(range(1, 30), board)
        await house.rest()
        later = msgspec.structs.replace(message(30), payload=b'{"t":5000,"c":1}')
        house.router.route("board:b1", "b1", [later], board)
        house.change(text(window, to="broker").replace("SELECT g,", "SELECT t,").replace("BY g,", "BY t,"))
        await asyncio.sleep(0)
        await house.rest()
        house.stop()
        found = rows([one for _, one in cloud.got])["rule/sum"]
        expected = dict.fromkeys(reading(number)["t"] for number in range(1, 30))
        assert [msgspec.json.decode(row)["t"] for row in found] == [*expected]

    asyncio.run(run())
