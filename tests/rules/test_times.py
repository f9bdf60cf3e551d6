"""Times as texts and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.rules.times import parse_time, parts, time_to_epoch, zone

MS = st.integers(-62_135_596_800_000 + 10**8, 253_402_300_799_999 - 10**8)
FULL = ("yyyy-MM-dd'T'HH:mm:ss.SSSZ", "EEE, d MMMM yyyy hh:mm:ss.SSS a X", "yyyyMMddHHmmssSSS z")


@given(ms=MS, pattern=st.sampled_from(FULL), zone_name=st.sampled_from(["UTC", "+05:30", "-11:00", "UTC+1"]))
def test_what_was_written_is_read_again(ms: int, pattern: str, zone_name: str) -> None:
    text = parse_time(pattern, ms, zone_name)
    assert text is not None
    assert time_to_epoch(text, pattern) == ms


@given(pattern=st.text(max_size=20), ms=st.integers() | st.floats(), text=st.text(max_size=30))
def test_any_pattern_and_any_time_give_a_text_or_nothing(pattern: str, ms: float, text: str) -> None:
    assert isinstance(parse_time(pattern, ms), str | None)
    assert isinstance(time_to_epoch(text, pattern), int | None)


@given(pattern=st.text(alphabet="yMdHhmsSaEzZX':- ", max_size=12), text=st.text(alphabet="0123:- +ZamonJ", max_size=12))
def test_any_text_is_read_or_not(pattern: str, text: str) -> None:
    assert isinstance(time_to_epoch(text, pattern), int | None)


@pytest.mark.parametrize("pattern", ["'open", "yyyy-bb", "y" * 200])
def test_a_wrong_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"closed|field|longer"):
        parts(pattern)


@pytest.mark.parametrize("name", ["Mars/Base", "+25:00", "../../etc/passwd", "/etc/passwd", "\0"])
def test_a_wrong_zone_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no time zone"):
        zone(name)
