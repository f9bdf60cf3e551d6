"""LIKE beside a model that tries everything."""

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.rules.likes import PATTERN_CHARS_MAX, like, pieces


def model(text: str, pattern: str, escape: str) -> bool | None:
    wanted: list[str] = []
    rest = iter(pattern)
    for char in rest:
        if char == escape:
            char = next(rest, "")
            if char not in {"%", "_", escape} or not char:
                return None
            wanted.append(char)
        else:
            wanted.append({"%": "any", "_": "one"}.get(char, char))

    @cache
    def fits(at: int, spot: int) -> bool:
        if spot == len(wanted):
            return at == len(text)
        if wanted[spot] == "any":
            return fits(at, spot + 1) or (at < len(text) and fits(at + 1, spot))
        return at < len(text) and wanted[spot] in {"one", text[at]} and fits(at + 1, spot + 1)

    return fits(0, 0)


@given(
    text=st.text(alphabet="ab%_!", max_size=12),
    pattern=st.text(alphabet="ab%%__!", max_size=9),
    escape=st.sampled_from(["", "", "!", "%", "_", "a"]),
)
@settings(max_examples=2_000, deadline=None)
def test_like_finds_what_a_model_finds_that_tries_everything(text: str, pattern: str, escape: str) -> None:
    assert like(text, pattern, escape) is model(text, pattern, escape)


@given(text=st.text(alphabet="ab", min_size=20, max_size=80), data=st.data())
@settings(max_examples=500, deadline=None)
def test_a_pattern_made_of_its_text_fits_it(text: str, data: st.DataObject) -> None:
    pattern = list(text)
    for place in data.draw(st.lists(st.integers(0, len(text) - 1), max_size=12)):
        pattern[place] = data.draw(st.sampled_from("%_"))
    assert like(text, "".join(pattern)) is True
    assert model(text, "".join(pattern), "") is True


@pytest.mark.parametrize(
    ("text", "pattern", "expected"),
    [
        ("", "", True),
        ("", "%", True),
        ("", "_", False),
        ("a", "", False),
        ("aa", "a%a%a", False),
        ("aXbXc", "a_b%c", True),
        ("a\nb", "a_b", True),
        ("abc", "%b_", True),
        ("x" * 200 + "b1c", "%b_c%", True),
        ("text", 5, None),
        (5, "5", None),
        ("a", "a" * (PATTERN_CHARS_MAX + 1), None),
        ("a" * PATTERN_CHARS_MAX, "_" * PATTERN_CHARS_MAX, True),
    ],
)
def test_like_gives_what_the_table_says(text: object, pattern: object, expected: bool | None) -> None:
    assert like(text, pattern) is expected


@pytest.mark.parametrize("pattern", ["a!", "a!b", "!"])
def test_an_escape_before_what_needs_none_is_no_pattern(pattern: str) -> None:
    with pytest.raises(ValueError, match="neither"):
        pieces(pattern, "!")
    assert like("a", pattern, "!") is None
