"""What the clauses of SQL let pass, remember and refuse."""

from typing import Any

import pytest

from edge.rules.sql.parse import parse
from tests.rules.making import passes, rows, rule


@pytest.mark.parametrize(
    ("condition", "doc", "expected"),
    [
        ("a > -40", {"a": -39}, True),
        ("a > -40", {"a": True}, False),
        ("a > -40", {}, False),
        ("a = 'x'", {"a": "x"}, True),
        ("a <> 1", {}, False),
        ("a <> 1", {"a": 2}, True),
        ("NOT (a = 1)", {}, False),
        ("NOT (a = 1)", {"a": 2}, True),
        ("a = 1 AND b = 2", {"a": 1, "b": 2}, True),
        ("a = 1 OR b = 2", {"b": 2}, True),
        ("a IN (1, 'x')", {"a": "x"}, True),
        ("a NOT IN (1, 'x')", {"a": 2}, True),
        ("a NOT IN (1, 'x')", {}, False),
        ("a BETWEEN 1 AND 2", {"a": 2}, True),
        ("a BETWEEN 1 AND 2", {"a": 2.1}, False),
        ("a LIKE 'b%_'", {"a": "bc"}, True),
        ("a LIKE 'b%_'", {"a": "b"}, False),
        ("a NOT LIKE '%c'", {"a": "bd"}, True),
        ("a LIKE '%a%a%a%a%a%b'", {"a": "a" * 3000}, False),
        ("a IS NULL", {"a": None}, True),
        ("a IS NOT NULL", {"a": 0}, True),
        ("a", {"a": True}, True),
        ("a = b", {"a": 1, "b": True}, False),
        ("a < b", {"a": 1, "b": 2.5}, True),
    ],
)
def test_a_condition_lets_pass_what_the_table_says(condition: str, doc: Any, expected: bool) -> None:
    assert passes(condition, doc) is expected


def test_a_star_takes_all_fields_over() -> None:
    assert rows(rule("SELECT *, topic(2) AS board FROM 'dt/#'"), [{"a": 1}]) == [{"a": 1, "board": "b1"}]


def test_changed_lets_pass_what_left_the_dead_band_by_topic() -> None:
    made = rule("SELECT c FROM 'dt/#' WHERE c > 0 AND changed(c, 0.5)")
    docs = [{"c": one} for one in (1, 1.4, 1.5, -9, 1.2, 1.0, None, "x")]
    assert rows(made, docs) == [{"c": 1}, {"c": 1.5}, {"c": 1.0}]
    assert rows(made, docs[:1], topic="dt/b2/temp") == [{"c": 1}]


def test_changed_without_a_band_lets_pass_what_is_another_value() -> None:
    made = rule("SELECT c FROM 'dt/#' WHERE changed(c)")
    assert rows(made, [{"c": one} for one in (1, 1, "a", "a", True, 1, None)]) == [
        {"c": 1}, {"c": "a"}, {"c": True}, {"c": 1}]  # fmt: skip


def test_unseen_at_most_and_every_thin_out() -> None:
    made = rule("SELECT i FROM 'dt/#' WHERE unseen(i, 10)")
    assert rows(made, [{"i": 1}, {"i": 2}, {"i": 1}], now=0) == [{"i": 1}, {"i": 2}]
    assert rows(made, [{"i": 1}], now=9_999) == []
    assert rows(made, [{"i": 1}], now=10_000) == [{"i": 1}]
    made = rule("SELECT i FROM 'dt/#' WHERE at_most(5)")
    assert [len(rows(made, [{"i": 1}], now=now)) for now in (0, 4_999, 5_000, 9_000)] == [1, 0, 1, 0]
    made = rule("SELECT i FROM 'dt/#' WHERE every(3)")
    assert rows(made, [{"i": i} for i in range(7)]) == [{"i": 0}, {"i": 3}, {"i": 6}]


