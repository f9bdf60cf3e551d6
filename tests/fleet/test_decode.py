import base64
import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import InputRejected
from edge_tools.fleet import batches, cbor
from edge_tools.fleet.decode import Decoder
from edge_tools.fleet.records import INT_MAX, THING_BYTES_MAX, Decoded, Record
from tests.fleet.messages import cbor as as_cbor
from tests.fleet.messages import ndjson

BATCH = "batch/gw/s"
NDJSON, CBOR, CBOR_SEQ = "application/x-ndjson", "application/cbor", "application/cbor-seq"
ROW = {"topic": "dt/b1/temp", "thing": "b1", "boot": 3, "seq": 7, "t": 99, "payload": '{"c":21.5000}'}
RECORD = Record("dt/b1/temp", b'{"c":21.5000}', 1000, "b1", 3, 7, 99)


def decode(
    payload: bytes, content_type: str = "", user: list[tuple[str, str]] | None = None, topic: str = BATCH
) -> Decoded:
    return Decoder(["batch/#"]).decode(topic, payload, content_type, user or [], 1000)


def reasons(decoded: Decoded) -> list[str]:
    return [one.reason for one in decoded.rejections]


def test_a_single_message_is_a_record_by_its_user_properties() -> None:
    user = [("thing", "b1"), ("boot", "3"), ("seq", "7"), ("t", "99"), ("other", "x"), ("other", "y")]
    assert decode(b'{"c":21.5000}', user=user, topic="dt/b1/temp").records == [RECORD]


def test_a_message_without_identity_is_a_record_with_what_is_known() -> None:
    assert decode(b"x", topic="a").records == [Record("a", b"x", 1000)]
    assert decode(b"x", user=[("thing", "b1"), ("t", "5")], topic="a").records == [Record("a", b"x", 1000, "b1", t=5)]


def test_a_cbor_payload_on_a_topic_of_single_messages_is_no_batch() -> None:
    assert decode(as_cbor(ROW), CBOR, topic="dt/x").records == [Record("dt/x", as_cbor(ROW), 1000)]


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("seq", "-1", "bad_seq"),
        ("seq", "1.5", "bad_seq"),
        ("seq", "", "bad_seq"),
        ("seq", " 1", "bad_seq"),
        ("seq", "٣", "bad_seq"),
        ("seq", str(INT_MAX + 1), "bad_seq"),
        ("boot", "9" * 5000, "bad_boot"),
        ("t", str(INT_MAX), "bad_t"),
        ("thing", "", "bad_thing"),
        ("thing", "a\0b", "bad_thing"),
        ("thing", "ü" * THING_BYTES_MAX, "bad_thing"),
    ],
)
def test_a_bad_user_property_rejects_the_message(name: str, value: str, reason: str) -> None:
    good = {"thing": "b1", "boot": "1", "seq": "1"}
    assert reasons(decode(b"x", user=list({**good, name: value}.items()), topic="a")) == [reason]


def test_a_property_with_two_values_rejects_the_message() -> None:
    assert reasons(decode(b"x", user=[("seq", "1"), ("seq", "2")], topic="a")) == ["ambiguous_property"]


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize(
    ("content_type", "data"),
    [
        (NDJSON, ndjson([ROW])),
        (NDJSON + "; charset=utf-8", ndjson([ROW]).rstrip()),
        (CBOR_SEQ, as_cbor(ROW)),
        (CBOR, as_cbor([ROW])),
        (CBOR, b"\xd9\xd9\xf7" + as_cbor([ROW])),
        (CBOR_SEQ, b"\x9f" + as_cbor(ROW) + b"\xff"),
        (CBOR_SEQ, as_cbor({**ROW, "payload": b'{"c":21.5000}'})),
        ("", ndjson([ROW])),
        ("", as_cbor(ROW)),
    ],
)
def test_a_batch_is_read_in_every_form(content_type: str, data: bytes, packed: bool) -> None:
    if packed:
        assert decode(gzip.compress(data), content_type, [("encoding", "gzip")]).records == [RECORD]
        data = gzip.compress(data[:5]) + gzip.compress(data[5:])
    decoded = decode(data, content_type)
    assert decoded.records == [RECORD]
    assert not decoded.rejections


def test_an_embedded_payload_keeps_its_own_digits() -> None:
    line = b'{"topic":"a","payload":{"c":21.5000,"huge":1e999999}}'
    assert decode(line, NDJSON).records == [Record("a", b'{"c":21.5000,"huge":1e999999}', 1000)]


def test_a_payload_of_any_bytes_travels_as_base64() -> None:
    raw = bytes(range(256))
    row = {"topic": "a", "payload_base64": base64.b64encode(raw).decode()}
    for data, content_type in ((ndjson([row]), NDJSON), (as_cbor(row), CBOR_SEQ)):
        assert decode(data, content_type).records == [Record("a", raw, 1000)]


