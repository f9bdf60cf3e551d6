"""What must hold for any bytes. Each function takes one raw input, the same that the C targets of its name take.

They raise AssertionError, or whatever the code under test was not meant to raise.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Final

from edge.boards.frames import CHANNELS, CONTENT_BYTES_MAX, FrameReader, build_frame
from edge.boards.link import (
    LINK,
    READING,
    REQUEST,
    decode_link,
    decode_reading,
    decode_request,
    encode_link,
    encode_reading,
    encode_request,
)
from edge.boards.mqttsn import decode, encode
from edge.boards.packets import Forwarded, Packet, PacketRejected
from edge.errors import InputRejected
from tests.fuzz.functions import function_lines, function_wire
from tests.fuzz.mqtt import mqtt
from tests.fuzz.rules import rules


def frames(data: bytes) -> None:
    """data: a stream from the line. However it is cut, the same comes out, and all of it is bounded."""
    cap = CONTENT_BYTES_MAX if len(data) % 2 else 64
    middle = len(data) // 2
    whole = _read(cap, [data])
    assert whole == _read(cap, [data[:middle], data[middle:]])
    step = 7 if len(data) < 500 else 97
    assert whole == _read(cap, [data[at : at + step] for at in range(0, len(data), step)])
    contents, *_ = whole
    for content in contents:
        assert 1 <= len(content) <= cap
        assert content[0] in CHANNELS
        assert FrameReader(cap).feed(build_frame(content)) == [content]


def _read(cap: int, pieces: list[bytes]) -> tuple[list[bytes], list[str], list[bytes], dict[str, int]]:
    reader = FrameReader(cap)
    contents = []
    for piece in pieces:
        contents += reader.feed(piece)
        assert len(reader._held) <= reader._stuffed_max
        assert len(reader.sample) <= 8
        assert not any(len(segment) > 64 for _, segment in reader.sample)
    contents += reader.expire()
    assert not reader.pending
    assert reader.frames == len(contents)
    text, smp = reader.take_text(), reader.take_smp()
    assert sum(map(len, text)) <= 65536
    assert sum(map(len, smp)) <= 65536
    return contents, text, smp, reader.rejected


def mqttsn(data: bytes) -> None:
    """data: one datagram. It is a message that encodes to the same octets, or refused with a reason."""
    try:
        packet = decode(data)
    except PacketRejected as rejected:
        assert rejected.reason
        assert rejected.answer is None or decode(encode(rejected.answer)) == rejected.answer
        return
    _comes_back(packet, data)
    assert decode(b"\xff" + data, 1) == packet
    if isinstance(packet, Forwarded):
        with suppress(PacketRejected):
            inner = decode(packet.message)
            assert not isinstance(inner, Forwarded)
            _comes_back(inner, packet.message)


def _comes_back(packet: Packet, data: bytes) -> None:
    octets = encode(packet)
    if data[0] == 1 and len(data) < 258:
        assert octets == bytes((len(data) - 2,)) + data[3:]
    else:
        assert octets == data


def link(data: bytes) -> None:
    """data: the payload of a LINK, a READING or a REQUEST frame: tried as each of them."""
    content = bytes((LINK,)) + data
    with suppress(InputRejected):
        assert content.startswith(encode_link(decode_link(content)))
    content = bytes((READING,)) + data
    with suppress(InputRejected):
        reading = decode_reading(content)
        assert 0 <= reading.back < reading.sequence
        assert decode_reading(encode_reading(reading)) == reading
    content = bytes((REQUEST,)) + data
    with suppress(InputRejected):
        request = decode_request(content)
        assert decode_request(encode_request(request)) == request


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "frames": frames,
    "mqttsn": mqttsn,
    "link": link,
    "mqtt": mqtt,
    "rules": rules,
    "function_wire": function_wire,
    "function_lines": function_lines,
}