def test_what_filters_remember_is_bounded_and_counted() -> None:
    made = rule("SELECT i FROM 'dt/#' WHERE unseen(i, 10)", keys_max=2)
    rows(made, [{"i": i} for i in range(5)])
    assert made.counts == {"keys_max": 3}


@pytest.mark.parametrize(
    ("sql", "column", "problem"),
    [
        ("SELECT a.c FROM 'x' AS a, 'y' AS b GROUP BY TUMBLINGWINDOW(ss, 1)", 27, "JOIN without ON"),
        ("SELECT a.c FROM 'x' AS a CROSS JOIN 'y' AS b GROUP BY TUMBLINGWINDOW(ss, 1)", 37, "CROSS"),
        ("SELECT a.c FROM 'x' AS a RIGHT JOIN 'y' AS b ON a.c = b.c", 37, "RIGHT"),
        ("SELECT a.c FROM 'x' AS a FULL JOIN 'y' AS b ON a.c = b.c", 36, "FULL"),
        ("SELECT a.c FROM 'x' AS a JOIN 'y' AS b USING (c)", 31, "USING"),
        ("SELECT a.c FROM 'x' AS a JOIN 'y' AS a ON a.c = a.c", 31, "a name of its own"),
        ("SELECT a.c FROM 'x' JOIN 'y' AS b ON a.c = b.c", 17, "a name of its own"),
        ("SELECT a.c FROM 'x' AS a JOIN 'y' AS b ON a.c = b.c", 31, "needs a window"),
        ("SELECT a.c FROM 'x' AS a JOIN 'y' AS b ON a.c = b.c GROUP BY COUNTWINDOW(3)", 62, "an end of its own"),
        ("SELECT a.c FROM 'x' AS a JOIN 'y' AS b ON a.c > b.c GROUP BY TUMBLINGWINDOW(ss, 1)", 43, "nothing of the"),
        ("SELECT c FROM 'x' AS a JOIN 'y' AS b ON a.c = b.c GROUP BY TUMBLINGWINDOW(ss, 1)", 8, "neither a nor b"),
        ("SELECT * FROM 'x' AS a JOIN 'y' AS b ON a.c = b.c GROUP BY TUMBLINGWINDOW(ss, 1)", 8, "whole payloads"),
        ("SELECT topic(2) FROM 'x' AS a JOIN 'y' AS b ON a.c = b.c GROUP BY TUMBLINGWINDOW(ss, 1)", 8, "of which"),
        ("SELECT a.c FROM 'x' AS a JOIN 'y/#/z' AS b ON a.c = b.c GROUP BY TUMBLINGWINDOW(ss, 1)", 31, "filter_w"),
        (
            "SELECT a.c FROM 'x' AS a JOIN 'y' AS b ON a.c = b.c JOIN 'z' AS d ON a.c = d.c "
            "GROUP BY TUMBLINGWINDOW(ss, 1)",
            58,
            "third topic",
        ),
        (
            "SELECT a.c FROM 'x' AS a JOIN 'y' AS b ON a.c = b.c WHERE changed(a.c) GROUP BY TUMBLINGWINDOW(ss, 1)",
            59,
            "remembers",
        ),
        (
            "SELECT a.c, count(*) FROM 'x' AS a JOIN 'y' AS b ON a.c = b.c GROUP BY b.c, TUMBLINGWINDOW(ss, 1)",
            8,
            "neither in GROUP BY",
        ),
        (
            "SELECT count(*) AS n FROM 'x' AS a JOIN 'y' AS b ON a.c = b.c GROUP BY m, TUMBLINGWINDOW(ss, 1)",
            72,
            "no column's",
        ),
    ],
)
def test_a_join_that_is_not_known_is_refused_with_its_place(sql: str, column: int, problem: str) -> None:
    mistake = parse(sql).mistake
    assert mistake is not None, parse(sql).plan
    assert problem in mistake.problem
    assert (mistake.line, mistake.column) == (1, column)
    assert mistake.allowed
