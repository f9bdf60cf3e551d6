"""A stream's record: one message as bytes, and back. Pure.

Version 1, a msgpack array: [1, gateway boot, monotonic ms, topic, payload, qos | retain << 2, properties or nil,
[thing, boot, sequence] or nil]. Fields may be added at the end; a reader passes over those it does not know.

Identity: a record without a reading (from the broker, by QoS 0, of a plain MQTT-SN client) is named by the gateway:
thing = GATEWAY/STREAM, boot = the gateway's boot that took it, sequence = the record's number. That name is not stored:
the number gives it, and stays the same however often the record is read.
"""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from edge.messages import Message, Properties, Reading, properties_bytes, text_bytes

VERSION: Final = 1
QOS, RETAIN = 3, 4
OVERHEAD_BYTES: Final = 96  # beside topic, payload and properties, unless the thing's name is long


class Record(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What is stored. taken_ms: of the monotonic clock; comparable among records of one gateway boot."""

    version: int
    boot: int
    taken_ms: int
    topic: str
    payload: bytes
    flags: int = 0
    properties: Properties | None = None
    reading: tuple[str, int, int] | None = None


encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Record).decode


def decode(data: bytes) -> Record | None:
    """None for what is no record of a version known here."""
    try:
        record = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return record if record.version == VERSION else None


def name_of(record: Record, number: int, own: str) -> tuple[str, int, int]:
    """(thing, boot, sequence). own: GATEWAY/STREAM."""
    return record.reading or (own, record.boot, number)


def content_bytes(message: Message) -> int:
    """Of the payload and the properties."""
    return len(message.payload) + properties_bytes(message.properties)


def records_bytes(messages: Sequence[Message]) -> int:
    """Of all these as records, about."""
    size = sum([len(message.payload) + len(message.topic) for message in messages]) + OVERHEAD_BYTES * len(messages)
    for message in [one for one in messages if one.properties is not None or not one.topic.isascii()]:
        size += properties_bytes(message.properties) + text_bytes(message.topic) - len(message.topic)
    return size


def messages_of(
    rows: Sequence[tuple[int, bytes]], own: str, unix_ms: Callable[[int, int], int]
) -> tuple[list[Message], list[int]]:
    """(messages as they are sent on: QoS 1, the record's number as receipt; numbers of what is no record).

    unix_ms(boot, taken_ms): 0 where it is not known.
    """
    messages: list[Message] = []
    unknown: list[int] = []
    boot, taken_ms, time_ms = -1, -1, 0  # what was taken together has one time
    for number, data in rows:
        try:
            record = _decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            unknown.append(number)
            continue
        if record.version != VERSION:
            unknown.append(number)
            continue
        if record.taken_ms != taken_ms or record.boot != boot:
            boot, taken_ms = record.boot, record.taken_ms
            time_ms = unix_ms(boot, taken_ms)
        named = record.reading
        reading = Reading(own, boot, number) if named is None else Reading(*named)
        retain = record.flags & RETAIN != 0
        messages.append(Message(record.topic, record.payload, 1, retain, number, record.properties, reading, time_ms))
    return messages, unknown
