"""The body of one whole packet to its struct: every rule of chapter 3 of both standards that one packet can break."""

from collections.abc import Callable

from edge.mqtt import codes, packets, properties, wire
from edge.mqtt.codes import MALFORMED_PACKET, PROTOCOL_ERROR, V5, V311, ProtocolError
from edge.mqtt.packets import Packet
from edge.mqtt.properties import NONE, PacketProperties


def decode(first: int, data: bytes, pos: int, end: int, version: int) -> Packet:
    """first: the first byte; data[pos:end]: what follows the remaining length. Raises ProtocolError."""
    kind = first >> 4
    if kind == codes.PUBLISH:
        return _publish(first, data, pos, end, version)
    reader = _READERS.get(kind)
    if reader is None or (kind == codes.AUTH and version == V311):
        raise ProtocolError("packet_type", f"type {kind} is reserved", MALFORMED_PACKET, "2.1.2")
    if first & 0x0F != (2 if kind in {codes.PUBREL, codes.SUBSCRIBE, codes.UNSUBSCRIBE} else 0):
        raise ProtocolError("reserved_flags", f"first byte 0x{first:02x}", MALFORMED_PACKET, "2.1.3")
    return reader(data, pos, end, version)


def _properties(data: bytes, pos: int, end: int, packet: int, version: int) -> tuple[PacketProperties, int]:
    return properties.decode(data, pos, end, packet) if version == V5 else (NONE, pos)


def _ended(pos: int, end: int) -> None:
    if pos != end:
        raise ProtocolError("trailing_bytes", f"{end - pos} bytes after the packet's end", MALFORMED_PACKET, "2.1.4")


def _publish(first: int, data: bytes, pos: int, end: int, version: int) -> packets.Publish:
    qos, dup = first >> 1 & 3, bool(first & 8)
    if qos == 3:
        raise ProtocolError("qos", "QoS 3", MALFORMED_PACKET, "3.3.1.2")
    if dup and not qos:
        raise ProtocolError("dup", "DUP with QoS 0", MALFORMED_PACKET, "3.3.1.1")
    topic, pos = wire.read_text(data, pos, end, "topic name")
    packet_id = 0
    if qos:
        packet_id, pos = wire.read_packet_id(data, pos, end), pos + 2
    found, pos = _properties(data, pos, end, codes.PUBLISH, version)
    if topic or version == V311:
        wire.check_topic_name(topic)
    elif found.topic_alias is None:
        raise ProtocolError("topic_empty", "neither a topic nor an alias", PROTOCOL_ERROR, "3.3.2.1")
    return packets.Publish(topic, data[pos:end], qos, bool(first & 1), dup, packet_id, found)


def _connect(data: bytes, pos: int, end: int, _version: int) -> packets.Connect:
    name, pos = wire.read_binary(data, pos, end, "protocol name")
    if name != b"MQTT":
        raise ProtocolError("protocol_name", repr(name[:20]), 0x84, "3.1.2.1")
    if pos + 2 > end:
        raise wire.truncated("connect flags")
    version, flags, pos = data[pos], data[pos + 1], pos + 2
    if version not in {V5, V311}:
        raise ProtocolError("protocol_version", str(version), 0x84, "3.1.2.2")
    if flags & 1:
        raise ProtocolError("reserved_flags", "connect flags", MALFORMED_PACKET, "3.1.2.3")
    will_qos = flags >> 3 & 3
    if will_qos == 3 or (not flags & 4 and flags & 0x38):
        raise ProtocolError("will_flags", f"connect flags 0x{flags:02x}", MALFORMED_PACKET, "3.1.2.6")
    if flags & 0xC0 == 0x40 and version == V311:
        raise ProtocolError("password_alone", "", MALFORMED_PACKET, "3.1.1: 3.1.2.9")
    keepalive_s, pos = wire.read_u16(data, pos, end, "keep alive"), pos + 2
    found, pos = _properties(data, pos, end, codes.CONNECT, version)
    client_id, pos = wire.read_text(data, pos, end, "client identifier")
    if not client_id and version == V311 and not flags & 2:
        raise ProtocolError("client_id_empty", "without a clean session", 0x85, "3.1.1: 3.1.3.1")
    will = username = password = None
    if flags & 4:
        will_properties, pos = _properties(data, pos, end, properties.WILL, version)
        topic, pos = wire.read_text(data, pos, end, "will topic")
        wire.check_topic_name(topic, "will topic")
        payload, pos = wire.read_binary(data, pos, end, "will payload")
        will = packets.ConnectWill(topic, payload, will_qos, bool(flags & 0x20), will_properties)
    if flags & 0x80:
        username, pos = wire.read_text(data, pos, end, "user name")
    if flags & 0x40:
        password, pos = wire.read_binary(data, pos, end, "password")
    _ended(pos, end)
    return packets.Connect(client_id, version, bool(flags & 2), keepalive_s, will, username, password, found)


