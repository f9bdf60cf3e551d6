"""Every packet of MQTT 5.0 and 3.1.1 (chapter 3 of both) as a struct, and its bytes."""

from typing import TypeAlias, assert_never

import msgspec

from edge.mqtt import codes, properties, wire
from edge.mqtt.codes import MALFORMED_PACKET, PROTOCOL_ERROR, V5, V311, ProtocolError
from edge.mqtt.properties import NONE, PacketProperties


class ConnectWill(msgspec.Struct, frozen=True, repr_omit_defaults=True):
    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    properties: PacketProperties = NONE


class Connect(msgspec.Struct, frozen=True, repr_omit_defaults=True):
    client_id: str
    version: int = V5
    clean_start: bool = True
    keepalive_s: int = 0
    will: ConnectWill | None = None
    username: str | None = None
    password: bytes | None = None
    properties: PacketProperties = NONE


class Connack(msgspec.Struct, frozen=True, repr_omit_defaults=True):
    """code: the version's own; `codes.CONNACK_311` translates those of 3.1.1."""

    session_present: bool = False
    code: int = 0
    properties: PacketProperties = NONE


class Publish(msgspec.Struct, frozen=True, repr_omit_defaults=True):
    """topic may be empty when properties name an alias; packet_id is 0 with QoS 0."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    dup: bool = False
    packet_id: int = 0
    properties: PacketProperties = NONE


class Puback(msgspec.Struct, frozen=True, repr_omit_defaults=True):
    packet_id: int
    code: int = 0
    properties: PacketProperties = NONE


class Pubrec(msgspec.Struct, frozen=True, repr_omit_defaults=True):
    packet_id: int
    code: int = 0
    properties: PacketProperties = NONE


class Pubrel(msgspec.Struct, frozen=True, repr_omit_defaults=True):
    packet_id: int
    code: int = 0
    properties: PacketProperties = NONE


class Pubcomp(msgspec.Struct, frozen=True, repr_omit_defaults=True):
    packet_id: int
    code: int = 0
    properties: PacketProperties = NONE


class Subscription(msgspec.Struct, frozen=True, repr_omit_defaults=True):
    """One entry of SUBSCRIBE (MQTT 5.0, 3.8.3.1). All but the filter and qos need MQTT 5."""

    topic_filter: str
    qos: int = 0
    no_local: bool = False
    retain_as_published: bool = False
    retain_handling: int = 0


class Subscribe(msgspec.Struct, frozen=True, repr_omit_defaults=True):
    packet_id: int
    subscriptions: tuple[Subscription, ...]
    properties: PacketProperties = NONE


class Suback(msgspec.Struct, frozen=True, repr_omit_defaults=True):
    packet_id: int
    codes: tuple[int, ...]
    properties: PacketProperties = NONE


class Unsubscribe(msgspec.Struct, frozen=True, repr_omit_defaults=True):
    packet_id: int
    filters: tuple[str, ...]
    properties: PacketProperties = NONE


class Unsuback(msgspec.Struct, frozen=True, repr_omit_defaults=True):
    """codes: empty under 3.1.1."""

    packet_id: int
    codes: tuple[int, ...] = ()
    properties: PacketProperties = NONE


class Pingreq(msgspec.Struct, frozen=True, repr_omit_defaults=True):
    pass


class Pingresp(msgspec.Struct, frozen=True, repr_omit_defaults=True):
    pass


class Disconnect(msgspec.Struct, frozen=True, repr_omit_defaults=True):
    code: int = 0
    properties: PacketProperties = NONE


class Auth(msgspec.Struct, frozen=True, repr_omit_defaults=True):
    code: int = 0
    properties: PacketProperties = NONE


Packet: TypeAlias = (
    Connect
    | Connack
    | Publish
    | Puback
    | Pubrec
    | Pubrel
    | Pubcomp
    | Subscribe
    | Suback
    | Unsubscribe
    | Unsuback
    | Pingreq
    | Pingresp
    | Disconnect
    | Auth
)


def encode(packet: Packet, version: int) -> bytes:
    """The packet's bytes. Raises ProtocolError for what the version cannot say."""
    match packet:
        case Connect():
            return _frame(codes.CONNECT << 4, _connect(packet))
        case Connack():
            _check_code(codes.CONNACK, packet.code, version)
            if packet.session_present and packet.code:
                raise ProtocolError("session_present", "with a refusal", PROTOCOL_ERROR, "3.2.2.1.1")
            head = bytes((packet.session_present, packet.code))
            return _frame(codes.CONNACK << 4, head + _properties(packet.properties, codes.CONNACK, version))
        case Publish():
            return _publish(packet, version)
        case Puback():
            return _acknowledgement(codes.PUBACK, 0, packet, version)
        case Pubrec():
            return _acknowledgement(codes.PUBREC, 0, packet, version)
        case Pubrel():
            return _acknowledgement(codes.PUBREL, 2, packet, version)
        case Pubcomp():
            return _acknowledgement(codes.PUBCOMP, 0, packet, version)
        case Subscribe():
            return _frame(codes.SUBSCRIBE << 4 | 2, _subscribe(packet, version))
        case Suback():
            for code in packet.codes:
                _check_code(codes.SUBACK, code, version)
            return _listing(codes.SUBACK << 4, packet, codes.SUBACK, version, bytes(packet.codes))
        case Unsubscribe():
            for topic_filter in packet.filters:
                wire.check_topic_filter(topic_filter)
            filters = b"".join([wire.text(topic_filter, "topic filter") for topic_filter in packet.filters])
            return _listing(codes.UNSUBSCRIBE << 4 | 2, packet, codes.UNSUBSCRIBE, version, filters)
        case Unsuback():
            if version == V311:
                if packet.codes:
                    raise _only_5("UNSUBACK with reason codes")
                _properties(packet.properties, codes.UNSUBACK, version)
                return _frame(codes.UNSUBACK << 4, wire.packet_id(packet.packet_id))
            for code in packet.codes:
                _check_code(codes.UNSUBACK, code, version)
            return _listing(codes.UNSUBACK << 4, packet, codes.UNSUBACK, version, bytes(packet.codes))
        case Pingreq():
            return b"\xc0\0"
        case Pingresp():
            return b"\xd0\0"
        case Disconnect():
            return _reason(codes.DISCONNECT, packet, version)
        case Auth():
            if version == V311:
                raise _only_5("AUTH")
            if packet.properties.authentication_method is None and (packet.code or packet.properties != NONE):
                raise ProtocolError("authentication_method_missing", "", PROTOCOL_ERROR, "3.15.2.2.2")
            return _reason(codes.AUTH, packet, version)
        case _:
            assert_never(packet)


