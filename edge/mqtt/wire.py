"""The data types both standards are written in (MQTT 5.0, 1.5): integers, strings, binary data, topic names."""

from edge.mqtt.codes import (
    MALFORMED_PACKET,
    PROTOCOL_ERROR,
    TOPIC_FILTER_INVALID,
    TOPIC_NAME_INVALID,
    ProtocolError,
)

VARINT_MAX = 268_435_455
_BYTES = [bytes((value,)) for value in range(256)]


def truncated(what: str) -> ProtocolError:
    return ProtocolError("truncated", f"the packet ends within its {what}", MALFORMED_PACKET, "1.5")


def read_u16(data: bytes, pos: int, end: int, what: str) -> int:
    if pos + 2 > end:
        raise truncated(what)
    return data[pos] << 8 | data[pos + 1]


def read_packet_id(data: bytes, pos: int, end: int) -> int:
    packet_id = read_u16(data, pos, end, "packet identifier")
    if not packet_id:
        raise ProtocolError("packet_id_zero", "a packet identifier is never 0", PROTOCOL_ERROR, "2.2.1")
    return packet_id


def read_varint(data: bytes, pos: int, end: int, what: str) -> tuple[int, int]:
    """Value and the place after it. The shortest form only (1.5.5)."""
    value = 0
    for shift in (0, 7, 14, 21):
        if pos >= end:
            raise truncated(what)
        byte = data[pos]
        pos += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if shift and not byte:
                raise ProtocolError("varint_padded", f"{what} is not in its shortest form", MALFORMED_PACKET, "1.5.5")
            return value, pos
    raise ProtocolError("varint_too_long", f"{what} takes more than four bytes", MALFORMED_PACKET, "1.5.5")


def read_binary(data: bytes, pos: int, end: int, what: str) -> tuple[bytes, int]:
    size = read_u16(data, pos, end, what)
    start, pos = pos + 2, pos + 2 + size
    if pos > end:
        raise truncated(what)
    return data[start:pos], pos


def read_text(data: bytes, pos: int, end: int, what: str) -> tuple[str, int]:
    raw, pos = read_binary(data, pos, end, what)
    return decode_text(raw, what), pos


def decode_text(raw: bytes, what: str) -> str:
    """Refuses what is no UTF-8, surrogates, NUL (1.5.4)."""
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise ProtocolError("bad_utf8", f"{what}: {error.reason}", MALFORMED_PACKET, "1.5.4") from None
    if "\0" in text:
        raise ProtocolError("nul", f"{what} holds U+0000", MALFORMED_PACKET, "1.5.4")
    return text


def u16(value: int, what: str) -> bytes:
    if not 0 <= value <= 0xFFFF:
        raise ProtocolError("out_of_range", f"{what} is {value}", PROTOCOL_ERROR, "1.5.2")
    return value.to_bytes(2, "big")


def packet_id(value: int) -> bytes:
    if not value:
        raise ProtocolError("packet_id_zero", "a packet identifier is never 0", PROTOCOL_ERROR, "2.2.1")
    return u16(value, "packet identifier")


def varint(value: int) -> bytes:
    if 0 <= value < 0x4000:
        return _BYTES[value] if value < 0x80 else bytes((value & 0x7F | 0x80, value >> 7))
    if not 0 <= value <= VARINT_MAX:
        raise ProtocolError("out_of_range", f"a variable byte integer of {value}", MALFORMED_PACKET, "1.5.5")
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def binary(value: bytes, what: str) -> bytes:
    if len(value) > 0xFFFF:
        raise ProtocolError("too_long", f"{what} takes {len(value)} bytes, at most 65535", MALFORMED_PACKET, "1.5.6")
    return len(value).to_bytes(2, "big") + value


def text(value: str, what: str) -> bytes:
    if "\0" in value:
        raise ProtocolError("nul", f"{what} holds U+0000", MALFORMED_PACKET, "1.5.4")
    try:
        return binary(value.encode(), what)
    except UnicodeEncodeError as error:
        raise ProtocolError("bad_utf8", f"{what}: {error.reason}", MALFORMED_PACKET, "1.5.4") from None


def check_topic_name(topic: str, what: str = "topic name") -> None:
    """A topic that may be published to: not empty, no wildcard (4.7)."""
    if not topic:
        raise ProtocolError("topic_empty", f"the {what} is empty", TOPIC_NAME_INVALID, "4.7.3")
    if "+" in topic or "#" in topic:
        raise ProtocolError(
            "topic_wildcard", f"the {what} holds a wildcard: {topic[:80]!r}", TOPIC_NAME_INVALID, "4.7.1"
        )


def check_topic_filter(topic_filter: str) -> None:
    """A filter that may be subscribed to, shared ones included (4.7.1, 4.8.2)."""
    rest = topic_filter
    if topic_filter.startswith("$share/"):
        _, group, *levels = topic_filter.split("/", 2)
        rest = levels[0] if levels else ""
        if not group or "+" in group or "#" in group:
            raise _bad_filter(topic_filter, "4.8.2")
    if not rest:
        raise _bad_filter(topic_filter, "4.7.3")
    if "#" in rest[:-1] or (rest[-1] == "#" and rest[-2:-1] not in {"", "/"}):
        raise _bad_filter(topic_filter, "4.7.1")
    if "+" in rest and any("+" in level and level != "+" for level in rest.split("/")):
        raise _bad_filter(topic_filter, "4.7.1")


def _bad_filter(topic_filter: str, clause: str) -> ProtocolError:
    return ProtocolError("topic_filter", f"no valid filter: {topic_filter[:80]!r}", TOPIC_FILTER_INVALID, clause)