def _connack(data: bytes, pos: int, end: int, version: int) -> packets.Connack:
    if pos + 2 > end:
        raise wire.truncated("CONNACK")
    flags, code, pos = data[pos], data[pos + 1], pos + 2
    if flags & 0xFE:
        raise ProtocolError("reserved_flags", "connect acknowledge flags", MALFORMED_PACKET, "3.2.2.1")
    if version == V5 and pos == end and code == 1:
        return packets.Connack(code=0x84)  # a server that knows 3.1.1 alone says so in its own form (3.1.1: 3.2.2.3)
    found, pos = _properties(data, pos, end, codes.CONNACK, version)
    _ended(pos, end)
    if code not in (codes.ALLOWED[codes.CONNACK] if version == V5 else codes.CONNACK_311):
        raise _bad_code(code)
    if flags and code:
        raise ProtocolError("session_present", "with a refusal", PROTOCOL_ERROR, "3.2.2.1.1")
    return packets.Connack(bool(flags), code, found)


def _bad_code(code: int) -> ProtocolError:
    return ProtocolError("reason_code", f"0x{code:02x} is not one of the packet's", PROTOCOL_ERROR, "2.4")


def _tail(data: bytes, pos: int, end: int, kind: int, version: int) -> tuple[int, PacketProperties]:
    """Reason code and properties, both of which may be left out (3.4.2.1, 3.14.2.1)."""
    if pos == end:
        return 0, NONE
    if version == V311:
        _ended(pos, end)
    code, found = data[pos], NONE
    if code not in codes.ALLOWED[kind]:
        raise _bad_code(code)
    if pos + 1 < end:
        found, pos = properties.decode(data, pos + 1, end, kind)
        _ended(pos, end)
    return code, found


def _puback(data: bytes, pos: int, end: int, version: int) -> packets.Puback:
    return packets.Puback(wire.read_packet_id(data, pos, end), *_tail(data, pos + 2, end, codes.PUBACK, version))


def _pubrec(data: bytes, pos: int, end: int, version: int) -> packets.Pubrec:
    return packets.Pubrec(wire.read_packet_id(data, pos, end), *_tail(data, pos + 2, end, codes.PUBREC, version))


def _pubrel(data: bytes, pos: int, end: int, version: int) -> packets.Pubrel:
    return packets.Pubrel(wire.read_packet_id(data, pos, end), *_tail(data, pos + 2, end, codes.PUBREL, version))


def _pubcomp(data: bytes, pos: int, end: int, version: int) -> packets.Pubcomp:
    return packets.Pubcomp(wire.read_packet_id(data, pos, end), *_tail(data, pos + 2, end, codes.PUBCOMP, version))


def _head(data: bytes, pos: int, end: int, kind: int, version: int) -> tuple[int, PacketProperties, int]:
    """Packet identifier and properties; at least one byte has to follow."""
    packet_id = wire.read_packet_id(data, pos, end)
    found, pos = _properties(data, pos + 2, end, kind, version)
    if pos == end:
        raise ProtocolError("empty", "the list has no entry", PROTOCOL_ERROR, "3.8.3, 3.9.3, 3.10.3, 3.11.3")
    return packet_id, found, pos


