"""Bad input of every kind through every kind of rule: counted, contained, and the rest goes on as if it were none."""

import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.messages import Message
from edge.rules.rule import Rule
from edge.rules.values import FUNCTIONS, OPERATORS, TEXT_CHARS_MAX
from tests.rules.making import rows, rule
from tests.rules.test_engine import House
from tests.rules.test_engine import rule as section

GROUPED = (
    "SELECT g, count(*) AS n, sum(c) AS s, avg(c) AS a, stddev(c) AS d, percentile(c, 0.5) AS p, first(c), last(c), "
)
GROUPED += "collect(c) AS l, min(c) AS lo, max(c) AS hi FROM 'x' GROUP BY g, "
KINDS = {
    "filter": "SELECT c * c AS d, upper(c) AS u, c / g AS q FROM 'x' WHERE c > 1 OR c IS NULL",
    "deadband": "SELECT c FROM 'x' WHERE changed(c, 0.5)",
    "changed": "SELECT c FROM 'x' WHERE changed(c)",
    "unseen": "SELECT c FROM 'x' WHERE unseen(c, 5)",
    "tumbling": GROUPED + "TUMBLINGWINDOW(ms, 10)",
    "hopping": GROUPED + "HOPPINGWINDOW(ms, 10, 5)",
    "sliding": GROUPED + "SLIDINGWINDOW(ms, 10)",
    "session": GROUPED + "SESSIONWINDOW(ms, 5)",
    "count": GROUPED + "COUNTWINDOW(2)",
    "join": "SELECT a.c AS c, b.c AS d, a.c / b.c AS q FROM 'x' AS a LEFT JOIN 'x' AS b ON a.g = b.g AND a.c < b.c * 9 "
    "GROUP BY TUMBLINGWINDOW(ms, 10)",
    "text": "SELECT regexp_replace(c, '(a+)+$', 'b') AS r, parse_time('yyyy-MM-dd', c) AS t, cast(c AS int) AS i, "
    "encode(c, 'hex') AS h, chr(c) AS k, lpad(c, 5) AS p, time_to_epoch(c, 'yyyy') AS e FROM 'x'",
}
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.sampled_from([1e308, -1e308, 5e-324, 10**400, -(10**400), 2**63, 2**64, "a" * 5000, "1e999", "\u0000", ""])
    | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=4,
)
DOCS = st.one_of(st.fixed_dictionaries({"t": st.integers(0, 40) | VALUES, "g": VALUES, "c": VALUES}), VALUES)


def made(kind: str) -> Rule:
    return rule(KINDS[kind], time=("t",), lateness_ms=3, keys_max=6, events_max=8)


@pytest.mark.parametrize("kind", KINDS)
@given(docs=st.lists(DOCS, max_size=12))
@settings(max_examples=60, deadline=None)
def test_no_document_ends_a_rule_or_what_it_stores(kind: str, docs: list[Any]) -> None:
    one, other = made(kind), made(kind)
    for doc in docs:
        found = one.run([Message("x", b"")], [doc], 50)
        assert all(isinstance(msgspec.json.encode(row), bytes) for _, row in found)
        other.restore({})
        one.state()
    other.restore({name: raw for name, raw in one.state().items() if raw})
    assert other.counts.get("checkpoint_rejected", 0) == 0
    one.flush()
    other.flush()
    one.state()