def _only_5(what: str) -> ProtocolError:
    return ProtocolError("needs_mqtt_5", f"MQTT 3.1.1 has no {what}", PROTOCOL_ERROR)


def _check_code(packet: int, code: int, version: int) -> None:
    if version == V5:
        good = code in codes.ALLOWED[packet]
    elif packet == codes.CONNACK:
        good = code in codes.CONNACK_311
    elif packet == codes.SUBACK:
        good = code in codes.SUBACK_311
    else:
        good = code == 0
    if not good:
        raise ProtocolError("reason_code", f"0x{code:02x} is not one of the packet's", PROTOCOL_ERROR, "2.4")


def _frame(first: int, body: bytes) -> bytes:
    return bytes((first,)) + wire.varint(len(body)) + body


def _properties(given: PacketProperties, packet: int, version: int) -> bytes:
    if version == V5:
        return properties.encode(given, packet)
    if given != NONE:
        raise _only_5("properties")
    return b""


def _connect(packet: Connect) -> bytes:
    if packet.version not in {V5, V311}:
        raise ProtocolError("protocol_version", str(packet.version), 0x84, "3.1.2.2")
    will, flags = packet.will, packet.clean_start << 1
    if packet.password is not None and packet.username is None and packet.version == V311:
        raise ProtocolError("password_alone", "", PROTOCOL_ERROR, "3.1.1: 3.1.2.9")
    parts = [wire.text(packet.client_id, "client identifier")]
    if will is not None:
        _check_qos(will.qos)
        flags |= 4 | will.qos << 3 | will.retain << 5
        wire.check_topic_name(will.topic, "will topic")
        parts.append(_properties(will.properties, properties.WILL, packet.version))
        parts += wire.text(will.topic, "will topic"), wire.binary(will.payload, "will payload")
    if packet.username is not None:
        flags |= 0x80
        parts.append(wire.text(packet.username, "user name"))
    if packet.password is not None:
        flags |= 0x40
        parts.append(wire.binary(packet.password, "password"))
    head = b"\0\4MQTT" + bytes((packet.version, flags)) + wire.u16(packet.keepalive_s, "keep alive")
    return head + _properties(packet.properties, codes.CONNECT, packet.version) + b"".join(parts)


