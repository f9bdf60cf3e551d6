"""Batches of records as one message: newline-delimited JSON or a CBOR sequence (RFC 8742), gzipped or not. Pure.

A batch is its rows one after the other, so that its size before gzip is the sum of theirs.

A row is {"topic", "thing", "boot", "seq", "t", "payload" | "payload_base64"}: `t` is Unix time in ms and is there when
it is known; `payload` is the payload's text (what is not UTF-8 is `payload_base64` instead), in CBOR a byte string.
"""

import zlib
from base64 import b64encode
from collections.abc import Sequence
from typing import Final

import msgspec

from edge.messages import Message, Properties

NDJSON_TYPE: Final = "application/x-ndjson"
CBOR_TYPE: Final = "application/cbor-seq"
GZIP_PROPERTY: Final = ("encoding", "gzip")
_GZIP_WINDOW = 31  # zlib's word for a gzip header and trailer around it
_GZIP_LEVEL = 1


class _Row(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    topic: str
    thing: str
    boot: int
    seq: int
    t: int = 0
    payload: str | None = None
    payload_base64: str | None = None


_json = msgspec.json.Encoder().encode


def row(message: Message, form: str) -> bytes:
    """message: with a reading. form: `ndjson` or `cbor`."""
    return _json(_row(message)) + b"\n" if form == "ndjson" else _cbor_row(message)


def build(rows: Sequence[bytes], form: str, *, gzip: bool) -> tuple[bytes, Properties]:
    """The payload and what tells of it. gzip: it is larger by no more than `gzip_bytes` where nothing shrinks."""
    data, kind = b"".join(rows), NDJSON_TYPE if form == "ndjson" else CBOR_TYPE
    if not gzip:
        return data, Properties(content_type=kind)
    packer = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_WINDOW)
    return packer.compress(data) + packer.flush(), Properties(content_type=kind, user=(GZIP_PROPERTY,))


def gzip_bytes(size: int) -> int:
    """What gzip adds at most (zlib's compressBound)."""
    return (size >> 12) + (size >> 14) + 64


def _row(message: Message) -> _Row:
    reading = message.reading
    assert reading is not None
    try:
        text = message.payload.decode()
    except UnicodeDecodeError:
        encoded = b64encode(message.payload).decode()
        return _Row(
            message.topic, reading.thing, reading.boot, reading.sequence, message.time_ms, payload_base64=encoded
        )
    return _Row(message.topic, reading.thing, reading.boot, reading.sequence, message.time_ms, text)


def _cbor_row(message: Message) -> bytes:
    reading = message.reading
    assert reading is not None
    stamp = b"\x61t" + _head(0, message.time_ms) if message.time_ms else b""
    return b"".join(
        (
            b"\xa6" if stamp else b"\xa5",
            b"\x65topic",
            _text(message.topic),
            b"\x65thing",
            _text(reading.thing),
            b"\x64boot",
            _head(0, reading.boot),
            b"\x63seq",
            _head(0, reading.sequence),
            stamp,
            b"\x67payload",
            _head(0x40, len(message.payload)),
            message.payload,
        )
    )


def _text(value: str) -> bytes:
    data = value.encode()
    return _head(0x60, len(data)) + data


def _head(major: int, value: int) -> bytes:
    """RFC 8949, 3: major type (in the upper three bits) and argument."""
    if value < 24:
        return bytes((major | value,))
    for extra, width in ((24, 1), (25, 2), (26, 4)):
        if value < 1 << 8 * width:
            return bytes((major | extra,)) + value.to_bytes(width, "big")
    return bytes((major | 27,)) + value.to_bytes(8, "big")
