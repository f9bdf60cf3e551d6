"""A dictionary as entries: whatever is done to it, what is stored gives it back, in its order, and stays small."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from edge.rules.journal import CHANGES_MAX, Journal, parts

KEYS = st.sampled_from(["a", 1, 2.5, None, True, ("x", 1), ("x", ("y", None))])
STEPS = st.lists(st.tuples(st.sampled_from(["put", "put", "pop", "store", "store", "restart"]), KEYS, st.integers()))


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
            kept = {key: [one, float(two)] for key, (one, two) in journal.rows.items()}
        elif step == "restart":
            journal = restored(stored)
            assert {key: [one, float(two)] for key, (one, two) in journal.rows.items()} == kept
    store(journal, stored)
    again = restored(stored).rows
    assert set(again) == set(journal.rows)


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
