"""Every packet of both standards, there and back, and what must never be taken for one."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import InputRejected
from edge.mqtt import packets as p
from edge.mqtt import properties
from edge.mqtt.codes import V5, V311, ProtocolError
from edge.mqtt.packets import Packet, encode
from edge.mqtt.properties import PacketProperties
from edge.mqtt.reader import Parser
from tests.mqtt.strategies import any_packet, bags, kinds, thorough
from tests.mqtt.vectors import MALFORMED, VECTORS

VERSIONS = pytest.mark.parametrize("version", [V5, V311], ids=["mqtt5", "mqtt311"])
KINDS = pytest.mark.parametrize(
    ("version", "kind"), [(version, kind) for version in (V5, V311) for kind in kinds(version)]
)


@pytest.mark.parametrize(("version", "text", "packet"), VECTORS)
def test_a_packet_written_by_hand_is_read_and_written(version: int, text: str, packet: Packet) -> None:
    raw = bytes.fromhex(text)
    assert Parser(version).feed(raw) == [packet]
    assert encode(packet, version) == raw


@pytest.mark.parametrize(("reason", "code", "version", "text"), MALFORMED)
def test_a_malformed_packet_is_refused_with_the_standards_reason(
    reason: str, code: int, version: int, text: str
) -> None:
    with pytest.raises(ProtocolError) as caught:
        Parser(version).feed(bytes.fromhex(text))
    assert (caught.value.reason, caught.value.reason_code) == (reason, code)
    assert caught.value.clause


@KINDS
def test_every_packet_comes_back_as_it_was(version: int, kind: str) -> None:
    @thorough
    @given(kinds(version)[kind])
    def there_and_back(packet: Packet) -> None:
        assert Parser(version).feed(encode(packet, version)) == [packet]

    there_and_back()


@pytest.mark.parametrize("packet", range(16))
def test_every_property_comes_back_as_it_was_in_each_packet_it_may_stand_in(packet: int) -> None:
    @thorough
    @given(bags(packet))
    def there_and_back(bag: PacketProperties) -> None:
        raw = properties.encode(bag, packet)
        assert properties.decode(raw, 0, len(raw), packet) == (bag, len(raw))

    there_and_back()


@VERSIONS
def test_however_the_stream_is_cut_the_same_packets_come(version: int) -> None:
    @thorough
    @given(st.lists(any_packet(version), min_size=1, max_size=6), st.data())
    def cut_and_read(sent: list[Packet], data: st.DataObject) -> None:
        sent = [one for one in sent if not isinstance(one, p.Connect)]
        raw = b"".join(encode(one, version) for one in sent)
        bytewise, pieces = Parser(version), Parser(version)
        assert [one for place in range(len(raw)) for one in bytewise.feed(raw[place : place + 1])] == sent
        cuts = sorted({0, len(raw), *data.draw(st.lists(st.integers(0, len(raw)), max_size=8))})
        assert [one for start, end in pairwise(cuts) for one in pieces.feed(raw[start:end])] == sent

    cut_and_read()


@KINDS
def test_no_flipped_bit_raises_anything_but_the_declared_error(version: int, kind: str) -> None:
    @thorough
    @given(kinds(version)[kind])
    def flip(packet: Packet) -> None:
        raw = encode(packet, version)
        for bit in range(len(raw) * 8):
            damaged = bytearray(raw)
            damaged[bit // 8] ^= 1 << bit % 8
            parser = Parser(version)
            try:
                for found in parser.feed(bytes(damaged)):
                    encode(found, parser.version)  # what is taken for a packet is one
                parser.feed(b"")
            except ProtocolError:
                pass

    flip()


@KINDS
def test_no_truncated_packet_is_taken_for_a_whole_one(version: int, kind: str) -> None:
    @thorough
    @given(kinds(version)[kind])
    def truncate(packet: Packet) -> None:
        raw = encode(packet, version)
        for size in range(len(raw)):
            assert Parser(version).feed(raw[:size]) == []

    truncate()


@VERSIONS
def test_noise_raises_nothing_but_the_declared_error(version: int) -> None:
    @thorough
    @given(st.binary(max_size=200))
    def noise(raw: bytes) -> None:
        parser = Parser(version)
        try:
            parser.feed(raw)
            parser.feed(b"")
        except ProtocolError:
            pass

    noise()


def test_what_stood_before_a_malformed_packet_is_handed_over_before_the_error() -> None:
    parser = Parser(V5)
    assert parser.feed(bytes.fromhex("c000 d000 c100 c000")) == [p.Pingreq(), p.Pingresp()]
    for _ in range(2):
        with pytest.raises(ProtocolError):
            parser.feed(b"\xc0\0")


def test_a_packet_as_large_as_allowed_is_taken_and_one_byte_more_is_refused_before_it_is_there() -> None:
    fits = encode(p.Publish("t", b"x" * 1000), V5)
    assert len(Parser(V5, len(fits)).feed(fits)) == 1
    with pytest.raises(ProtocolError):
        Parser(V5, len(fits) - 1).feed(fits[:3])


def test_the_parser_of_a_server_follows_the_version_of_connect() -> None:
    parser = Parser(V5)
    parser.feed(encode(p.Connect("a", V311), V311))
    assert parser.feed(encode(p.Publish("t", b"x", 1, packet_id=1), V311)) == [p.Publish("t", b"x", 1, packet_id=1)]


def test_a_server_that_knows_311_alone_is_understood_when_it_refuses_mqtt_5() -> None:
    assert Parser(V5).feed(b"\x20\x02\x00\x01") == [p.Connack(code=0x84)]


@pytest.mark.parametrize(
    ("packet", "version"),
    [
        (p.Connect("a", 3), 5),
        (p.Connect("a", V311, password=b"x"), V311),
        (p.Connect("a\0"), V5),
        (p.Connect("\ud800"), V5),
        (p.Connect("a" * 65536), V5),
        (p.Connect("a", keepalive_s=65536), V5),
        (p.Connect("a", will=p.ConnectWill("a/+", b"")), V5),
        (p.Connect("a", will=p.ConnectWill("a", b"", 3)), V5),
        (p.Connack(True, 0x87), V5),
        (p.Connack(code=0x87), V311),
        (p.Connack(properties=PacketProperties(reason="x")), V311),
        (p.Connack(properties=PacketProperties(topic_alias=1)), V5),
        (p.Connack(properties=PacketProperties(receive_maximum=0)), V5),
        (p.Connack(properties=PacketProperties(receive_maximum=65536)), V5),
        (p.Connack(properties=PacketProperties(authentication_data=b"x")), V5),
        (p.Publish("", b""), V5),
        (p.Publish("#", b""), V5),
        (p.Publish("a", b"", 1), V5),
        (p.Publish("a", b"", 3, packet_id=1), V5),
        (p.Publish("a", b"", 0, packet_id=1), V5),
        (p.Publish("a", b"", 0, dup=True), V5),
        (p.Publish("a", bytes(268_435_456)), V5),
        (p.Puback(1, 0x10), V311),
        (p.Puback(0), V5),
        (p.Subscribe(1, ()), V5),
        (p.Subscribe(1, (p.Subscription("a", 1, True),)), V311),
        (p.Subscribe(1, (p.Subscription("a", 3),)), V5),
        (p.Subscribe(1, (p.Subscription("a", 1, retain_handling=3),)), V5),
        (p.Subscribe(1, (p.Subscription("$share/g/a", 1, True),)), V5),
        (p.Subscribe(1, (p.Subscription("a/#/b"),)), V5),
        (p.Subscribe(1, (p.Subscription("a"),), PacketProperties(subscription_ids=(1, 2))), V5),
        (p.Suback(1, ()), V5),
        (p.Suback(1, (3,)), V5),
        (p.Unsubscribe(1, ()), V5),
        (p.Unsubscribe(1, ("a+",)), V5),
        (p.Unsuback(1, (0,)), V311),
        (p.Unsuback(1, ()), V5),
        (p.Disconnect(4), V311),
        (p.Disconnect(1), V5),
        (p.Auth(), V311),
        (p.Auth(0x18), V5),
    ],
)
def test_what_the_standard_cannot_say_is_never_written(packet: Packet, version: int) -> None:
    with pytest.raises(InputRejected):
        encode(packet, version)
