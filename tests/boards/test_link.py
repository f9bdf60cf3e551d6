"""Link control and the envelopes around MQTT-SN."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.boards import link
from edge.boards.link import (
    Hello,
    HelloRequest,
    LinkMessage,
    ReadingFrame,
    RequestFrame,
    Rewind,
    Stats,
    StatsRequest,
    Time,
    Welcome,
    decode_link,
    decode_reading,
    decode_request,
    encode_link,
    encode_mqttsn,
    encode_reading,
    encode_request,
    reset_reason_name,
)
from edge.boards.mqttsn import decode, encode
from edge.boards.packets import PREDEFINED, SHORT, PingReq, PubAck, Publish
from edge.errors import InputRejected
from tests.fuzz import targets

EXAMPLES: list[tuple[str, LinkMessage]] = [
    (
        "03 01 01 08 0200 0000002A 04 06 6E6F64652D31 05 302E312E30",
        Hello(8, 512, 42, "node-1", "0.1.0", reset_reason=4),
    ),
    ("03 01 02 00 0000 00000000 FF 01 6E 00", Hello(0, 0, 0, "n", reset_reason=255, version=2)),
    ("03 02 01 04 0800 0000019A7F5C2E00", Welcome(4, 2048, 0x19A7F5C2E00)),
    ("03 03 01", HelloRequest()),
    ("03 04 0000019A7F5C2E00", Time(0x19A7F5C2E00)),
    ("03 05", StatsRequest()),
    ("03 06 0000002A 0000000000003039 01 02 01 00000007 FE 00000001", Stats(42, 12345, 1, ((1, 7), (254, 1)))),
    ("03 06 0000002A 0000000000003039 00 00", Stats(42, 12345)),
    ("03 07 0000002A 00000007", Rewind(42, 7)),
]
NAMES = [f"{type(message).__name__} {octets}" for octets, message in EXAMPLES]
each_example = pytest.mark.parametrize(
    ("content", "message"), [(bytes.fromhex(octets), message) for octets, message in EXAMPLES], ids=NAMES
)
ENVELOPES = [(decode_reading, "02 00000001 00000001 00"), (decode_request, "05 0001")]
VECTORS: dict[str, Any] = msgspec.json.decode((Path(__file__).parents[1] / "vectors/wire.json").read_bytes())
PUBLISH = Publish(1, b'{"c":21.5000}', 77, qos=1)


def named(rows: list[dict[str, Any]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("vector", rows, ids=[row["name"] for row in rows])


def reason_of(decoder: object, content: bytes) -> str:
    assert callable(decoder)
    with pytest.raises(InputRejected) as caught:
        decoder(content)
    return caught.value.reason


@each_example
def test_every_link_message_is_what_the_wire_says(content: bytes, message: LinkMessage) -> None:
    assert decode_link(content) == message
    assert encode_link(message) == content


@each_example
def test_what_a_newer_version_appends_is_ignored(content: bytes, message: LinkMessage) -> None:
    assert decode_link(content + b"more") == message


@each_example
def test_every_truncated_link_message_is_refused(content: bytes, message: LinkMessage) -> None:
    for size in range(1, len(content)):
        assert reason_of(decode_link, content[:size]) == "link_truncated"
    assert reason_of(decode_link, b"") == "link_truncated"


@each_example
def test_every_flipped_bit_gives_another_link_message_or_a_reason(content: bytes, message: LinkMessage) -> None:
    for bit in range(8, 8 * len(content)):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        with suppress(InputRejected):
            assert changed.startswith(encode_link(decode_link(bytes(changed))))


@pytest.mark.parametrize("kind", [0, 8, 0x7F, 255])
def test_unknown_link_types_are_refused(kind: int) -> None:
    assert reason_of(decode_link, bytes((3, kind)) + bytes(40)) == "link_unknown"


@pytest.mark.parametrize("board_id", [b"\xff", b"a\0b", b"a\nb", b"\xed\xa0\x80"])
def test_a_board_id_is_printable_text(board_id: bytes) -> None:
    head = bytes.fromhex("03 01 01 08 0200 0000002A 04")
    assert reason_of(decode_link, head + bytes((len(board_id),)) + board_id + b"\x00") == "link_text"


def test_a_text_of_256_bytes_is_never_sent() -> None:
    assert decode_link(encode_link(Hello(1, 256, 1, "b" * 255))) == Hello(1, 256, 1, "b" * 255)
    with pytest.raises(ValueError, match="256"):
        encode_link(Hello(1, 256, 1, "b" * 256))


def test_stats_and_reset_reasons_have_names() -> None:
    assert Stats(1, 1, 0, ((1, 7), (21, 3), (200, 9))).named() == {"frames_in": 7, "text_bytes_dropped": 3}
    assert sorted(link.STATS) == list(range(1, 22))
    assert [reset_reason_name(number) for number in (0, 1, 4, 6, 7, 255)] == [
        "unknown",
        "power_on",
        "watchdog",
        "fault",
        "unknown",
        "unknown",
    ]


def test_a_reading_is_its_place_in_the_boot_and_a_publish() -> None:
    content = bytes.fromhex("02 0000002A 00000007 03") + encode(PUBLISH)
    assert decode_reading(content) == ReadingFrame(42, 7, 3, PUBLISH)
    assert encode_reading(ReadingFrame(42, 7, 3, PUBLISH)) == content


def test_a_request_is_its_id_and_a_publish() -> None:
    content = bytes.fromhex("05 BEEF") + encode(PUBLISH)
    assert decode_request(content) == RequestFrame(0xBEEF, PUBLISH)
    assert encode_request(RequestFrame(0xBEEF, PUBLISH)) == content


def test_an_mqttsn_frame_is_its_channel_and_a_message() -> None:
    assert encode_mqttsn(PubAck(1, 2)) == b"\x01\x07\x0d\x00\x01\x00\x02\x00"


@pytest.mark.parametrize(("sequence", "back"), [(0, 0), (1, 1), (5, 255)])
def test_a_sequence_counts_from_one_and_holds_none_before_it(sequence: int, back: int) -> None:
    content = encode_reading(ReadingFrame(1, sequence, back, PUBLISH))
    assert reason_of(decode_reading, content) == "reading_bad_sequence"


@pytest.mark.parametrize(("decoder", "head"), ENVELOPES)
def test_an_envelope_holds_one_publish_and_nothing_else(decoder: object, head: str) -> None:
    whole = bytes.fromhex(head) + encode(PUBLISH)
    for size in range(1, len(whole)):
        assert reason_of(decoder, whole[:size]) in {
            "reading_too_short",
            "request_too_short",
            "too_short",
            "bad_length",
        }
    assert reason_of(decoder, whole + b"\0") == "bad_length"
    assert reason_of(decoder, bytes.fromhex(head) + encode(PingReq("a-sleeping-node"))) == "not_publish"
    bad_flags = bytes.fromhex(head + "07 0C 23 00 01 00 01")
    assert reason_of(decoder, bad_flags) == "bad_flags"


# --- Vectors shared with C: payloads, without the channel

TYPES = {
    "HELLO": Hello,
    "WELCOME": Welcome,
    "HELLO_REQUEST": HelloRequest,
    "TIME": Time,
    "STATS_REQUEST": StatsRequest,
    "STATS": Stats,
    "REWIND": Rewind,
}


@named(VECTORS["links"])
def test_vector_link_messages_are_read_and_written(vector: dict[str, Any]) -> None:
    fields = dict(vector["fields"])
    kind = TYPES[fields.pop("type")]
    if "firmware" in fields:
        fields["firmware_version"] = fields.pop("firmware")
    content = b"\x03" + bytes.fromhex(vector["hex"])
    message = decode_link(content)
    assert message == msgspec.convert(fields, kind)
    assert content.startswith(encode_link(message))


@named(VECTORS["links_rejected"])
def test_vectors_of_what_is_no_link_message_are_refused(vector: dict[str, str]) -> None:
    assert reason_of(decode_link, b"\x03" + bytes.fromhex(vector["hex"])) == "link_" + vector["reason"]


@named(VECTORS["readings"] + VECTORS["requests"])
def test_vector_envelopes_are_read_and_written(vector: dict[str, Any]) -> None:
    fields, payload = vector["fields"], bytes.fromhex(vector["hex"])
    reading = "boot" in fields
    decoder, content = (decode_reading, b"\x02" + payload) if reading else (decode_request, b"\x05" + payload)
    if not fields["message_hex"]:
        assert reason_of(decoder, content) == ("reading_too_short" if reading else "too_short")
    elif reading:
        frame = ReadingFrame(fields["boot"], fields["sequence"], fields["back"], publish_of(fields))
        assert (decode_reading(content), encode_reading(frame)) == (frame, content)
    else:
        request = RequestFrame(fields["request_id"], publish_of(fields))
        assert (decode_request(content), encode_request(request)) == (request, content)


def publish_of(fields: dict[str, Any]) -> Publish:
    publish = decode(bytes.fromhex(fields["message_hex"]))
    assert isinstance(publish, Publish)
    return publish


@named(VECTORS["readings_rejected"])
def test_vectors_of_what_is_no_reading_are_refused(vector: dict[str, str]) -> None:
    assert reason_of(decode_reading, b"\x02" + bytes.fromhex(vector["hex"])) == "reading_" + vector["reason"]


@named(VECTORS["requests_rejected"])
def test_vectors_of_what_is_no_request_are_refused(vector: dict[str, str]) -> None:
    assert reason_of(decode_request, b"\x05" + bytes.fromhex(vector["hex"])) == "request_" + vector["reason"]


# --- Anything at all

TEXT = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=40)
U8, U16, U32, U64 = (st.integers(0, 2**bits - 1) for bits in (8, 16, 32, 64))
ANY_PUBLISH = st.one_of(
    st.builds(Publish, U16, st.binary(max_size=260), U16, st.integers(0, 2), st.just(0), st.booleans(), st.booleans()),
    st.builds(Publish, U16, st.binary(max_size=260), U16, st.integers(-1, 2), st.just(PREDEFINED)),
    st.builds(Publish, st.just(0x6162), st.binary(max_size=260), U16, st.integers(-1, 2), st.just(SHORT)),
)
MESSAGE: st.SearchStrategy[LinkMessage] = st.one_of(
    st.builds(Hello, U8, U16, U32, TEXT, TEXT, U8, U8),
    st.builds(Welcome, U8, U16, U64, U8),
    st.builds(HelloRequest, U8),
    st.builds(Time, U64),
    st.builds(StatsRequest),
    st.builds(Stats, U32, U64, U8, st.lists(st.tuples(U8, U32), max_size=30).map(tuple)),
    st.builds(Rewind, U32, U32),
)


@given(message=MESSAGE)
def test_every_link_message_comes_back_as_it_was_sent(message: LinkMessage) -> None:
    assert decode_link(encode_link(message)) == message


@given(boot=U32, sequence=st.integers(1, 2**32 - 1), back=U8, publish=ANY_PUBLISH, request_id=U16)
def test_every_envelope_comes_back_as_it_was_sent(
    boot: int, sequence: int, back: int, publish: Publish, request_id: int
) -> None:
    reading = ReadingFrame(boot, sequence, min(back, sequence - 1), publish)
    assert decode_reading(encode_reading(reading)) == reading
    assert decode_request(encode_request(RequestFrame(request_id, publish))) == RequestFrame(request_id, publish)


@given(payload=st.binary(max_size=60))
def test_any_content_is_read_or_refused(payload: bytes) -> None:
    targets.link(payload)
