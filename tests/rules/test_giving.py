"""Windows that ended give their rows in slices: cut anywhere, killed anywhere, the rows are those of one piece."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.messages import Message
from edge.rules import journal
from edge.rules.rule import Rule
from tests.rules.making import rule, small_journals

KINDS = {
    "tumbling": "SELECT g, collect(c) AS c, window_end() AS e FROM 'x' GROUP BY g, TUMBLINGWINDOW(ms, 10)",
    "hopping": "SELECT g, sum(c) AS c, window_end() AS e FROM 'x' GROUP BY g, HOPPINGWINDOW(ms, 12, 4)",
    "having": "SELECT g, count(*) AS n FROM 'x' GROUP BY g, TUMBLINGWINDOW(ms, 10) HAVING n > 1",
    "session": "SELECT g, collect(c) AS c, window_start() AS s FROM 'x' GROUP BY g, SESSIONWINDOW(ms, 4)",
    "sliding": "SELECT g, collect(c) AS c, first(t) AS f FROM 'x' GROUP BY g, SLIDINGWINDOW(ms, 10)",
    "join": "SELECT a.g AS g, a.c AS c, b.c AS d, a.t AS t FROM 'x' AS a JOIN 'x' AS b ON a.g = b.g "
    "GROUP BY TUMBLINGWINDOW(ms, 10)",
    "hopping join": "SELECT a.g AS g, a.c AS c, b.c AS d, b.t AS t FROM 'x' AS a LEFT JOIN 'x' AS b "
    "ON a.g = b.g AND a.c < b.c GROUP BY HOPPINGWINDOW(ms, 12, 8)",
    "grouped join": "SELECT a.g AS g, collect(b.c) AS d, count(*) AS n FROM 'x' AS a JOIN 'x' AS b ON a.g = b.g "
    "GROUP BY a.g, HOPPINGWINDOW(ms, 12, 4)",
}
BOUNDS = {"tumbling": {"keys_max": 3}, "hopping": {"keys_max": 5}, "session": {"keys_max": 3}}
EVENTS = st.lists(st.tuples(st.integers(0, 60), st.sampled_from("xyz"), st.integers(0, 9)), max_size=50)
LIVES = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 12), st.booleans()), max_size=40)
Event = tuple[int, str, int]


def make(kind: str, *, bounded: bool) -> Rule:
    bounds = BOUNDS.get(kind, {"events_max": 9}) if bounded else {}
    return rule(KINDS[kind], time=("t",), lateness_ms=3, **bounds)


def take(made: Rule, events: list[Event]) -> list[Any]:
    docs = [{"t": t, "g": g, "c": c} for t, g, c in events]
    return [row for _, row in made.take([Message("x", b"")] * len(docs), docs, 1_000)]


def give(made: Rule, steps: int) -> list[Any]:
    found = []
    for row in made.give() if steps else ():
        found += [row] if row is not None else []
        steps -= 1
        if not steps:
            break
    return found


def whole(kind: str, events: list[Event], *, bounded: bool) -> list[Any]:
    made = make(kind, bounded=bounded)
    found = []
    for event in events:
        found += take(made, [event]) + give(made, 10**9)
    return found + [row for _, row in made.flush()]


@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@given(events=EVENTS, lives=LIVES, block=st.sampled_from([4, journal.BLOCK]))
@settings(max_examples=60, deadline=None)
def test_slices_and_kills_between_them_change_no_row_and_repeat_none(
    kind: str, bounded: bool, events: list[Event], lives: list[tuple[int, int, bool]], block: int
) -> None:
    expected = whole(kind, events, bounded=bounded)
    with small_journals(block):
        made, stored, found, at = make(kind, bounded=bounded), dict[str, bytes](), list[Any](), 0
        for many, steps, dies in lives:
            found += take(made, events[at : at + many]) + give(made, steps)
            at += many
            stored.update(made.state())
            stored = {name: raw for name, raw in stored.items() if raw}
            if dies:
                take(made, events[at : at + 20])  # goes on, then is killed
                give(made, steps + 5)
                made = make(kind, bounded=bounded)
                made.restore(stored)
                assert made.counts == {}
                assert {name: raw for name, raw in made.state().items() if raw} == {}
        found += take(made, events[at:]) + give(made, 10**9) + [row for _, row in made.flush()]
        stored.update(made.state())
    assert found == expected
    assert {name for name, raw in stored.items() if raw} <= {"meta"} or kind == "sliding"


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_forgotten_while_it_is_given_is_gone(kind: str) -> None:
    made = make(kind, bounded=False)
    events = [(t, "xyz"[t % 3], t) for t in range(30)]
    take(made, events)
    give(made, 1)
    stored = made.state()
    made.forget()
    assert not made.is_giving
    assert [row for _, row in made.flush()] == []
    stored.update(made.state())
    assert {name for name, raw in stored.items() if raw} <= {"meta"}


def test_what_is_due_holds_up_more_before_it_is_twice_what_may_be_open() -> None:
    made = rule(KINDS["tumbling"], time=("t",), keys_max=4)
    held = []
    for window in range(20):
        while made.is_behind:
            give(made, 2)
        take(made, [(window * 10, group, 1) for group in "wxyz"])
        held.append(made._memory.due_weight)
    assert 4 < max(held) <= 4 + 4 * 2
