"""CSV payloads: quotes, numbers, lines."""

import csv
import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import InputRejected
from edge.rules.payloads import decoder

DECODE = decoder("csv", ("id", "text", "c"))


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b'b1,"Hello, world",21.5', {"id": "b1", "text": "Hello, world", "c": 21.5}),
        (b'b1, "say ""hi""", -4\r\n', {"id": "b1", "text": 'say "hi"', "c": -4}),
        (b'b1,"two\nlines",1e3', {"id": "b1", "text": "two\nlines", "c": 1000.0}),
        (b"007,1_000,+5", {"id": "007", "text": "1_000", "c": "+5"}),
        (b"nan,Infinity,0x10", {"id": "nan", "text": "Infinity", "c": "0x10"}),
        ("\u0663,.5,5.".encode(), {"id": "\u0663", "text": ".5", "c": "5."}),
        (b"0,-0.5,1E-2", {"id": 0, "text": -0.5, "c": 0.01}),
        (b"1,,3,4", {"id": 1, "text": None, "c": 3}),
        (b"1\n\n  \n", {"id": 1}),
        (b"", {}),
        (b"9" * 65 + b",1e999", {"id": "9" * 65, "text": None}),
    ],
)
def test_a_line_of_csv_is_read(payload: bytes, expected: dict[str, Any]) -> None:
    assert DECODE(payload) == expected


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"b1,a,1\nb2,b,2\n", "payload_csv_lines"),
        (b"id,text,c\nb1,a,1", "payload_csv_lines"),
        (b'b1,"open', "payload_csv"),
        (b'b1,"a"b,2', "payload_csv"),
        (b"\xff,1", "payload_utf8"),
    ],
)
def test_csv_that_is_no_single_line_is_rejected_with_its_reason(payload: bytes, reason: str) -> None:
    with pytest.raises(InputRejected) as caught:
        DECODE(payload)
    assert caught.value.reason == reason


@given(cells=st.lists(st.text(alphabet='ab ,"\n0.5é', max_size=8), min_size=2, max_size=3))
def test_what_was_written_as_csv_is_read_again(cells: list[str]) -> None:
    written = io.StringIO(newline="")
    csv.writer(written, quoting=csv.QUOTE_ALL).writerow(cells)
    found = DECODE(written.getvalue().encode())
    assert list(found) == ["id", "text", "c"][: len(cells)]
    for cell, value in zip(cells, found.values(), strict=True):
        assert value == cell.strip() or (value is None and not cell.strip()) or float(cell) == value