BAD_ROWS: list[tuple[Any, str]] = [
    ({**ROW, "seq": -1}, "bad_seq"),
    ({**ROW, "seq": INT_MAX + 1}, "bad_seq"),
    ({**ROW, "seq": 2**64 - 1}, "bad_seq"),
    ({**ROW, "seq": "7"}, "bad_seq"),
    ({**ROW, "seq": True}, "bad_seq"),
    ({**ROW, "boot": 1.5}, "bad_boot"),
    ({**ROW, "t": 10**15}, "bad_t"),
    ({**ROW, "thing": 5}, "bad_thing"),
    ({**ROW, "thing": "x\0"}, "bad_thing"),
    ({**ROW, "topic": "x\0"}, "topic_nul"),
    ({**ROW, "topic": "dt/#"}, "topic_wildcard"),
    ({**ROW, "topic": ""}, "topic_empty"),
    ({**ROW, "topic": None}, "bad_topic"),
    ({**ROW, "payload_base64": "AA=="}, "bad_payload"),
    ({"topic": "a"}, "bad_payload"),
    ({"topic": "a", "payload_base64": "?"}, "bad_payload_base64"),
    ("text", "bad_row"),
    (5, "bad_row"),
]


@pytest.mark.parametrize(("row", "reason"), BAD_ROWS)
@pytest.mark.parametrize(
    ("encode", "content_type"), [(ndjson, NDJSON), (lambda rows: b"".join(map(as_cbor, rows)), CBOR_SEQ)]
)
def test_a_bad_row_is_rejected_and_its_neighbours_are_kept(
    row: Any, reason: str, encode: Any, content_type: str
) -> None:
    decoded = decode(encode([ROW, row, ROW]), content_type)
    assert decoded.records == [RECORD, RECORD]
    either = {"bad_payload", "bad_payload_base64"}
    assert len(decoded.rejections) == 1
    assert set(reasons(decoded)) <= (either if reason in either else {reason})


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"topic":"\xff","payload":"1"}', "bad_utf8"),
        (b'{"topic":"a","payload":"\xff"}', "bad_utf8"),
        (b'{"topic":"a","payload":["\xff"]}', "bad_utf8"),
        (b'{"topic":"a","payload":"\\ud800"}', "bad_json"),
        (b'{"topic":"\\ud800","payload":"1"}', "bad_json"),
        (b'{"topic":"a","payload":', "bad_json"),
        (b"\0", "bad_json"),
        (b'{"topic":"a","payload":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "too_deep"),
        (b'{"topic":"a","x":' + b'{"a":' * 100_000, "too_deep"),
        (b'{"topic":"a","payload":"1","seq":1e400}', "bad_seq"),
        (b'{"topic":"a","payload":"1","seq":' + b"9" * 100_000 + b"}", "bad_seq"),
    ],
)
def test_a_damaged_line_is_rejected_and_its_neighbours_are_kept(line: bytes, reason: str) -> None:
    decoded = decode(ndjson([ROW]) + line + b"\n" + ndjson([ROW]), NDJSON)
    assert decoded.records == [RECORD, RECORD]
    assert reasons(decoded) == [reason]


@pytest.mark.parametrize("size", range(1, len(as_cbor(ROW))))
def test_truncated_cbor_costs_what_is_truncated_and_no_more(size: int) -> None:
    decoded = decode(as_cbor(ROW) + as_cbor(ROW)[:size], CBOR_SEQ)
    assert decoded.records == [RECORD]
    assert reasons(decoded) == ["truncated_cbor"]


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (b"\x81" * 100_000, "too_deep"),
        (b"\xa1\x00" * 100_000, "too_deep"),
        (b"\x5b\x7f" + b"\xff" * 7, "truncated_cbor"),
        (b"\xbb" + b"\xff" * 8, "truncated_cbor"),
        (b"\xa1\x61a\x9b" + b"\xff" * 8 + b"\x80" * 100_000, "too_many_values"),
        (b"\xa1\x61a\x5f" + b"\x40" * 100_000, "too_many_values"),
        (b"\xa1\x61a\x7f\x41a\xff", "bad_cbor"),
        (b"\xa1\x61\xff\x01", "bad_utf8"),
        (b"\xa1\xff\x01", "bad_cbor"),
        (b"\xa1\x80\x01", "bad_cbor"),
        (b"\xd8\x1c\x81\xd8\x1d\x00", "bad_cbor"),  # a value that contains itself
        (b"\xc2\x41\x01", "bad_cbor"),
        (b"\x1f", "bad_cbor"),
        (b"\xf8\x18", "bad_cbor"),
        (b"\xff", "bad_cbor"),
    ],
)
def test_hostile_cbor_is_rejected(item: bytes, reason: str) -> None:
    decoded = decode(as_cbor(ROW) + item, CBOR_SEQ)
    assert decoded.records == [RECORD]
    assert reasons(decoded)[0] == reason


