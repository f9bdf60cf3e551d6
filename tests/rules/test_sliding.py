"""SLIDINGWINDOW against a naive evaluator over lists of events; its bounds; and that a restart changes no result."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.messages import Message
from edge.rules import journal
from edge.rules.rule import Rule
from edge.rules.sliding import Sliding
from tests.rules.making import rule, small_journals
from tests.rules.test_windows import COLUMNS, aggregated, alike

SIZE = 10
EVENTS = st.lists(st.tuples(st.integers(0, 60), st.sampled_from("ab"), st.none() | st.integers(-50, 50)), max_size=60)
SQL = f"SELECT {COLUMNS}, percentile(c, 0.5) AS p, window_end() AS t FROM 'x' GROUP BY g, SLIDINGWINDOW(ms, {SIZE})"
Event = tuple[int, str, Any]


def sliding(lateness_ms: int, **more: Any) -> Rule:
    return rule(SQL, time=("t",), lateness_ms=lateness_ms, **more)


def run(made: Rule, events: list[Event], size: int = 7) -> list[Any]:
    found = []
    for at in range(0, len(events), size):
        docs = [{"t": t, "g": g, "c": c} for t, g, c in events[at : at + size]]
        found += made.run([Message("x", b"")] * len(docs), docs, 100)
    return [row for _, row in found]


def flushed(made: Rule) -> list[Any]:
    return [row for _, row in made.flush()]


def reference(events: list[Event], lateness: int) -> tuple[list[Any], int]:
    """Each event that is not late, in order of time: its group's events of the last SIZE ms, itself the last."""
    mark, kept = -(10**9), []
    for event in events:
        mark = max(mark, event[0])
        if event[0] >= mark - lateness:
            kept.append(event)
    late = len(events) - len(kept)
    kept.sort(key=lambda event: event[0])
    rows = []
    for at, (t, group, _) in enumerate(kept):
        members = [one for one in kept[: at + 1] if one[1] == group and one[0] > t - SIZE]
        rows.append({**aggregated(group, members), "t": t})
    return rows, late


