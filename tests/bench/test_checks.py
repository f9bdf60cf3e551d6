"""What the benches of rules and of the chain hold against what arrived."""

import msgspec
import pytest

from edge.mqtt.packets import Publish
from tests.bench import bench_chain, window
from tests.bench.figures import NoFigure
from tests.bench.relay.raw import payload


def rows(expected: dict[str, list[bytes]]) -> list[Publish]:
    return [Publish(topic, row) for topic, of_topic in expected.items() for row in of_topic]


def test_rows_of_windows_are_right_when_each_came_in_order_perhaps_twice() -> None:
    expected = window._expected(2)
    assert len(expected) == window.SOURCES
    first = msgspec.json.decode(expected["mean/b7"][0])
    assert (first["board"], first["n"], first["start"] % (window.WINDOW_S * 1000)) == ("b7", window.TURNS, 0)
    found = rows(expected)
    window._check_rows([Publish(window.READY, b""), *found[:5], found[4], *found[5:]], expected)
    for wrong in (found[1:], [found[1], found[0], *found[2:]], [*found[1:], Publish(found[0].topic, b"{}")]):
        with pytest.raises(NoFigure, match="rows of windows"):
            window._check_rows(wrong, expected)


def mean(board: str, numbers: range, *, off: float = 0.0) -> Publish:
    values = [msgspec.json.decode(payload(number))["c"] for number in numbers]
    row = {"board": board, "c": sum(values) / len(values) + off, "n": len(values)}
    return Publish(f"mean/{board}", msgspec.json.encode(row))


def test_means_account_for_every_reading_and_say_what_the_readings_do() -> None:
    sent = {"board0": range(5), "board1": range(5, 10)}
    whole = [mean("board0", range(3)), mean("board1", range(5, 10)), mean("board0", range(3, 5))]
    assert bench_chain._means_are_whole(whole, sent)
    assert not bench_chain._means_are_whole(whole[:2], sent)
    for wrong in ([*whole, mean("board0", range(1))], [mean("board0", range(5), off=0.1), whole[1]]):
        with pytest.raises(NoFigure, match="means of board0"):
            bench_chain._means_are_whole(wrong, sent)


def test_alarms_and_what_was_told_of_them_are_those_that_were_due() -> None:
    sent = {"board0": range(500)}
    due = []
    for number in sent["board0"]:
        fields = msgspec.json.decode(payload(number))
        if fields["c"] > bench_chain.ABOVE_C:
            due.append(msgspec.json.encode({"board": "board0", "n": fields["n"], "c": fields["c"]}))
    assert len(due) >= 3
    found = [Publish(f"{kind}/board0", row) for kind in ("alarm", "told") for row in due]
    bench_chain._check_alarms([*found, found[0]], sent)
    for wrong in (found[:-1], [*found[:-2], found[-1], found[-2]], [*found, Publish("told/board0", b"{}")]):
        with pytest.raises(NoFigure, match="told/board0"):
            bench_chain._check_alarms(wrong, sent)
