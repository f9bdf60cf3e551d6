"""MQTT-SN 1.2: `decode` and `encode`; one struct a message is in packets.py. Pure; sessions live elsewhere.

`decode` is strict: what the standard calls reserved must be zero, and a message fills its datagram exactly. It is
liberal only where the standard is: the 3-octet length is legal for short messages (5.2.1), message ids may be 0,
client ids may be longer than 23 characters (the standard's bound is MQTT 3.1's, which later MQTT dropped).
"""

import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from edge.boards.packets import (
    ACCEPTED,
    CLIENT_ID_BYTES_MAX,
    INVALID_TOPIC_ID,
    MESSAGE_BYTES_MAX,
    NODE_ID_BYTES_MAX,
    NORMAL,
    NOT_SUPPORTED,
    PREDEFINED,
    SHORT,
    Advertise,
    ConnAck,
    Connect,
    Disconnect,
    Forwarded,
    GwInfo,
    Packet,
    PacketRejected,
    PingReq,
    PingResp,
    PubAck,
    PubComp,
    Publish,
    PubRec,
    PubRel,
    RegAck,
    Register,
    SearchGw,
    SubAck,
    Subscribe,
    UnsubAck,
    Unsubscribe,
    WillMsg,
    WillMsgReq,
    WillMsgResp,
    WillMsgUpd,
    WillTopic,
    WillTopicReq,
    WillTopicResp,
    WillTopicUpd,
)
from edge.errors import InputRejected
from edge.topics import check_filter, check_topic

# Flags (5.3.4): DUP 0x80, QoS 0x60, Retain 0x10, Will 0x08, CleanSession 0x04, TopicIdType 0x03.
_DUP, _RETAIN, _WILL, _CLEAN = 0x80, 0x10, 0x08, 0x04
_PUBLISH_HEAD = struct.Struct(">BBBHH")
_PUBACK = struct.Struct(">BBHHB")
_TWO_IDS_AND_CODE = struct.Struct(">HHB")


def decode(data: bytes, at: int = 0) -> Packet:
    """data[at:] is one whole message. Raises PacketRejected, and nothing else, whatever the bytes."""
    try:
        length, kind, flags, topic_id, message_id = _PUBLISH_HEAD.unpack_from(data, at)
    except struct.error:
        return _decode_any(data[at:])
    if kind == 0x0C and length == len(data) - at and (known := _PUBLISH_FLAGS[flags]) is not None:
        qos, topic_type, retain, dup = known
        return Publish(topic_id, data[at + 7 :], message_id, qos, topic_type, retain, dup)
    return _decode_any(data[at:])


def encode(packet: Packet) -> bytes:
    """One whole message in the shortest form of its length. Raises InputRejected when longer than 65,535 bytes."""
    return _ENCODERS[type(packet)](packet)


def encode_publish(packet: Publish) -> bytes:
    """What `encode` does for a Publish, without the detour."""
    flags = (packet.qos & 3) << 5 | packet.topic_type
    if packet.retain:
        flags |= _RETAIN
    if packet.dup:
        flags |= _DUP
    payload = packet.payload
    size = len(payload) + 7
    if size < 256:
        return _PUBLISH_HEAD.pack(size, 0x0C, flags, packet.topic_id, packet.message_id) + payload
    return _message(0x0C, struct.pack(">BHH", flags, packet.topic_id, packet.message_id) + payload)


def encode_puback(topic_id: int, message_id: int, return_code: int = ACCEPTED) -> bytes:
    """A whole PUBACK from its fields, without a struct."""
    return _PUBACK.pack(7, 0x0D, topic_id, message_id, return_code)


@lru_cache(maxsize=1024)
def short_topic(topic_id: int) -> str:
    """The two-octet name that a SHORT topic id is (5.3.11). Raises InputRejected when it is no topic name."""
    return _topic(topic_id.to_bytes(2, "big"))


