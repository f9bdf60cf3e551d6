"""The log's format on disk, version 1. Everything here is pure: bytes in, structs out, and back.

The folder of a log
    0000000042.segment   live segments; the name is the segment's number, which only ever rises
    spare-….segment      segments no longer needed, kept for their blocks; their content means nothing
    room                 takes up room that a full disk may need; its content means nothing either
    ….tmp                segments being made; of no meaning, deleted at the next start
    quarantine/          copies of what was damaged, never read again by the log

A segment (integers little-endian)
    0      header, 64 bytes        magic "EDGELOG\\n", version u16, generation u16, salt u32, segment u64, first u64,
                                   sequence u64, twin u32, data u32, 12 zero bytes, CRC-32 of the 60 bytes before
    64     snapshot                a batch of kind 1
    twin   header and snapshot     the same again, at a multiple of 4,096
    data   batches of kind 0       one after the other without alignment; behind the last one zeros, or what the file
                                   held before it was recycled
    first: the number of the first record that may be in it; sequence: of the last batch before it; generation: how
    often it was thinned. In every version of the format the first 64 bytes are such a header with its CRC there.

A batch
    header, 56 bytes               magic "ELB\\x01", kind u8, codec u8, flags u16, stored u32, raw u32, sequence u64,
                                   first u64, span u32, count u32, keep u64, CRC of the body u32, CRC of the 52 bytes
                                   before u32
    body, `stored` bytes           codec 0: as it is, codec 1: raw DEFLATE; `raw` bytes when unpacked
    Both CRC-32s begin from the segment's salt instead of 0.
    kind 0, unpacked: u32 length of the state changes; these as a msgpack map of str to bin, or nil for a key that
    goes; the lengths of the records, u32 each; with flag 1 their distances from `first`, u32 each (without it they are
    0, 1, 2 …); the records.
    kind 1, unpacked: msgpack [state, [[segment, first, next, generation], …]], the segments live before this one.
    first … first + span: the numbers that the batch accounts for; count of them are in it (fewer only after thinning).
    keep: records below it are released.

Invariants
  1. A file gets its name `….segment` only when its head (two headers, two snapshots) and its first batch are durable.
  2. Batches are written one at a time; the next only after the fdatasync of the one before succeeded. So at most the
     last batch of the newest segment can be torn.
  3. Where an fdatasync failed nothing is written any more: the same batch goes into a new segment.
  4. sequence rises by one from batch to batch. A sound batch whose sequence does not lie above the last is a copy of
     one written again after a failure, or stale: it is nothing.
  5. A batch's `first` is the `first + span` of the batch before. Where it is not, the numbers between are lost.
  6. The salt is drawn anew whenever a file is begun, so what a recycled file held before has no right CRC.
  7. The newest segment alone tells everything but the records: its snapshot and its batches give state, numbers and
     the ranges of all live segments. Only if both its snapshots are damaged are older segments replayed.
  8. A segment is freed only when a durable batch says that all its records are released.
  9. Thinning changes no number and no range: a segment is replaced, by rename, by one that holds fewer records.
 10. What is damaged costs its own batch and nothing else. A release in it is undone unless a later batch tells it
     again: what it released and is still there is read again.
 11. A damaged last batch cannot be told from a torn one: it is cut, counted and put into quarantine like it, as long as
     its header is like what must stand there (edge/log/tail.py).
 12. Records leave the end of a segment free. Only a relief goes there: a batch without records, written before one that
     found no room on the disk, which releases a whole segment.

Measured (ext4 on a virtual disk, one fdatasync a batch, median µs and bytes reaching the device, batches of 300 and of
4,000 bytes): growing file 123 µs 8,479 B, 134 µs 12,151 B; fallocate 83 µs 4,779 B, 127 µs 12,056 B; filled with zeros
beforehand 100 µs 4,547 B, 102 µs 8,206 B; recycled 102 µs 4,560 B, 104 µs 8,192 B. A block's first write needs the file
system's journal, a later one does not; zeros cost every stored byte twice. So new segments are fallocated, freed ones
recycled (a log in steady state only ever overwrites), and where a batch smaller than a page reaches fresh blocks, zeros
are written a few pages ahead: 167 → 132 µs a sync for batches of 2.9 kB at the same bytes on the device.
Compression (JSON readings, 100 records): zlib's level 1 to 28 % at 0.82 µs a record, ISA-L's to 25 % at 0.27 µs,
zstandard's to 20 % at 0.30 µs; but zstandard takes 2.1 MB of memory, and all fill the same one or two pages a commit.
So codec 1 is DEFLATE, which ISA-L writes and any zlib reads. What does not shrink is stored plain, and compression then
rests for some batches.
"""

