"""The gateway's clock is put back: no window throws away what comes then, and what was open is given; over restarts
too."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.messages import Message
from edge.rules import engine
from edge.rules.rule import Rule
from tests.rules.making import rule
from tests.rules.test_engine import House
from tests.rules.test_engine import rule as section

HOUR_MS = 3_600_000
KINDS = {
    "tumbling": "SELECT g, count(*) AS n FROM 'x' GROUP BY g, TUMBLINGWINDOW(ss, 10)",
    "long": "SELECT g, count(*) AS n FROM 'x' GROUP BY g, TUMBLINGWINDOW(hh, 2)",
    "by_topic": "SELECT topic() AS g, count(*) AS n FROM '#' GROUP BY topic(), TUMBLINGWINDOW(ss, 10)",
    "hopping": "SELECT g, count(*) AS n FROM 'x' GROUP BY g, HOPPINGWINDOW(ss, 10, 5)",
    "session": "SELECT g, count(*) AS n FROM 'x' GROUP BY g, SESSIONWINDOW(ss, 3)",
    "sliding": "SELECT g, 1 AS n, count(*) AS m FROM 'x' GROUP BY g, SLIDINGWINDOW(ss, 10)",
    "count": "SELECT g, count(*) AS n FROM 'x' GROUP BY g, COUNTWINDOW(3)",
    "join": "SELECT 1 AS n FROM 'x' AS a JOIN 'x' AS b ON a.i = b.i GROUP BY TUMBLINGWINDOW(ss, 10)",
    "hopping_join": "SELECT 1 AS n FROM 'x' AS a LEFT JOIN 'x' AS b ON a.i = b.i GROUP BY HOPPINGWINDOW(ss, 10, 5)",
}
TWICE = {"hopping", "hopping_join"}


def given_by(kind: str, clock: list[int], *, time: str, restarts: int = 0) -> list[Any]:
    """The rows of one message at each time of the clock; restarts: one after so many messages each."""

    def fresh() -> Rule:
        return rule(KINDS[kind], time=(time,) if time else (), lateness_ms=2_000)

    made, stored, found = fresh(), dict[str, bytes](), list[Any]()
    for at, now in enumerate(clock):
        found += made.tick(now)
        found += made.run([Message("x", b"")], [{"g": at % 2, "i": at, "t": now}], now)
        if restarts and at % restarts == 0:
            stored.update(made.state())
            assert made.counts == {}
            made = fresh()
            made.restore({name: raw for name, raw in stored.items() if raw})
    found += made.flush()
    assert made.counts == {}
    return [row for _, row in found]


@pytest.mark.parametrize("time", ["", "t"], ids=["arrival", "event"])
@pytest.mark.parametrize("ahead_ms", [30_000, HOUR_MS, 87_600 * HOUR_MS])
@pytest.mark.parametrize("kind", KINDS)
def test_what_comes_when_the_clock_was_put_back_counts_and_what_was_open_is_given(
    kind: str, ahead_ms: int, time: str
) -> None:
    start = 1_763_700_000_000
    clock = [*range(start + ahead_ms, start + ahead_ms + 20_500, 500), *range(start, start + 60_000, 500)]
    found = given_by(kind, clock, time=time)
    if kind == "count":
        assert len(found) == len(clock) // 3
    else:
        assert sum(row["n"] for row in found) == len(clock) * (2 if kind in TWICE else 1)
    assert given_by(kind, clock, time=time, restarts=7) == found


@pytest.mark.parametrize("kind", KINDS)
@given(steps=st.lists(st.integers(-100_000, 100_000) | st.integers(-3_000, 3_000), min_size=1, max_size=30))
@settings(max_examples=25, deadline=None)
def test_whatever_the_clock_does_each_message_counts_once_at_the_time_it_arrived(kind: str, steps: list[int]) -> None:
    clock = [10**9]
    for step in steps:
        clock.append(clock[-1] + step)
    found = given_by(kind, clock, time="")
    if kind != "count":
        assert sum(row["n"] for row in found) == len(clock) * (2 if kind in TWICE else 1)
    assert given_by(kind, clock, time="", restarts=1) == found


def test_by_little_the_time_of_arrival_stands_still_and_no_window_is_cut_in_two() -> None:
    made = rule("SELECT count(*) AS n, window_start() AS s FROM 'x' GROUP BY TUMBLINGWINDOW(ss, 10)")
    for now in (11_000, 12_000, 3_000, 9_000, 19_000):
        assert made.tick(now) + made.run([Message("x", b"")], [{}], now) == []
    assert made.tick(20_000) == [(None, {"n": 5, "s": 10_000})]


def test_a_sliding_window_holds_nothing_of_a_future_that_was_none() -> None:
    made = rule("SELECT count(*) AS n FROM 'x' GROUP BY SLIDINGWINDOW(ss, 10)")
    times = [HOUR_MS, HOUR_MS + 1, 1_000, 2_000, 11_500, HOUR_MS + 2]
    assert [row["n"] for now in times for _, row in made.run([Message("x", b"")], [{}], now)] == [1, 2, 1, 2, 2, 1]


def test_windows_of_a_clock_that_was_ahead_give_in_turns_before_more_is_taken_and_it_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engine, "ROWS_A_TURN", 2)
    house = House(
        section("r", "SELECT i, count(*) AS n FROM 'a' GROUP BY i, TUMBLINGWINDOW(ss, 10)")
        + section("f", "SELECT i FROM 'b'"),
        tmp_path,
    )
    house.now = HOUR_MS
    house.send(*[("a", b'{"i":%d}' % at) for at in range(5)])
    house.now = 5_000
    for _ in range(3):
        house.send(("a", b'{"i":9}'))
    outcomes = [outcome.name for _, outcome in house.sender.ended]
    assert outcomes == ["TAKEN", "CONGESTED", "CONGESTED", "TAKEN"]
    assert house.cloud.got == [("rule/r", b'{"i":%d,"n":1}' % at) for at in range(5)]
    assert house.asked_again == 2
    house.now = 10_000
    house.tick()
    assert house.cloud.got[5:] == [("rule/r", b'{"i":9,"n":1}')]
    assert house.count('rule_clock_set_back{rule="r"}') == 1
    (told,) = [vars(record)["fields"] for record in caplog.records if record.message == "rule_clock_set_back"]
    assert told == {"rule": "r", "set_back_ms": HOUR_MS - 5_000}
    house.now = 8_000  # by little: nobody is told
    house.send(("a", b'{"i":10}'))
    assert house.count('rule_clock_set_back{rule="r"}') == 1


def test_the_windows_of_a_silent_rule_are_given_when_the_clock_was_put_back(tmp_path: Path) -> None:
    house = House(section("r", "SELECT count(*) AS n FROM 'a' GROUP BY SESSIONWINDOW(ss, 10)"), tmp_path)
    house.now = HOUR_MS
    house.send(("a", b"{}"))
    house.now = 0
    house.tick()
    assert house.cloud.got == [("rule/r", b'{"n":1}')]


def test_a_window_that_opens_anew_in_the_commit_it_ended_in_leaves_nothing_of_its_first_life_behind() -> None:
    sql = "SELECT g, count(*) AS n FROM 'x' GROUP BY g, TUMBLINGWINDOW(hh, 2)"
    made, stored = rule(sql), dict[str, bytes]()
    for now, groups in ((200_000, "abc"), (200_001, "a"), (200_002, "b"), (100_000, "c")):
        made.run([Message("x", b"")] * len(groups), [{"g": g} for g in groups], now)
        stored.update(made.state())
    assert [name for name, raw in stored.items() if raw] == ["meta", "w0"]
    again = rule(sql)
    again.restore({name: raw for name, raw in stored.items() if raw})
    assert again.flush() == made.flush() == [(None, {"g": "c", "n": 1})]
