"""Payloads → values: JSON, CSV, CBOR; raw bytes have none. Each raises InputRejected for what it cannot read."""

import csv
import io
import math
import re
import struct
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from edge.errors import InputRejected
from edge.rules.values import number

_DEPTH_MAX = 64
_ITEMS_MAX = 65_536
_NUMBER_CHARS_MAX = 64
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")  # RFC 8259, 6

Decoder = Callable[[bytes], Any]


def decoder(form: str, columns: Sequence[str] = ()) -> Decoder:
    """form: `json`, `cbor`, `raw` (any bytes: no fields), or `csv` with the names of its columns: of one line, and a
    payload of more is rejected."""
    if form == "raw":
        return lambda _: {}
    if form == "csv":
        return lambda payload: _csv(payload, columns)
    return decode_cbor if form == "cbor" else msgspec.json.Decoder().decode


def _csv(payload: bytes, columns: Sequence[str]) -> dict[str, Any]:
    """RFC 4180. What JSON would call a number is one, other texts stay as they are; an empty cell is None."""
    try:
        records = csv.reader(io.StringIO(payload.decode(), newline=""), strict=True, skipinitialspace=True)
        cells = next(records, [])
        if any(cell.strip() for record in records for cell in record):
            raise InputRejected("payload_csv_lines", "more than one line")
    except UnicodeDecodeError as error:
        raise InputRejected("payload_utf8", str(error)) from None
    except csv.Error as error:
        raise InputRejected("payload_csv", str(error)) from None
    return {name: _cell(cell.strip()) for name, cell in zip(columns, cells, strict=False)}


def _cell(text: str) -> Any:
    if len(text) <= _NUMBER_CHARS_MAX and _NUMBER.fullmatch(text):
        return number(int(text) if text.lstrip("-").isdecimal() else float(text))
    return text or None


def decode_cbor(payload: bytes) -> Any:
    """RFC 8949: what JSON can say, byte strings as hex; tags are looked through. Numbers that are not finite: None."""
    try:
        value, end = _item(payload, 0, 0, [_ITEMS_MAX])
    except (IndexError, struct.error, UnicodeDecodeError, TypeError) as error:
        raise InputRejected("payload_cbor", str(error)) from None
    if end != len(payload):
        raise InputRejected("payload_cbor", "bytes after the item")
    return value


def _item(data: bytes, at: int, depth: int, left: list[int]) -> tuple[Any, int]:
    left[0] -= 1
    if depth > _DEPTH_MAX or left[0] < 0:
        raise InputRejected("payload_cbor", "too deep or too many items")
    major, minor = data[at] >> 5, data[at] & 31
    at += 1
    if major == 7:
        return _simple(data, at, minor)
    endless = minor == 31
    if minor < 24:
        size = minor
    elif minor < 28:
        width = 1 << (minor - 24)
        raw = data[at : at + width]
        if len(raw) < width:
            raise IndexError("cut short")
        size, at = int.from_bytes(raw, "big"), at + width
    elif not endless or major in {0, 1, 6}:
        raise InputRejected("payload_cbor", f"additional information {minor}")
    if major == 0:
        return size, at
    if major == 1:
        return -1 - size, at
    if major == 6:
        return _item(data, at, depth + 1, left)
    if major in {2, 3}:
        if endless:
            parts = []
            while data[at] != 0xFF:
                if data[at] >> 5 != major or data[at] & 31 == 31:
                    raise InputRejected("payload_cbor", "a chunk of another kind")
                part, at = _item(data, at, depth + 1, left)
                parts.append(part)
            return "".join(parts), at + 1
        raw = data[at : at + size]
        if len(raw) < size:
            raise IndexError("cut short")
        return raw.hex() if major == 2 else raw.decode(), at + size
    many = _ITEMS_MAX if endless else size
    if many > _ITEMS_MAX:
        raise InputRejected("payload_cbor", "too many items")
    items: list[Any] = []
    table: dict[Any, Any] = {}
    for _ in range(many):
        if endless and data[at] == 0xFF:
            break
        value, at = _item(data, at, depth + 1, left)
        if major == 4:
            items.append(value)
        else:
            table[str(value)], at = _item(data, at, depth + 1, left)
    if endless and data[at] != 0xFF:
        raise InputRejected("payload_cbor", "too many items")
    return items if major == 4 else table, at + endless


def _simple(data: bytes, at: int, minor: int) -> tuple[Any, int]:
    if minor in {20, 21}:
        return minor == 21, at
    if minor in {22, 23}:
        return None, at
    if minor in {25, 26, 27}:
        width = {25: 2, 26: 4, 27: 8}[minor]
        (value,) = struct.unpack_from({25: ">e", 26: ">f", 27: ">d"}[minor], data, at)
        return (value if math.isfinite(value) else None), at + width
    raise InputRejected("payload_cbor", f"simple value {minor}")
