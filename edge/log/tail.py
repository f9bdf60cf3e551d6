"""What stands behind the last sound batch of a segment: nothing, what the file held before it was recycled, or a batch
that was never finished or is damaged.

Most of a header is known beforehand, so a damaged one is told by how few of its bits differ. A header that the file
held before may differ in as few; but its CRC tells the salt it was written with, as a CRC is one to one in what it
begins from, and with that salt its body is sound.
"""

import struct
import zlib
from typing import Final

from edge.log.format import (
    BATCH_BYTES,
    BATCH_MAGIC,
    FLAG_SPARSE,
    KIND_RECORDS,
    BatchHead,
    Damaged,
    guess_batch,
    parse_content,
    unpack_body,
)
from edge.log.segment import SegmentReader

FLIPS_MAX: Final = 8
_SIGNS_LEAST: Final = 2

_KNOWN = struct.Struct("<4sBHQQ")
_U32 = struct.Struct("<I")
_ALL = 0xFFFFFFFF
# By the upper byte of an entry of CRC-32's table: which entry that is, and the entry.
_BACK = {
    entry >> 24: (byte, entry)
    for byte, entry in ((byte, zlib.crc32(bytes((byte,)), _ALL) ^ _ALL) for byte in range(256))
}


def find_remains(reader: SegmentReader, at: int, sequence: int, first: int) -> tuple[int, bytes] | None:
    """Of a batch with this sequence and first number at `at`: how many records it held, as far as that can be told, and
    its bytes. None: there is no sign of one."""
    data = reader.view(at, BATCH_BYTES)
    guess = guess_batch(data, 0)
    if guess is None:
        return None
    body = reader.view(at + BATCH_BYTES, min(guess.stored, reader.size - at - BATCH_BYTES))
    signs = (data[:4] == BATCH_MAGIC) + (guess.sequence == sequence) + (guess.first == first)
    if signs < _SIGNS_LEAST and (
        _flips(data, guess, sequence, first) > FLIPS_MAX or _is_sound(guess, body, _salt_of(data))
    ):
        return None
    return _count(guess, body, reader.head.salt), data + body


def _flips(data: bytes, guess: BatchHead, sequence: int, first: int) -> int:
    """In how many bits the header differs from what must stand there."""
    found = _KNOWN.pack(data[:4], guess.kind, guess.flags & ~FLAG_SPARSE, guess.sequence, guess.first)
    wanted = _KNOWN.pack(BATCH_MAGIC, KIND_RECORDS, 0, sequence, first)
    return (int.from_bytes(found, "little") ^ int.from_bytes(wanted, "little")).bit_count()


def _salt_of(header: bytes) -> int:
    """What its CRC began from, if the header is sound: CRC-32 calculated backwards."""
    state: int = _U32.unpack_from(header, BATCH_BYTES - 4)[0] ^ _ALL
    for byte in reversed(header[: BATCH_BYTES - 4]):
        index, entry = _BACK[state >> 24]
        state = ((state ^ entry) << 8 & _ALL) | (index ^ byte)
    return state ^ _ALL


def _is_sound(guess: BatchHead, body: bytes, salt: int) -> bool:
    return len(body) == guess.stored and zlib.crc32(body, salt) == guess.body_crc


def _count(guess: BatchHead, body: bytes, salt: int) -> int:
    """How many records: where the two counts differ, the one that the body bears out, else the one that it has room
    for."""
    counts = {guess.span, guess.records}
    if len(counts) > 1:
        for count in counts:
            try:
                parse_content(guess._replace(records=count), unpack_body(guess, body, salt))
            except Damaged:
                continue
            return count
    return min((count for count in counts if 0 < count <= guess.raw // 4), default=0)
