"""What is told of a wrong text, and what no text can do."""

import re
from pathlib import Path

import pytest

from edge.rules.plan import AGGREGATES, FILTERS, UNITS_MS, WINDOWS
from edge.rules.sql.parse import parse
from edge.rules.values import CONTEXT, FUNCTIONS
from tests.rules.making import rows, rule


@pytest.mark.parametrize(
    ("sql", "line", "column", "problem"),
    [
        ("SELECT a,\n  avrg(b) FROM 'x'", 2, 3, "avrg() is no function"),
        ("SELECT a FRM 'x'", 1, 14, "'x' is not expected here"),
        ("SELEC a FROM 'x'", 1, 1, "it begins with 'SELEC'"),
        ("\n  (SELECT a FROM 'x')", 2, 3, "it begins with '('"),
        ("SELECT a FROM 'x' WHERE c >", 1, 27, "something is missing after '>'"),
        ("SELECT a FROM 'x'\nWHERE c = = 1", 2, 11, "something is missing before '='"),
        ("SELECT (a FROM 'x'", 1, 11, ") is missing before 'FROM'"),
        ("SELECT 'a' AS b, 'c FROM d", 1, 18, "' is opened here and not closed"),
        ("SELECT a /* 'x' FROM 'x'", 1, 10, "/* is opened here and not closed"),
        ("SELECT FROM 'x'", 1, 8, "names no column"),
        ("SELECT VALUE c FROM 'x'", 1, 8, "SELECT VALUE is not known here"),
        ("select value upper(c) FROM 'x'", 1, 8, "SELECT VALUE is not known here"),
        ("SELECT a || b FROM 'x'", 1, 8, "'a || b' is not known here"),
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
        ("SELECT regexp_matches(a, '(?=x)') FROM 'a'", 1, 8, "begins what is not known"),
        ("SELECT regexp_matches(a, b) FROM 'a'", 1, 8, "stands in the rule"),
        ("SELECT parse_time('yyyy-bb', a) FROM 'a'", 1, 8, "'b' is no field of a time"),
        ("SELECT parse_time('yyyy', a, 'Mars/Base') FROM 'a'", 1, 8, "no time zone"),
        ("SELECT cast(a) FROM 'a'", 1, 8, "into what"),
        ("SELECT cast(a AS date) FROM 'a'", 1, 8, "into what"),
        ("SELECT a FROM 'a' UNION SELECT a FROM 'b'", 1, 1, "not one SELECT"),
        ("SELECT a FROM 'a'; SELECT a FROM 'b'", 1, 1, "not one SELECT"),
        ("DROP TABLE x", 1, 1, "not one SELECT"),
        ("SELECT (SELECT 1) FROM 'a'", 1, 16, "not known here"),
        ("SELECT a FROM 'x' JOIN 'y' ON 1 = 1", 1, 15, "a name of its own"),
        ("", 1, 1, "not one SELECT"),
        ('SELECT g, max {"t":1,"c":6} {"t":8,2} {:1,"c":5}', 1, 1, "is no SQL"),
    ],
)
def test_a_wrong_rule_is_refused_with_its_place(sql: str, line: int, column: int, problem: str) -> None:
    mistake = parse(sql).mistake
    assert mistake is not None
    assert problem in mistake.problem
    assert (mistake.line, mistake.column) == (line, column)
    assert mistake.allowed


@pytest.mark.parametrize(
    "columns", ["value", "VALUE, a", "value AS v", "value.a", "value + 1 AS v", "value[0]", "value IN (1) AS v"]
)
def test_a_field_may_be_called_value(columns: str) -> None:
    assert parse(f"SELECT {columns} FROM 'x'").plan is not None


def test_what_is_allowed_is_told_by_the_clause() -> None:
    def allowed(sql: str) -> str:
        mistake = parse(sql).mistake
        assert mistake is not None
        return mistake.allowed

    assert allowed("SELECT a FROM 'x' WHERE c >").startswith("A condition such as")
    assert allowed("SELECT a FROM 'x' WHERE").startswith("A condition such as")
    assert allowed("SELECT a FROM 'x' GROUP a").startswith("GROUP BY fields and one window")
    assert "then FROM" in allowed("SELECT a FRM 'x'")


def test_no_text_of_a_rule_becomes_code() -> None:
    hostile = "x'); import os; ('"
    made = rule(f'SELECT "{hostile}" AS "{hostile}", \'a"\\nb\' AS t FROM \'a\' WHERE "{hostile}" <> \'__import__\'')
    assert "import" not in made.source
    assert rows(made, [{hostile: "__import__"}]) == []
    assert rows(made, [{hostile: "y"}])[0][hostile] == "y"


def test_the_readme_names_all_that_the_sql_knows() -> None:
    text = (Path(__file__).resolve().parents[3] / "README.md").read_text()
    words = set(
        re.findall(r"[A-Za-z_][A-Za-z_0-9]*", text.partition("### Write a rule")[2].partition("### Write a f")[0])
    )
    known = {*FUNCTIONS, *CONTEXT, *AGGREGATES, *FILTERS, *WINDOWS, *UNITS_MS}
    assert known <= words, known - words
