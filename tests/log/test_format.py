"""The format alone: what is built is parsed, and what is not whole is damaged, never an error of another kind."""

import os

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge.log.format import (
    CODEC_DEFLATE,
    CODEC_PLAIN,
    FLAG_SPARSE,
    KIND_RECORDS,
    BatchHead,
    Damaged,
    Head,
    Packer,
    Row,
    build_batch,
    build_content,
    build_head,
    build_snapshot,
    guess_batch,
    parse_batch,
    parse_changes,
    parse_content,
    parse_head,
    parse_snapshot,
    unpack_body,
)

u64 = st.integers(0, 2**64 - 1)
u32 = st.integers(0, 2**32 - 1)
changes_of = st.dictionaries(st.text(max_size=20), st.one_of(st.none(), st.binary(max_size=50)), max_size=5)


@given(st.tuples(st.integers(0, 65535), u32, u64, u64, u64, u32, u32))
def test_a_segment_header_comes_back(fields: tuple[int, int, int, int, int, int, int]) -> None:
    head = Head(1, *fields)
    assert parse_head(build_head(head)) == head
    assert parse_head(b"\0" + build_head(head), 1) == head


@given(records=st.lists(st.binary(max_size=300), max_size=20), changes=changes_of, salt=u32, sparse=st.booleans())
def test_a_batch_comes_back(records: list[bytes], changes: dict[str, bytes | None], salt: int, sparse: bool) -> None:
    distances = [2 * index for index in range(len(records))] if sparse else None
    raw = build_content(records, changes, distances)
    codec, body = Packer(compress=True).pack(raw)
    flags = FLAG_SPARSE if sparse else 0
    head = BatchHead(KIND_RECORDS, codec, flags, 0, len(raw), 7, 100, 2 * len(records), len(records), 3, 0)
    packed = build_batch(head, body, salt)
    parsed = parse_batch(packed + body, 0, salt)
    assert parsed is not None
    assert parsed[:3] == head[:3]
    assert guess_batch(packed, 0) == parsed
    assert parse_batch(packed + body, 0, salt ^ 1) is None
    assert dict(parse_changes(parsed, body, salt)) == changes
    content = parse_content(parsed, unpack_body(parsed, body, salt))
    assert (dict(content.changes), content.records) == (changes, records)
    assert content.numbers == ([100 + distance for distance in distances] if distances is not None else None)
    for wrong in (body[:-1], body + b"\0", body[:-1] + bytes((body[-1] ^ 1,))):
        with pytest.raises(Damaged):
            unpack_body(parsed, wrong, salt)
        with pytest.raises(Damaged):
            parse_changes(parsed, wrong, salt)


@given(raw=st.binary(max_size=200), count=st.integers(0, 1 << 20), sparse=st.booleans())
@example(raw=b"\0\0\0\x01\x81\xaa" + bytes(9) + b"\x80", count=0, sparse=False)  # a key that is no UTF-8
def test_content_that_makes_no_sense_is_damaged_and_never_another_error(raw: bytes, count: int, sparse: bool) -> None:
    head = BatchHead(KIND_RECORDS, CODEC_PLAIN, int(sparse), len(raw), len(raw), 1, 1, count, count, 1, 0)
    try:
        content = parse_content(head, raw)
    except Damaged:
        return
    assert len(content.records) == count


@given(st.binary(max_size=100))
def test_a_body_of_an_unknown_codec_or_that_does_not_unpack_is_damaged(body: bytes) -> None:
    for codec in (CODEC_DEFLATE, 77):
        head = BatchHead(KIND_RECORDS, codec, 0, 0, 1 << 31, 1, 1, 0, 0, 1, 0)
        parsed = parse_batch(build_batch(head, body, 5), 0, 5)
        assert parsed is not None
        with pytest.raises(Damaged):
            unpack_body(parsed, body, 5)


@given(
    state=st.dictionaries(st.text(max_size=10), st.binary(max_size=20)), rows=st.lists(st.tuples(u64, u64, u64, u32))
)
def test_a_snapshot_comes_back(state: dict[str, bytes], rows: list[tuple[int, int, int, int]]) -> None:
    table = [Row(*row) for row in rows]
    snapshot = parse_snapshot(build_snapshot(state, table))
    assert (snapshot.state, snapshot.table) == (state, table)


@given(st.binary(max_size=60))
def test_a_snapshot_that_makes_no_sense_is_damaged(raw: bytes) -> None:
    try:
        snapshot = parse_snapshot(raw)
    except Damaged as damaged:
        assert str(damaged) == "bad_snapshot"
        return
    assert parse_snapshot(build_snapshot(snapshot.state, snapshot.table)) == snapshot


def test_what_does_not_shrink_is_stored_plain_and_compression_rests() -> None:
    packer = Packer(compress=True)
    noise, text = os.urandom(5000), b"telemetry " * 500
    assert packer.pack(text)[0] == CODEC_DEFLATE
    assert packer.pack(noise) == (CODEC_PLAIN, noise)
    codecs = [packer.pack(text)[0] for _ in range(Packer.REST_BATCHES + 1)]
    assert codecs == [CODEC_PLAIN] * Packer.REST_BATCHES + [CODEC_DEFLATE]
    assert packer.pack(b"tiny" * 10)[0] == CODEC_PLAIN
    assert Packer(compress=False).pack(text)[0] == CODEC_PLAIN
