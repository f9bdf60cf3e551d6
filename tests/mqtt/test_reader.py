"""The hot path reads what the plain parser reads."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.messages import Message
from edge.mqtt import packets as p
from edge.mqtt import reader
from edge.mqtt.codes import V5, V311, ProtocolError
from edge.mqtt.packets import Packet, encode
from edge.mqtt.properties import NONE, PacketProperties
from edge.mqtt.reader import BulkReader, Oversized, Run
from tests.mqtt.flat import ALIASES, BASE, Flat, bulk_reader, expected, plain_parser, read
from tests.mqtt.strategies import any_packet, thorough

_small_topics = st.sampled_from(["a", "dt/board/temp", "ü/€", "x" * 140])
_blocks = st.sampled_from(
    [
        NONE,
        NONE,
        PacketProperties(content_type="text"),
        PacketProperties(user=(("k", "v" * 70),)),
        PacketProperties(subscription_ids=(1,)),
    ]
)


@st.composite
def _publish(draw: st.DrawFn, version: int) -> p.Publish:
    """Few topics and properties, so that caches are met, and now and then an alias."""
    bag = draw(_blocks) if version == V5 else NONE
    topic, qos = draw(_small_topics), draw(st.sampled_from([0, 1, 1, 1, 2]))
    if version == V5 and draw(st.booleans()):
        alias = draw(st.integers(1, ALIASES))
        bag = PacketProperties(topic_alias=alias, content_type=bag.content_type, user=bag.user)
        topic = draw(st.sampled_from(["", topic]))
    payload = draw(st.binary(max_size=8) | st.integers(90, 400).map(bytes))
    dup, retain = draw(st.booleans()) and qos > 0, draw(st.booleans())
    return p.Publish(topic, payload, qos, retain, dup, draw(st.integers(1, 0xFFFF)) if qos else 0, bag)


def _stream(version: int) -> st.SearchStrategy[list[Packet]]:
    acks = st.builds(p.Puback, st.integers(1, 0xFFFF))
    coded = st.builds(p.Puback, st.integers(1, 0xFFFF), st.sampled_from([0x10, 0x87] if version == V5 else [0]))
    ack_runs = st.lists(st.one_of(acks, acks, acks, coded), min_size=1, max_size=150)
    runs = st.lists(_publish(version), min_size=1, max_size=6)
    others = st.lists(any_packet(version).filter(lambda packet: not isinstance(packet, p.Connect)), max_size=2)
    return st.lists(st.one_of(runs, ack_runs, others), max_size=5).map(
        lambda lists: [one for some in lists for one in some]
    )


@pytest.mark.parametrize("version", [V5, V311], ids=["mqtt5", "mqtt311"])
def test_runs_hold_what_the_plain_parser_finds_however_the_stream_is_cut(version: int) -> None:
    @thorough
    @given(_stream(version), st.lists(st.integers(1, 700), min_size=1, max_size=5))
    def compare(sent: list[Packet], sizes: list[int]) -> None:
        raw = b"".join(encode(packet, version) for packet in sent)
        plain = expected(plain_parser(version).feed(raw))
        assert read(bulk_reader(version), [raw]) == plain
        assert read(bulk_reader(version), [raw[place : place + 1] for place in range(len(raw))]) == plain
        pieces: list[bytes] = []
        place = 0
        while place < len(raw):
            size = sizes[len(pieces) % len(sizes)]
            pieces.append(raw[place : place + size])
            place += size
        assert read(bulk_reader(version), pieces) == plain

    compare()


@pytest.mark.parametrize("version", [V5, V311], ids=["mqtt5", "mqtt311"])
def test_a_flipped_bit_in_a_run_is_seen_as_the_plain_parser_sees_it(version: int) -> None:
    @thorough
    @given(st.lists(_publish(version), min_size=1, max_size=3), st.data())
    def compare(sent: list[p.Publish], data: st.DataObject) -> None:
        raw = bytearray(b"".join(encode(packet, version) for packet in sent))
        for bit in data.draw(st.lists(st.integers(0, len(raw) * 8 - 1), min_size=1, max_size=2)):
            raw[bit // 8] ^= 1 << bit % 8
        parser = plain_parser(version)
        try:
            plain: Flat = expected(plain_parser(version).feed(bytes(raw)))
            parser.feed(bytes(raw))
            parser.feed(b"")
            failed = plain[3]
        except ProtocolError:
            failed = True
        found = read(bulk_reader(version), [bytes(raw)])
        assert found[3] == failed
        if not failed:
            assert found == plain

    compare()


def test_caches_stay_within_their_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "TOPICS_CACHED_MAX", 8)
    monkeypatch.setattr(reader, "BLOCKS_CACHED_MAX", 8)
    bulk = bulk_reader(V5)
    for number in range(100):
        bag = PacketProperties(content_type=str(number))
        (run,) = bulk.feed(encode(p.Publish(f"t/{number}", b"", 1, packet_id=1, properties=bag), V5))
        assert isinstance(run, Run)
        assert run.messages[0].topic == f"t/{number}"
        assert len(bulk._topics) <= 8
        assert len(bulk._blocks) <= 8


def test_a_large_packet_in_many_pieces_is_joined_once() -> None:
    raw = encode(p.Publish("t", bytes(1_000_000), 1, packet_id=1), V5)
    bulk = bulk_reader(V5)
    found = [item for place in range(0, len(raw), 1000) for item in bulk.feed(raw[place : place + 1000])]
    assert len(found) == 1
    assert isinstance(found[0], Run)
    assert found[0].messages == [Message("t", bytes(1_000_000), 1, receipt=BASE + 1)]


def test_a_packet_above_the_maximum_is_refused_on_the_hot_path_too() -> None:
    raw = encode(p.Publish("t", bytes(60), 1, packet_id=1), V5)
    small = BulkReader(V5, len(raw) - 1, 0, 0)
    assert small.feed(raw) == []
    assert small.error is not None
    assert small.error.reason == "packet_too_large"
    assert len(BulkReader(V5, len(raw), 0, 0).feed(raw)) == 1


def test_after_an_error_nothing_more_isread() -> None:
    bulk = bulk_reader(V5)
    assert bulk.feed(b"\x36\x00") == []
    assert bulk.error is not None
    assert bulk.feed(b"\xd0\x00") == []


def _stretched(raw: bytes, length_bytes: int) -> bytes:
    """The packet with its remaining length written in so many bytes, which 3.1.1 does not forbid."""
    assert raw[1] < 0x80
    more = length_bytes - 1
    return raw[:1] + bytes([raw[1] | 0x80, *[0x80] * (more - 1), *[0] * min(more, 1)]) + raw[2:]


@pytest.mark.parametrize("length_bytes", [2, 3, 4])
@pytest.mark.parametrize("first", [0x30, 0x32, 0x34, 0x40, 0xD0])
def test_a_length_longer_than_it_need_be_is_read_on_the_hot_path_as_by_the_plain_parser(
    first: int, length_bytes: int
) -> None:
    for body in (b"", b"\0", b"\0\1", b"\0\0\0\1", b"\0\1a", b"\0\1a\0\1", b"\0\1a\0\1x", b"\xff\xff\0\1x"):
        for after in (b"", encode(p.Puback(7), V311), encode(p.Publish("a", b"", 1, packet_id=2), V311)):
            raw = _stretched(bytes([first, len(body)]) + body, length_bytes) + after
            parser = plain_parser(V311)
            try:
                plain = expected(plain_parser(V311).feed(raw))
                parser.feed(raw)
                parser.feed(b"")
            except ProtocolError:
                assert read(bulk_reader(V311), [raw])[3], raw.hex()
            else:
                assert read(bulk_reader(V311), [raw]) == plain, raw.hex()


@pytest.mark.parametrize("step", [1, 7, 64, 199, 200, 201, 5000])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_under_311_a_publish_above_the_maximum_is_passed_over_however_the_stream_is_cut(qos: int, step: int) -> None:
    after = [p.Publish("a", bytes([n]), 1, packet_id=n + 8) for n in range(3)]
    large = p.Publish("big", bytes(1000), qos, packet_id=7 if qos else 0)
    sent = [p.Publish("a", b"x", 1, packet_id=6), large, *after, large]
    raw = b"".join(encode(packet, V311) for packet in sent)
    bulk = BulkReader(V311, 200, 0, BASE)
    items = [item for at in range(0, len(raw), step) for item in bulk.feed(raw[at : at + step])]
    assert bulk.error is None
    assert bulk._have <= 200 + step
    over = [item for item in items if isinstance(item, Oversized)]
    assert [(one.packet.topic, one.packet.qos, one.packet.packet_id) for one in over] == [
        ("big", qos, large.packet_id)
    ] * 2
    assert {one.bytes for one in over} == {len(encode(large, V311))}
    messages = [message for item in items if isinstance(item, Run) for message in item.messages]
    assert [message.receipt - BASE for message in messages] == [6, 8, 9, 10]


def test_under_311_only_a_publish_may_be_above_the_maximum() -> None:
    bulk = BulkReader(V311, 200, 0, BASE)
    assert bulk.feed(encode(p.Suback(1, (0,) * 300), V311)) == []
    assert bulk.error is not None
    assert bulk.error.reason == "packet_too_large"