def same(found: list[Any], expected: list[Any]) -> bool:
    median = [row.pop("p") for row in found]
    for row, middle in zip(found, median, strict=True):
        values = sorted(row["all_c"])
        row["all_c"] = values
        if values:
            exact = values[(len(values) - 1) // 2]
            assert abs(middle - exact) <= abs(exact) * 0.011
            assert values[0] <= middle <= values[-1]
        else:
            assert middle is None
    return len(found) == len(expected) and all(alike(a, b) for a, b in zip(found, expected, strict=True))


@given(events=EVENTS, lateness=st.sampled_from([0, 3, 20]))
@settings(max_examples=200, deadline=None)
def test_each_event_gives_what_the_naive_evaluator_gives_late_and_out_of_order_too(
    events: list[Event], lateness: int
) -> None:
    made = sliding(lateness)
    found = run(made, events) + flushed(made)
    expected, late = reference(events, lateness)
    assert same(found, expected), (found, expected)
    assert made.counts.get("late", 0) == late


@pytest.mark.parametrize("bounds", [{}, {"events_max": 6}, {"keys_max": 1}])
@pytest.mark.parametrize("block", [4, journal.BLOCK])
@given(events=EVENTS, cuts=st.lists(st.integers(0, 60), max_size=6), size=st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_a_crash_a_restore_and_a_replay_give_to_the_last_bit_what_an_uninterrupted_run_gives(
    block: int, bounds: dict[str, int], events: list[Event], cuts: list[int], size: int
) -> None:
    with small_journals(block):
        check_restarts(events, cuts, size, bounds)


def check_restarts(events: list[Event], cuts: list[int], size: int, bounds: dict[str, int]) -> None:
    events = [(t, g, None if c is None else c / 7) for t, g, c in events]
    whole = sliding(3, **bounds)
    expected = run(whole, events) + flushed(whole)
    made, stored, found, at = sliding(3, **bounds), dict[str, bytes](), list[Any](), 0
    for cut in sorted(min(cut, len(events)) for cut in cuts):
        if cut < at:
            continue
        found += run(made, events[at:cut], size)
        stored.update(made.state())
        stored = {name: raw for name, raw in stored.items() if raw}
        at = cut
        run(made, events[at:], size)  # goes on, then is killed
        made = sliding(3, **bounds)
        made.restore(stored)
        assert made.counts == {}
        assert {name: raw for name, raw in made.state().items() if raw} == {}
    found += run(made, events[at:], size) + flushed(made)
    assert found == expected


def test_long_windows_turn_their_stacks_and_write_little() -> None:
    made, other, stored, written = sliding(0), sliding(0), dict[str, bytes](), 0
    for at in range(2_000):
        row, *_ = run(made, [(at // 20, "a", at)])
        assert (row["hi"], row["n"], row["lo"]) == (at, min(at + 1, at - row["lo"] + 1), max(0, (at // 20 - 9) * 20))
        delta = made.state()
        one = sum(map(len, delta.values()))
        assert one < 20_000  # a block anew
        written += one
        stored.update(delta)
    stored = {name: raw for name, raw in stored.items() if raw}
    assert written < 2_000 * 400
    assert sum(map(len, stored.values())) < 60_000
    other.restore(stored)
    assert run(other, [(100, "a", 1)]) == run(made, [(100, "a", 1)])


def test_arrival_time_slides_by_the_clock_and_forgets_idle_groups() -> None:
    made = rule("SELECT c, count(*) AS n FROM 'x' GROUP BY c, SLIDINGWINDOW(ss, 10)")
    memory = made._memory
    assert isinstance(memory, Sliding)
    for now, expected in ((0, 1), (9_999, 2), (10_000, 2), (19_999, 2)):
        assert made.run([Message("x", b"")], [{"c": 1}], now) == [(None, {"c": 1, "n": expected})]
    made.tick(29_998)
    assert memory.events > 0
    made.tick(40_000)
    assert memory.events == 0
    assert not memory._held
    assert all(raw == b"" for name, raw in made.state().items() if name != "meta")


def test_what_waits_in_event_time_gets_its_row_after_idle_ms() -> None:
    made = sliding(5, idle_ms=100)
    made.heard_ms = 1_000
    assert run(made, [(10, "a", 1), (8, "a", 2)]) == []
    assert made.tick(1_104) == []
    assert [row["t"] for _, row in made.tick(1_105)] == [8, 10]
    assert not made.due(9_999)  # what is held for later rows waits for nothing
    assert [row["n"] for row in run(made, [(16, "a", 3), (21, "a", 3)])] == [3]


def test_what_is_held_is_bounded_and_what_goes_early_is_counted() -> None:
    made = sliding(0, events_max=5)
    found = run(made, [(1, "a", c) for c in range(9)])
    assert [row["n"] for row in found] == [1, 2, 3, 4, 5, 5, 5, 5, 5]
    assert found[-1]["all_c"] == [4, 5, 6, 7, 8]
    assert run(made, [(1, "b", 1)]) == []  # nothing of its own to let go of
    assert made.counts == {"events_max": 5}
    made = sliding(5, events_max=3)
    assert run(made, [(10, "a", c) for c in range(9)]) == []
    assert made.counts == {"events_max": 6}
    made = sliding(0, keys_max=2)
    assert len(run(made, [(1, group, 1) for group in "abcab"])) == 4
    assert made.counts == {"keys_max": 1}


def test_collected_values_of_a_window_are_bounded() -> None:
    made = rule("SELECT collect(c) AS c FROM 'x' GROUP BY SLIDINGWINDOW(ms, 10)", time=("t",))
    found = run(made, [(1, "a", c) for c in range(1_005)])
    assert len(found[-1]["c"]) == 1_000
    assert made.counts == {"collected_max": 5}


@pytest.mark.parametrize("having", ["HAVING n > 2", "HAVING max(c) - min(c) > 1"])
def test_having_keeps_rows(having: str) -> None:
    made = rule(f"SELECT count(*) AS n FROM 'x' GROUP BY SLIDINGWINDOW(ms, 10) {having}", time=("t",))
    assert run(made, [(t, "a", t) for t in range(4)]) == [{"n": 3}, {"n": 4}]


def test_an_entry_that_is_not_understood_is_counted_and_left_out() -> None:
    made = sliding(0)
    run(made, [(1, "a", 1), (2, "b", 1)])
    stored = made.state()
    broken = {name: raw[:-1] if name[0] == "e" else raw for name, raw in stored.items()}
    broken |= {"a1": b"\x93\x01", "kzz": b"\x93\x00\x00\x00", "nonsense": b"\x01"}
    other = sliding(0)
    other.restore(broken)
    assert other.counts == {"checkpoint_rejected": 4}
    assert [row["n"] for row in run(other, [(3, "a", 1)])] == [1]