def _subscribe(data: bytes, pos: int, end: int, version: int) -> packets.Subscribe:
    packet_id, found, pos = _head(data, pos, end, codes.SUBSCRIBE, version)
    entries = []
    while pos < end:
        topic_filter, pos = wire.read_text(data, pos, end, "topic filter")
        wire.check_topic_filter(topic_filter)
        if pos == end:
            raise wire.truncated("subscription options")
        option, pos = data[pos], pos + 1
        if option & (0xC0 if version == V5 else 0xFC):
            raise ProtocolError("reserved_flags", f"subscription options 0x{option:02x}", MALFORMED_PACKET, "3.8.3.1")
        if option & 3 == 3:
            raise ProtocolError("qos", "QoS 3", PROTOCOL_ERROR, "3.8.3.1")
        if option >> 4 == 3:
            raise ProtocolError("retain_handling", "3", PROTOCOL_ERROR, "3.8.3.1")
        if option & 4 and topic_filter.startswith("$share/"):
            raise ProtocolError("no_local_shared", topic_filter[:80], PROTOCOL_ERROR, "3.8.3.1")
        entries.append(packets.Subscription(topic_filter, option & 3, bool(option & 4), bool(option & 8), option >> 4))
    return packets.Subscribe(packet_id, tuple(entries), found)


def _suback(data: bytes, pos: int, end: int, version: int) -> packets.Suback:
    packet_id, found, pos = _head(data, pos, end, codes.SUBACK, version)
    return packets.Suback(packet_id, _codes(data[pos:end], codes.SUBACK, version), found)


def _codes(given: bytes, kind: int, version: int) -> tuple[int, ...]:
    allowed = codes.ALLOWED[kind] if version == V5 else codes.SUBACK_311
    for code in given:
        if code not in allowed:
            raise _bad_code(code)
    return tuple(given)


def _unsubscribe(data: bytes, pos: int, end: int, version: int) -> packets.Unsubscribe:
    packet_id, found, pos = _head(data, pos, end, codes.UNSUBSCRIBE, version)
    filters = []
    while pos < end:
        topic_filter, pos = wire.read_text(data, pos, end, "topic filter")
        wire.check_topic_filter(topic_filter)
        filters.append(topic_filter)
    return packets.Unsubscribe(packet_id, tuple(filters), found)


def _unsuback(data: bytes, pos: int, end: int, version: int) -> packets.Unsuback:
    if version == V311:
        packet_id = wire.read_packet_id(data, pos, end)
        _ended(pos + 2, end)
        return packets.Unsuback(packet_id)
    packet_id, found, pos = _head(data, pos, end, codes.UNSUBACK, version)
    return packets.Unsuback(packet_id, _codes(data[pos:end], codes.UNSUBACK, version), found)


def _pingreq(_data: bytes, pos: int, end: int, _version: int) -> packets.Pingreq:
    _ended(pos, end)
    return packets.Pingreq()


def _pingresp(_data: bytes, pos: int, end: int, _version: int) -> packets.Pingresp:
    _ended(pos, end)
    return packets.Pingresp()


def _disconnect(data: bytes, pos: int, end: int, version: int) -> packets.Disconnect:
    return packets.Disconnect(*_tail(data, pos, end, codes.DISCONNECT, version))


def _auth(data: bytes, pos: int, end: int, version: int) -> packets.Auth:
    code, found = _tail(data, pos, end, codes.AUTH, version)
    if found.authentication_method is None and (code or found != NONE):
        raise ProtocolError("authentication_method_missing", "", PROTOCOL_ERROR, "3.15.2.2.2")
    return packets.Auth(code, found)


_READERS: dict[int, Callable[[bytes, int, int, int], Packet]] = {
    codes.CONNECT: _connect,
    codes.CONNACK: _connack,
    codes.PUBACK: _puback,
    codes.PUBREC: _pubrec,
    codes.PUBREL: _pubrel,
    codes.PUBCOMP: _pubcomp,
    codes.SUBSCRIBE: _subscribe,
    codes.SUBACK: _suback,
    codes.UNSUBSCRIBE: _unsubscribe,
    codes.UNSUBACK: _unsuback,
    codes.PINGREQ: _pingreq,
    codes.PINGRESP: _pingresp,
    codes.DISCONNECT: _disconnect,
    codes.AUTH: _auth,
}
