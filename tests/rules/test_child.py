"""The parser's child: whatever a rule's text is, it answers."""

import subprocess
import sys

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.rules.child import parse_rules
from edge.rules.plan import Answer
from edge.rules.rule import Rule
from edge.rules.sql.parse import parse
from tests.rules.making import rows

WORDS = [
    "SELECT",
    "FROM",
    "WHERE",
    "GROUP",
    "BY",
    "HAVING",
    "CASE",
    "WHEN",
    "THEN",
    "ELSE",
    "END",
    "AND",
    "OR",
    "NOT",
    "IN",
    "BETWEEN",
    "LIKE",
    "IS",
    "NULL",
    "AS",
    "a",
    "b.c",
    "d[0]",
    "*",
    ",",
    "(",
    ")",
    "+",
    "-",
    "/",
    "%",
    "<",
    ">",
    "=",
    "<>",
    "1",
    "2.5",
    "'x'",
    "'dt/+/t'",
    "avg",
    "count",
    "topic",
    "changed",
    "TUMBLINGWINDOW",
    "ss",
    "upper",
    "lookup",
    "percentile",
    '"',
    "`",
    ";",
    "--",
]
TEXTS = st.text(max_size=60) | st.lists(st.sampled_from(WORDS), max_size=25).map(" ".join)
EXPRESSIONS = st.recursive(
    st.sampled_from(["a", "b.c", "d[0]", "1", "-2.5", "'x'", "NULL", "TRUE", "*", "topic(2)", "timestamp()"]),
    lambda inner: st.one_of(
        st.tuples(
            inner,
            st.sampled_from(["+", "-", "*", "/", "%", "<", "<=", ">", ">=", "=", "<>", "AND", "OR", "LIKE"]),
            inner,
        ).map(lambda t: f"({' '.join(t)})"),
        inner.map(lambda one: f"NOT ({one})"),
        inner.map(lambda one: f"upper({one})"),
        st.tuples(inner, inner, inner).map(lambda t: f"CASE WHEN {t[0]} THEN {t[1]} ELSE {t[2]} END"),
        st.tuples(inner, inner, inner).map(lambda t: f"({t[0]} BETWEEN {t[1]} AND {t[2]})"),
        st.tuples(inner, inner, inner).map(lambda t: f"({t[0]} IN ({t[1]}, {t[2]}))"),
    ),
    max_leaves=12,
)
DOCS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=6,
)


@given(text=TEXTS)
@settings(max_examples=300, deadline=None)
def test_any_text_is_answered_with_a_plan_or_a_mistake(text: str) -> None:
    answer = parse(text)
    assert (answer.plan is None) is not (answer.mistake is None)
    assert_plain(answer)


@given(words=st.lists(st.sampled_from(WORDS), max_size=12), cut=st.integers(0, 60))
@settings(max_examples=300, deadline=None)
def test_no_mistake_speaks_of_the_parsers_inside(words: list[str], cut: int) -> None:
    assert_plain(parse(f"SELECT a FROM 'x' WHERE {' '.join(words)}"))
    assert_plain(parse("SELECT topic(2), avg(c) FROM 'dt/#' WHERE c > 1 GROUP BY topic(2), COUNTWINDOW(3)"[:cut]))


def assert_plain(answer: Answer) -> None:
    if (mistake := answer.mistake) is not None:
        told = f"{mistake.problem} {mistake.allowed}"
        for inner in ("<class", "<core", "<query", "<functions", "sqlglot", "Token", "Required keyword", "tokenizing"):
            assert inner not in told, told


@given(expression=EXPRESSIONS, docs=st.lists(DOCS, max_size=4))
@settings(max_examples=300, deadline=None)
def test_any_valid_rule_runs_over_any_payload(expression: str, docs: list[object]) -> None:
    answer = parse(f"SELECT {expression} AS v, a FROM 'dt/#' WHERE NOT ({expression}) OR TRUE")
    assert answer.plan is not None, answer.mistake
    made = Rule("r", answer.plan)
    assert len(rows(made, docs)) == len(docs)
    assert made.counts == {}


def test_the_child_answers_each_text_in_order() -> None:
    texts = ["SELECT a FROM 'x'", "(" * 9000, "SELECT b FROM 'y'", "\0", "SELECT '" + "a" * 20_000]
    answers = parse_rules(texts)
    assert [answer.plan is not None for answer in answers] == [True, False, True, False, False]


def test_a_text_that_no_child_can_be_told_is_a_mistake() -> None:
    (good, bad) = parse_rules(["SELECT a FROM 'x'", "\ud800"])
    assert good.plan is not None
    assert bad.mistake is not None


def test_the_runtime_never_imports_the_parser() -> None:
    code = "import sys, edge.runtime, edge.rules.build; sys.exit('sqlglot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
