"""A dictionary as entries of the log's state, brought up to date at every commit by what changed in it. Pure.

Invariants:
- The base entry `NAME` and the changes `NAME.1`, `NAME.2`, …, applied in this order, give the dictionary, its keys in
  their order. A row is [key, value], or [key] for one that is gone.
- A commit writes one entry with the rows that changed. When there are many changes, or they outweigh the base, a new
  base takes the place of all; so the entries are at most about three times the dictionary.
"""

import math
from collections.abc import Mapping
from typing import Any

import msgspec

CHANGES_MAX = 64
BYTES_LEAST = 4096  # changes below this are never worth a new base

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[tuple[Any, ...]]).decode


class Journal:
    """rows: the dictionary, changed by others, who set changed[key] = None with each. ended: it is no longer needed."""

    def __init__(self, name: str, rows: dict[Any, Any]) -> None:
        self.name, self.rows = name, rows
        self.changed: dict[Any, None] = {}
        self.ended = False
        self._changes = self._bytes = self._base_bytes = 0

    def delta(self) -> dict[str, bytes]:
        """What to store since the last call, by entry; b'' for an entry that is gone."""
        rows, changed = self.rows, self.changed
        if self.ended or not rows:
            changed.clear()
            return self._drop(with_base=True)
        if not changed:
            return {}
        raw = pack([(key, rows[key]) if key in rows else (key,) for key in changed])
        changed.clear()
        if (
            self._base_bytes
            and self._changes < CHANGES_MAX
            and self._bytes + len(raw) <= max(BYTES_LEAST, 2 * self._base_bytes)
        ):
            self._changes += 1
            self._bytes += len(raw)
            return {f"{self.name}.{self._changes}": raw}
        raw = pack(list(rows.items()))
        delta = self._drop(with_base=False)
        self._base_bytes = len(raw)
        return {**delta, self.name: raw}

    def restore(self, entries: Mapping[int, bytes]) -> list[tuple[Any, Any]]:
        """The rows of the dictionary, for the caller to put in. entries: by their number, 0 for the base.

        Raises ValueError or TypeError for what is none."""
        found: dict[Any, Any] = {}
        for number in sorted(entries):
            raw = entries[number]
            for key, *value in _decode(raw):
                name = as_key(key)
                if value:
                    found[name] = value[0]
                else:
                    found.pop(name, None)
            if number:
                self._changes = max(self._changes, number)
                self._bytes += len(raw)
            else:
                self._base_bytes = len(raw)
        return list(found.items())

    def _drop(self, *, with_base: bool) -> dict[str, bytes]:
        gone = {f"{self.name}.{number}": b"" for number in range(1, self._changes + 1)}
        if with_base and self._base_bytes:
            gone[self.name] = b""
        self._changes = self._bytes = self._base_bytes = 0
        return gone


def parts(entry: str) -> tuple[str, int]:
    """(the dictionary's name, the number) of an entry. Raises ValueError."""
    name, _, number = entry.partition(".")
    return name, int(number) if number else 0


def pack(value: Any) -> bytes:
    try:
        return _encode(value)
    except OverflowError:  # whole numbers beyond 64 bits
        return _encode(_small(value))


def as_key(key: Any) -> Any:
    """As the dictionary has it, of what was decoded."""
    return tuple(map(as_key, key)) if isinstance(key, list) else key


def _small(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_small(one) for one in value]
    if isinstance(value, dict):
        return {key: _small(one) for key, one in value.items()}
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        try:
            return float(value)
        except OverflowError:
            return math.copysign(math.inf, value > 0 or -1)
    return value