def test_a_nan_has_no_json_text() -> None:
    row = {"topic": "a", "payload": [1, float("nan")]}
    assert reasons(decode(as_cbor(row), CBOR_SEQ)) == ["bad_payload"]
    assert decode(as_cbor({"topic": "a", "payload": {"c": [1.5, None]}}), CBOR_SEQ).records == [
        Record("a", b'{"c":[1.5,null]}', 1000)
    ]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (gzip.compress(ndjson([ROW]))[:-3], "truncated_gzip"),
        (gzip.compress(ndjson([ROW]))[:10], "truncated_gzip"),
        (gzip.compress(ndjson([ROW]))[:-8] + b"\0" * 8, "bad_gzip"),
        (b"not gzip", "bad_gzip"),
        (gzip.compress(ndjson([ROW])) + b"rubbish", "bad_gzip"),
    ],
)
def test_bad_gzip_is_rejected_whole(data: bytes, reason: str) -> None:
    decoded = decode(data, NDJSON, [("encoding", "gzip")])
    assert not decoded.records
    assert reasons(decoded) == [reason]
    assert decoded.rejections[0].sample == data[:512]


def test_unknown_forms_are_rejected() -> None:
    assert reasons(decode(b"x", "text/plain")) == ["unknown_content_type"]
    assert reasons(decode(b"x", NDJSON, [("encoding", "zstd")])) == ["unknown_encoding"]


DECODES = f"""
import pathlib, resource, sys
sys.path[:0] = {sys.path!r}
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
from edge_tools.fleet.decode import Decoder
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
decoder = Decoder(["#"])
data = pathlib.Path(sys.argv[1]).read_bytes()
for kind in ("application/x-ndjson", "application/cbor-seq"):
    decoded = decoder.decode("a", data, kind, [], 0)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(len(decoded.records), len(decoded.rejections), (after - before) * 1024)
"""


@pytest.mark.parametrize(
    "data",
    [
        gzip.compress(bytes(200_000_000), 9),
        gzip.compress(b"\n" * 16_000_000, 9),
        gzip.compress(b"{}\n" * 5_000_000, 9),
        gzip.compress(b"\x80" * 16_000_000, 9),
        gzip.compress(b"\xa1\x61a\x9a\x00\xff\xff\xff" + b"\x80" * 16_000_000, 9),
    ],
    ids=["zeros", "lines", "rows", "arrays", "values"],
)
def test_memory_is_bounded_whatever_is_unpacked(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", DECODES, tmp_path / "data"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    records, rejections, peak_bytes = map(int, done.stdout.split())
    assert records == 0
    assert 0 < rejections <= batches.REJECTIONS_KEPT_MAX
    assert peak_bytes < 8 * batches.UNPACKED_BYTES_MAX


def test_a_batch_of_too_many_rows_keeps_as_many_as_fit_and_says_so() -> None:
    line = b'{"topic":"a","payload":1}\n'
    decoded = decode(line * (batches.ROWS_MAX + 9), NDJSON)
    assert len(decoded.records) == batches.ROWS_MAX
    assert reasons(decoded) == ["too_many_rows"]


def test_many_bad_rows_are_counted_and_few_kept() -> None:
    decoded = decode(b"{}\n" * 100, NDJSON)
    assert len(decoded.rejections) == batches.REJECTIONS_KEPT_MAX
    assert decoded.beyond == {"bad_row": 100 - batches.REJECTIONS_KEPT_MAX}


@given(st.binary(max_size=300), st.sampled_from(["", NDJSON, CBOR, CBOR_SEQ]), st.sampled_from(["", "gzip"]))
def test_no_bytes_raise(data: bytes, content_type: str, encoding: str) -> None:
    decoded = decode(data, content_type, [("encoding", encoding)])
    assert decoded.records or decoded.rejections or not data.strip()


def _values() -> st.SearchStrategy[Any]:
    leaves = st.none() | st.booleans() | st.integers(-(2**64), 2**64 - 1) | st.floats() | st.text() | st.binary()
    return st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(ROW, _values())), _values())
def test_rows_of_any_values_do_not_raise_and_cost_no_other_row(row: dict[str, Any], other: Any) -> None:
    assert decode(as_cbor([row, other, ROW]), CBOR).records[-1] == RECORD
    with_json = json.dumps([row, ROW], default=lambda raw: raw.decode("latin1"))
    assert not decode(with_json.encode(), NDJSON).records  # a list is no row
    assert decode(ndjson([json.loads(json.dumps(row, default=repr)), ROW]), NDJSON).records[-1] == RECORD


@given(_values())
def test_cbor_is_read_as_it_was_written(value: Any) -> None:
    written = as_cbor(value)
    read, end = cbor.decode_item(written, 0)
    assert end == len(written)
    assert as_cbor(read) == written


@given(st.binary(max_size=60), st.data())
def test_damage_to_one_row_of_cbor_raises_nothing_else_than_a_rejection(data: bytes, draw: st.DataObject) -> None:
    whole = bytearray(as_cbor([ROW, ROW]))
    at = draw.draw(st.integers(0, len(whole)))
    whole[at : at + len(data)] = data
    decode(bytes(whole), CBOR)
    try:
        cbor.decode_item(bytes(whole), 0)
    except InputRejected as problem:
        assert problem.reason in {"bad_cbor", "truncated_cbor", "bad_utf8", "too_deep", "too_many_values"}
