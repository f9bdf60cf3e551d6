"""What travels in frames beside plain MQTT-SN: link control, and the READING and REQUEST envelopes. Pure.

Every function here takes or gives a frame's whole content, channel byte included, so that nothing is copied twice.
Multi-byte numbers are big-endian. Link messages may be longer than we know: newer versions append.
"""

import struct
from typing import Final

import msgspec

from edge.boards.mqttsn import decode, encode, encode_publish
from edge.boards.packets import Packet, Publish
from edge.errors import InputRejected

# The channels: the first byte of a frame's content.
MQTTSN: Final = 0x01
READING: Final = 0x02
LINK: Final = 0x03
SMP: Final = 0x04
REQUEST: Final = 0x05

VERSION: Final = 1
CONTENT_BYTES_MAX_BEFORE_HELLO: Final = 256

RESET_REASONS: Final = ("unknown", "power_on", "pin", "software", "watchdog", "brownout", "fault")

STATS: Final[dict[int, str]] = {
    1: "frames_in",
    2: "frames_out",
    3: "bad_crc",
    4: "bad_cobs",
    5: "too_long",
    6: "too_short",
    7: "timeout",
    8: "unknown_channel",
    9: "uart_overrun",
    10: "readings_produced",
    11: "readings_acknowledged",
    12: "readings_shed",
    13: "readings_sent_again",
    14: "readings_held",
    15: "commands_received",
    16: "commands_answered",
    17: "sensor_errors",
    18: "mqttsn_rejected",
    19: "reconnects",
    20: "watchdog_resets",
    21: "text_bytes_dropped",
}


class Hello(msgspec.Struct, frozen=True, gc=False):
    """Board → gateway. All as said, a window of 0 and an empty board_id included: whoever uses them bounds them."""

    window: int
    content_bytes_max: int
    boot: int
    board_id: str
    firmware_version: str = ""
    reset_reason: int = 0
    version: int = VERSION


class Welcome(msgspec.Struct, frozen=True, gc=False):
    """Gateway → board. unix_time_ms: 0 when unknown."""

    window: int
    content_bytes_max: int
    unix_time_ms: int = 0
    version: int = VERSION


class HelloRequest(msgspec.Struct, frozen=True, gc=False):
    version: int = VERSION


class Time(msgspec.Struct, frozen=True, gc=False):
    unix_time_ms: int


class StatsRequest(msgspec.Struct, frozen=True, gc=False):
    pass


class Stats(msgspec.Struct, frozen=True, gc=False):
    """Board → gateway. values: (id, value) as sent; ids we do not know included."""

    boot: int
    uptime_ms: int
    reset_reason: int = 0
    values: tuple[tuple[int, int], ...] = ()

    def named(self) -> dict[str, int]:
        """The values whose ids have a name in STATS."""
        return {STATS[number]: value for number, value in self.values if number in STATS}


class Rewind(msgspec.Struct, frozen=True, gc=False):
    """Gateway → board: send again from this reading on."""

    boot: int
    sequence: int


LinkMessage = Hello | Welcome | HelloRequest | Time | StatsRequest | Stats | Rewind


class ReadingFrame(msgspec.Struct, frozen=True, gc=False):
    """sequence: from 1; back: sequence minus the oldest one of this boot still held by the board, at most 255."""

    boot: int
    sequence: int
    back: int
    publish: Publish


class RequestFrame(msgspec.Struct, frozen=True, gc=False):
    """A message that wants an answer (gateway → board), or the answer (board → gateway) under the same id."""

    request_id: int
    publish: Publish


_HELLO = struct.Struct(">BBBBHIB")
_WELCOME = struct.Struct(">BBBBHQ")
_TIME = struct.Struct(">BBQ")
_STATS = struct.Struct(">BBIQBB")
_STAT = struct.Struct(">BI")
_REWIND = struct.Struct(">BBII")
_READING_HEAD = struct.Struct(">BIIB")
# What nearly every reading is, taken in one step: type and flags of a short PUBLISH of QoS 1 on a normal topic.
_READING_PUBLISH = struct.Struct(">xIIBBHHH")
_PUBLISH_QOS_1 = 0x0C20
_PAYLOAD = slice(17, None)
_REQUEST_HEAD = struct.Struct(">BH")


def reset_reason_name(number: int) -> str:
    return RESET_REASONS[number] if number < len(RESET_REASONS) else RESET_REASONS[0]


