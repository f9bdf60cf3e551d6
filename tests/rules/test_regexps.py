"""Regular expressions: what they find, as the standard library's engine finds it, and what they may cost."""

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.rules.regexps import (
    PROGRAM_MAX,
    STEPS_MAX,
    TEXT_CHARS_MAX,
    Pattern,
    pattern,
    regexp_matches,
    regexp_replace,
    regexp_substr,
)

ATOMS = st.sampled_from(
    ["a", "b", "ab", ".", r"\d", r"\w", r"\S", "[ab]", "[^a]", "[a-c1]", "^", "$", r"\b", r"\.", "é", r"[\d-]"]
)
QUANTIFIERS = st.sampled_from(["", "", "", "*", "+", "?", "*?", "+?", "??", "{2}", "{1,3}", "{0,2}?", "{2,}"])


def _quantified(inner: Any) -> Any:
    return st.tuples(inner, QUANTIFIERS).map(lambda t: f"(?:{t[0]}){t[1]}")


PATTERNS = st.recursive(
    ATOMS | st.tuples(st.sampled_from(["a", "b", ".", r"\w", "[ab1]"]), QUANTIFIERS).map("".join),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=4).map("".join),
        st.lists(inner, min_size=2, max_size=3).map(lambda many: f"({'|'.join(many)})"),
        inner.map(lambda one: f"({one})"),
        _quantified(inner),
    ),
    max_leaves=6,
)
TEXTS = st.text(alphabet="abcAB1.é- \n", max_size=14)


def _nullable_loop(expression: str) -> bool:
    """Whether something that may be empty is repeated: there the engines' groups may differ, and nothing else."""
    return bool(re.search(r"\)[*+?{]", expression))


@given(expression=PATTERNS, text=TEXTS, fold=st.booleans())
@settings(max_examples=500, deadline=None)
def test_both_engines_find_what_the_standard_library_finds(expression: str, text: str, fold: bool) -> None:
    made = Pattern(f"(?i){expression}" if fold else expression)
    expected = re.compile(expression, re.ASCII | (re.IGNORECASE if fold else 0)).search(text)
    spans = None if expected is None else [place for pair in expected.regs for place in pair]
    assert made.search(text, 0, [STEPS_MAX]) == spans or _nullable_loop(expression)
    made._fast = None
    found = made.search(text, 0, [STEPS_MAX])
    if _nullable_loop(expression):
        assert (found is None) is (spans is None)
    else:
        assert found == spans


@given(expression=PATTERNS, text=TEXTS, new=st.sampled_from(["", "x", "<$0>", "é$1", r"\$"]))
@settings(max_examples=300, deadline=None)
def test_replacing_gives_what_the_standard_library_gives(expression: str, text: str, new: str) -> None:
    if _nullable_loop(expression) or ("$1" in new and "(" not in expression.replace("(?", "")):
        return
    if any(one.end() == one.start() for one in re.finditer(expression, text, re.ASCII)):
        return  # after an empty match Java goes on a character further, Python does not
    plain = {"<$0>": r"<\g<0>>", "é$1": r"é\1", r"\$": "$"}.get(new, new)
    assert regexp_replace(text, expression, new) == re.sub(expression, plain, text, flags=re.ASCII)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (regexp_matches("aaaa", "a{2,}"), True),
        (regexp_matches("aaaa", "b"), False),
        (regexp_matches("Board-7", "(?i)^board-[0-9]+$"), True),
        (regexp_substr("hihihello", "(hi)*"), "hihi"),
        (regexp_substr("hihihello", "[xyz]"), None),
        (regexp_substr("a=1;b=22", "b=(?<value>\\d+)"), "b=22"),
        (regexp_replace("abcd", "a(b*)c", "$1"), "bd"),
        (regexp_replace("abcd", "a(b*)c", "$2"), None),
        (regexp_replace("12 EUR", "(\\d+) EUR", "\\$$1"), "$12"),
        (regexp_replace("baac", "a*", "X"), "XbXXcX"),
        (regexp_matches(7, "a"), None),
        (regexp_matches("x" * (TEXT_CHARS_MAX + 1), "x"), None),
        (regexp_matches("caf\u00e9", "caf\\u00e9$"), True),
        (regexp_matches("a]b", "[]]"), True),
        (regexp_matches("x&y", "[--/]|[a&]"), True),
    ],
)
def test_a_call_gives_what_the_table_says(found: Any, expected: Any) -> None:
    assert found == expected


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("(a", "not closed"),
        ("a)", "closes nothing"),
        ("[a", "not closed"),
        ("*a", "repeats nothing"),
        ("^*", "repeats nothing"),
        ("a**", "follows a quantifier"),
        ("a++", "follows a quantifier"),
        ("a{2,1}", "wrong way round"),
        ("a{x}", "begins no {m,n}"),
        ("(a)\\1", "\\1 is not known"),
        ("(?=a)", "begins what is not known"),
        ("(?<!a)b", "begins what is not known"),
        ("\\p{L}", "\\p is not known"),
        ("[z-a]", "no order"),
        ("[a[b]]", "sets within"),
        ("a{600}", "too large"),
        ("((((a{9}){9}){9}){9}){9}", "too large"),
        ("(" * 30 + ")" * 30, "nested too deeply"),
        ("a" * 600, "longer than"),
        ("\\", "not known"),
        ("\\x4", "its digits"),
    ],
)
def test_what_is_not_in_the_dialect_is_refused_with_the_reason(expression: str, problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        Pattern(expression)


@pytest.mark.parametrize(
    "expression",
    [
        "(a+)+$", "(a|a)*b", "(a|aa)+$", "(.*)*x", "a(.*b)?", "a*a*a*a*a*b", "(x+x+)+y", ".*.*=.*", "(a?){100}a{100}",
        "^(a*)*(a*)*(a*)*b", "(?:a|b|ab)*c", "a?" * 60 + "a" * 60, "(a{0,20}){0,8}b", "(((a*)*)*)*b",
        "[^b]*[^c]*[^d]*d",
    ],
)  # fmt: skip
@pytest.mark.parametrize("text", ["a" * TEXT_CHARS_MAX, "a" * 500, "xa" * 250, "ab" * 512])
def test_no_pattern_and_no_text_cost_more_than_their_steps(expression: str, text: str) -> None:
    made = pattern(expression)
    assert len(made._program) <= PROGRAM_MAX
    steps = [STEPS_MAX]
    try:
        made.search(text, 0, steps)
    except ValueError as error:
        assert "costs too much" in str(error)
    assert 0 <= steps[0] <= STEPS_MAX
    if made._fast is not None:  # at most the square of the text's length, in C
        assert made._degree <= 1 or (made._degree == 2 and len(text) > 0)
    regexp_replace(text, expression, "-")


@given(text=st.text(alphabet="ab(){}[]*+?|\\.^$-,1x&<>=:!Pidw", max_size=14))
@settings(max_examples=500, deadline=None)
def test_any_pattern_is_compiled_or_refused_and_means_the_same_to_the_standard_library(text: str) -> None:
    try:
        made = Pattern(text)
    except ValueError as error:
        assert str(error)
        return
    made._fast = None
    for sample in ("", "ab", "a-1b", "(x)"):
        made.search(sample, 0, [STEPS_MAX])
