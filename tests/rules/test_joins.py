"""Joins of two topics within a window: against a naive evaluator, over restarts, their bounds and their mistakes."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.messages import Message
from edge.rules import journal
from edge.rules.joins import Joining
from edge.rules.rule import Rule
from tests.rules.making import rule, small_journals

PAIRS = "SELECT topic(2, a) AS board, a.c AS c, b.rh AS rh, b.t AS bt FROM 'dt/+/temp' AS a"
ON = "JOIN 'dt/+/hum' AS b ON topic(2, a) = topic(2, b)"
WINDOWS = {"tumbling": ("TUMBLINGWINDOW(ms, 10)", 10, 10), "hopping": ("HOPPINGWINDOW(ms, 10, 4)", 10, 4)}
Event = tuple[int, str, str, Any]
EVENTS = st.lists(
    st.tuples(
        st.integers(0, 60), st.sampled_from("xyz"), st.sampled_from(["temp", "hum"]), st.none() | st.integers(0, 9)
    ),
    max_size=50,
)


def joined(kind: str, how: str, lateness_ms: int = 3, more: str = "", **settings: Any) -> Rule:
    return rule(
        f"{PAIRS} {how} {ON}{more} GROUP BY {WINDOWS[kind][0]}", time=("t",), lateness_ms=lateness_ms, **settings
    )


def run(made: Rule, events: list[Event], size: int = 7) -> list[Any]:
    found = []
    for at in range(0, len(events), size):
        part = events[at : at + size]
        messages = [Message(f"dt/{board}/{what}", b"") for _, board, what, _ in part]
        docs = [{"t": t, "c" if what == "temp" else "rh": value} for t, _, what, value in part]
        found += made.run(messages, docs, 100)
    return [row for _, row in found]


def flushed(made: Rule) -> list[Any]:
    return [row for _, row in made.flush()]


def reference(events: list[Event], kind: str, lateness: int, *, outer: bool) -> tuple[list[Any], int]:
    _, size, step = WINDOWS[kind]
    mark, late = -(10**9), 0
    windows: dict[int, list[Event]] = {}
    for event in events:
        t = event[0]
        mark = max(mark, t)
        starts = [start for start in range(-12, 64) if start % step == 0 and start <= t < start + size]
        live = [start for start in starts if start + size > mark - lateness]
        late += not live
        for start in live:
            windows.setdefault(start, []).append(event)
    rows: list[Any] = []
    for start in sorted(windows):
        members = sorted(windows[start], key=lambda event: event[0])
        for t, board, what, c in members:
            if what != "temp":
                continue
            others = [one for one in members if one[2] == "hum" and one[1] == board]
            rows += [{"board": board, "c": c, "rh": rh, "bt": bt} for bt, _, _, rh in others]
            if outer and not others:
                rows.append({"board": board, "c": c, "rh": None, "bt": None})
            assert t >= start
    return rows, late


@pytest.mark.parametrize("kind", WINDOWS)
@pytest.mark.parametrize("how", ["INNER", "LEFT"])
@given(events=EVENTS, lateness=st.sampled_from([0, 3, 20]))
@settings(max_examples=80, deadline=None)
def test_pairs_are_those_of_the_naive_evaluator_late_and_out_of_order_too(
    kind: str, how: str, events: list[Event], lateness: int
) -> None:
    made = joined(kind, how, lateness)
    found = run(made, events) + flushed(made)
    expected, late = reference(events, kind, lateness, outer=how == "LEFT")
    assert found == expected
    assert made.counts.get("late", 0) == late


@pytest.mark.parametrize("kind", WINDOWS)
@pytest.mark.parametrize("block", [4, journal.BLOCK])
@given(events=EVENTS, cuts=st.lists(st.integers(0, 50), max_size=6), size=st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_a_crash_a_restore_and_a_replay_give_what_an_uninterrupted_run_gives(
    block: int, kind: str, events: list[Event], cuts: list[int], size: int
) -> None:
    with small_journals(block):
        check_restarts(kind, events, cuts, size)


def check_restarts(kind: str, events: list[Event], cuts: list[int], size: int) -> None:
    whole = joined(kind, "LEFT")
    expected = run(whole, events) + flushed(whole)
    made, stored, found, at = joined(kind, "LEFT"), dict[str, bytes](), list[Any](), 0
    for cut in sorted(min(cut, len(events)) for cut in cuts):
        found += run(made, events[at:cut], size)
        stored.update(made.state())
        stored = {name: raw for name, raw in stored.items() if raw}
        at = cut
        run(made, events[at:], size)  # goes on, then is killed
        made = joined(kind, "LEFT")
        made.restore(stored)
        assert made.counts == {}
        assert {name: raw for name, raw in made.state().items() if raw} == {}
    found += run(made, events[at:], size) + flushed(made)
    assert found == expected


def test_pairs_are_grouped_and_aggregated() -> None:
    sql = (
        "SELECT topic(2, a) AS board, avg(a.c - b.c) AS d, count(*) AS n, count(b.c) AS nb, window_end() AS e "
        "FROM 'dt/+/temp' AS a LEFT JOIN 'dt/+/hum' AS b ON topic(2, a) = topic(2, b) "
        "GROUP BY board, TUMBLINGWINDOW(ms, 10) HAVING n > 1"
    )
    docs: list[tuple[str, Any]] = [
        ("dt/x/temp", {"t": 1, "c": 5}), ("dt/x/temp", {"t": 2, "c": 7}), ("dt/x/hum", {"t": 3, "c": 1}),
        ("dt/y/temp", {"t": 3, "c": 1}), ("dt/x/hum", {"t": 12, "c": 1}),
    ]  # fmt: skip
    made = rule(sql, time=("t",))
    found = made.run([Message(topic, b"") for topic, _ in docs], [doc for _, doc in docs], 100)
    assert found == [(None, {"board": "x", "d": 5.0, "n": 2, "nb": 2, "e": 10})]


def test_conditions_stand_where_sql_has_them() -> None:
    events: list[Event] = [(1, "x", "temp", 5), (2, "x", "hum", 50), (3, "x", "hum", 3), (4, "y", "temp", 1)]

    def rows(how: str, more: str) -> list[tuple[Any, Any]]:
        made = joined("tumbling", how, more=more)
        run(made, events)
        return [(row["c"], row["rh"]) for row in flushed(made)]

    assert rows("INNER", "") == [(5, 50), (5, 3)]
    assert rows("LEFT", " AND b.rh > 9") == [(5, 50), (1, None)]
    assert rows("LEFT", " AND b.rh > a.c * 10") == [(5, None), (1, None)]
    assert rows("LEFT", " AND a.c > 2") == [(5, 50), (5, 3), (1, None)]
    assert rows("INNER", " AND a.c < 2") == []
    assert rows("LEFT", " WHERE b.rh IS NULL") == [(1, None)]
    assert rows("LEFT", " WHERE a.c > 2") == [(5, 50), (5, 3)]
    assert rows("LEFT", " WHERE b.rh > 9") == [(5, 50)]
    assert rows("INNER", " WHERE b.rh > a.c AND a.c > 0") == [(5, 50)]


def test_null_is_equal_to_nothing_and_a_truth_to_no_number() -> None:
    sql = "SELECT a.i AS i, b.j AS j FROM 'a' AS a LEFT JOIN 'b' AS b ON a.i = b.j GROUP BY TUMBLINGWINDOW(ss, 1)"
    made = rule(sql)
    for topic, doc in [("a", {"i": None}), ("b", {"j": None}), ("a", {"i": True}), ("b", {"j": 1}), ("a", {"i": 1.0})]:
        made.run([Message(topic, b"")], [doc], 1)
    made.run([Message("a", b"")], [{"i": [1]}], 1)
    assert [tuple(row.values()) for _, row in made.tick(1000)] == [(None, None), (True, None), (1.0, 1)]
    assert made.counts == {"group": 1}


def test_a_topic_that_both_filters_take_is_on_both_sides() -> None:
    sql = (
        "SELECT a.c AS c, b.c AS mean FROM 'dt/#' AS a JOIN 'dt/ref' AS b ON a.t = b.t GROUP BY TUMBLINGWINDOW(ms, 10)"
    )
    made = rule(sql, time=("t",))
    made.run([Message("dt/ref", b""), Message("dt/x", b"")], [{"t": 1, "c": 1}, {"t": 1, "c": 2}], 100)
    assert flushed(made) == [{"c": 1, "mean": 1}, {"c": 2, "mean": 1}]


def test_windows_of_arrival_time_close_by_the_clock() -> None:
    made = rule(f"{PAIRS} INNER {ON} GROUP BY TUMBLINGWINDOW(ss, 10)")
    made.run([Message("dt/x/temp", b""), Message("dt/x/hum", b"")], [{"c": 1}, {"rh": 2}], 12_000)
    assert made.tick(19_999) == []
    assert made.tick(20_000) == [(None, {"board": "x", "c": 1, "rh": 2, "bt": None})]
    memory = made._memory
    assert isinstance(memory, Joining)
    assert memory.events == 0


def test_windows_of_event_time_close_after_idle_ms() -> None:
    made = joined("tumbling", "LEFT", idle_ms=100)
    made.heard_ms = 1_000
    assert run(made, [(5, "x", "temp", 1), (9, "x", "hum", 2)]) == []
    assert made.tick(1_102) == []
    assert [row["rh"] for _, row in made.tick(1_103)] == [2]
    assert not made.due(9_999)
    assert run(made, [(5, "x", "temp", 1)]) == []
    assert made.counts == {"late": 1}


def test_a_commit_writes_what_came_and_not_all_that_is_held() -> None:
    made, stored, written = joined("tumbling", "INNER", 10**6), dict[str, bytes](), 0
    for at in range(5_000):
        run(made, [(at, "x", "temp", at)])
        delta = made.state()
        one = sum(map(len, delta.values()))
        assert one < 10_000  # a block anew
        written += one
        stored.update(delta)
    assert written < 5_000 * 200
    other = joined("tumbling", "INNER", 10**6)
    other.restore({name: raw for name, raw in stored.items() if raw})
    more: list[Event] = [(at, "x", "hum", 1) for at in range(0, 5_000, 50)]
    assert run(made, more) == run(other, more)
    assert len(flushed(other)) == len(flushed(made)) > 0
    stored.update(made.state())
    assert {name for name, raw in stored.items() if raw} <= {"meta"}


def test_what_is_held_and_what_is_paired_are_bounded_and_counted() -> None:
    made = joined("tumbling", "LEFT", events_max=6)
    events: list[Event] = [(1, "x", "temp", at) for at in range(4)] + [(1, "x", "hum", at) for at in range(4)]
    assert run(made, events) == []
    assert len(flushed(made)) == 6
    assert made.counts == {"events_max": 2, "pairs_max": 2}
    grouped = rule(
        "SELECT a.c, count(*) AS n FROM 'dt/+/temp' AS a JOIN 'dt/+/hum' AS b ON topic(2, a) = topic(2, b) "
        "GROUP BY a.c, TUMBLINGWINDOW(ms, 10)",
        time=("t",),
        keys_max=2,
    )
    run(grouped, events)
    assert flushed(grouped) == [{"c": 0, "n": 4}, {"c": 1, "n": 4}]
    assert grouped.counts == {"keys_max": 8}


def test_only_the_fields_that_the_rule_needs_are_held_and_none_is_long() -> None:
    made = joined("tumbling", "INNER")
    big = {"rest": "x" * 10_000}
    docs: list[Any] = [{"t": 1, "c": "y" * 5_000, **big}, {"t": 1, "rh": {"deep": "z" * 5_000}, **big}]
    docs += [{"t": 1, "rh": 2**80, **big}, {"t": 1, "rh": 2**1024, **big}]
    made.run([Message("dt/x/temp", b""), *[Message("dt/x/hum", b"")] * 3], docs, 100)
    assert sum(map(len, made.state().values())) < 300
    assert [(row["c"], row["rh"]) for row in flushed(made)] == [(None, None), (None, 2**80), (None, None)]
    assert made.counts == {"value_too_long": 3}


def test_many_panes_close_without_looking_at_all_of_them_each_time() -> None:
    sql = "SELECT a.c AS c FROM 'a' AS a JOIN 'b' AS b ON a.c = b.c GROUP BY TUMBLINGWINDOW(ms, 1)"
    made = rule(sql, time=("t",), lateness_ms=10**6)
    made.run([Message("ab"[at % 2], b"") for at in range(20_000)], [{"t": at // 2, "c": 1} for at in range(20_000)], 0)
    assert len(flushed(made)) == 10_000


def test_an_entry_that_is_not_understood_is_counted_and_left_out() -> None:
    made = joined("tumbling", "INNER")
    made.restore({"e10": b"\x91\x92", "ex.y": b"\x90", "meta": b"\x90", "nonsense": b"\x01", "e0": b""})
    assert made.counts == {"checkpoint_rejected": 4}
    run(made, [(1, "x", "temp", 1), (1, "x", "hum", 1)])
    assert len(flushed(made)) == 1
