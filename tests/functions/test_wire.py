import struct
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import InputRejected
from edge.functions import wire
from edge.messages import Properties, Reading

ids = st.integers(0, 2**62 - 1)
texts = st.text(max_size=50)
blobs = st.binary(max_size=200)
properties = st.builds(
    wire.PublishProperties,
    correlation_data=st.none() | blobs,
    content_type=st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20),
    expiry_s=st.none() | st.integers(0, 2**32 - 1),
)
calls = st.builds(
    wire.Call,
    id=ids,
    topic=texts,
    payload=blobs,
    kind=st.sampled_from(["message", "schedule", "request", "invoke"]),
    deadline_s=st.floats(0, 1e6),
    attempt=st.integers(1, 10),
    time_ms=ids,
    client=texts,
    reading=st.none() | st.builds(Reading, thing=texts, boot=ids, sequence=ids),
    properties=st.none() | st.builds(Properties, response_topic=st.none() | texts, correlation_data=st.none() | blobs),
    schedule=ids,
    context=blobs,
)
to_worker = st.one_of(
    st.builds(wire.Configure, name=texts, thing=texts, file=texts, environment=st.dictionaries(texts, texts)),
    calls,
    st.builds(wire.Reply, id=ids, ok=st.booleans(), payload=blobs, error=texts, message=texts),
    st.just(wire.Stop()),
)
schedules = st.builds(wire.Schedule, id=ids, name=texts, interval_s=st.floats(0.001, 1e6))
from_worker = st.one_of(
    st.builds(wire.Ready, filters=st.lists(texts).map(tuple), schedules=st.lists(schedules).map(tuple)),
    st.builds(wire.StartFailed, error=texts, message=texts, traceback=texts),
    st.builds(wire.Done, id=ids, result=st.none() | blobs),
    st.builds(wire.Failed, id=ids, error=texts, message=texts, traceback=texts),
    st.builds(wire.Publish, id=ids, call=ids, topic=texts, payload=blobs, properties=st.none() | properties),
    st.builds(wire.Shadow, id=ids, call=ids, action=st.sampled_from(["get", "update", "delete"]), payload=blobs),
    st.builds(wire.Invoke, id=ids, call=ids, function=texts, payload=blobs),
    st.builds(wire.Begun, id=ids, ago_s=st.floats(0, 1e6)),
)


def framed(body: object) -> bytes:
    raw = msgspec.msgpack.encode(body)
    return struct.pack("<I", len(raw)) + raw


def pieces(stream: bytes, cuts: Sequence[int]) -> list[bytes]:
    places = sorted({cut % (len(stream) + 1) for cut in cuts} | {0, len(stream)})
    return [stream[a:b] for a, b in pairwise(places)]


@given(st.lists(to_worker, max_size=5), st.lists(st.integers(0, 10_000), max_size=10))
def test_what_the_gateway_says_comes_out_however_it_is_cut(said: list[wire.ToWorker], cuts: list[int]) -> None:
    reader = wire.to_worker()
    stream = b"".join(map(wire.frame, said))
    assert [one for piece in pieces(stream, cuts) for one in reader.feed(piece)] == said
    assert not reader.unfinished


@given(st.lists(from_worker, max_size=5), st.lists(st.integers(0, 10_000), max_size=10))
def test_what_the_worker_says_comes_out_however_it_is_cut(said: list[wire.FromWorker], cuts: list[int]) -> None:
    reader = wire.from_worker()
    stream = b"".join(map(wire.frame, said))
    assert [one for piece in pieces(stream, cuts) for one in reader.feed(piece)] == said
    assert not reader.unfinished


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5))
def test_any_bytes_of_a_worker_are_frames_or_rejected(stream: bytes, cuts: list[int]) -> None:
    reader = wire.from_worker()
    try:
        for piece in pieces(stream, cuts):
            reader.feed(piece)
    except InputRejected as rejected:
        assert rejected.reason in {"frame_length", "frame_damaged"}
        assert reader.error is rejected


@given(st.binary(min_size=1, max_size=300))
def test_any_body_of_a_right_length_is_a_frame_or_rejected(body: bytes) -> None:
    reader = wire.from_worker()
    try:
        [said] = reader.feed(struct.pack("<I", len(body)) + body)
    except InputRejected as rejected:
        assert rejected.reason == "frame_damaged"
    else:
        assert wire.from_worker().feed(wire.frame(said)) == [said]


