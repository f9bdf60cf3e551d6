"""The properties of MQTT 5 (2.2.2.2): one table says which there are, of what type, and in which packets."""

from typing import Any, Final, NamedTuple

import msgspec

from edge.mqtt import codes, wire
from edge.mqtt.codes import MALFORMED_PACKET, PROTOCOL_ERROR, TOPIC_ALIAS_INVALID, ProtocolError

WILL: Final = 0  # the will's properties are of their own kind (3.1.3.2)


class PacketProperties(msgspec.Struct, frozen=True, kw_only=True, repr_omit_defaults=True):
    """Every property of the standard; None: not there."""

    payload_format: int | None = None
    expiry_s: int | None = None
    content_type: str | None = None
    response_topic: str | None = None
    correlation_data: bytes | None = None
    subscription_ids: tuple[int, ...] = ()
    session_expiry_s: int | None = None
    assigned_client_id: str | None = None
    server_keepalive_s: int | None = None
    authentication_method: str | None = None
    authentication_data: bytes | None = None
    request_problem_information: int | None = None
    will_delay_s: int | None = None
    request_response_information: int | None = None
    response_information: str | None = None
    server_reference: str | None = None
    reason: str | None = None
    receive_maximum: int | None = None
    topic_alias_maximum: int | None = None
    topic_alias: int | None = None
    qos_maximum: int | None = None
    retain_available: int | None = None
    user: tuple[tuple[str, str], ...] = ()
    packet_bytes_max: int | None = None
    wildcard_available: int | None = None
    subscription_ids_available: int | None = None
    shared_available: int | None = None


NONE: Final = PacketProperties()

BIT, U16, U32, VARINT, TEXT, BINARY, PAIR = range(7)
_FIXED: Final = {BIT: 1, U16: 2, U32: 4}


class Property(NamedTuple):
    identifier: int
    name: str
    kind: int
    packets: frozenset[int]
    minimum: int = 0


_EVERY_REASON = {
    codes.CONNACK,
    codes.PUBACK,
    codes.PUBREC,
    codes.PUBREL,
    codes.PUBCOMP,
    codes.SUBACK,
    codes.UNSUBACK,
    codes.DISCONNECT,
    codes.AUTH,
}
_BOTH_CONNECT = {codes.CONNECT, codes.CONNACK}


def _row(identifier: int, name: str, kind: int, packets: set[int], minimum: int = 0) -> Property:
    return Property(identifier, name, kind, frozenset(packets), minimum)


TABLE: Final = [
    _row(0x01, "payload_format", BIT, {codes.PUBLISH, WILL}),
    _row(0x02, "expiry_s", U32, {codes.PUBLISH, WILL}),
    _row(0x03, "content_type", TEXT, {codes.PUBLISH, WILL}),
    _row(0x08, "response_topic", TEXT, {codes.PUBLISH, WILL}),
    _row(0x09, "correlation_data", BINARY, {codes.PUBLISH, WILL}),
    _row(0x0B, "subscription_ids", VARINT, {codes.PUBLISH, codes.SUBSCRIBE}, 1),
    _row(0x11, "session_expiry_s", U32, {*_BOTH_CONNECT, codes.DISCONNECT}),
    _row(0x12, "assigned_client_id", TEXT, {codes.CONNACK}),
    _row(0x13, "server_keepalive_s", U16, {codes.CONNACK}),
    _row(0x15, "authentication_method", TEXT, {*_BOTH_CONNECT, codes.AUTH}),
    _row(0x16, "authentication_data", BINARY, {*_BOTH_CONNECT, codes.AUTH}),
    _row(0x17, "request_problem_information", BIT, {codes.CONNECT}),
    _row(0x18, "will_delay_s", U32, {WILL}),
    _row(0x19, "request_response_information", BIT, {codes.CONNECT}),
    _row(0x1A, "response_information", TEXT, {codes.CONNACK}),
    _row(0x1C, "server_reference", TEXT, {codes.CONNACK, codes.DISCONNECT}),
    _row(0x1F, "reason", TEXT, _EVERY_REASON),
    _row(0x21, "receive_maximum", U16, _BOTH_CONNECT, 1),
    _row(0x22, "topic_alias_maximum", U16, _BOTH_CONNECT),
    _row(0x23, "topic_alias", U16, {codes.PUBLISH}, 1),
    _row(0x24, "qos_maximum", BIT, {codes.CONNACK}),
    _row(0x25, "retain_available", BIT, {codes.CONNACK}),
    _row(0x26, "user", PAIR, {WILL, *range(codes.CONNECT, codes.AUTH + 1)} - {codes.PINGREQ, codes.PINGRESP}),
    _row(0x27, "packet_bytes_max", U32, _BOTH_CONNECT, 1),
    _row(0x28, "wildcard_available", BIT, {codes.CONNACK}),
    _row(0x29, "subscription_ids_available", BIT, {codes.CONNACK}),
    _row(0x2A, "shared_available", BIT, {codes.CONNACK}),
]
_BY_IDENTIFIER: Final = {row.identifier: row for row in TABLE}


