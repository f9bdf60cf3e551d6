"""What is told of a wrong text, and what no text can do."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.rules.plan import AGGREGATES, FILTERS, UNITS_MS, WINDOWS
from edge.rules.sql.parse import parse
from edge.rules.values import CONTEXT, FUNCTIONS
from tests.rules.making import rows, rule


@pytest.mark.parametrize(
    ("sql", "line", "column", "problem"),
    [
        ("SELECT a,\n  avrg(b) FROM 'x'", 2, 3, "avrg() is no function"),
        ("SELECT a FRM 'x'", 1, 10, "'FRM' is not expected here"),
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
        ("SELECT a || b FROM 'x'", 1, 10, "'||' is not known here"),
        ("SELECT c, avg(d) FROM 'a' GROUP BY TUMBLINGWINDOW(ss, 1)", 1, 8, "c is neither in GROUP BY"),
        ("SELECT avg(d) FROM 'a'", 1, 8, "need a window"),
        ("SELECT a FROM 'a/#/b'", 1, 15, "filter_wildcard"),
        ("SELECT a FROM '$share/g/a/#'", 1, 15, "write 'a/#' instead"),
        ("SELECT a FROM 'a' WHERE avg(b) > 1", 1, 25, "WHERE holds an aggregate"),
        ("SELECT a FROM 'a' WHERE NOT changed(b)", 1, 29, "remembers the last message"),
        ("SELECT a FROM 'a' LIMIT 3", 1, 19, "LIMIT is not"),
        ("SELECT a FROM 'a' ORDER BY a", 1, 19, "ORDER BY is not"),
        ("SELECT a, b AS a FROM 'a'", 1, 11, "two columns"),
        ("SELECT count(*) FROM 'a' GROUP BY TUMBLINGWINDOW(xx, 3)", 1, 50, "'xx' is no unit of time"),
        ("SELECT count(*) FROM 'a' GROUP BY HOPPINGWINDOW(ss, 3, 4)", 1, 35, "lengths do not fit"),
        ("SELECT count(*) FROM 'a' GROUP BY HOPPINGWINDOW(ms, 1000, 1)", 1, 35, "overlap"),
        ("SELECT upper() FROM 'a'", 1, 8, "0 argument(s)"),
        ("SELECT regexp_matches(a, '(?=x)') FROM 'a'", 1, 8, "begins what is not known"),
        ("SELECT regexp_matches(a, b) FROM 'a'", 1, 8, "stands in the rule"),
        ("SELECT parse_time('yyyy-bb', a) FROM 'a'", 1, 8, "'b' is no field of a time"),
        ("SELECT parse_time('yyyy', a, 'Mars/Base') FROM 'a'", 1, 8, "no time zone"),
        ("SELECT cast(a) FROM 'a'", 1, 8, "into what"),
        ("SELECT cast(a AS date) FROM 'a'", 1, 8, "into what"),
        ("SELECT a FROM 'a' UNION SELECT a FROM 'b'", 1, 19, "UNION is not known here"),
        ("SELECT a FROM 'a'; SELECT a FROM 'b'", 1, 20, "'SELECT' begins a second statement"),
        ("DROP TABLE x", 1, 1, "not one SELECT"),
        ("SELECT (SELECT 1) FROM 'a'", 1, 9, "'SELECT 1' is not known here"),
        ("SELECT a FROM 'x' JOIN 'y' ON 1 = 1", 1, 15, "a name of its own"),
        ("", 1, 1, "not one SELECT"),
        ('SELECT g, max {"t":1,"c":6} {"t":8,2} {:1,"c":5}', 1, 15, "'{' is not known here"),
    ],
)
def test_a_wrong_rule_is_refused_with_its_place(sql: str, line: int, column: int, problem: str) -> None:
    mistake = parse(sql).mistake
    assert mistake is not None
    assert problem in mistake.problem
    assert (mistake.line, mistake.column) == (line, column)
    assert mistake.allowed


WINDOWED = "GROUP BY fields and one window"
DRAWN_UP = "SELECT columns FROM"
EXPRESSIONS = "Fields, literals, + - * / %"
THERE = "Values themselves"


@pytest.mark.parametrize(
    ("sql", "line", "column", "problem", "allowed"),
    [
        ("SELECT c, FROM 'x'", 1, 11, "something is missing before 'FROM'", "Fields, functions, expressions"),
        ("SELECT c,, d FROM 'x'", 1, 10, "something is missing before ','", "Fields, functions, expressions"),
        ("SELECT , c FROM 'x'", 1, 8, "something is missing before ','", "Fields, functions, expressions"),
        ("SELECT upper(c,) FROM 'x'", 1, 16, "something is missing before ')'", "Fields, functions, expressions"),
        ("SELECT c FROM 'x' GROUP BY c,", 1, 29, "something is missing after ','", WINDOWED),
        ("SELECT c, (*) FROM 'x'", 1, 12, "this * has no name", "* AS name"),
        ("SELECT a.* FROM 'x'", 1, 8, "'a.*' is not known here", "* alone, or fields by name"),
        ("SELECT c FROM 'x'\nWHERE c BETWEEN SYMMETRIC 1 AND 2", 2, 17, "SYMMETRIC is not known here",
         "c BETWEEN low AND high"),
        ("SELECT 1 AS o, avg(*) FROM 'x' GROUP BY COUNTWINDOW(2)", 1, 16, "avg(*) names no field", "avg(c)"),
        ("SELECT c FROM 'x' WHERE every(2.5)", 1, 25, "every() has arguments that do not fit", "n a whole number"),
        ("SELECT DISTINCT c FROM 'x'", 1, 8, "DISTINCT is not known here", "changed(c) or unseen(c, 60)"),
        ("SELECT count(DISTINCT c) FROM 'x' GROUP BY COUNTWINDOW(2)", 1, 14, "'DISTINCT c' is not", EXPRESSIONS),
        ("SELECT a FROM 'a' UNION ALL SELECT a FROM 'b'", 1, 19, "UNION is not known here", "One SELECT in a rule"),
        ("SELECT a FROM 'a';\n SELECT a FROM 'b'", 2, 2, "'SELECT' begins a second statement", "One SELECT in a rule"),
        ("SELECT a FROM 'a' GROUP BY", 1, 19, "something is missing after 'GROUP BY'", WINDOWED),
        ("SELECT a FROM 'a' GROUP BY ALL", 1, 28, "GROUP BY ALL is not known here", WINDOWED),
        ("SELECT a FROM 'a' GROUP BY ROLLUP(a)", 1, 28, "'ROLLUP(a)' is not known here", EXPRESSIONS),
        ("SELECT a FROM 'a' GROUP BY a WITH ROLLUP", 1, 35, "GROUP BY ROLLUP is not known here", WINDOWED),
        ("SELECT a FROM 'a' FOR UPDATE", 1, 19, "FOR is not known here", DRAWN_UP),
        ("SELECT a FROM 'x' WHERE a = ?", 1, 29, "'?' is not known here", THERE),
        ("SELECT a FROM 'x' WHERE a = :p", 1, 29, "':' is not known here", THERE),
        ("SELECT a FROM 'x' WHERE a = @v", 1, 29, "'@' is not known here", THERE),
        ("SELECT a FROM 'x'\n ORDER  BY a", 2, 2, "ORDER BY is not known here", "rows come in the order"),
        ("SELECT limit FROM 'x' LIMIT 3", 1, 23, "LIMIT is not known here", "at_most(5) or every(10)"),
        ("SELECT a FROM 'x' FETCH FIRST 3 ROWS ONLY", 1, 19, "FETCH is not known here", "at_most(5) or every(10)"),
        ("SELECT a FROM 'x' OFFSET 3", 1, 19, "OFFSET is not known here", DRAWN_UP),
        ("SELECT a FROM 'x' HAVING a > 1", 1, 19, "HAVING needs a window", "WHERE for single messages"),
        ("SELECT a, avg(b) FROM 'x'", 1, 11, "need a window", "GROUP BY …, one of COUNTWINDOW"),
        ("SELECT c FROM 'x' WHER c > 1", 1, 19, "'WHER' is not expected here", "Did you mean WHERE?"),
        ("SELECT c FROM 'x' WHER", 1, 19, "'WHER' is not expected here", "Did you mean WHERE?"),
        ("SELECT c FROM 'x' GROP BY c", 1, 19, "'GROP' is not expected here", "Did you mean GROUP?"),
        ("SELECT CASE WHEN a THEN 2 FROM 'x'", 1, 27, "END is missing before 'FROM'", "CASE WHEN c > 30 THEN"),
        ("SELECT a FROM 'x' WHERE CASE a WHEN 1 THEN 2", 1, 44, "END is missing after '2'", "CASE WHEN c > 30 THEN"),
        ("SELECT c->d->e FROM 'x'", 1, 9, "'->' is not known here", "Paths such as a.b"),
        ("SELECT c::int FROM 'x'", 1, 9, "'::' is not known here", "cast(c AS int)"),
        ("SELECT a DIV 3 FROM 'x'", 1, 8, "'a DIV 3' is not known here", EXPRESSIONS),
        ("SELECT a COLLATE b FROM 'x'", 1, 8, "'a COLLATE b' is not known here", EXPRESSIONS),
        ("SELECT avg(c) OVER (PARTITION BY a) FROM 'x'", 1, 8, "'avg(c) OVER (PARTITION BY a)' is", EXPRESSIONS),
        ("SELECT a FROM 'x' GROUP BY TUMBLINGWINDOW('ss', 10)", 1, 43,
         "'ss' is no unit of time: it stands without quotes", "TUMBLINGWINDOW(ss, 10), the unit one of ms, ss"),
        ("SELECT a FROM 'x' GROUP BY TUMBLINGWINDOW(10)", 1, 43, "'10' is no unit of time", "TUMBLINGWINDOW(ss, 10)"),
        ("SELECT a FROM 'x' GROUP BY TUMBLINGWINDOW()", 1, 28, "says no unit of time", "TUMBLINGWINDOW(ss, 10)"),
        ("SELECT a FROM 'x' t", 1, 19, "'t' is not expected here", "only where topics are joined"),
        ("SELECT a FROM 'x' AS t", 1, 22, "'t' is not expected here", "only where topics are joined"),
        ("SELECT a LIKE 'x!y' ESCAPE '!' AS b FROM 'x'", 1, 15, "the pattern after '!' stands neither", "% for any"),
        ("SELECT a LIKE 'x' ESCAPE '!!' AS b FROM 'x'", 1, 26, "ESCAPE takes one character", "ESCAPE '!'"),
        (f"SELECT a LIKE '{'x' * 1025}' AS b FROM 'x'", 1, 15, "the pattern is longer than 1024", "% for any text"),
    ],
)  # fmt: skip
def test_the_word_that_is_wrong_is_named_where_it_stands_with_what_is_allowed(
    sql: str, line: int, column: int, problem: str, allowed: str
) -> None:
    mistake = parse(sql).mistake
    assert mistake is not None, parse(sql).plan
    assert problem in mistake.problem
    assert (mistake.line, mistake.column) == (line, column)
    assert allowed in mistake.allowed


@pytest.mark.parametrize(
    "sql", ["SELECT limit, order, div, at FROM 'x'", "SELECT a FROM 'x';", "SELECT a[0], $b, größe FROM 'x'"]
)
def test_words_that_only_look_wrong_are_taken(sql: str) -> None:
    assert parse(sql).plan is not None, parse(sql).mistake


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


WORDS = [
    *[
        "SELECT",
        "FROM",
        "WHERE",
        "GROUP",
        "BY",
        "HAVING",
        "JOIN",
        "ON",
        "AS",
        "CASE",
        "WHEN",
        "THEN",
        "ELSE",
        "END",
        "LIKE",
        "ESCAPE",
        "BETWEEN",
        "SYMMETRIC",
        "IN",
        "IS",
    ],
    *[
        "NOT",
        "NULL",
        "AND",
        "OR",
        "UNION",
        "ORDER",
        "LIMIT",
        "FOR",
        "UPDATE",
        "DISTINCT",
        "ALL",
        "ROLLUP",
        "OVER",
        "WITH",
        "INTERVAL",
        "DATE",
        "CAST",
        "WHER",
    ],
    *[
        "TUMBLINGWINDOW(",
        "COUNTWINDOW(",
        "avg(",
        "every(",
        "upper(",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ",",
        ".",
        ";",
        ":",
        "::",
        "->",
        "->>",
        "?",
        "@",
        "$",
        "#",
        "||",
        "&",
        "*",
        "/",
        "%",
        "+",
        "-",
        "=",
        "<",
    ],
    *[">", "!", "'", '"', "`", "--", "/*", "*/", "'x'", '"y"', "a", "b", "1", "2.5"],
    "\n",
]


@given(words=st.lists(st.sampled_from(WORDS), max_size=14))
@settings(max_examples=400, deadline=None)
def test_any_words_are_a_plan_or_a_mistake_with_its_place(words: list[str]) -> None:
    for text in (" ".join(words), "SELECT a FROM 'x' " + " ".join(words), "SELECT " + " ".join(words) + " FROM 'x'"):
        answer = parse(text)
        if answer.plan is None:
            assert answer.mistake is not None
            lines = text.split("\n")
            assert 1 <= answer.mistake.column <= len(lines[answer.mistake.line - 1]) + 1
            assert answer.mistake.problem
            assert answer.mistake.allowed


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
