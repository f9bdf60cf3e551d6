"""A dictionary as entries: whatever is done to it, what is stored gives it back, in its order, and stays small."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.rules.journal import BLOCK, CHANGES_MAX, Events, Journal, pack, parts

KEYS = st.sampled_from(["a", 1, 2.5, None, True, ("x", 1), ("x", ("y", None))])
NUMBERS = st.integers() | st.integers(2**60, 2**70) | st.integers(-(2**70), -(2**60)) | st.integers(-(2**1023), 2**1023)
STEPS = st.lists(st.tuples(st.sampled_from(["put", "put", "pop", "store", "store", "restart"]), KEYS, NUMBERS))
SCALARS = st.none() | st.booleans() | NUMBERS | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(SCALARS | st.just(math.nan), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


def restored(stored: dict[str, bytes]) -> Journal:
    journal = Journal("n", {})
    journal.rows.update(journal.restore({parts(entry)[1]: raw for entry, raw in stored.items()}))
    return journal


def store(journal: Journal, stored: dict[str, bytes]) -> None:
    for entry, raw in journal.delta().items():
        if raw:
            stored[entry] = raw
        else:
            del stored[entry]


@given(STEPS)
def test_what_is_stored_is_the_dictionary(steps: list[tuple[str, Any, int]]) -> None:
    journal, stored = Journal("n", {}), dict[str, bytes]()
    kept: dict[Any, Any] = {}
    for step, key, value in steps:
        if step == "put":
            journal.rows[key] = [value % 2**64 - 2**63, value]
            journal.changed[key] = None
        elif step == "pop" and key in journal.rows:
            del journal.rows[key]
            journal.changed[key] = None
        elif step == "store":
            store(journal, stored)
            kept = dict(journal.rows)
        elif step == "restart":
            journal = restored(stored)
            assert journal.rows == kept
    store(journal, stored)
    again = restored(stored).rows
    assert set(again) == set(journal.rows)


@given(rows=st.dictionaries(SCALARS | st.tuples(SCALARS, st.tuples(SCALARS)), VALUES, min_size=1))
def test_keys_and_values_come_back_exactly_as_they_were(rows: dict[Any, Any]) -> None:
    """Whole numbers beyond 64 bits too, such as an ICCID; and 1, 1.0 and True, 0.0 and -0.0 as what they are."""
    journal, stored = Journal("n", rows), dict[str, bytes]()
    journal.changed.update(dict.fromkeys(rows))
    store(journal, stored)
    assert repr([*restored(stored).rows.items()]) == repr([*rows.items()])
    row = [*rows.values()]
    again = Events({})
    journals: dict[str, Journal] = {}
    events = Events(journals)
    events.add(row)
    assert repr(again.restore("e0", {0: journals["e0"].delta()["e0"]})) == repr([(0, row)])


def test_an_extension_of_another_kind_is_no_entry() -> None:
    with pytest.raises(ValueError, match="extension"):
        Journal("n", {}).restore({0: bytes.fromhex("9192d4023101")})


def test_the_order_of_the_keys_comes_back() -> None:
    journal, stored = Journal("n", {}), dict[str, bytes]()
    for number in range(300):
        key = number * 37 % 101
        journal.rows[key] = number
        journal.changed[key] = None
        if number % 3 == 0:
            store(journal, stored)
    store(journal, stored)
    assert list(restored(stored).rows.items()) == list(journal.rows.items())


def test_a_commit_costs_what_changed_and_the_entries_stay_within_three_times_the_dictionary() -> None:
    journal, stored = Journal("n", {number: [number] * 5 for number in range(1000)}), dict[str, bytes]()
    journal.changed.update(dict.fromkeys(journal.rows))
    store(journal, stored)
    base, written = sum(map(len, stored.values())), 0
    for number in range(10_000):
        journal.rows[number % 1000][0] += 1
        journal.changed[number % 1000] = None
        if number % 10 == 0:
            delta = journal.delta()
            written += sum(map(len, delta.values()))
            stored.update(delta)
            stored = {entry: raw for entry, raw in stored.items() if raw}
            assert len(stored) <= CHANGES_MAX + 1
            assert sum(map(len, stored.values())) < 3.5 * base
    assert written < 10_000 / 1000 * base * 4
    journal.ended = True
    store(journal, stored)
    assert stored == {}


def test_events_cost_a_commit_what_came_and_went_and_leave_nothing_behind() -> None:
    journals: dict[str, Journal] = {}
    events, stored, held = Events(journals), dict[str, bytes](), list[int]()
    once = len(pack([(0, [0, "x" * 40])]))

    def commit() -> int:
        written = 0
        for journal in [*journals.values()]:
            for entry, raw in journal.delta().items():
                written += len(raw)
                stored[entry] = raw
                if not raw:
                    del stored[entry]
            if journal.ended:
                del journals[journal.name]
        return written

    written = most = 0
    for number in range(8_000):
        held.append(events.add([number, "x" * 40]))
        if len(held) > 3_000:
            slow = held[0] % BLOCK == 7 and held[0] < 6_000  # one of a block stays for long
            events.remove(held.pop(1 if slow else 0))
        one = commit()
        written += one
        most = max(most, one)
        assert sum(map(len, stored.values())) < 4 * once * len(held) + 20_000
    assert written < 8_000 * 6 * once
    assert most < 2 * BLOCK * once
    again = Events({})
    blocks: dict[str, dict[int, bytes]] = {}
    for entry, raw in stored.items():
        name, place = parts(entry)
        blocks.setdefault(name, {})[place] = raw
    found = sorted(row for name, numbered in blocks.items() for row in again.restore(name, numbered))
    assert [number for number, _ in found] == sorted(held)
    assert again.add([0]) == 8_000
    for number in held:
        events.remove(number)
    commit()
    assert stored == {}


def test_where_all_rows_changed_the_dictionary_is_stored_anew_and_nothing_beside_it() -> None:
    journal, stored = Journal("n", {}), dict[str, bytes]()
    for turn in range(5):
        for number in range(100):
            journal.rows[number] = turn
            journal.changed[number] = None
        store(journal, stored)
        assert list(stored) == ["n"]
        assert list(restored(stored).rows.items()) == list(journal.rows.items())
    journal.rows[7] = -1
    journal.changed[7] = None
    store(journal, stored)
    assert list(stored) == ["n", "n.1"]


def test_a_dictionary_that_lost_most_of_its_rows_is_stored_anew() -> None:
    journal, stored = Journal("n", dict.fromkeys(range(1000), "x" * 40)), dict[str, bytes]()
    journal.changed.update(dict.fromkeys(journal.rows))
    store(journal, stored)
    whole = sum(map(len, stored.values()))
    for number in range(999):
        del journal.rows[number]
        journal.changed[number] = None
        if number % 50 == 0:
            store(journal, stored)
    store(journal, stored)
    assert sum(map(len, stored.values())) < whole / 50
    assert restored(stored).rows == {999: "x" * 40}
