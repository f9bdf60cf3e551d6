"""SQL's meaning, as tables: expressions, conditions, filters, mistakes."""

from typing import Any

import pytest

from edge.rules.parse import parse
from tests.rules.making import passes, rows, rule, value


@pytest.mark.parametrize(
    ("expression", "doc", "expected"),
    [
        ("a", {"a": 1}, 1),
        ("a.b[1].c", {"a": {"b": [0, {"c": "x"}]}}, "x"),
        ("a['b c']", {"a": {"b c": 2}}, 2),
        ("a.b.c.d.e.f", {"a": {"b": {"c": {"d": {"e": {"f": 3}}}}}}, 3),
        ("a.b", {"a": "text"}, None),
        ("a", [1], None),
        ("*", [1], [1]),
        ("a + 2 * b - 1", {"a": 1, "b": 3}, 6),
        ("a / b", {"a": 7, "b": 2}, 3.5),
        ("a / b", {"a": 8, "b": 2}, 4),
        ("a / b", {"a": 1, "b": 0}, None),
        ("a % 3", {"a": 7}, 1),
        ("a * b", {"a": "x" * 100, "b": 10**9}, None),
        ("a * a * a", {"a": 1e200}, None),
        ("a % b", {"a": "%s%s", "b": 1}, None),
        ("-a", {"a": 4}, -4),
        ("a + b", {"a": "x", "b": "y"}, "xy"),
        ("a > 1", {"a": None}, None),
        ("a > 1", {"a": "2"}, None),
        ("CASE WHEN a > 1 THEN 'hot' WHEN a > 0 THEN 'warm' ELSE 'cold' END", {"a": 1}, "warm"),
        ("CASE a WHEN 1 THEN 'one' END", {"a": 2}, None),
        ("topic()", {}, "dt/b1/temp"),
        ("topic(2)", {}, "b1"),
        ("topic(9)", {}, None),
        ("timestamp()", {}, 1000),
        ("upper(a)", {"a": "x"}, "X"),
        ("substring(a, 1, 3)", {"a": "abcd"}, "bc"),
        ("concat(a, '-', b)", {"a": "x", "b": 2}, "x-2"),
        ("length(a)", {"a": 5}, None),
        ("round(a, 1)", {"a": 2.26}, 2.3),
        ("floor(a)", {"a": 2.7}, 2),
        ("sqrt(a)", {"a": -1}, None),
        ("power(a, 2)", {"a": 1e300}, None),
        ("ln(a)", {"a": 0}, None),
        ("abs(a)", {"a": True}, None),
        ("encode(a, 'base64')", {"a": "hi"}, "aGk="),
        ("decode(a, 'base64')", {"a": "aGk="}, "hi"),
        ("decode(a, 'base64')", {"a": "!"}, None),
        ("get(a, 'b')", {"a": {"b": 1}}, 1),
        ("get(a, b)", {"a": [7, 8], "b": 1}, 8),
        ("nanvl(a, 0)", {}, 0),
        ("coalesce(a, b, 3)", {"b": 2}, 2),
        ("to_number(a)", {"a": " 2.5 "}, 2.5),
        ("replace(a, 'x', 'yy')", {"a": "axa"}, "ayya"),
        ("replace(a, 'x', a)", {"a": "x" * 100_000}, None),
        ("indexof(a, 'b')", {"a": "ab"}, 1),
        ("isundefined(a)", {}, True),
        ("sha256(a)", {"a": ""}, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    ],
)
def test_an_expression_gives_what_the_table_says(expression: str, doc: Any, expected: Any) -> None:
    assert value(expression, doc) == expected


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


def test_lookup_finds_a_column_of_a_table() -> None:
    made = rule(
        "SELECT lookup('sites', topic(2), 'room') AS r FROM 'dt/#'", tables={"sites": {"b1": {"room": "attic"}}}
    )
    assert rows(made, [{}]) == [{"r": "attic"}]
    assert rows(made, [{}], topic="dt/b9/temp") == [{"r": None}]


@pytest.mark.parametrize(
    ("sql", "line", "column", "problem"),
    [
        ("SELECT a,\n  avrg(b) FROM 'x'", 2, 3, "avrg() is no function"),
        ("SELECT a FRM 'x'", 1, 14, "Unexpected token"),
        ("SELECT c, avg(d) FROM 'a' GROUP BY TUMBLINGWINDOW(ss, 1)", 1, 8, "c is neither in GROUP BY"),
        ("SELECT avg(d) FROM 'a'", 1, 8, "need a window"),
        ("SELECT a FROM 'a/#/b'", 1, 15, "filter_wildcard"),
        ("SELECT a FROM 'a' WHERE avg(b) > 1", 1, 25, "WHERE holds an aggregate"),
        ("SELECT a FROM 'a' WHERE NOT changed(b)", 1, 29, "remembers the last message"),
        ("SELECT a FROM 'a' LIMIT 3", 1, 25, "LIMIT"),
        ("SELECT a FROM 'a' ORDER BY a", 1, 28, "ORDER"),
        ("SELECT a, b AS a FROM 'a'", 1, 11, "two columns"),
        ("SELECT count(*) FROM 'a' GROUP BY TUMBLINGWINDOW(xx, 3)", 1, 35, "no unit of time"),
        ("SELECT count(*) FROM 'a' GROUP BY HOPPINGWINDOW(ss, 3, 4)", 1, 35, "lengths do not fit"),
        ("SELECT count(*) FROM 'a' GROUP BY HOPPINGWINDOW(ms, 1000, 1)", 1, 35, "overlap"),
        ("SELECT upper() FROM 'a'", 1, 8, "0 argument(s)"),
        ("SELECT a FROM 'a' UNION SELECT a FROM 'b'", 1, 1, "not one SELECT"),
        ("SELECT a FROM 'a'; SELECT a FROM 'b'", 1, 1, "not one SELECT"),
        ("DROP TABLE x", 1, 1, "not one SELECT"),
        ("SELECT (SELECT 1) FROM 'a'", 1, 16, "not known here"),
        ("SELECT a FROM 'x' JOIN 'y' ON 1 = 1", 1, 15, "a name of its own"),
        ("", 1, 1, "not one SELECT"),
    ],
)
def test_a_wrong_rule_is_refused_with_its_place(sql: str, line: int, column: int, problem: str) -> None:
    mistake = parse(sql).mistake
    assert mistake is not None
    assert problem in mistake.problem
    assert (mistake.line, mistake.column) == (line, column)
    assert mistake.allowed


def test_no_text_of_a_rule_becomes_code() -> None:
    hostile = "x'); import os; ('"
    made = rule(f'SELECT "{hostile}" AS "{hostile}", \'a"\\nb\' AS t FROM \'a\' WHERE "{hostile}" <> \'__import__\'')
    assert "import" not in made.source
    assert rows(made, [{hostile: "__import__"}]) == []
    assert rows(made, [{hostile: "y"}])[0][hostile] == "y"
