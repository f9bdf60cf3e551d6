"""Writes a log in version 1 of the format, from the description in edge/log/format.py alone and with none of its code.

Never to be changed once released: it is how a later version proves that it still reads what this one wrote.
`python -m tests.log.make_v1 FOLDER` writes it to a disk.
"""

import struct
import sys
import zlib
from collections.abc import Mapping
from pathlib import Path

import msgspec

SEGMENT_BYTES = 16 * 1024
STATE = {"mark/board-1": b"\x00\x01", "cursor": b"12"}
KEEP = 2


def _batch(
    salt: int, kind: int, raw: bytes, fields: tuple[int, int, int, int, int], *, sparse: int, pack: int
) -> bytes:
    """fields: sequence, first, span, count, keep."""
    body = raw
    if pack:
        packer = zlib.compressobj(6, zlib.DEFLATED, -15)
        body = packer.compress(raw) + packer.flush()
    head = b"ELB\x01" + struct.pack("<BBHII", kind, pack, sparse, len(body), len(raw)) + struct.pack("<QQIIQ", *fields)
    head += struct.pack("<I", zlib.crc32(body, salt))
    return head + struct.pack("<I", zlib.crc32(head, salt)) + body


def _content(records: list[bytes], changes: Mapping[str, bytes | None], distances: list[int] | None = None) -> bytes:
    state = msgspec.msgpack.encode(changes) if changes else b""
    parts = [struct.pack("<I", len(state)), state, *(struct.pack("<I", len(record)) for record in records)]
    parts += [struct.pack("<I", distance) for distance in distances or []]
    return b"".join(parts + records)


def _segment(number: int, first: int, sequence: int, generation: int, snapshot: bytes, batches: list[bytes]) -> bytes:
    salt = 0xC0FFEE00 + number
    packed = _batch(salt, 1, snapshot, (sequence, first, 0, 0, 0), sparse=0, pack=0)
    twin = 4096
    head = b"EDGELOG\n" + struct.pack(
        "<HHIQQQII", 1, generation, salt, number, first, sequence, twin, twin + 64 + len(packed)
    )
    head += bytes(12)
    head += struct.pack("<I", zlib.crc32(head))
    return (((head + packed).ljust(twin, b"\0") + head + packed) + b"".join(batches)).ljust(SEGMENT_BYTES, b"\0")


def build() -> tuple[dict[str, bytes], dict[int, bytes]]:
    """(files by name, records by number): a thinned segment, one with stale batches behind its end, the newest."""
    records = {number: b'{"n":%d}' % number * (number % 5 + 1) for number in range(1, 25)}
    for thinned in (2, 3, 5, 6):
        del records[thinned]

    def some(first: int, until: int) -> list[bytes]:
        return [records[number] for number in range(first, until)]

    empty = msgspec.msgpack.encode([{}, []])
    one = [
        _batch(
            0xC0FFEE01, 0, _content([records[1], records[4]], {"gone": b"x"}, [0, 3]), (1, 1, 6, 2, 1), sparse=1, pack=0
        )
    ]
    table: list[tuple[int, int, int, int]] = [(1, 1, 7, 1)]
    snapshot = msgspec.msgpack.encode([{"gone": b"x"}, table])
    two = [
        _batch(0xC0FFEE02, 0, _content(some(7, 10), {"gone": None}), (2, 7, 3, 3, 1), sparse=0, pack=0),
        _batch(0xC0FFEE02, 0, _content(some(10, 16), {"mark/board-1": b"\0\0"}), (3, 10, 6, 6, 1), sparse=0, pack=1),
        _batch(0xC0FFEE77, 0, _content([b"stale"], {}), (4, 16, 1, 1, 1), sparse=0, pack=0),
    ]
    table = [(1, 1, 7, 1), (2, 7, 16, 0)]
    snapshot_two = msgspec.msgpack.encode([{"mark/board-1": b"\0\0"}, table])
    three = [
        _batch(0xC0FFEE03, 0, _content(some(16, 25), STATE), (4, 16, 9, 9, 1), sparse=0, pack=1),
        _batch(0xC0FFEE03, 0, _content([], {}), (5, 25, 0, 0, KEEP), sparse=0, pack=0),
    ]
    files = {
        "0000000001.segment": _segment(1, 1, 0, 1, empty, one),
        "0000000002.segment": _segment(2, 7, 1, 0, snapshot, two),
        "0000000003.segment": _segment(3, 16, 3, 0, snapshot_two, three),
        "spare-0000000009.segment": bytes(SEGMENT_BYTES),
    }
    return files, {number: record for number, record in records.items() if number >= KEEP}


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in build()[0].items():
        (folder / name).write_bytes(content)


if __name__ == "__main__":
    main()
