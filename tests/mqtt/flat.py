"""What a stream of packets comes to, read by the plain parser or on the hot path, so that the two can be compared."""

from collections.abc import Iterable
from typing import Final, TypeAlias

from edge.messages import Message
from edge.mqtt import packets as p
from edge.mqtt.codes import V5
from edge.mqtt.packets import Packet
from edge.mqtt.properties import NONE
from edge.mqtt.reader import BulkReader, Oversized, Parser, Run, to_message

BASE: Final = 3 << 16
ALIASES: Final = 4
_LARGEST: Final = 5 + 268_435_455  # no packet is larger (MQTT 5.0, 2.1.4), so that neither reader finds one too large

# messages, acknowledged packet ids, other packets, whether an error ended it
Flat: TypeAlias = tuple[list[Message], list[int], list[Packet], bool]


def bulk_reader(version: int) -> BulkReader:
    return BulkReader(version, _LARGEST, ALIASES if version == V5 else 0, BASE)


def plain_parser(version: int) -> Parser:
    return Parser(version, _LARGEST)


def expected(packets: Iterable[Packet]) -> Flat:
    """What the hot path must make of these, up to the first alias that is none."""
    aliases: dict[int, str] = {}
    messages: list[Message] = []
    acknowledged: list[int] = []
    others: list[Packet] = []
    for packet in packets:
        match packet:
            case p.Publish():
                topic, alias = packet.topic, packet.properties.topic_alias
                if alias is not None:
                    if alias > ALIASES or not (topic or alias in aliases):
                        return messages, acknowledged, others, True
                    topic = topic or aliases[alias]
                    aliases[alias] = topic
                whole = p.Publish(
                    topic, packet.payload, packet.qos, packet.retain, packet.dup, packet.packet_id, packet.properties
                )
                if packet.qos < 2:
                    messages.append(to_message(whole, BASE + packet.packet_id if packet.qos else 0))
                else:
                    others.append(whole)
            case p.Puback(packet_id, 0, properties) if properties == NONE:
                acknowledged.append(packet_id)
            case _:
                others.append(packet)
    return messages, acknowledged, others, False


def read(bulk: BulkReader, pieces: Iterable[bytes]) -> Flat:
    messages: list[Message] = []
    receipts: list[int] = []
    acknowledged: list[int] = []
    others: list[Packet] = []
    for piece in pieces:
        for item in bulk.feed(piece):
            if isinstance(item, Run):
                messages += item.messages
                receipts += item.receipts
                acknowledged += item.acknowledged
            elif isinstance(item, p.Puback) and not item.code and item.properties == NONE:
                acknowledged.append(item.packet_id)
            else:
                assert not isinstance(item, Oversized)
                others.append(item)
    assert receipts == [message.receipt for message in messages if message.qos]
    return messages, acknowledged, others, bulk.error is not None
