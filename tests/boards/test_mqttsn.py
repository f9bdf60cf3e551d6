"""MQTT-SN 1.2: every message there and back, and everything that is none refused with a reason."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.boards import mqttsn
from edge.boards import packets as sn
from edge.boards.mqttsn import decode, encode, encode_puback, short_topic, short_topic_id
from edge.errors import InputRejected

# One of every shape a message can take, its octets written by hand from chapter 5 of the standard.
EXAMPLES: list[tuple[str, sn.Packet]] = [
    ("05 00 07 03 84", sn.Advertise(7, 900)),
    ("03 01 02", sn.SearchGw(2)),
    ("03 02 07", sn.GwInfo(7)),
    ("07 02 07 7F 00 00 01", sn.GwInfo(7, b"\x7f\0\0\1")),
    ("0A 04 04 01 00 1E 6E 6F 64 65", sn.Connect("node", 30, clean_session=True)),
    ("0A 04 0C 01 00 1E 6E 6F 64 65", sn.Connect("node", 30, will=True, clean_session=True)),
    ("03 05 00", sn.ConnAck()),
    ("03 05 01", sn.ConnAck(sn.CONGESTION)),
    ("02 06", sn.WillTopicReq()),
    ("06 07 30 61 2F 62", sn.WillTopic("a/b", 1, retain=True)),
    ("02 07", sn.WillTopic()),
    ("02 08", sn.WillMsgReq()),
    ("05 09 62 79 65", sn.WillMsg(b"bye")),
    ("02 09", sn.WillMsg()),
    ("09 0A 00 00 12 34 61 2F 62", sn.Register(0, 0x1234, "a/b")),
    ("07 0B 00 05 12 34 00", sn.RegAck(5, 0x1234)),
    ("09 0C 00 00 05 00 00 68 69", sn.Publish(5, b"hi")),
    ("09 0C A0 00 05 00 07 68 69", sn.Publish(5, b"hi", 7, qos=1, dup=True)),
    ("09 0C 51 00 05 00 07 68 69", sn.Publish(5, b"hi", 7, qos=2, topic_type=sn.PREDEFINED, retain=True)),
    ("09 0C 62 61 62 00 00 68 69", sn.Publish(0x6162, b"hi", qos=-1, topic_type=sn.SHORT)),
    ("07 0C 61 00 05 00 00", sn.Publish(5, b"", qos=-1, topic_type=sn.PREDEFINED)),
    ("07 0D 00 05 00 07 00", sn.PubAck(5, 7)),
    ("07 0D 00 05 00 07 02", sn.PubAck(5, 7, sn.INVALID_TOPIC_ID)),
    ("04 0E 00 07", sn.PubComp(7)),
    ("04 0F 00 07", sn.PubRec(7)),
    ("04 10 00 07", sn.PubRel(7)),
    ("08 12 A0 00 07 61 2F 23", sn.Subscribe(7, "a/#", qos=1, dup=True)),
    ("07 12 41 00 07 00 05", sn.Subscribe(7, topic_id=5, topic_type=sn.PREDEFINED, qos=2)),
    ("07 12 02 00 07 61 62", sn.Subscribe(7, "ab", topic_type=sn.SHORT)),
    ("08 13 20 00 05 00 07 00", sn.SubAck(5, 7, sn.ACCEPTED, 1)),
    ("08 13 00 00 00 00 07 03", sn.SubAck(0, 7, sn.NOT_SUPPORTED)),
    ("08 14 00 00 07 61 2F 23", sn.Unsubscribe(7, "a/#")),
    ("07 14 01 00 07 00 05", sn.Unsubscribe(7, topic_id=5, topic_type=sn.PREDEFINED)),
    ("07 14 02 00 07 61 62", sn.Unsubscribe(7, "ab", topic_type=sn.SHORT)),
    ("04 15 00 07", sn.UnsubAck(7)),
    ("02 16", sn.PingReq()),
    ("06 16 6E 6F 64 65", sn.PingReq("node")),
    ("02 17", sn.PingResp()),
    ("02 18", sn.Disconnect()),
    ("04 18 00 3C", sn.Disconnect(60)),
    ("06 1A 50 61 2F 62", sn.WillTopicUpd("a/b", 2, retain=True)),
    ("02 1A", sn.WillTopicUpd()),
    ("03 1B 00", sn.WillTopicResp()),
    ("05 1C 62 79 65", sn.WillMsgUpd(b"bye")),
    ("03 1D 03", sn.WillMsgResp(sn.NOT_SUPPORTED)),
    ("05 FE 01 AA BB 02 16", sn.Forwarded(b"\xaa\xbb", b"\x02\x16", 1)),
]
OCTETS = [bytes.fromhex(octets) for octets, _ in EXAMPLES]
NAMES = [f"{type(packet).__name__} {octets}" for octets, packet in EXAMPLES]
each_example = pytest.mark.parametrize("octets", OCTETS, ids=NAMES)

VECTORS: dict[str, Any] = msgspec.json.decode((Path(__file__).parents[1] / "vectors/mqttsn.json").read_bytes())


def reason_of(data: bytes) -> str:
    with pytest.raises(sn.PacketRejected) as caught:
        decode(data)
    return caught.value.reason


def lengthened(octets: bytes) -> bytes:
    """The same message with the 3-octet form of the length."""
    return b"\x01" + (len(octets) + 2).to_bytes(2, "big") + octets[1:]


@pytest.mark.parametrize(("octets", "packet"), [(bytes.fromhex(o), p) for o, p in EXAMPLES], ids=NAMES)
def test_every_message_is_what_the_standard_says(octets: bytes, packet: sn.Packet) -> None:
    assert decode(octets) == packet
    assert encode(packet) == octets
    assert decode(b"head" + octets, 4) == packet


def test_there_is_an_example_of_every_message() -> None:
    assert {type(packet) for _, packet in EXAMPLES} == set(mqttsn._ENCODERS)
    assert {octets[1] for octets in OCTETS} == {*mqttsn._DECODERS, 0xFE}


@each_example
def test_the_long_form_of_the_length_is_legal_for_short_messages(octets: bytes) -> None:
    if octets[1] == 0xFE:
        assert reason_of(lengthened(octets)) == "bad_length"
    else:
        assert decode(lengthened(octets)) == decode(octets)


@each_example
def test_every_single_flipped_bit_gives_another_message_or_a_reason(octets: bytes) -> None:
    for bit in range(8 * len(octets)):
        changed = bytearray(octets)
        changed[bit // 8] ^= 1 << bit % 8
        with suppress(sn.PacketRejected):
            assert encode(decode(bytes(changed))) == changed


@each_example
def test_truncated_and_lengthened_messages_are_refused(octets: bytes) -> None:
    for size in range(len(octets)):
        if octets[1] != 0xFE:
            assert reason_of(octets[:size]) in {"too_short", "bad_length"}
            assert reason_of(lengthened(octets)[: size + 2]) in {"too_short", "bad_length"}
            assert reason_of(octets + bytes(size + 1)) == "bad_length"


@each_example
def test_a_length_that_fits_a_cut_message_is_read_as_what_is_left_or_refused(octets: bytes) -> None:
    for size in range(2, len(octets)):
        cut = bytes((size,)) + octets[1:size]
        with suppress(sn.PacketRejected):
            assert encode(decode(cut)) == cut


@pytest.mark.parametrize("kind", [kind for kind in range(256) if kind not in mqttsn._DECODERS and kind != 0xFE])
def test_unknown_types_are_refused(kind: int) -> None:
    assert reason_of(bytes((4, kind, 0, 0))) == "unknown_type"


@pytest.mark.parametrize("size", [0, 247, 248, 249, 250, 251, 300, 2040, 65526])
def test_publishes_around_255_and_256_octets_travel(size: int) -> None:
    packet = sn.Publish(1, bytes(size), 2, qos=1)
    octets = encode(packet)
    assert len(octets) == size + (7 if size < 249 else 9)
    assert octets[0] == (size + 7 if size < 249 else 1)
    assert decode(octets) == packet


@pytest.mark.parametrize("size", range(247, 258))
def test_other_messages_around_255_and_256_octets_travel(size: int) -> None:
    for packet in (sn.WillMsg(bytes(size)), sn.Register(0, 1, "t" * size), sn.GwInfo(1, bytes(size))):
        octets = encode(packet)
        told = octets[0] if octets[0] != 1 else int.from_bytes(octets[1:3], "big")
        assert told == len(octets) != 256
        assert decode(octets) == packet


@pytest.mark.parametrize(
    "packet", [sn.Publish(1, bytes(65527)), sn.WillMsg(bytes(65532)), sn.Register(0, 1, "t" * 65530)]
)
def test_what_no_length_can_tell_is_refused_before_it_is_sent(packet: sn.Packet) -> None:
    with pytest.raises(InputRejected) as caught:
        encode(packet)
    assert caught.value.reason == "message_too_long"


@pytest.mark.parametrize("size", [0, 253])
def test_a_node_id_has_one_to_252_octets(size: int) -> None:
    assert decode(encode(sn.Forwarded(bytes(252), b"\x02\x16"))) == sn.Forwarded(bytes(252), b"\x02\x16")
    with pytest.raises(InputRejected):
        encode(sn.Forwarded(bytes(size), b"\x02\x16"))


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        ("", "too_short"),
        ("02", "too_short"),
        ("00 16", "bad_length"),
        ("01 16", "bad_length"),
        ("01 00 03", "bad_length"),
        ("01 00 05 16", "bad_length"),
        ("04 05 00 00", "bad_length"),
        ("03 0E 00", "too_short"),
        ("03 18 00", "too_short"),
        ("05 18 00 00 00", "bad_length"),
        ("03 17 00", "bad_length"),
        ("06 04 04 01 00 1E", "too_short"),
        ("07 04 04 02 00 1E 61", "protocol_id"),
        ("07 04 84 01 00 1E 61", "bad_flags"),
        ("07 04 05 01 00 1E 61", "bad_flags"),
        ("07 04 04 01 00 1E 00", "client_id_nul"),
        ("07 04 04 01 00 1E FF", "client_id_utf8"),
        ("03 16 00", "client_id_nul"),
        ("03 05 04", "return_code"),
        ("07 0D 00 05 00 07 FF", "return_code"),
        ("06 0A 00 00 00 01", "too_short"),
        ("07 0A 00 00 00 01 00", "topic_nul"),
        ("07 0A 00 00 00 01 FF", "topic_utf8"),
        ("09 0A 00 00 00 01 ED A0 80", "topic_utf8"),
        ("09 0A 00 00 00 01 61 2F 23", "topic_wildcard"),
        ("07 0A 00 00 00 01 2B", "topic_wildcard"),
        ("07 0C 03 00 05 00 07", "bad_flags"),
        ("07 0C 04 00 05 00 07", "bad_flags"),
        ("07 0C 08 00 05 00 07", "bad_flags"),
        ("07 0C 60 00 05 00 07", "bad_flags"),
        ("06 0C 00 00 05 00", "too_short"),
        ("07 0C 22 00 61 00 07", "topic_nul"),
        ("07 0C 22 61 23 00 07", "topic_wildcard"),
        ("07 0C 22 61 FF 00 07", "topic_utf8"),
        ("05 12 00 00 07", "too_short"),
        ("06 12 03 00 07 61", "bad_flags"),
        ("06 12 60 00 07 61", "bad_flags"),
        ("06 12 10 00 07 61", "bad_flags"),
        ("06 12 00 00 07 00", "topic_nul"),
        ("07 12 00 00 07 61 23", "filter_wildcard"),
        ("08 12 00 00 07 23 2F 61", "filter_wildcard"),
        ("06 12 01 00 07 61", "too_short"),
        ("08 12 01 00 07 61 62 63", "bad_length"),
        ("07 12 02 00 07 61 2B", "topic_wildcard"),
        ("08 13 60 00 05 00 07 00", "bad_flags"),
        ("08 13 01 00 05 00 07 00", "bad_flags"),
        ("06 14 80 00 07 61", "bad_flags"),
        ("06 14 20 00 07 61", "bad_flags"),
        ("03 07 00", "too_short"),
        ("04 07 01 61", "bad_flags"),
        ("04 07 60 61", "bad_flags"),
        ("04 07 80 61", "bad_flags"),
        ("05 1A 00 61 2B", "topic_wildcard"),
        ("03 FE 00 02 16", "bad_length"),
        ("04 FE 01 AA 02", "bad_length"),
        ("04 FE 04 AA 02 16", "bad_flags"),
        ("04 FE 00 AA 04 FE 00 BB 02 16", "unknown_type"),
        ("09 FE 00 AA 02 16", "bad_length"),
    ],
)
def test_what_is_no_message_is_refused_with_its_reason(octets: str, reason: str) -> None:
    assert reason_of(bytes.fromhex(octets)) == reason


def test_client_ids_are_bounded() -> None:
    assert decode(encode(sn.Connect("n" * 128, 30))) == sn.Connect("n" * 128, 30)
    assert reason_of(encode(sn.Connect("n" * 129, 30))) == "client_id_too_long"


def test_a_topic_of_64_kb_is_read_or_refused_and_nothing_else() -> None:
    topic = "t" * 65000
    assert decode(encode(sn.Register(0, 1, topic))) == sn.Register(0, 1, topic)
    assert reason_of(encode(sn.Register(0, 1, "#" * 65000))) == "topic_wildcard"


@pytest.mark.parametrize(
    ("octets", "answer"),
    [
        ("07 04 04 02 00 1E 61", sn.ConnAck(sn.NOT_SUPPORTED)),
        ("07 0A 00 00 00 01 2B", sn.RegAck(0, 1, sn.NOT_SUPPORTED)),
        ("07 12 00 00 07 61 23", sn.SubAck(0, 7, sn.NOT_SUPPORTED)),
        ("07 0C 22 61 23 00 07", sn.PubAck(0x6123, 7, sn.INVALID_TOPIC_ID)),
        ("07 0C 02 61 23 00 00", None),
        ("05 1A 00 61 2B", sn.WillTopicResp(sn.NOT_SUPPORTED)),
        ("04 07 00 2B", None),
        ("03 05 04", None),
    ],
)
def test_a_refusal_carries_the_answer_the_standard_has_for_it(octets: str, answer: sn.Packet | None) -> None:
    with pytest.raises(sn.PacketRejected) as caught:
        decode(bytes.fromhex(octets))
    assert caught.value.answer == answer


def test_short_topics_are_two_octets_of_text() -> None:
    assert short_topic(0x6162) == "ab"
    assert short_topic(0xC3A4) == "ä"
    assert (short_topic_id("ab"), short_topic_id("ä"), short_topic_id("a"), short_topic_id("abc")) == (
        0x6162,
        0xC3A4,
        None,
        None,
    )
    with pytest.raises(InputRejected):
        short_topic(0x612B)


def test_puback_octets_are_made_without_a_struct() -> None:
    assert encode_puback(5, 7, sn.CONGESTION) == encode(sn.PubAck(5, 7, sn.CONGESTION))


# --- Vectors shared with C


def named(rows: list[dict[str, Any]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("vector", rows, ids=[row["name"] for row in rows])


def fields_of(packet: sn.Packet) -> dict[str, Any]:
    """A message as the vectors write it."""
    fields = {"type": type(packet).__name__.upper()} | msgspec.structs.asdict(packet)
    if "topic_type" in fields:
        fields["topic_type"] = ("normal", "predefined", "short")[fields["topic_type"]]
    if isinstance(packet, sn.Subscribe | sn.Unsubscribe):
        if packet.topic_type == sn.NORMAL:
            del fields["topic_id"]
        elif packet.topic_type == sn.PREDEFINED:
            del fields["topic"]
        else:
            fields["topic_id"] = short_topic_id(packet.topic)
    for ours, theirs in (("payload", "data_hex"), ("message", "data_hex"), ("address", "data_hex")):
        if ours in fields:
            fields[theirs] = fields.pop(ours).hex()
    if "message_id" in fields:
        fields["msg_id"] = fields.pop("message_id")
    return fields


@named(VECTORS["messages"])
def test_vector_messages_are_read_and_written(vector: dict[str, Any]) -> None:
    octets = bytes.fromhex(vector["hex"])
    packet = decode(octets)
    assert fields_of(packet) == vector["fields"]
    assert (encode(packet) == octets) != vector.get("encodes_otherwise", False)


@named(VECTORS["encapsulated"])
def test_vector_encapsulations_are_read_and_written(vector: dict[str, Any]) -> None:
    fields = vector["fields"]
    packet = sn.Forwarded(bytes.fromhex(fields["node_id_hex"]), bytes.fromhex(fields["message_hex"]), fields["radius"])
    assert decode(bytes.fromhex(vector["hex"])) == packet
    assert encode(packet) == bytes.fromhex(vector["hex"])


@named(VECTORS["rejected"] + VECTORS["encapsulated_rejected"] + VECTORS["rejected_by_gateway"])
def test_vectors_of_what_is_no_message_are_refused(vector: dict[str, str]) -> None:
    assert reason_of(bytes.fromhex(vector["hex"])) == vector["reason"]


# --- Anything at all

U8, U16 = st.integers(0, 255), st.integers(0, 65535)
CODE = st.integers(0, 3)
TEXT = st.text(st.characters(exclude_characters="\0+#", exclude_categories=["Cs"]), min_size=1, max_size=80)
CLIENT_ID = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=30)
PAYLOAD = st.one_of(st.binary(max_size=40), st.binary(min_size=245, max_size=260))
QOS, FLAG = st.integers(0, 2), st.booleans()
FILTER = st.lists(st.one_of(st.just("+"), TEXT), min_size=1, max_size=4).map("/".join)
TWO_OCTETS = st.integers(0x21, 0x7E).filter(lambda c: chr(c) not in "+#").map(chr)
SHORT_NAME = st.builds("".join, st.tuples(TWO_OCTETS, TWO_OCTETS))

PUBLISH = st.one_of(
    st.builds(sn.Publish, U16, PAYLOAD, U16, QOS, st.sampled_from([sn.NORMAL, sn.PREDEFINED]), FLAG, FLAG),
    st.builds(sn.Publish, U16, PAYLOAD, U16, st.just(-1), st.just(sn.PREDEFINED), FLAG, FLAG),
    st.builds(
        sn.Publish, SHORT_NAME.map(short_topic_id), PAYLOAD, U16, st.integers(-1, 2), st.just(sn.SHORT), FLAG, FLAG
    ),
)
PACKET: st.SearchStrategy[sn.Packet] = st.one_of(
    st.builds(sn.Advertise, U8, U16),
    st.builds(sn.SearchGw, U8),
    st.builds(sn.GwInfo, U8, PAYLOAD),
    st.builds(sn.Connect, CLIENT_ID, U16, FLAG, FLAG),
    *(st.builds(make, CODE) for make in (sn.ConnAck, sn.WillTopicResp, sn.WillMsgResp)),
    *(st.builds(make) for make in (sn.WillTopicReq, sn.WillMsgReq, sn.PingResp, sn.WillTopic, sn.WillTopicUpd)),
    *(st.builds(make, TEXT, QOS, FLAG) for make in (sn.WillTopic, sn.WillTopicUpd)),
    *(st.builds(make, PAYLOAD) for make in (sn.WillMsg, sn.WillMsgUpd)),
    st.builds(sn.Register, U16, U16, TEXT),
    *(st.builds(make, U16, U16, CODE) for make in (sn.RegAck, sn.PubAck)),
    *(st.builds(make, U16) for make in (sn.PubComp, sn.PubRec, sn.PubRel, sn.UnsubAck)),
    PUBLISH,
    st.builds(sn.Subscribe, U16, FILTER, st.just(0), st.just(sn.NORMAL), QOS, FLAG),
    st.builds(sn.Subscribe, U16, st.just(""), U16, st.just(sn.PREDEFINED), QOS, FLAG),
    st.builds(sn.Subscribe, U16, SHORT_NAME, st.just(0), st.just(sn.SHORT), QOS, FLAG),
    st.builds(sn.SubAck, U16, U16, CODE, QOS),
    st.builds(sn.Unsubscribe, U16, FILTER),
    st.builds(sn.Unsubscribe, U16, st.just(""), U16, st.just(sn.PREDEFINED)),
    st.builds(sn.Unsubscribe, U16, SHORT_NAME, st.just(0), st.just(sn.SHORT)),
    st.builds(sn.PingReq, st.one_of(st.just(""), CLIENT_ID)),
    st.builds(sn.Disconnect, st.one_of(st.none(), U16)),
    st.builds(sn.Forwarded, st.binary(min_size=1, max_size=252), PUBLISH.map(encode), CODE),
)


@given(packet=PACKET)
def test_every_message_comes_back_as_it_was_sent(packet: sn.Packet) -> None:
    octets = encode(packet)
    assert decode(octets) == packet
    if not isinstance(packet, sn.Forwarded):
        assert decode(octets if octets[0] == 1 else lengthened(octets)) == packet


@given(data=st.one_of(st.binary(max_size=60), st.binary(max_size=20).map(lambda body: bytes((len(body) + 1,)) + body)))
def test_any_octets_are_a_message_or_a_reason(data: bytes) -> None:
    with suppress(sn.PacketRejected):
        assert encode(decode(data)) == data or data[0] == 1