def short_topic_id(topic: str) -> int | None:
    """The SHORT topic id of a name that has one, i.e. is two octets long."""
    name = topic.encode()
    return int.from_bytes(name, "big") if len(name) == 2 else None


def _publish_flags(flags: int) -> tuple[int, int, bool, bool] | None:
    """(qos, topic_type, retain, dup) when they are legal and need no look at the other fields."""
    qos, topic_type = flags >> 5 & 3, flags & 3
    if flags & (_WILL | _CLEAN) or topic_type >= SHORT or (qos == 3 and topic_type == NORMAL):
        return None
    return (-1 if qos == 3 else qos), topic_type, bool(flags & _RETAIN), bool(flags & _DUP)


_PUBLISH_FLAGS: Final = tuple(_publish_flags(flags) for flags in range(256))


def _decode_any(data: bytes) -> Packet:
    if not data:
        raise PacketRejected("too_short", "no octet")
    if data[0] == 1:
        if len(data) < 4 or int.from_bytes(data[1:3], "big") != len(data):
            raise PacketRejected("bad_length", f"the long length field does not say {len(data)}")
        kind, body = data[3], data[4:]
        if kind == 0xFE:
            raise PacketRejected("bad_length", "a forwarder's length is one octet")
    else:
        if len(data) < 2:
            raise PacketRejected("too_short", "one octet is no message")
        kind = data[1]
        if kind == 0xFE:
            return _forwarded(data)
        if data[0] != len(data):
            raise PacketRejected("bad_length", f"the length field says {data[0]}, there are {len(data)}")
        body = data[2:]
    decoder = _DECODERS.get(kind)
    if decoder is None:
        raise PacketRejected("unknown_type", f"message type 0x{kind:02X}")
    return decoder(body)


def _forwarded(data: bytes) -> Forwarded:
    """The length counts up to the end of the node id; the message follows (5.5)."""
    head = data[0]
    if head < 4 or len(data) < head + 2:
        raise PacketRejected("bad_length", f"a forwarder's length of {head} in {len(data)} octets")
    if data[2] & 0xFC:
        raise PacketRejected("bad_flags", f"control octet 0x{data[2]:02X}")
    if data[head] != 1 and data[head + 1] == 0xFE:
        raise PacketRejected("unknown_type", "a forwarder's message within a forwarder's message")
    return Forwarded(data[3:head], data[head:], data[2])


def _sized(body: bytes, least: int, most: int | None = None) -> None:
    if len(body) < least:
        raise PacketRejected("too_short", f"{len(body)} octets of fields")
    if most is not None and len(body) > most:
        raise PacketRejected("bad_length", f"{len(body)} octets of fields, at most {most}")


def _u16(body: bytes, at: int) -> int:
    return body[at] << 8 | body[at + 1]


def _flags(flags: int, used: int) -> tuple[int, int]:
    """(qos, topic_type) of flags of which only those in `used` may be set."""
    if flags & ~used & 0xFF & ~0x03:
        raise PacketRejected("bad_flags", f"flags 0x{flags:02X}")
    qos, topic_type = flags >> 5 & 3, flags & 3
    if topic_type == 3 or topic_type & ~used:
        raise PacketRejected("bad_flags", f"topic id type {topic_type}")
    return qos, topic_type


def _granted(flags: int, used: int) -> tuple[int, int]:
    """As _flags, where QoS -1 has no meaning."""
    qos, topic_type = _flags(flags, used)
    if qos == 3:
        raise PacketRejected("bad_flags", "QoS -1 is for PUBLISH")
    return qos, topic_type


def _return_code(code: int) -> int:
    if code > NOT_SUPPORTED:
        raise PacketRejected("return_code", f"return code 0x{code:02X}")
    return code


