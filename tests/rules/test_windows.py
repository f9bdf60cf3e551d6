"""Windows against a naive evaluator over lists of events; and that a restart changes no result."""

import math
from statistics import fmean, pstdev
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.messages import Message
from edge.rules.rule import Rule
from tests.rules.making import rule

COLUMNS = (
    "g, count(*) AS n, count(c) AS nc, avg(c) AS a, min(c) AS lo, max(c) AS hi, sum(c) AS s, stddev(c) AS d, "
    "first(c) AS f, last(c) AS l, collect(c) AS all_c"
)
KINDS = {
    "tumbling": "TUMBLINGWINDOW(ms, 10)",
    "hopping": "HOPPINGWINDOW(ms, 10, 4)",
    "session": "SESSIONWINDOW(ms, 5)",
    "count": "COUNTWINDOW(3)",
}
EVENTS = st.lists(st.tuples(st.integers(0, 60), st.sampled_from("ab"), st.none() | st.integers(-50, 50)), max_size=40)


def windowed(kind: str, lateness_ms: int) -> Rule:
    sql = f"SELECT {COLUMNS} FROM 'x' GROUP BY g, {KINDS[kind]}"
    return rule(sql, time=("t",), lateness_ms=lateness_ms)


def run(made: Rule, events: list[tuple[int, str, Any]], size: int = 7, now: int = 100) -> list[Any]:
    found = []
    for at in range(0, len(events), size):
        docs = [{"t": t, "g": g, "c": c} for t, g, c in events[at : at + size]]
        found += made.run([Message("x", b"")] * len(docs), docs, now)
    return [row for _, row in found]


def aggregated(group: str, events: list[tuple[int, str, Any]]) -> dict[str, Any]:
    """events in order of arrival."""
    have = [(t, c) for t, _, c in events if c is not None]
    c = [one for _, one in have]
    by_time = sorted(have, key=lambda one: one[0])
    return {
        "g": group, "n": len(events), "nc": len(c), "a": fmean(c) if c else None,
        "lo": min(c, default=None), "hi": max(c, default=None), "s": sum(c) if c else None,
        "d": pstdev(c) if c else None, "f": by_time[0][1] if c else None, "l": by_time[-1][1] if c else None,
        "all_c": sorted(c),
    }  # fmt: skip


def reference(kind: str, events: list[tuple[int, str, Any]], lateness: int) -> tuple[list[Any], int]:
    """All rows, those of open windows last, and how many events were late."""
    mark, late, done = -(10**9), 0, []
    opened: list[list[Any]] = []  # [start, end, group, events]
    for event in events:
        t, group, _ = event
        if kind == "count":
            held = next((one for one in opened if one[2] == group), None)
            if held is None:
                opened.append(held := [0, 0, group, []])
            held[3].append(event)
            if len(held[3]) == 3:
                opened.remove(held)
                done.append(held)
            continue
        mark = max(mark, t)
        done += [one for one in opened if one[1] <= mark - lateness]
        opened = [one for one in opened if one[1] > mark - lateness]
        if kind == "session":
            if t + 5 <= mark - lateness:
                late += 1
                continue
            near = [one for one in opened if one[2] == group and one[0] - 5 < t < one[1]]
            joined = [e for one in near for e in one[3]] + [event]
            opened = [one for one in opened if one not in near]
            times = [e[0] for e in joined]
            opened.append([min(times), max(times) + 5, group, sorted(joined, key=events.index)])
            continue
        step = 10 if kind == "tumbling" else 4
        starts = [start for start in range(-12, 64) if start % step == 0 and start <= t < start + 10]
        live = [start for start in starts if start + 10 > mark - lateness]
        late += not live
        for start in live:
            held = next((one for one in opened if one[0] == start and one[2] == group), None)
            if held is None:
                opened.append(held := [start, start + 10, group, []])
            held[3].append(event)
    if kind == "count":
        opened = []
    return [aggregated(one[2], one[3]) for one in done + opened], late