@pytest.mark.parametrize("kind", KINDS)
def test_bad_payloads_between_good_ones_change_no_row(kind: str, tmp_path: Path) -> None:
    good = [(b'{"t":%d,"g":"a","c":%d}' % (at, at * at + 2)) for at in range(30)]
    bad = [
        b"[" * 100_000, b'{"c":' * 100_000, b'{"c":NaN}', b'{"c":Infinity}', b'{"c":"\\ud800"}', b"\xff", b"", b"c=1",
        b'"' + b"x" * 131_072 + b'"', b'{"t":1,"g":"a"', b'{"t":"soon","g":"a","c":1}', b"{" * 10, b"\x00" * 100,
    ]  # fmt: skip
    good.append(b'{"t":200,"g":"a","c":1}')
    more = 'to = ["cloud"]\ntime = "t"'
    if kind in {"filter", "changed", "deadband", "text"}:  # for these, what has no time is a message like others
        more = 'to = ["cloud"]'
        bad.remove(b'{"t":"soon","g":"a","c":1}')
    clean, dirty = (House(section("r", KINDS[kind], more), tmp_path) for _ in range(2))
    clean.now = dirty.now = 1000
    for at, payload in enumerate(good):
        clean.send(("x", payload))
        dirty.send(("x", bad[at % len(bad)]), ("x", payload), ("x", bad[(at * 5) % len(bad)]))
    assert dirty.cloud.got == clean.cloud.got
    assert clean.cloud.got
    counted = {title: many for title, many in dirty.metrics.snapshot().items() if "rejected" in title and many}
    assert {title.partition('reason="')[2].partition('"')[0] for title in counted} == {
        "payload_too_deep", "payload_not_json", "payload_too_long"}  # fmt: skip


def test_the_last_of_two_equal_keys_counts(tmp_path: Path) -> None:
    house = House(section("r", "SELECT c FROM 'x'"), tmp_path)
    house.send(("x", b'{"c":1,"c":2}'))
    assert house.cloud.got == [("rule/r", b'{"c":2}')]


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT c / 0 AS v, c % 0 AS w, mod(c, 0) AS m FROM 'x'", [{"v": None, "w": None, "m": None}] * 2),
        ("SELECT c FROM 'x' WHERE c / 0 > 1", []),
        ("SELECT c FROM 'x' WHERE NOT (c / 0 > 1)", []),
        ("SELECT sum(c / 0) AS s, avg(c / 0) AS a, count(c / 0) AS n FROM 'x' GROUP BY COUNTWINDOW(2)",
         [{"s": None, "a": None, "n": 0}]),
        ("SELECT count(*) AS n FROM 'x' GROUP BY c / 0, COUNTWINDOW(2)", [{"n": 2}]),
        ("SELECT count(*) AS n FROM 'x' GROUP BY COUNTWINDOW(2) HAVING n / 0 > 1", []),
        ("SELECT c * c * c AS v FROM 'x'", [{"v": None}] * 2),
        ("SELECT power(c, 999) AS v, exp(c) AS e FROM 'x'", [{"v": None, "e": None}] * 2),
        ("SELECT sum(c) AS s FROM 'x' GROUP BY COUNTWINDOW(2)", [{"s": None}]),
        ("SELECT avg(c) AS s FROM 'x' GROUP BY COUNTWINDOW(2)", [{"s": None}]),
        ("SELECT stddev(c) AS s FROM 'x' GROUP BY COUNTWINDOW(2)", [{"s": 0.0}]),
        ("SELECT c FROM 'x' WHERE 1 = 2", []),
        ("SELECT count(*) AS n FROM 'x' WHERE FALSE GROUP BY TUMBLINGWINDOW(ms, 1)", []),
        ("SELECT count(*) AS n FROM 'x' GROUP BY COUNTWINDOW(2) HAVING NULL", []),
    ],
)  # fmt: skip
def test_division_by_zero_overflow_and_matching_nothing_give_null_or_nothing(sql: str, expected: list[Any]) -> None:
    one = rule(sql)
    found = rows(one, [{"c": 1.5e308}] * 2, topic="x")
    found += [row for _, row in one.flush()]
    assert json.loads(msgspec.json.encode(found)) == expected


def test_a_rule_that_matches_nothing_holds_nothing() -> None:
    for kind in ("tumbling", "hopping", "sliding", "session", "count"):
        one = rule(KINDS[kind].replace("GROUP BY", "WHERE c > 1 AND c < 0 GROUP BY"), time=("t",))
        rows(one, [{"t": at, "g": at, "c": at} for at in range(100)], topic="x")
        assert one.state() == {}
        assert one.flush() == []