def _topic(name: bytes, check: Callable[[str], None] = check_topic, answer: Packet | None = None) -> str:
    try:
        topic = name.decode()
        check(topic)
    except UnicodeDecodeError as error:
        raise PacketRejected("topic_utf8", str(error), answer) from None
    except InputRejected as error:
        raise PacketRejected(error.reason, error.detail, answer) from None
    return topic


def _client_id(name: bytes) -> str:
    _sized(name, 1)
    if len(name) > CLIENT_ID_BYTES_MAX:
        raise PacketRejected("client_id_too_long", f"{len(name)} octets, at most {CLIENT_ID_BYTES_MAX}")
    if 0 in name:
        raise PacketRejected("client_id_nul")
    try:
        return name.decode()
    except UnicodeDecodeError as error:
        raise PacketRejected("client_id_utf8", str(error)) from None


def _advertise(body: bytes) -> Packet:
    _sized(body, 3, 3)
    return Advertise(body[0], _u16(body, 1))


def _search_gw(body: bytes) -> Packet:
    _sized(body, 1, 1)
    return SearchGw(body[0])


def _gw_info(body: bytes) -> Packet:
    _sized(body, 1)
    return GwInfo(body[0], body[1:])


def _connect(body: bytes) -> Packet:
    _sized(body, 4)
    flags = body[0]
    _flags(flags, _WILL | _CLEAN)
    _sized(body, 5)
    if body[1] != 1:
        raise PacketRejected("protocol_id", f"protocol id 0x{body[1]:02X}", ConnAck(NOT_SUPPORTED))
    return Connect(_client_id(body[4:]), _u16(body, 2), bool(flags & _WILL), bool(flags & _CLEAN))


def _register(body: bytes) -> Packet:
    _sized(body, 5)
    topic_id, message_id = _u16(body, 0), _u16(body, 2)
    return Register(topic_id, message_id, _topic(body[4:], answer=RegAck(0, message_id, NOT_SUPPORTED)))


def _publish(body: bytes) -> Packet:
    """What the fast path leaves: long lengths, short topics, and what is to be rejected."""
    _sized(body, 5)
    flags, topic_id, message_id = body[0], _u16(body, 1), _u16(body, 3)
    qos, topic_type = _flags(flags, 0xF3)
    if qos == 3:
        if topic_type == NORMAL:
            raise PacketRejected("bad_flags", "QoS -1 goes with predefined and short topics")
        qos = -1
    if topic_type == SHORT:
        try:
            short_topic(topic_id)
        except InputRejected as error:
            answer = PubAck(topic_id, message_id, INVALID_TOPIC_ID) if qos > 0 else None
            raise PacketRejected(error.reason, error.detail, answer) from None
    return Publish(topic_id, body[5:], message_id, qos, topic_type, bool(flags & _RETAIN), bool(flags & _DUP))


def _ids_and_code(make: Callable[[int, int, int], Packet]) -> Callable[[bytes], Packet]:
    def decoder(body: bytes) -> Packet:
        _sized(body, 5, 5)
        return make(_u16(body, 0), _u16(body, 2), _return_code(body[4]))

    return decoder


def _message_id(make: Callable[[int], Packet]) -> Callable[[bytes], Packet]:
    def decoder(body: bytes) -> Packet:
        _sized(body, 2, 2)
        return make(_u16(body, 0))

    return decoder


def _code(make: Callable[[int], Packet]) -> Callable[[bytes], Packet]:
    def decoder(body: bytes) -> Packet:
        _sized(body, 1, 1)
        return make(_return_code(body[0]))

    return decoder


def _nothing(make: Callable[[], Packet]) -> Callable[[bytes], Packet]:
    def decoder(body: bytes) -> Packet:
        _sized(body, 0, 0)
        return make()

    return decoder


def _will_topic(make: Callable[[str, int, bool], Packet], refusal: Packet | None) -> Callable[[bytes], Packet]:
    def decoder(body: bytes) -> Packet:
        if not body:
            return make("", 0, False)
        _sized(body, 2)
        qos, _ = _granted(body[0], 0x70)
        return make(_topic(body[1:], answer=refusal), qos, bool(body[0] & _RETAIN))

    return decoder


