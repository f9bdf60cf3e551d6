"""A dictionary as entries of the log's state, brought up to date at every commit by what changed in it. Pure.

Invariants:
- The base entry `NAME` and the changes `NAME.1`, `NAME.2`, …, applied in this order, give the dictionary, its keys in
  their order. A row is [key, value], or [key] for one that is gone. Whole numbers beyond 64 bits are exact too.
- A commit writes one entry with the rows that changed. When there are many changes, or they outweigh the base, or most
  of the base's rows went, or all rows changed, a new base takes the place of all; so the entries are at most some times
  the dictionary.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

CHANGES_MAX = 64
BYTES_LEAST = 4096  # changes below this are never worth a new base
_SHRUNK = 4
_ENTRY_BYTES = 64  # about what an entry takes beside its value
BLOCK = 256  # rows of Events in a journal
EVENTS = "e"

_WHOLE = 1  # MessagePack's extension for a whole number beyond 64 bits, as decimal text


def _whole(code: int, data: memoryview) -> int:
    if code != _WHOLE:
        raise ValueError("an extension of somebody else")
    return int(bytes(data))


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[tuple[Any, ...]], ext_hook=_whole).decode


class Journal:
    """rows: the dictionary, changed by others, who set changed[key] = None with each, new ones in their order. gone:
    what went and may have come again, at the end. ended: it is no longer needed. before: one of this name that ended
    and whose entries are still stored; the next `delta` takes them away."""

    def __init__(self, name: str, rows: dict[Any, Any], before: "Journal | None" = None) -> None:
        self.name, self.rows = name, rows
        self.changed: dict[Any, None] = {}
        self.gone: set[Any] = set()
        self.ended = False
        self._changes = self._bytes = self._base_bytes = self._base_rows = 0
        if before is not None:
            self._changes, self._bytes = before._changes, before._bytes
            self._base_bytes, self._base_rows = before._base_bytes, before._base_rows

    @property
    def state_bytes(self) -> int:
        """About what its entries take."""
        return self._base_bytes + self._bytes + _ENTRY_BYTES * (self._changes + 1)

    def forget(self) -> None:
        """All rows."""
        self.changed.update(dict.fromkeys(self.rows))
        self.rows.clear()

    def delta(self) -> dict[str, bytes]:
        """What to store since the last call, by entry; b'' for an entry that is gone."""
        rows, changed = self.rows, self.changed
        if self.ended or not rows:
            changed.clear()
            self.gone.clear()
            return self._drop(with_base=True)
        if not changed:
            return {}
        raw = self._pack_changed() if self._may_grow() else b""
        self.gone.clear()
        changed.clear()
        if raw and self._bytes + len(raw) <= max(BYTES_LEAST, 2 * self._base_bytes):
            self._changes += 1
            self._bytes += len(raw)
            return {f"{self.name}.{self._changes}": raw}
        raw = pack(list(rows.items()))
        delta = self._drop(with_base=False)
        self._base_bytes, self._base_rows = len(raw), len(rows)
        return {**delta, self.name: raw}

    def _may_grow(self) -> bool:
        """Whether the changes may be told in an entry of their own, if they are not too large."""
        held = len(self.rows)
        return (
            self._base_bytes > 0
            and self._changes < max(CHANGES_MAX, self._base_rows // 16)
            and self._base_rows <= _SHRUNK * held
            and len(self.changed) < held
        )

    def _pack_changed(self) -> bytes:
        rows, changed = self.rows, self.changed
        gone = [(key,) for key in changed if key in self.gone and key in rows] if self.gone else []
        try:
            now: list[Any] = list(zip(changed, map(rows.__getitem__, changed), strict=True))
        except KeyError:
            now = [(key, rows[key]) if key in rows else (key,) for key in changed]
        return pack([*gone, *now])

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
                self._base_bytes, self._base_rows = len(raw), len(found)
        return list(found.items())

    def _drop(self, *, with_base: bool) -> dict[str, bytes]:
        gone = {f"{self.name}.{number}": b"" for number in range(1, self._changes + 1)}
        if with_base and self._base_bytes:
            gone[self.name] = b""
        self._changes = self._bytes = self._base_bytes = self._base_rows = 0
        return gone


class Events:
    """Rows under numbers that only grow, in the order they came: for what is held until it is too old. A commit writes
    the rows that came and the numbers that went. The rows stand in blocks with a Journal each, so that never more than
    one block is written anew. journals: where those of the blocks that are needed stand, by name."""

    def __init__(self, journals: dict[str, Journal]) -> None:
        self._journals = journals
        self._blocks: dict[int, Journal] = {}
        self.end = 0  # the next number

    def __len__(self) -> int:
        return sum(len(journal.rows) for journal in self._blocks.values())

    def add(self, row: Sequence[Any]) -> int:
        """The row's number."""
        number = self.end
        self.end += 1
        place = number // BLOCK
        journal = self._blocks.get(place)
        if journal is None:
            before = self._blocks.get(place - 1)
            if before is not None and not before.rows:
                self._end_block(place - 1)
            journal = self._block(place)
        journal.rows[number] = row
        journal.changed[number] = None
        return number

    def change(self, number: int, row: Sequence[Any]) -> None:
        journal = self._blocks[number // BLOCK]
        journal.rows[number] = row
        journal.changed[number] = None

    def remove(self, number: int) -> None:
        place = number // BLOCK
        journal = self._blocks[place]
        del journal.rows[number]
        journal.changed[number] = None
        if not journal.rows and place != (self.end - 1) // BLOCK:
            self._end_block(place)

    def forget(self) -> None:
        """All rows."""
        for place in [*self._blocks]:
            self._blocks[place].rows.clear()
            self._end_block(place)
        self.end = (self.end // BLOCK + 1) * BLOCK  # for the names of the blocks that end are not free yet

    def restore(self, name: str, numbered: Mapping[int, bytes]) -> list[tuple[int, list[Any]]]:
        """The rows of one block. Raises ValueError or TypeError for what is none."""
        place = int(name.removeprefix(EVENTS))
        journal = Journal(name, {})
        rows = [(int(number), list(row)) for number, row in journal.restore(numbered)]
        if any(number // BLOCK != place for number, _ in rows):
            raise ValueError("numbers of another block")
        self._blocks[place] = self._journals[name] = journal
        journal.rows.update(rows)
        self.end = max([self.end, *(number + 1 for number, _ in rows)])
        return rows

    def _block(self, place: int) -> Journal:
        name = f"{EVENTS}{place}"
        journal = self._blocks[place] = self._journals[name] = Journal(name, {})
        return journal

    def _end_block(self, place: int) -> None:
        self._blocks.pop(place).ended = True


def parts(entry: str) -> tuple[str, int]:
    """(the dictionary's name, the number) of an entry. Raises ValueError."""
    name, _, number = entry.partition(".")
    return name, int(number) if number else 0


def pack(value: Any) -> bytes:
    try:
        return _encode(value)
    except OverflowError:  # whole numbers beyond 64 bits
        return _encode(_extended(value))


def as_key(key: Any) -> Any:
    """As the dictionary has it, of what was decoded."""
    return tuple(map(as_key, key)) if isinstance(key, list) else key


def _extended(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_extended(one) for one in value]
    if isinstance(value, dict):
        return {key: _extended(one) for key, one in value.items()}
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return msgspec.msgpack.Ext(_WHOLE, str(value).encode())
    return value