@pytest.mark.parametrize("kind", ["tumbling", "sliding", "count", "join", "changed"])
def test_keys_and_values_that_are_long_are_not_kept(kind: str) -> None:
    one = made(kind)
    rows(one, [{"t": 1, "g": "a" * 100_000, "c": "b" * 100_000}] * 20, topic="x")
    rows(one, [{"t": 1, "g": "a", "c": {"deep": ["b" * 100_000]}}] * 4, topic="x")
    assert sum(map(len, one.state().values())) < 1_000
    assert {"key_too_long", "value_too_long"} & set(one.counts)


SMALL = [None, True, 0, 1, 2, -1, 7.5, 10**9, 10**12, 2**70, 10**400, "", "a", "%", "9" * 60, "base64", "hex", "int"]
ANYTHING: list[Any] = [
    *SMALL,
    "string",
    "yyyy",
    float("inf"),
    float("nan"),
    [],
    ["a"],
    {},
    {"a": None},
    [[]],
    "\ud800",
    b"\xff",
]
LARGE = [
    "a" * 131_000, "ab" * 65_000, "a" * 65_000 + "b", "%" + "a" * 20_000 + "b", "%a_a" * 255, "%" + "a" * 500 + "_b",
    "9" * 131_000, "ff" * 65_000, " " * 131_000, "\u0390" * 65_000, "a/" * 65_000, "((a+)+)+$", ["a"] * 60_000,
    ["a" * 131_000], {"a" * 60_000: "b" * 60_000}, [["a"]] * 40_000,
]  # fmt: skip
WORK: dict[str, tuple[int, int, Callable[..., Any]]] = {
    **FUNCTIONS,
    **{sign: (2, 2, work) for sign, work in OPERATORS.items()},
    **{sign: (1, 1, OPERATORS[sign]) for sign in ("not", "neg", "is null")},
    "like": (2, 3, OPERATORS["like"]),
    "between": (3, 3, OPERATORS["between"]),
}


@pytest.mark.parametrize("name", WORK)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_no_function_raises_whatever_it_is_given(name: str, data: st.DataObject) -> None:
    low, high, work = WORK[name]
    args = data.draw(st.lists(st.sampled_from(ANYTHING) | VALUES, min_size=low, max_size=min(high, 4)))
    found = work(*args)
    assert not isinstance(found, str) or len(found) <= TEXT_CHARS_MAX


def cpu_s(work: Callable[..., object], *args: object) -> float:
    began = time.process_time()
    work(*args)
    return time.process_time() - began


def linear_s() -> float:
    """What it costs to look at 2,000,000 characters one after the other."""
    return cpu_s(lambda: [char for char in "a" * 2_000_000 if char == "b"])


@pytest.mark.parametrize("name", WORK)
def test_a_text_of_128_kb_costs_every_function_little(name: str) -> None:
    low, high, work = WORK[name]
    linear = linear_s()
    for first, second in itertools.product(LARGE, [*SMALL[3:], *LARGE]):
        for args in ((first, second, second)[:high], (second, first, first)[:high]):
            if len(args) >= low:
                spent = cpu_s(work, *args)
                assert spent <= linear or min(cpu_s(work, *args) for _ in range(3)) <= linear, (first, second)


@pytest.mark.parametrize(
    "condition",
    [
        "a LIKE b",
        "a LIKE '%==================== ERROR%'",
        "a NOT LIKE '%a_b%'",
        "b LIKE a",
        "regexp_matches(a, '(a+)+$')",
    ],
)
def test_a_hostile_message_costs_a_rule_little(condition: str) -> None:
    linear = linear_s()
    one = rule(f"SELECT 1 AS hit FROM 'x' WHERE {condition}")
    for a, b in (("a" * 60_000, "%" + "a" * 20_000 + "b"), ("=" * 130_000, "%=_="), ("a" * 130_000, "%" + "a" * 1_000)):
        docs = [{"a": a, "b": b}]
        assert min(cpu_s(lambda docs: rows(one, docs, topic="x"), docs) for _ in range(3)) <= linear


@pytest.mark.parametrize("kind", ["text", "filter", "unseen", "changed", "tumbling", "join"])
def test_a_text_of_128_kb_ends_no_rule(kind: str) -> None:
    one = made(kind)
    rows(one, [{"t": 1, "g": 1, "c": "a" * 131_000}] * 20, topic="x")
    assert one.counts.get("error", 0) == 0