def decode(data: bytes, pos: int, end: int, packet: int) -> tuple[PacketProperties, int]:
    """Property length and properties at pos of a packet of type `packet` (or WILL), and the place after them."""
    if pos < end and not data[pos]:
        return NONE, pos + 1
    size, pos = wire.read_varint(data, pos, end, "property length")
    if pos + size > end:
        raise wire.truncated("properties")
    end = pos + size
    found: dict[str, Any] = {}
    users: list[tuple[str, str]] = []
    subscription_ids: list[int] = []
    while pos < end:
        identifier, pos = wire.read_varint(data, pos, end, "property identifier")
        row = _BY_IDENTIFIER.get(identifier)
        if row is None:
            raise ProtocolError("property_unknown", f"0x{identifier:02x}", MALFORMED_PACKET, "2.2.2.2")
        if packet not in row.packets:
            raise ProtocolError("property_misplaced", row.name, MALFORMED_PACKET, "2.2.2.2")
        value: Any
        if row.kind == PAIR:
            key, pos = wire.read_text(data, pos, end, "user property name")
            value, pos = wire.read_text(data, pos, end, "user property value")
            users.append((key, value))
            continue
        if row.kind == TEXT:
            value, pos = wire.read_text(data, pos, end, row.name)
        elif row.kind == BINARY:
            value, pos = wire.read_binary(data, pos, end, row.name)
        elif row.kind == VARINT:
            value, pos = wire.read_varint(data, pos, end, row.name)
        else:
            start, pos = pos, pos + _FIXED[row.kind]
            if pos > end:
                raise wire.truncated(row.name)
            value = int.from_bytes(data[start:pos], "big")
        _check(row, value)
        if row.kind == VARINT:
            if subscription_ids and packet == codes.SUBSCRIBE:
                raise ProtocolError("property_repeated", row.name, PROTOCOL_ERROR, "3.8.2.1.2")
            subscription_ids.append(value)
        elif row.name in found:
            raise ProtocolError("property_repeated", row.name, PROTOCOL_ERROR, "2.2.2")
        else:
            found[row.name] = value
    if "authentication_data" in found and "authentication_method" not in found:
        raise ProtocolError("authentication_method_missing", "", PROTOCOL_ERROR, "3.1.2.11.10")
    return PacketProperties(user=tuple(users), subscription_ids=tuple(subscription_ids), **found), end


def _check(row: Property, value: Any) -> None:
    if row.kind in _FIXED or row.kind == VARINT:
        if value < row.minimum:
            code = TOPIC_ALIAS_INVALID if row.name == "topic_alias" else PROTOCOL_ERROR
            raise ProtocolError("property_value", f"{row.name} is 0", code, "2.2.2.2")
        if row.kind == BIT and value > 1:
            raise ProtocolError("property_value", f"{row.name} is {value}, may be 0 or 1", PROTOCOL_ERROR, "2.2.2.2")
    elif row.name == "response_topic":
        wire.check_topic_name(value, "response topic")


def encode(properties: PacketProperties, packet: int) -> bytes:
    """Property length and properties. Raises ProtocolError for one that has no place in the packet."""
    if properties is NONE:
        return b"\0"
    out: list[bytes] = []
    for row in TABLE:
        value = getattr(properties, row.name)
        if value is None or value == ():
            continue
        if packet not in row.packets:
            raise ProtocolError("property_misplaced", row.name, MALFORMED_PACKET, "2.2.2.2")
        mark = bytes((row.identifier,))
        if row.kind == PAIR:
            for key, text in value:
                out += mark, wire.text(key, "user property name"), wire.text(text, "user property value")
        elif row.kind == VARINT:
            if len(value) > 1 and packet == codes.SUBSCRIBE:
                raise ProtocolError("property_repeated", row.name, PROTOCOL_ERROR, "3.8.2.1.2")
            for number in value:
                _check(row, number)
                out += mark, wire.varint(number)
        else:
            _check(row, value)
            if row.kind == TEXT:
                out += mark, wire.text(value, row.name)
            elif row.kind == BINARY:
                out += mark, wire.binary(value, row.name)
            else:
                size = _FIXED[row.kind]
                if value >> (8 * size):
                    raise ProtocolError("out_of_range", f"{row.name} is {value}", PROTOCOL_ERROR, "2.2.2.2")
                out += mark, value.to_bytes(size, "big")
    if properties.authentication_data is not None and properties.authentication_method is None:
        raise ProtocolError("authentication_method_missing", "", PROTOCOL_ERROR, "3.1.2.11.10")
    body = b"".join(out)
    return wire.varint(len(body)) + body