def _asked_topic(body: bytes, topic_type: int, answer: Packet | None) -> tuple[str, int]:
    """(topic, topic_id) of a SUBSCRIBE or UNSUBSCRIBE."""
    if topic_type == NORMAL:
        _sized(body, 4)
        return _topic(body[3:], check_filter, answer), 0
    _sized(body, 5, 5)
    if topic_type == PREDEFINED:
        return "", _u16(body, 3)
    return _topic(body[3:], _check_short_filter, answer), 0


def _check_short_filter(name: str) -> None:
    """A wildcard that makes no filter is refused as one in any short topic."""
    try:
        check_filter(name)
    except InputRejected:
        check_topic(name)


def _subscribe(body: bytes) -> Packet:
    _sized(body, 3)
    qos, topic_type = _granted(body[0], 0xE3)
    message_id = _u16(body, 1)
    topic, topic_id = _asked_topic(body, topic_type, SubAck(0, message_id, NOT_SUPPORTED))
    return Subscribe(message_id, topic, topic_id, topic_type, qos, bool(body[0] & _DUP))


def _sub_ack(body: bytes) -> Packet:
    _sized(body, 6)
    qos, _ = _granted(body[0], 0x60)
    _sized(body, 6, 6)
    return SubAck(_u16(body, 1), _u16(body, 3), _return_code(body[5]), qos)


def _unsubscribe(body: bytes) -> Packet:
    _sized(body, 3)
    _, topic_type = _flags(body[0], 0x03)
    message_id = _u16(body, 1)
    topic, topic_id = _asked_topic(body, topic_type, None)
    return Unsubscribe(message_id, topic, topic_id, topic_type)


def _ping_req(body: bytes) -> Packet:
    return PingReq(_client_id(body) if body else "")


def _disconnect(body: bytes) -> Packet:
    if not body:
        return Disconnect()
    _sized(body, 2, 2)
    return Disconnect(_u16(body, 0))


_DECODERS: Final[dict[int, Callable[[bytes], Packet]]] = {
    0x00: _advertise,
    0x01: _search_gw,
    0x02: _gw_info,
    0x04: _connect,
    0x05: _code(ConnAck),
    0x06: _nothing(WillTopicReq),
    0x07: _will_topic(WillTopic, None),
    0x08: _nothing(WillMsgReq),
    0x09: WillMsg,
    0x0A: _register,
    0x0B: _ids_and_code(RegAck),
    0x0C: _publish,
    0x0D: _ids_and_code(PubAck),
    0x0E: _message_id(PubComp),
    0x0F: _message_id(PubRec),
    0x10: _message_id(PubRel),
    0x12: _subscribe,
    0x13: _sub_ack,
    0x14: _unsubscribe,
    0x15: _message_id(UnsubAck),
    0x16: _ping_req,
    0x17: _nothing(PingResp),
    0x18: _disconnect,
    0x1A: _will_topic(WillTopicUpd, WillTopicResp(NOT_SUPPORTED)),
    0x1B: _code(WillTopicResp),
    0x1C: WillMsgUpd,
    0x1D: _code(WillMsgResp),
}


def _message(kind: int, body: bytes) -> bytes:
    size = len(body) + 2
    if size < 256:
        return bytes((size, kind)) + body
    if size + 2 > MESSAGE_BYTES_MAX:
        raise InputRejected("message_too_long", f"{size + 2} bytes, at most {MESSAGE_BYTES_MAX}")
    return struct.pack(">BHB", 1, size + 2, kind) + body


def _encode_will_topic(kind: int, packet: WillTopic | WillTopicUpd) -> bytes:
    if not packet.topic:
        return _message(kind, b"")
    flags = packet.qos << 5 | (_RETAIN if packet.retain else 0)
    return _message(kind, bytes((flags,)) + packet.topic.encode())