def test_what_came_before_a_damaged_frame_is_given_and_then_the_stream_ends() -> None:
    reader = wire.from_worker()
    assert reader.feed(wire.frame(wire.Done(1)) + framed([99]) + wire.frame(wire.Done(2))) == [wire.Done(1)]
    assert reader.error is not None
    for _ in range(2):
        with pytest.raises(InputRejected, match="frame_damaged"):
            reader.feed(wire.frame(wire.Done(3)))


@pytest.mark.parametrize("size", [0, wire.FRAME_BYTES_MAX + 1, 2**32 - 1])
def test_a_length_out_of_bounds_is_rejected_before_its_body_is_awaited(size: int) -> None:
    with pytest.raises(InputRejected, match="frame_length"):
        wire.from_worker().feed(struct.pack("<I", size))


def test_a_frame_that_trickles_in_costs_no_more_than_itself() -> None:
    reader = wire.from_worker()
    stream = wire.frame(wire.Done(7, bytes(50_000)))
    found = [one for at in range(len(stream)) for one in reader.feed(stream[at : at + 1])]
    assert found == [wire.Done(7, bytes(50_000))]


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        {},
        [2, 1, "a", b""],  # what only the gateway says
        [13],
        [13, -1, None],
        [13, 2**62, None],
        [13, 1.5, None],
        [13, True, None],
        [13, 1, "text"],
        [14, 1, "E" * 257, "", ""],
        [14, 1, "E", "m" * 4097, ""],
        [14, 1, "E", "", "t" * 16385],
        [11, ["a"] * 1001, [], False, False],
        [11, [], [[0, "tick", 0.0]], False, False],
        [11, [], [[0, "tick", float("nan")]], False, False],
        [11, [], [[0, "tick", float("inf")]], False, False],
        [11, [], [[0, "tick", -1.0]], False, False],
        [15, 0, 0, "t" * 65536, b"", 1, False, None],
        [15, 0, 0, "t", b"", 2, False, None],
        [15, 0, 0, "t", b"", 1, False, {"expiry_s": -1}],
        [15, 0, 0, "t", b"", 1, False, {"expiry_s": 2**32}],
        [15, 0, 0, "t", b"", 1, False, {"content_type": "a\0b"}],
        [15, 0, 0, "t", b"", 1, False, {"content_type": "a" * 16_384}],
        [15, 0, 0, "t", b"", 1, False, {"response_topic": "a/#"}],
        [15, 0, 0, "t", b"", 1, False, {"response_topic": ""}],
        [15, 0, 0, "t", b"", 1, False, {"payload_is_utf8": True}],
        [15, 0, 0, "t", b"", 1, False, {"user": [["a", "b"]] * 101}],
        [16, 0, 0, "destroy", "", "", b""],
    ],
)
def test_what_a_hostile_worker_says_beyond_the_types_is_rejected(body: Any) -> None:
    with pytest.raises(InputRejected, match="frame_damaged"):
        wire.from_worker().feed(framed(body))


def test_nesting_without_end_is_rejected() -> None:
    for opener in (b"\x91", b"\x81\xa1a"):
        body = opener * 200_000
        with pytest.raises(InputRejected, match="frame_damaged"):
            wire.from_worker().feed(struct.pack("<I", len(body)) + body)


def test_text_that_is_no_utf8_is_rejected_and_never_written() -> None:
    body = b"\x95\x0e\x01\xa3\xed\xa0\x80\xa0\xa0"  # Failed, its error a surrogate half
    with pytest.raises(InputRejected, match="frame_damaged"):
        wire.from_worker().feed(struct.pack("<I", len(body)) + body)
    with pytest.raises(InputRejected, match="frame_text"):
        wire.frame(wire.Failed(1, "\ud800"))


def test_what_does_not_fit_a_frame_is_not_written() -> None:
    with pytest.raises(InputRejected, match="frame_too_large"):
        wire.frame(wire.Done(1, bytes(wire.FRAME_BYTES_MAX)))


def test_a_message_of_another_version_may_have_further_fields() -> None:
    assert wire.from_worker().feed(framed([13, 1, None, "further"])) == [wire.Done(1)]