import struct
import zlib
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import msgspec

from edge.log.deflate import deflate

VERSION = 1
SEGMENT_MAGIC = b"EDGELOG\n"
BATCH_MAGIC = b"ELB\x01"
KIND_RECORDS = 0
KIND_SNAPSHOT = 1
CODEC_PLAIN = 0
CODEC_DEFLATE = 1
FLAG_SPARSE = 1
ALIGNMENT = 4096

_HEAD = struct.Struct("<8sHHIQQQII12xI")
_BATCH = struct.Struct("<4sBBHIIQQIIQII")
_U32 = struct.Struct("<I")
HEAD_BYTES = _HEAD.size
BATCH_BYTES = _BATCH.size
_HEADER_CRC_AT = BATCH_BYTES - 4

_encode = msgspec.msgpack.Encoder().encode
_decode_state = msgspec.msgpack.Decoder(dict[str, bytes | None]).decode


class Damaged(Exception):
    """These bytes are not what was written. Never leaves edge.log."""


class NewerVersion(Exception):
    """A sound header of a version that this code does not know. args[0]: the version."""


class Head(NamedTuple):
    """A segment's header."""

    version: int
    generation: int
    salt: int
    segment: int
    first: int
    sequence: int
    twin: int
    data: int


class BatchHead(NamedTuple):
    """A batch's header but for the magic and the two CRCs; body_crc is the body's."""

    kind: int
    codec: int
    flags: int
    stored: int
    raw: int
    sequence: int
    first: int
    span: int
    records: int
    keep: int
    body_crc: int


class Row(NamedTuple):
    """A live segment in a snapshot's table: it accounts for the records first … next."""

    segment: int
    first: int
    next: int
    generation: int


class Snapshot(msgspec.Struct, frozen=True, array_like=True):
    """All that is live when a segment begins."""

    state: dict[str, bytes]
    table: list[Row]


class Content(NamedTuple):
    """What a batch of records holds. numbers: None when they are first, first + 1, …"""

    changes: Mapping[str, bytes | None]
    records: list[bytes]
    numbers: list[int] | None


_decode_snapshot = msgspec.msgpack.Decoder(Snapshot).decode


def build_head(head: Head) -> bytes:
    packed = _HEAD.pack(SEGMENT_MAGIC, *head, 0)
    return packed[:-4] + _U32.pack(zlib.crc32(packed[:-4]))


def parse_head(data: bytes, at: int = 0) -> Head | None:
    """None where there is no sound header. Raises NewerVersion."""
    if len(data) < at + HEAD_BYTES or data[at : at + 8] != SEGMENT_MAGIC:
        return None
    magic_and_fields = _HEAD.unpack_from(data, at)
    if zlib.crc32(data[at : at + HEAD_BYTES - 4]) != magic_and_fields[-1]:
        return None
    head = Head(*magic_and_fields[1:-1])
    if head.version > VERSION:
        raise NewerVersion(head.version)
    return head


def build_batch(head: BatchHead, body: bytes, salt: int) -> bytes:
    """The header's body_crc and stored are worked out here. Returns the header alone; the body follows it as it is."""
    packed = _BATCH.pack(
        BATCH_MAGIC, head.kind, head.codec, head.flags, len(body), *head[4:10], zlib.crc32(body, salt), 0
    )[:-4]
    return packed + _U32.pack(zlib.crc32(packed, salt))


def parse_batch(data: bytes, at: int, salt: int) -> BatchHead | None:
    """None where no sound header of this segment stands at `at`."""
    if len(data) < at + BATCH_BYTES or data[at : at + 4] != BATCH_MAGIC:
        return None
    fields = _BATCH.unpack_from(data, at)
    if zlib.crc32(data[at : at + _HEADER_CRC_AT], salt) != fields[-1]:
        return None
    return BatchHead(*fields[1:-1])


def guess_batch(data: bytes, at: int) -> BatchHead | None:
    """The fields that stand there, sound or not; None when the bytes end before."""
    return BatchHead(*_BATCH.unpack_from(data, at)[1:-1]) if len(data) >= at + BATCH_BYTES else None