def _encode_asked(kind: int, flags: int, packet: Subscribe | Unsubscribe) -> bytes:
    topic_id = packet.topic_id.to_bytes(2, "big") if packet.topic_type == PREDEFINED else packet.topic.encode()
    return _message(kind, struct.pack(">BH", flags | packet.topic_type, packet.message_id) + topic_id)


def _encode_connect(packet: Connect) -> bytes:
    flags = (_WILL if packet.will else 0) | (_CLEAN if packet.clean_session else 0)
    return _message(0x04, struct.pack(">BBH", flags, 1, packet.duration_s) + packet.client_id.encode())


def _encode_subscribe(packet: Subscribe) -> bytes:
    return _encode_asked(0x12, packet.qos << 5 | (_DUP if packet.dup else 0), packet)


def _encode_sub_ack(packet: SubAck) -> bytes:
    ids = _TWO_IDS_AND_CODE.pack(packet.topic_id, packet.message_id, packet.return_code)
    return _message(0x13, bytes((packet.qos << 5,)) + ids)


def _encode_forwarded(packet: Forwarded) -> bytes:
    if not 0 < len(packet.node_id) <= NODE_ID_BYTES_MAX:
        raise InputRejected("bad_length", f"a node id of {len(packet.node_id)} bytes")
    return bytes((len(packet.node_id) + 3, 0xFE, packet.radius)) + packet.node_id + packet.message


_ENCODERS: Final[dict[type, Callable[..., bytes]]] = {
    Advertise: lambda p: _message(0x00, struct.pack(">BH", p.gateway_id, p.duration_s)),
    SearchGw: lambda p: _message(0x01, bytes((p.radius,))),
    GwInfo: lambda p: _message(0x02, bytes((p.gateway_id,)) + p.address),
    Connect: _encode_connect,
    ConnAck: lambda p: _message(0x05, bytes((p.return_code,))),
    WillTopicReq: lambda _: _message(0x06, b""),
    WillTopic: lambda p: _encode_will_topic(0x07, p),
    WillMsgReq: lambda _: _message(0x08, b""),
    WillMsg: lambda p: _message(0x09, p.message),
    Register: lambda p: _message(0x0A, struct.pack(">HH", p.topic_id, p.message_id) + p.topic.encode()),
    RegAck: lambda p: _message(0x0B, _TWO_IDS_AND_CODE.pack(p.topic_id, p.message_id, p.return_code)),
    Publish: encode_publish,
    PubAck: lambda p: encode_puback(p.topic_id, p.message_id, p.return_code),
    PubComp: lambda p: _message(0x0E, p.message_id.to_bytes(2, "big")),
    PubRec: lambda p: _message(0x0F, p.message_id.to_bytes(2, "big")),
    PubRel: lambda p: _message(0x10, p.message_id.to_bytes(2, "big")),
    Subscribe: _encode_subscribe,
    SubAck: _encode_sub_ack,
    Unsubscribe: lambda p: _encode_asked(0x14, 0, p),
    UnsubAck: lambda p: _message(0x15, p.message_id.to_bytes(2, "big")),
    PingReq: lambda p: _message(0x16, p.client_id.encode()),
    PingResp: lambda _: _message(0x17, b""),
    Disconnect: lambda p: _message(0x18, b"" if p.duration_s is None else p.duration_s.to_bytes(2, "big")),
    WillTopicUpd: lambda p: _encode_will_topic(0x1A, p),
    WillTopicResp: lambda p: _message(0x1B, bytes((p.return_code,))),
    WillMsgUpd: lambda p: _message(0x1C, p.message),
    WillMsgResp: lambda p: _message(0x1D, bytes((p.return_code,))),
}
_ENCODERS[Forwarded] = _encode_forwarded
