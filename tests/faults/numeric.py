"""Records whose payload is numeric throughout, so that a stream that thins averages them; and what an average must be.

An average names the last record it stands for, and says how many those are and their lowest and highest values: its
`seq` gives the first and the last of them. All are made again from their names, averaged here, and compared.
"""

import zlib
from collections.abc import Mapping
from typing import Any, Final

import msgspec

AVERAGES: Final = 1 << 52  # what an average's sequence is raised by
AVERAGED_MAX: Final = 100_000
NAME: Final = "board"  # things of these records are board1, board2, …
_PAD_BYTES = 17
_BASE_BYTES = 40


def numeric_payload(thing: str, boot: int, sequence: int, bytes_min: int = 0) -> bytes:
    pads = -(-max(bytes_min - _BASE_BYTES, 0) // _PAD_BYTES)
    return msgspec.json.encode(_values(int(thing.removeprefix(NAME)), boot, sequence, pads))


def _values(board: int, boot: int, sequence: int, pads: int) -> dict[str, int]:
    values = {"board": board, "boot": boot, "seq": sequence}
    values |= {f"pad{n}": zlib.crc32(b"%d/%d/%d/%d" % (board, boot, sequence, n)) for n in range(pads)}
    return values | {"check": zlib.crc32(repr(values).encode())}


def read_numeric(data: bytes) -> tuple[str, int, int, int] | None:
    """(thing, boot, sequence, of an average the first sequence it stands for, else 0); None if it is not exactly what
    was made, or not what averaging gives."""
    try:
        found = msgspec.json.decode(data)
    except msgspec.DecodeError:
        return None
    if not isinstance(found, dict) or "board" not in found:
        return None
    pads = sum(1 for name in found if name.startswith("pad"))
    wanted: Mapping[str, Any]
    try:
        board, boot = int(found["board"]), int(found["boot"])
        if "thinned" not in found:
            first, last, wanted = 0, int(found["seq"]), _values(board, boot, int(found["seq"]), pads)
        else:
            first, last = int(found["thinned"]["min"]["seq"]), int(found["thinned"]["max"]["seq"])
            if not 0 < last - first < AVERAGED_MAX:
                return None
            wanted = _average([_values(board, boot, sequence, pads) for sequence in range(first, last + 1)])
    except (KeyError, TypeError, ValueError):
        return None
    if found != wanted:
        return None
    return f"{NAME}{board}", boot, last + (AVERAGES if first else 0), first


def _average(rows: list[dict[str, int]]) -> Mapping[str, Any]:
    names = list(rows[0])
    body: dict[str, Any] = {name: round(sum(float(row[name]) for row in rows) / len(rows), 6) for name in names}
    body["thinned"] = {
        "count": len(rows),
        "min": {name: min(row[name] for row in rows) for name in names},
        "max": {name: max(row[name] for row in rows) for name in names},
    }
    return body
