"""A segment as it is read: its head, and its batches one after the other, past what is damaged.

Holds at most one window of the file in memory.
"""

import os

from edge.log.files import File
from edge.log.format import (
    ALIGNMENT,
    BATCH_BYTES,
    BATCH_MAGIC,
    HEAD_BYTES,
    KIND_RECORDS,
    KIND_SNAPSHOT,
    BatchHead,
    Damaged,
    Head,
    Snapshot,
    parse_batch,
    parse_head,
    parse_snapshot,
    unpack_body,
)

WINDOW_BYTES = 64 * 1024
SUFFIX = ".segment"
SPARE_PREFIX = "spare-"
TMP_SUFFIX = ".tmp"
QUARANTINE = "quarantine"


def segment_path(folder: str, number: int) -> str:
    return os.path.join(folder, f"{number:010d}{SUFFIX}")


def spare_path(folder: str, number: int) -> str:
    return os.path.join(folder, f"{SPARE_PREFIX}{number:010d}{SUFFIX}")


def segment_number(name: str) -> int | None:
    """None for a file that is no segment."""
    stem = name.removesuffix(SUFFIX)
    return int(stem) if stem != name and stem.isascii() and stem.isdigit() and len(stem) < 20 else None


class SegmentReader:
    """Raises Damaged when neither header is sound or it is another segment's, NewerVersion, OSError.

    tolerant: what the disk cannot read counts as zeros, which no CRC accepts; otherwise OSError passes on.
    """

    def __init__(self, file: File, number: int, *, tolerant: bool = False) -> None:
        self.file, self.number, self.tolerant = file, number, tolerant
        self.unreadable = False
        self.size = file.size()
        self._start, self._window = 0, b""
        self.head = self._load_head()

    def close(self) -> None:
        self.file.close()

    def snapshot(self) -> Snapshot | None:
        """From whichever copy is sound; None when neither is."""
        for at in (HEAD_BYTES, self.head.twin + HEAD_BYTES):
            head = parse_batch(self.view(at, BATCH_BYTES), 0, self.head.salt)
            if head is not None and head.kind == KIND_SNAPSHOT and at + head.stored <= self.size:
                try:
                    return parse_snapshot(self.raw(at, head))
                except Damaged:
                    continue
        return None

    def find(self, at: int, expected: int, sequence: int) -> tuple[int, BatchHead] | None:
        """The place of the first sound header at `at` or after it that carries on: a record number not below
        `expected`, a sequence above `sequence`. None: there is no more."""
        salt, last = self.head.salt, self.size - BATCH_BYTES
        while at <= last:
            data, offset = self._look(at)
            head = parse_batch(data, offset, salt)
            if (
                head is not None
                and head.kind == KIND_RECORDS
                and head.sequence > sequence
                and head.first >= expected
                and at + BATCH_BYTES + head.stored <= self.size
            ):
                return at, head
            found = data.find(BATCH_MAGIC, offset + 1)
            at = at - offset + (found if found >= 0 else max(len(data) - len(BATCH_MAGIC) + 1, offset + 1))
        return None

    def body(self, at: int, head: BatchHead) -> bytes:
        """The stored body of the batch that stands at `at`."""
        return self.view(at + BATCH_BYTES, head.stored)

    def raw(self, at: int, head: BatchHead) -> bytes:
        """Checked and unpacked. Raises Damaged."""
        return unpack_body(head, self.body(at, head), self.head.salt)

    def view(self, at: int, size: int) -> bytes:
        """Fewer bytes at the end of the file."""
        offset = at - self._start
        if offset >= 0 and offset + size <= len(self._window):
            return self._window[offset : offset + size]
        if size > WINDOW_BYTES:
            return self._pread(size, at)
        data, offset = self._look(at, size)
        return data[offset : offset + size]

    def forget(self) -> None:
        """What the window holds may have been written meanwhile."""
        self._start, self._window = 0, b""

    def _look(self, at: int, size: int = BATCH_BYTES) -> tuple[bytes, int]:
        """(the window, where `at` is in it)."""
        offset = at - self._start
        if not 0 <= offset <= len(self._window) - size:
            self._window = self._pread(WINDOW_BYTES, at)
            self._start, offset = at, 0
        return self._window, offset

    def _pread(self, size: int, at: int) -> bytes:
        try:
            return self.file.pread(size, at)
        except OSError:
            if not self.tolerant:
                raise
        self.unreadable = True
        pieces = []
        end = min(at + size, self.size)
        while at < end:
            piece = min(ALIGNMENT - at % ALIGNMENT, end - at)
            try:
                pieces.append(self.file.pread(piece, at).ljust(piece, b"\0"))
            except OSError:
                pieces.append(bytes(piece))
            at += piece
        return b"".join(pieces)

    def _load_head(self) -> Head:
        for at in range(0, max(self.size - HEAD_BYTES, 0) + 1, ALIGNMENT):
            head = parse_head(self.view(at, HEAD_BYTES))
            if head is not None and at in {0, head.twin}:
                if head.segment != self.number:
                    raise Damaged("other_segment")
                return head
        raise Damaged("no_header")