def unpack_body(head: BatchHead, body: bytes, salt: int) -> bytes:
    """Check and decompress. Raises Damaged."""
    if len(body) != head.stored or zlib.crc32(body, salt) != head.body_crc:
        raise Damaged("bad_crc")
    if head.codec == CODEC_PLAIN:
        return body
    if head.codec != CODEC_DEFLATE:
        raise Damaged("unknown_codec")
    try:
        raw = zlib.decompressobj(-15).decompress(body, head.raw) if head.raw else b""
    except zlib.error as error:
        raise Damaged("bad_deflate") from error
    if len(raw) != head.raw:
        raise Damaged("bad_length")
    return raw


def build_content(
    records: Sequence[bytes], changes: Mapping[str, bytes | None], distances: Sequence[int] | None = None
) -> bytes:
    """A body of kind 0, unpacked. distances: of the records' numbers from the first, for FLAG_SPARSE."""
    state = _encode(changes) if changes else b""
    numbers = b"" if distances is None else struct.pack(f"<{len(distances)}I", *distances)
    lengths = struct.pack(f"<{len(records)}I", *map(len, records))
    return b"".join((_U32.pack(len(state)), state, lengths, numbers, *records))


def parse_content(head: BatchHead, raw: bytes) -> Content:
    """Raises Damaged when the parts do not fit together."""
    try:
        (state_bytes,) = _U32.unpack_from(raw)
        at = 4 + state_bytes
        changes = _decode_state(raw[4:at]) if state_bytes else {}
        lengths = struct.unpack_from(f"<{head.records}I", raw, at)
        at += 4 * head.records
        numbers = None
        if head.flags & FLAG_SPARSE:
            numbers = [head.first + distance for distance in struct.unpack_from(f"<{head.records}I", raw, at)]
            at += 4 * head.records
    except (struct.error, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Damaged("bad_content") from error
    ends = list(accumulate(lengths, initial=at))
    if ends[-1] != len(raw):
        raise Damaged("bad_content")
    return Content(changes, [raw[start:end] for start, end in pairwise(ends)], numbers)


def parse_changes(head: BatchHead, body: bytes, salt: int) -> Mapping[str, bytes | None]:
    """The state changes alone, unpacking no more of the body than they need. Raises Damaged."""
    if len(body) != head.stored or zlib.crc32(body, salt) != head.body_crc:
        raise Damaged("bad_crc")
    try:
        if head.codec == CODEC_DEFLATE:
            stream = zlib.decompressobj(-15)
            start = stream.decompress(body, 4)
            (state_bytes,) = _U32.unpack(start)
            changes = b""
            if state_bytes:
                changes = stream.decompress(stream.unconsumed_tail, min(state_bytes, head.raw))
        elif head.codec == CODEC_PLAIN:
            (state_bytes,) = _U32.unpack_from(body)
            changes = body[4 : 4 + state_bytes]
        else:
            raise Damaged("unknown_codec")
        return _decode_state(changes) if state_bytes else {}
    except (zlib.error, struct.error, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Damaged("bad_content") from error


def build_snapshot(state: Mapping[str, bytes], table: Sequence[Row]) -> bytes:
    return _encode([state, table])


def parse_snapshot(raw: bytes) -> Snapshot:
    """Raises Damaged."""
    try:
        return _decode_snapshot(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Damaged("bad_snapshot") from error


class Packer:
    """Compresses bodies, and rests after one that did not shrink."""

    REST_BATCHES = 31
    PLAIN_BELOW_BYTES = 128

    def __init__(self, *, compress: bool) -> None:
        self._compress = compress
        self._rest = 0

    def pack(self, raw: bytes) -> tuple[int, bytes]:
        """(codec, body)."""
        if not self._compress or len(raw) < self.PLAIN_BELOW_BYTES:
            return CODEC_PLAIN, raw
        if self._rest:
            self._rest -= 1
            return CODEC_PLAIN, raw
        packed = deflate(raw)
        if len(packed) > len(raw) * 0.9:
            self._rest = self.REST_BATCHES
            return CODEC_PLAIN, raw
        return CODEC_DEFLATE, packed


def segment_head(head: Head, snapshot: bytes, packer: Packer) -> tuple[Head, bytes]:
    """The first bytes of a segment: header and snapshot, twice. Returns the header with its offsets filled in."""
    codec, body = packer.pack(snapshot)
    batch = BatchHead(KIND_SNAPSHOT, codec, 0, 0, len(snapshot), head.sequence, head.first, 0, 0, 0, 0)
    one = HEAD_BYTES + BATCH_BYTES + len(body)
    twin = -(-one // ALIGNMENT) * ALIGNMENT
    head = head._replace(twin=twin, data=twin + one)
    copy = build_head(head) + build_batch(batch, body, head.salt) + body
    return head, copy + bytes(twin - one) + copy
