"""The short way of a reading's name says the same as the long one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.messages import Message, Properties, Reading
from edge.mqtt.codes import V5
from edge.mqtt.events import Options
from edge.mqtt.packets import Connack, Publish, encode
from edge.mqtt.properties import PacketProperties
from edge.mqtt.publisher import Publisher
from edge.mqtt.reader import Parser
from edge.mqtt.session import Session


def parsed(data: bytes) -> Publish:
    (packet,) = Parser(V5).feed(data)
    assert isinstance(packet, Publish)
    return packet


@given(
    thing=st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=90),
    boot=st.integers(0, 2**32 - 1),
    sequence=st.integers(1, 2**63 - 1),
    time_ms=st.sampled_from([0, 1_700_000_000_000, 5]),
    aliases=st.sampled_from([0, 10]),
    payload=st.binary(max_size=300),
)
def test_every_name_and_time_is_read_back_whichever_way_it_was_written(
    thing: str, boot: int, sequence: int, time_ms: int, aliases: int, payload: bytes
) -> None:
    publisher = Publisher(V5, aliases, 1 << 20, 2, True)
    expected = [("thing", thing), ("boot", str(boot)), ("seq", str(sequence))]
    if time_ms:
        expected.append(("t", str(time_ms)))
    for packet_id in (1, 2, 65535):
        message = Message("dt/x", payload, 1, False, 0, None, Reading(thing, boot, sequence), time_ms)
        packet = parsed(publisher.build(message, packet_id, dup=False))
        assert (packet.packet_id, packet.payload, packet.qos) == (packet_id, payload, 1)
        assert list(packet.properties.user) == expected


@pytest.mark.parametrize("dup", [False, True])
def test_a_name_goes_beside_other_properties(dup: bool) -> None:
    publisher = Publisher(V5, 0, 1 << 20, 2, True)
    message = Message("dt/x", b"p", 1, False, 0, Properties(content_type="a/b"), Reading("t", 1, 2), 3)
    packet = parsed(publisher.build(message, 7, dup=dup))
    assert packet.properties.content_type == "a/b"
    assert [key for key, _ in packet.properties.user] == ["thing", "boot", "seq", "t"]


@given(
    messages=st.lists(
        st.builds(
            Message,
            topic=st.sampled_from(["dt/x", "dt/long/y"]),
            payload=st.sampled_from([b"", b"{}", b"p" * 120, b"q" * 200]),
            qos=st.just(1),
            reading=st.one_of(
                st.none(),
                st.builds(
                    Reading, st.sampled_from(["a", "gateway/stream"]), st.sampled_from([1, 23]), st.integers(1, 120)
                ),
            ),
            time_ms=st.sampled_from([0, 5, 1_700_000_000_000]),
        ),
        max_size=40,
    ),
    aliases=st.sampled_from([0, 1, 10]),
    batch=st.integers(1, 40),
)
def test_in_a_batch_each_reading_has_its_own_name_and_time_whatever_came_before_it(
    messages: list[Message], aliases: int, batch: int
) -> None:
    session = Session(Options(client_id="c"))
    session.connect(0)
    session.receive(encode(Connack(properties=PacketProperties(topic_alias_maximum=aliases)), V5), 0)
    session.output()
    for start in range(0, len(messages), batch):
        assert session.publish(messages[start : start + batch], None) == len(messages[start : start + batch])
    topics: dict[int | None, str] = {}
    written = Parser(V5).feed(session.output())
    assert len(written) == len(messages)
    for packet, message in zip(written, messages, strict=True):
        assert isinstance(packet, Publish)
        alias = packet.properties.topic_alias
        if packet.topic:
            topics[alias] = packet.topic
        assert (packet.topic or topics[alias], packet.payload) == (message.topic, message.payload)
        expected = []
        if (reading := message.reading) is not None:
            expected = [("thing", reading.thing), ("boot", str(reading.boot)), ("seq", str(reading.sequence))]
            expected += [("t", str(message.time_ms))] if message.time_ms else []
        assert list(packet.properties.user) == expected