def _check_qos(qos: int) -> None:
    if qos not in {0, 1, 2}:
        raise ProtocolError("qos", f"QoS {qos}", MALFORMED_PACKET, "3.3.1.2")


def _publish(packet: Publish, version: int) -> bytes:
    _check_qos(packet.qos)
    if packet.dup and not packet.qos:
        raise ProtocolError("dup", "DUP with QoS 0", MALFORMED_PACKET, "3.3.1.1")
    if packet.topic or version == V311 or packet.properties.topic_alias is None:
        wire.check_topic_name(packet.topic)
    if not packet.qos and packet.packet_id:
        raise ProtocolError("packet_id", "QoS 0 has none", MALFORMED_PACKET, "2.2.1")
    mark = wire.packet_id(packet.packet_id) if packet.qos else b""
    head = wire.text(packet.topic, "topic name") + mark + _properties(packet.properties, codes.PUBLISH, version)
    first = codes.PUBLISH << 4 | packet.dup << 3 | packet.qos << 1 | packet.retain
    return bytes((first,)) + wire.varint(len(head) + len(packet.payload)) + head + packet.payload


def _acknowledgement(kind: int, flags: int, packet: Puback | Pubrec | Pubrel | Pubcomp, version: int) -> bytes:
    _check_code(kind, packet.code, version)
    body = wire.packet_id(packet.packet_id)
    tail = _properties(packet.properties, kind, version)
    if packet.properties != NONE:
        body += bytes((packet.code,)) + tail
    elif packet.code:
        body += bytes((packet.code,))
    return _frame(kind << 4 | flags, body)


def _reason(kind: int, packet: Disconnect | Auth, version: int) -> bytes:
    _check_code(kind, packet.code, version)
    tail = _properties(packet.properties, kind, version)
    if packet.properties != NONE:
        return _frame(kind << 4, bytes((packet.code,)) + tail)
    return _frame(kind << 4, bytes((packet.code,)) if packet.code else b"")


def _subscribe(packet: Subscribe, version: int) -> bytes:
    parts = [wire.packet_id(packet.packet_id), _properties(packet.properties, codes.SUBSCRIBE, version)]
    if not packet.subscriptions:
        raise ProtocolError("empty", "SUBSCRIBE without a filter", PROTOCOL_ERROR, "3.8.3")
    for entry in packet.subscriptions:
        wire.check_topic_filter(entry.topic_filter)
        _check_qos(entry.qos)
        option = entry.qos | entry.no_local << 2 | entry.retain_as_published << 3 | entry.retain_handling << 4
        if version == V311 and option & ~3:
            raise _only_5("subscription options but QoS")
        if entry.retain_handling not in {0, 1, 2}:
            raise ProtocolError("retain_handling", str(entry.retain_handling), PROTOCOL_ERROR, "3.8.3.1")
        if entry.no_local and entry.topic_filter.startswith("$share/"):
            raise ProtocolError("no_local_shared", entry.topic_filter[:80], PROTOCOL_ERROR, "3.8.3.1")
        parts += wire.text(entry.topic_filter, "topic filter"), bytes((option,))
    return b"".join(parts)


def _listing(first: int, packet: Suback | Unsubscribe | Unsuback, kind: int, version: int, entries: bytes) -> bytes:
    if not entries:
        raise ProtocolError("empty", "a list of at least one", PROTOCOL_ERROR, "3.9.3, 3.10.3, 3.11.3")
    return _frame(first, wire.packet_id(packet.packet_id) + _properties(packet.properties, kind, version) + entries)