def alike(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(
        math.isclose(a, b, abs_tol=1e-6) if isinstance(a, float) and isinstance(b, float | int) else a == b
        for a, b in zip(one.values(), other.values(), strict=True)
    )


def in_order(found: list[Any]) -> list[Any]:
    return sorted(found, key=lambda row: (row["g"], row["n"], repr(row["all_c"]), repr(row["f"]), repr(row["l"])))


@pytest.mark.parametrize("kind", KINDS)
@given(events=EVENTS, lateness=st.sampled_from([0, 3, 20]))
@settings(max_examples=60, deadline=None)
def test_windows_give_what_the_naive_evaluator_gives_late_and_out_of_order_too(
    kind: str, events: list[tuple[int, str, Any]], lateness: int
) -> None:
    events = [(t, g, None if c is None else c * 1000 + at) for at, (t, g, c) in enumerate(events)]  # all distinct
    seen: set[int] = set()
    events = [e for e in events if not (e[0] in seen or seen.add(e[0]))]  # type: ignore[func-returns-value]
    made = windowed(kind, lateness)
    found = run(made, events) + [row for _, row in made.flush()]
    for row in found:
        row["all_c"] = sorted(row["all_c"])
    expected, late = reference(kind, events, lateness)
    assert len(found) == len(expected)
    assert all(alike(a, b) for a, b in zip(in_order(found), in_order(expected), strict=True)), (found, expected)
    assert made.counts.get("late", 0) == late


@pytest.mark.parametrize("kind", KINDS)
@given(events=EVENTS, cuts=st.lists(st.integers(0, 40), max_size=3), size=st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_a_crash_a_restore_and_a_replay_give_what_an_uninterrupted_run_gives(
    kind: str, events: list[tuple[int, str, Any]], cuts: list[int], size: int
) -> None:
    whole = windowed(kind, 3)
    expected = run(whole, events) + [row for _, row in whole.flush()]
    made, stored, found, at = windowed(kind, 3), dict[str, bytes](), list[Any](), 0
    for cut in sorted(min(cut, len(events)) for cut in cuts):
        for start in range(at, cut, size):  # a commit each
            found += run(made, events[start : min(start + size, cut)], size)
            stored.update(made.state())
            stored = {name: raw for name, raw in stored.items() if raw}
        at = max(at, cut)
        run(made, events[at:], size)  # goes on, then is killed: what came after the checkpoint is lost
        made = windowed(kind, 3)
        made.restore(stored)
    found += run(made, events[at:], size) + [row for _, row in made.flush()]
    assert found == expected  # in the same order too


def test_filters_remember_over_a_restart() -> None:
    sql = "SELECT c FROM 'x' WHERE changed(c, 2) AND every(2)"
    one, other = rule(sql), rule(sql)
    run(one, [(0, "a", 5)])
    other.restore(one.state())
    assert run(other, [(0, "a", 6), (0, "a", 8), (0, "a", 11)]) == [{"c": 11}]


def test_an_entry_that_is_not_understood_is_counted_and_left_out() -> None:
    made = windowed("tumbling", 0)
    made.restore(
        {"w10": b"\xff\xff", "nonsense": b"\x90", "w20": b"\x91\x92\x01\x91\x02", "meta": b"\x90", "k.x": b"\x90"}
    )
    assert made.counts == {"checkpoint_rejected": 5}
    assert len(run(made, [(1, "a", 1), (11, "a", 1)])) == 1


def test_windows_in_arrival_time_close_by_the_clock() -> None:
    made = rule("SELECT count(*) AS n, window_start() AS b, window_end() AS e FROM 'x' GROUP BY TUMBLINGWINDOW(ss, 10)")
    made.run([Message("x", b"")] * 2, [{}, {}], 12_000)
    assert made.tick(19_999) == []
    assert made.tick(20_000) == [(None, {"n": 2, "b": 10_000, "e": 20_000})]
    assert made.tick(40_000) == []


def test_a_percentile_is_within_one_percent() -> None:
    made = rule("SELECT percentile(c, 0.5) AS p FROM 'x' GROUP BY COUNTWINDOW(101)")
    (row,) = run(made, [(0, "a", c) for c in range(-10, 91)])
    assert math.isclose(row["p"], 40, rel_tol=0.011)


@pytest.mark.parametrize("window", ["COUNTWINDOW(2)", "TUMBLINGWINDOW(ms, 10)", "SESSIONWINDOW(ms, 5)"])
@given(values=st.lists(st.floats(-1e12, 1e12) | st.integers(-9, 9), min_size=2, max_size=2), share=st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_a_percentile_lies_within_its_data(window: str, values: list[float], share: float) -> None:
    made = rule(f"SELECT percentile(c, {share:.4f}) AS p FROM 'x' GROUP BY {window}", time=("t",))
    found = run(made, list(zip((0, 1, 100), (*"aaa",), (*values, 0), strict=True)))
    assert min(values) <= found[0]["p"] <= max(values)


def test_a_percentile_of_two_is_one_of_them() -> None:
    made = rule("SELECT percentile(c, 0.5) AS p FROM 'x' GROUP BY COUNTWINDOW(2)")
    assert run(made, [(0, "a", 3), (0, "a", 5)]) == [{"p": 3}]


def test_what_was_merged_and_restored_knows_its_extremes() -> None:
    sql = "SELECT percentile(c, 1) AS high, percentile(c, 0) AS low FROM 'x' GROUP BY SESSIONWINDOW(ms, 5)"
    made, again = (rule(sql, time=("t",), lateness_ms=50) for _ in range(2))
    run(made, [(0, "a", 3), (8, "a", 7.2)])  # alone their buckets would give 2.97 and 7.25
    again.restore({name: raw for name, raw in made.state().items() if raw})
    assert run(again, [(4, "a", 5), (100, "a", 0)]) == [{"high": 7.2, "low": 3}]


def test_having_keeps_groups_by_the_name_of_a_column() -> None:
    made = rule(
        "SELECT g, count(*) AS n FROM 'x' GROUP BY g, TUMBLINGWINDOW(ms, 10) HAVING n > 1 AND max(c) < 9", time=("t",)
    )
    found = run(made, [(0, "a", 1), (1, "b", 1), (2, "b", 2), (3, "c", 1), (4, "c", 9), (20, "a", 1)])
    assert found == [{"g": "b", "n": 2}]


def test_groups_are_bounded_and_what_is_left_out_is_counted() -> None:
    made = rule("SELECT count(*) AS n FROM 'x' GROUP BY c, TUMBLINGWINDOW(ms, 10)", time=("t",), keys_max=3)
    run(made, [(0, "a", c) for c in range(9)])
    assert made.counts == {"keys_max": 6}


def test_an_event_from_far_ahead_closes_nothing() -> None:
    made = windowed("tumbling", 0)
    assert run(made, [(1, "a", 1), (10**15, "a", 1), (2, "a", 1)]) == []
    assert made.counts == {"future": 1}


@pytest.mark.parametrize("kind", ["tumbling", "hopping", "session"])
def test_windows_in_event_time_close_when_nothing_came_for_the_idle_time_and_the_lateness(kind: str) -> None:
    sql = f"SELECT g, count(*) AS n FROM 'x' GROUP BY g, {KINDS[kind]}"
    made = rule(sql, time=("t",), lateness_ms=3, idle_ms=1000)
    opened = run(made, [(100, "a", 1), (101, "b", 1)])
    made.heard_ms = 5000
    assert made.tick(6002) == []
    assert made.due(6003)
    rows = [row for _, row in made.tick(6003)]
    assert {(row["g"], row["n"]) for row in rows} == {("a", 1), ("b", 1)}
    assert not made.due(9999)
    assert run(made, [(99, "a", 1)]) == opened == []  # what comes for them now is late
    assert made.counts == {"late": 1}


def test_without_an_idle_time_windows_in_event_time_wait_for_the_next_event() -> None:
    made = rule("SELECT count(*) AS n FROM 'x' GROUP BY TUMBLINGWINDOW(ms, 10)", time=("t",))
    run(made, [(1, "a", 1)])
    made.heard_ms = 0
    assert made.tick(10**12) == []
    assert run(made, [(10, "a", 1)]) == [{"n": 1}]


def test_the_idle_time_begins_anew_with_a_restart() -> None:
    made = rule("SELECT count(*) AS n FROM 'x' GROUP BY TUMBLINGWINDOW(ms, 10)", time=("t",), idle_ms=1000)
    run(made, [(1, "a", 1)])
    again = rule("SELECT count(*) AS n FROM 'x' GROUP BY TUMBLINGWINDOW(ms, 10)", time=("t",), idle_ms=1000)
    again.restore(made.state())
    assert [again.tick(now) for now in (500_000, 500_999)] == [[], []]
    assert again.tick(501_000) == [(None, {"n": 1})]


def test_sliding_windows_and_joins_close_after_the_idle_time_too() -> None:
    sliding = rule(
        "SELECT count(*) AS n FROM 'x' GROUP BY SLIDINGWINDOW(ms, 10)", time=("t",), lateness_ms=5, idle_ms=9
    )
    assert run(sliding, [(1, "a", 1), (4, "a", 1)]) == []
    join = rule(
        "SELECT a.c AS c, b.c AS d FROM 'x' AS a JOIN 'y' AS b ON a.g = b.g GROUP BY TUMBLINGWINDOW(ms, 10)",
        time=("t",),
        idle_ms=9,
    )
    docs = [{"t": 1, "g": "k", "c": 1}, {"t": 2, "g": "k", "c": 2}]
    assert join.run([Message("x", b""), Message("y", b"")], docs, 100) == []
    for made, rows in ((sliding, [{"n": 1}, {"n": 2}]), (join, [{"c": 1, "d": 2}])):
        made.heard_ms = 0
        assert [row for _, row in made.tick(14)] == rows
        assert not made.due(10**9)


def test_windows_and_keys_are_bounded_whatever_comes() -> None:
    made = rule("SELECT c, count(*) AS n FROM 'x' GROUP BY c, TUMBLINGWINDOW(ms, 1)", time=("t",), lateness_ms=10**6)
    made._memory.keys_max = 5
    run(made, [(t, "a", t) for t in range(1000)])
    assert len(made._memory.open) == 5
    assert run(made, [(2 * 10**6, "a", "k" * 2000)], now=2 * 10**6) == [{"c": t, "n": 1} for t in range(5)]
    assert made.counts == {"keys_max": 995, "key_too_long": 1}
    unseen = rule("SELECT c FROM 'x' WHERE unseen(c, 60)")
    assert len(run(unseen, [(0, "a", "k" * 2000), (0, "a", "k" * 2000), (0, "a", "s"), (0, "a", "s")])) == 3
    assert unseen.counts == {"key_too_long": 2}


AHEAD = {
    "tumbling": "SELECT g, count(*) AS n FROM 'x' GROUP BY g, TUMBLINGWINDOW(ss, 10)",
    "by_topic": "SELECT topic() AS g, count(*) AS n FROM '#' GROUP BY topic(), TUMBLINGWINDOW(ss, 10)",
    "hopping": "SELECT g, count(*) AS n FROM 'x' GROUP BY g, HOPPINGWINDOW(ss, 10, 5)",
    "session": "SELECT g, count(*) AS n FROM 'x' GROUP BY g, SESSIONWINDOW(ss, 3)",
    "sliding": "SELECT g, count(*) AS n FROM 'x' GROUP BY g, SLIDINGWINDOW(ss, 10)",
    "join": "SELECT a.g AS g FROM 'x' AS a JOIN 'x' AS b ON a.g = b.g GROUP BY TUMBLINGWINDOW(ss, 10)",
}


@pytest.mark.parametrize("kind", AHEAD)
def test_a_source_whose_clock_is_ahead_makes_no_other_late(kind: str) -> None:
    """Forty seconds of two sources, the one half an hour ahead; the other's rows are what they are without it."""

    def rows_of_b(*sources: tuple[str, int]) -> list[Any]:
        made = rule(AHEAD[kind], time=("t",), lateness_ms=2_000, idle_ms=60_000)
        found = []
        for now in [*range(1_000_000, 1_040_000, 500), 1_060_000]:
            for name, ahead in sources:
                doc = {"g": name, "t": now + ahead}
                found += [row for _, row in made.run([Message(name if kind == "by_topic" else "x", b"")], [doc], now)]
        assert made.counts == {}
        return [row for row in found if row["g"] == "b"]

    alone = rows_of_b(("b", -300))
    assert alone
    assert rows_of_b(("ahead", 1_800_000), ("b", -300)) == alone


@pytest.mark.parametrize("kind", AHEAD)
def test_windows_of_a_source_that_is_ahead_close_when_the_clock_has_passed_them(kind: str) -> None:
    made = rule(AHEAD[kind], time=("t",), lateness_ms=2_000, idle_ms=60_000)
    assert made.run([Message("x", b"")] * 2, [{"g": "a", "t": 1_800_000}, {"g": "a", "t": 1_800_001}], 0) == []
    made.heard_ms = 0
    assert [now for now in range(0, 1_800_000, 1_000) if made.due(now)] == []
    late = made.run([Message("x", b"")], [{"g": "a", "t": 70_000}], 70_000)
    assert made.counts == {}
    assert made.due(1_820_000)
    assert len(late + made.tick(1_820_000)) >= 2
    assert made.counts == {}


@given(events=EVENTS, cuts=st.lists(st.integers(0, 40), max_size=3), lateness=st.sampled_from([0, 3]))
@settings(max_examples=100, deadline=None)
def test_groups_by_topic_are_what_groups_by_a_field_are_over_restarts_too(
    events: list[tuple[int, str, Any]], cuts: list[int], lateness: int
) -> None:
    columns = COLUMNS.removeprefix("g, ")
    sql = f"SELECT topic(2) AS g, {columns} FROM 'x/+' GROUP BY topic(2), {KINDS['tumbling']}"

    def by_topic() -> Rule:
        return rule(sql, time=("t",), lateness_ms=lateness, keys_max=3)

    def by_field() -> Rule:
        return rule(
            f"SELECT {COLUMNS} FROM 'x/+' GROUP BY g, {KINDS['tumbling']}",
            time=("t",),
            lateness_ms=lateness,
            keys_max=3,
        )

    one, other = by_topic(), by_field()
    stored: dict[str, bytes] = {}
    found, expected, at = list[Any](), list[Any](), 0
    for cut in [*sorted(min(cut, len(events)) for cut in cuts), len(events)]:
        messages = [Message(f"x/{g}", b"") for _, g, _ in events[at:cut]]
        docs = [{"t": t, "g": g, "c": c} for t, g, c in events[at:cut]]
        found += one.run(messages, docs, 100)
        expected += other.run(messages, docs, 100)
        at = cut
        stored.update(one.state())
        counts, one = one.counts, by_topic()
        one.restore({name: raw for name, raw in stored.items() if raw})
        one.counts.update(counts)
    found += one.flush()
    expected += other.flush()
    assert found == expected
    assert one.counts == other.counts


FORGOTTEN = {
    **{kind: f"SELECT g, count(*) AS n FROM 'x' GROUP BY g, {window}" for kind, window in KINDS.items()},
    "sliding": "SELECT g, count(*) AS n FROM 'x' GROUP BY g, SLIDINGWINDOW(ms, 10)",
    "join": "SELECT a.g AS g, b.c AS n FROM 'x' AS a JOIN 'x' AS b ON a.g = b.g GROUP BY TUMBLINGWINDOW(ms, 10)",
    "filter": "SELECT g, 1 AS n FROM 'x' WHERE unseen(g, 60)",
}


@pytest.mark.parametrize("kind", FORGOTTEN)
def test_what_is_forgotten_leaves_nothing_stored_and_the_rule_goes_on_as_a_new_one(kind: str) -> None:
    def fresh() -> Rule:
        return rule(FORGOTTEN[kind], time=("t",), lateness_ms=2)

    made, stored = fresh(), dict[str, bytes]()
    for at in range(0, 12, 3):
        run(made, [(at + one, "abc"[one % 3], one) for one in range(4)])
        stored.update(made.state())
    assert made.state_bytes > 80
    run(made, [(14, "a", 1), (15, "b", 1)])
    stored.update(made.state())
    made.forget()
    stored.update(made.state())
    assert {name for name, raw in stored.items() if raw} <= {"meta"}
    other = fresh()
    other.restore({"meta": stored["meta"]} if "meta" in stored else {})
    events = [(at, "abc"[at % 3], at) for at in range(15, 90) if at % 40 < 20]
    assert run(made, events) == run(other, events) != []
    stored.update(made.state())
    again = fresh()
    again.restore({name: raw for name, raw in stored.items() if raw})
    assert [row for _, row in again.flush()] == [row for _, row in made.flush()]


@pytest.mark.parametrize("sql", ["unseen(g, 60)", "changed(g, 2)", "every(2)"])
@given(events=st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=40))
@settings(max_examples=200, deadline=None)
def test_filters_at_their_bound_forget_the_same_keys_over_a_restart(sql: str, events: list[tuple[int, bool]]) -> None:
    def fresh() -> Rule:
        return rule(f"SELECT g FROM 'x/+' WHERE {sql}", keys_max=3)

    whole, made, stored = fresh(), fresh(), dict[str, bytes]()
    for at, (value, cut) in enumerate(events):
        if cut:
            stored.update(made.state())
            made = fresh()
            made.restore({name: raw for name, raw in stored.items() if raw})
        messages, docs = [Message(f"x/{value}", b"")], [{"g": value if at % 3 else -value}]
        assert made.run(messages, docs, 100) == whole.run(messages, docs, 100)


ICCIDS = [89490200001234567890, 89490200001234567891, -(2**63) - 1]
EXACT = {
    **{
        kind: f"SELECT id, count(*) AS n, last(id) AS l, collect(id) AS c FROM 'x' GROUP BY id, {window}"
        for kind, window in KINDS.items()
    },
    "sliding": "SELECT id, count(*) AS n, first(id) AS f FROM 'x' GROUP BY id, SLIDINGWINDOW(ms, 10)",
    "join": "SELECT a.id AS i, b.l AS l FROM 'x' AS a JOIN 'x' AS b ON a.id = b.id GROUP BY HOPPINGWINDOW(ms, 10, 5)",
    "unseen": "SELECT id FROM 'x' WHERE unseen(id, 60)",
    "changed": "SELECT id FROM 'x' WHERE changed(id)",
}


@pytest.mark.parametrize("kind", EXACT)
def test_whole_numbers_beyond_64_bits_stay_what_they_are_over_a_restart(kind: str) -> None:
    def turn(made: Rule, t: int) -> list[Any]:
        docs = [{"t": t, "id": one, "l": [one, {"id": one}]} for one in ICCIDS]
        return [row for _, row in made.run([Message("x", b"")] * len(docs), docs, 100)]

    whole, made, stored = rule(EXACT[kind], time=("t",)), rule(EXACT[kind], time=("t",)), dict[str, bytes]()
    expected, found = [], []
    for t in (1, 2, 4, 11, 30):
        expected += turn(whole, t)
        found += turn(made, t)
        stored.update(made.state())
        made = rule(EXACT[kind], time=("t",))
        made.restore({name: raw for name, raw in stored.items() if raw})
    assert found == expected
    assert all(one in repr(found) for one in map(str, ICCIDS))
    assert whole.counts == made.counts == {}
