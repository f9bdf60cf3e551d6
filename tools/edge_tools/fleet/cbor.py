"""CBOR (RFC 8949) as far as batches need it: no tags but the self-described one, bounded depth, nothing shared.

Written for input that may be hostile: a declared length costs nothing before the bytes are there, there are no
references to expand, and the number of values in an item is bounded, since an empty array of one byte takes 56 in
memory. Pure.
"""

import math
import struct
from typing import Any, NoReturn

from edge.errors import InputRejected

DEPTH_MAX = 32
VALUES_MAX = 10_000
_SELF_DESCRIBED = b"\xd9\xd9\xf7"  # RFC 8949, 3.4.6
_INDEFINITE = -1
_BREAK = object()
_FLOATS = {25: struct.Struct(">e"), 26: struct.Struct(">f"), 27: struct.Struct(">d")}
_SIMPLE = {20: False, 21: True, 22: None, 23: None}


def decode_item(data: bytes, at: int) -> tuple[Any, int]:
    """One item from `at`, and where the next begins. Raises InputRejected."""
    value, at = _item(data, at, 0, _Budget())
    if value is _BREAK:
        _bad("a break stands alone")
    return value, at


def array_length(data: bytes, at: int) -> tuple[int | None, int] | None:
    """None when there is no array at `at`; else its length (None: up to a break) and where its items begin."""
    at = _skip_self_described(data, at)
    if at >= len(data) or data[at] >> 5 != 4:
        return None
    _, length, at = _head(data, at)
    return (None if length == _INDEFINITE else length), at


def is_break(data: bytes, at: int) -> bool:
    return at < len(data) and data[at] == 0xFF


class _Budget:
    def __init__(self) -> None:
        self._left = VALUES_MAX

    def spend(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise InputRejected("too_many_values", f"more than {VALUES_MAX} values in one row of CBOR")


def _item(data: bytes, at: int, depth: int, budget: _Budget) -> tuple[Any, int]:
    if depth > DEPTH_MAX:
        raise InputRejected("too_deep", f"CBOR nested deeper than {DEPTH_MAX}")
    budget.spend()
    at = _skip_self_described(data, at)
    if at < len(data) and data[at] == 0xFF:
        return _BREAK, at + 1
    major, argument, at = _head(data, at)
    if major == 0:
        return argument, at
    if major == 1:
        return -1 - argument, at
    if major in {2, 3}:
        raw, at = _text(data, at, major, argument, budget)
        return (raw if major == 2 else _utf8(raw)), at
    if major == 4:
        return _array(data, at, argument, depth, budget)
    if major == 5:
        return _map(data, at, argument, depth, budget)
    if major == 7:
        return argument, at  # _head has worked it out
    return _bad(f"tag {argument} is not used in batches")


def _head(data: bytes, at: int) -> tuple[int, Any, int]:
    """Major type, argument (for major type 7 the value), where the content begins."""
    if at >= len(data):
        raise InputRejected("truncated_cbor", "the CBOR ends within an item")
    major, info = data[at] >> 5, data[at] & 31
    at += 1
    if info < 24:
        argument = info
    elif info < 28:
        size = 1 << (info - 24)
        if at + size > len(data):
            raise InputRejected("truncated_cbor", "the CBOR ends within an item")
        if major == 7 and info > 24:
            number: float = _FLOATS[info].unpack_from(data, at)[0]
            return 7, number, at + size
        argument = int.from_bytes(data[at : at + size], "big")
        at += size
    elif info == 31 and 2 <= major <= 5:
        return major, _INDEFINITE, at
    else:
        _bad(f"additional information {info} with major type {major}")
    if major == 7:
        if argument not in _SIMPLE:
            _bad(f"simple value {argument}")
        return 7, _SIMPLE[argument], at
    return major, argument, at


def _skip_self_described(data: bytes, at: int) -> int:
    if data[at : at + 3] == _SELF_DESCRIBED:
        return at + 3
    return at


def _text(data: bytes, at: int, major: int, length: int, budget: _Budget) -> tuple[bytes, int]:
    if length != _INDEFINITE:
        end = at + length
        if end > len(data):
            raise InputRejected("truncated_cbor", "the CBOR ends within a string")
        return data[at:end], end
    chunks = []
    while not is_break(data, at):
        kind, size, at = _head(data, at)
        if kind != major or size == _INDEFINITE:
            _bad("a chunk of another kind within a string")
        budget.spend()
        chunk, at = _text(data, at, major, size, budget)
        chunks.append(chunk)
    return b"".join(chunks), at + 1


def _utf8(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise InputRejected("bad_utf8", "a text string of the CBOR is not UTF-8") from None


def _array(data: bytes, at: int, length: int, depth: int, budget: _Budget) -> tuple[list[Any], int]:
    items: list[Any] = []
    while length == _INDEFINITE or len(items) < length:
        value, at = _item(data, at, depth + 1, budget)
        if value is _BREAK:
            if length == _INDEFINITE:
                break
            _bad("a break within an array of known length")
        items.append(value)
    return items, at


def _map(data: bytes, at: int, length: int, depth: int, budget: _Budget) -> tuple[dict[Any, Any], int]:
    items: dict[Any, Any] = {}
    count = 0
    while length == _INDEFINITE or count < length:
        key, at = _item(data, at, depth + 1, budget)
        if key is _BREAK:
            if length == _INDEFINITE:
                break
            _bad("a break within a map of known length")
        if not isinstance(key, str | bytes | int | float | None):
            _bad("a map's key is an array or a map")
        value, at = _item(data, at, depth + 1, budget)
        if value is _BREAK:
            _bad("a break after a key")
        items[key] = value
        count += 1
    return items, at


def _bad(detail: str) -> NoReturn:
    raise InputRejected("bad_cbor", detail)


def finite(value: Any) -> bool:
    """Whether JSON can say it: no NaN, no infinity, at any depth."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, list):
        return all(map(finite, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and finite(one) for key, one in value.items())
    return not isinstance(value, bytes)