def decode_link(content: bytes) -> LinkMessage:
    """content: of a LINK frame. Raises InputRejected: link_truncated, link_unknown, link_text."""
    kind = content[1] if len(content) > 1 else -1
    try:
        match kind:
            case 0x01:
                return _hello(content)
            case 0x02:
                _, _, version, window, content_bytes_max, unix_time_ms = _WELCOME.unpack_from(content)
                return Welcome(window, content_bytes_max, unix_time_ms, version)
            case 0x03:
                return HelloRequest(content[2])
            case 0x04:
                return Time(_TIME.unpack_from(content)[2])
            case 0x05:
                return StatsRequest()
            case 0x06:
                _, _, boot, uptime_ms, reset_reason, count = _STATS.unpack_from(content)
                size = _STATS.size
                values = tuple(_STAT.iter_unpack(_exactly(content, size, count * _STAT.size)))
                return Stats(boot, uptime_ms, reset_reason, values)
            case 0x07:
                _, _, boot, sequence = _REWIND.unpack_from(content)
                return Rewind(boot, sequence)
    except (struct.error, IndexError):
        raise InputRejected("link_truncated", f"type 0x{kind:02X} in {len(content)} bytes") from None
    if kind < 0:
        raise InputRejected("link_truncated", "no type")
    raise InputRejected("link_unknown", f"type 0x{kind:02X}")


def encode_link(message: LinkMessage) -> bytes:
    """The content of a LINK frame. Texts of more than 255 bytes are a mistake of the caller's: ValueError."""
    match message:
        case Hello():
            numbers = (message.version, message.window, message.content_bytes_max, message.boot, message.reset_reason)
            return (
                _HELLO.pack(LINK, 1, *numbers) + _short_text(message.board_id) + _short_text(message.firmware_version)
            )
        case Welcome():
            return _WELCOME.pack(
                LINK, 2, message.version, message.window, message.content_bytes_max, message.unix_time_ms
            )
        case HelloRequest():
            return bytes((LINK, 3, message.version))
        case Time():
            return _TIME.pack(LINK, 4, message.unix_time_ms)
        case StatsRequest():
            return bytes((LINK, 5))
        case Stats():
            head = _STATS.pack(LINK, 6, message.boot, message.uptime_ms, message.reset_reason, len(message.values))
            return head + b"".join(_STAT.pack(*value) for value in message.values)
        case Rewind():
            return _REWIND.pack(LINK, 7, message.boot, message.sequence)


def encode_mqttsn(packet: Packet) -> bytes:
    """The content of an MQTTSN frame."""
    return b"\x01" + encode(packet)


def decode_reading(content: bytes) -> ReadingFrame:
    """content: of a READING frame. Raises InputRejected: reading_too_short, reading_bad_sequence, not_publish,
    or what the PUBLISH within is rejected for."""
    try:
        boot, sequence, back, length, head, topic_id, message_id = _READING_PUBLISH.unpack_from(content)
    except struct.error:
        raise InputRejected("reading_too_short", f"{len(content)} bytes") from None
    if back >= sequence:
        raise InputRejected("reading_bad_sequence", f"sequence {sequence}, back {back}")
    if head == _PUBLISH_QOS_1 and length == len(content) - 10:
        return ReadingFrame(boot, sequence, back, Publish(topic_id, content[_PAYLOAD], message_id, 1))
    return ReadingFrame(boot, sequence, back, _publish(content, 10))


def encode_reading(frame: ReadingFrame) -> bytes:
    """The content of a READING frame."""
    return _READING_HEAD.pack(READING, frame.boot, frame.sequence, frame.back) + encode_publish(frame.publish)


def decode_request(content: bytes) -> RequestFrame:
    """content: of a REQUEST frame. Raises InputRejected as decode_reading: request_too_short, not_publish."""
    try:
        _, request_id = _REQUEST_HEAD.unpack_from(content)
    except struct.error:
        raise InputRejected("request_too_short", f"{len(content)} bytes") from None
    return RequestFrame(request_id, _publish(content, 3))


def encode_request(frame: RequestFrame) -> bytes:
    """The content of a REQUEST frame."""
    return _REQUEST_HEAD.pack(REQUEST, frame.request_id) + encode_publish(frame.publish)


def _publish(content: bytes, at: int) -> Publish:
    packet = decode(content, at)
    if type(packet) is not Publish:
        raise InputRejected("not_publish", type(packet).__name__)
    return packet


def _hello(content: bytes) -> Hello:
    _, _, version, window, content_bytes_max, boot, reset_reason = _HELLO.unpack_from(content)
    at = _HELLO.size
    board_id = _exactly(content, at + 1, content[at])
    at += 1 + len(board_id)
    firmware_version = _exactly(content, at + 1, content[at])
    texts = _text(board_id), _text(firmware_version)
    return Hello(window, content_bytes_max, boot, *texts, reset_reason, version)


def _exactly(content: bytes, at: int, size: int) -> bytes:
    if len(content) < at + size:
        raise IndexError
    return content[at : at + size]


def _text(raw: bytes) -> str:
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise InputRejected("link_text", str(error)) from None
    if not text.isprintable():
        raise InputRejected("link_text", f"not printable: {text!r}")
    return text


def _short_text(text: str) -> bytes:
    raw = text.encode()
    return bytes((len(raw),)) + raw
