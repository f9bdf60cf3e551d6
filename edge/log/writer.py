"""The log's writing half: it alone changes the folder, and runs in whichever thread has the work in hand.

Invariants: one piece of work at a time; nothing here is shared with the reading half: what that must know travels back
in the work's outcome. A piece of work that raised OSError has changed nothing that counts, and may be given again.
"""

import contextlib
import errno
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import msgspec
from msgspec.structs import replace

from edge.log.damage import Damage
from edge.log.files import File, Files
from edge.log.format import (
    ALIGNMENT,
    BATCH_BYTES,
    FLAG_SPARSE,
    KIND_RECORDS,
    VERSION,
    BatchHead,
    Damaged,
    Head,
    Packer,
    Row,
    build_batch,
    build_content,
    build_snapshot,
    parse_content,
    segment_head,
)
from edge.log.segment import QUARANTINE, TMP_SUFFIX, WINDOW_BYTES, SegmentReader, segment_path
from edge.log.spares import Spares, thinning_bytes

Records = Iterable[tuple[int, bytes]]
THINNED_BATCH_BYTES = 64 * 1024
AHEAD_PAGES = 16
_LARGE_HEAD_BYTES = 64 * 1024
_SLACK_SHARE = 64
_PAGE = bytes(ALIGNMENT)


class LogOptions(msgspec.Struct, frozen=True):
    """segment_bytes: a file's size; the smallest stream needs three. spares_max: freed files kept for their blocks.
    keeps_room: a segment and a part of one are kept back for a full disk, so that the log can be thinned on it.
    sync: False leaves it to the operating system when things reach the disk (kill -9 is survived, a power cut not).
    quarantine_bytes_max: beyond it what is damaged is only counted. draw_salt: 32 random bits."""

    segment_bytes: int = 4 * 1024 * 1024
    spares_max: int = 2
    keeps_room: bool = False
    sync: bool = True
    compress: bool = True
    quarantine_bytes_max: int = 16 * 1024 * 1024
    draw_salt: Callable[[], int] = lambda: int.from_bytes(os.urandom(4), "little")

    @property
    def slack_bytes(self) -> int:
        """Of each segment what only a relief may use: so that a full disk does not keep the release from being
        committed that would make room."""
        return self.segment_bytes // _SLACK_SHARE

    @property
    def kept_bytes(self) -> int:
        """What may be kept back: a spare, and room to thin."""
        return self.segment_bytes + thinning_bytes(self.segment_bytes) if self.keeps_room else 0


class Outcome(msgspec.Struct):
    """What the reading half must know of work done. created: (segment, first, bytes) of the one begun with this
    batch; at: where the batch stands; bytes_live and bytes_spare: of the files in the folder; is_short: the disk has no
    room for what should be kept back; damages: found while thinning, with their place and bytes."""

    created: tuple[int, int, int] | None
    at: int
    bytes_written: int
    bytes_live: int
    bytes_spare: int
    room: int
    is_short: bool = False
    damages: list[tuple[Damage, int, bytes]] = []


class Batch:
    """Everything buffered when it was sealed. first: the number of its first record; keep: records below are freed;
    is_relief: it may use what segments keep free for that; is_narrow: a segment begun for it is to be a narrow one;
    regains: what was kept back and used is to be made again; renews: it begins a segment if the disk has room;
    segment_bytes: what segments are to have from now on, 0 for what they had."""

    __slots__ = (
        "changes", "first", "is_narrow", "is_relief", "keep", "outcome", "packed", "records", "regains", "renews",
        "segment_bytes",
    )  # fmt: skip

    def __init__(
        self,
        first: int,
        records: Sequence[bytes],
        changes: dict[str, bytes | None],
        keep: int,
        *,
        is_relief: bool = False,
        is_narrow: bool = False,
        regains: bool = False,
        renews: bool = False,
        segment_bytes: int = 0,
    ) -> None:
        self.first, self.records, self.changes, self.keep = first, records, changes, keep
        self.is_relief, self.is_narrow, self.regains, self.renews = is_relief, is_narrow, regains, renews
        self.segment_bytes = segment_bytes
        self.packed: tuple[int, bytes, int] | None = None
        self.outcome: Outcome | None = None


class Replacement:
    """A segment to be thinned. token: asks the log later whether it was done."""

    __slots__ = ("generation", "outcome", "row", "salt", "thin", "token")

    def __init__(self, row: Row, thin: Callable[[Records], Records], salt: int) -> None:
        self.row, self.thin, self.salt = row, thin, salt
        self.token = struct.pack("<QI", row.segment, salt)
        self.generation = row.generation + 1
        self.outcome: Outcome | None = None


class Held(msgspec.Struct):
    """A segment in the folder."""

    first: int
    next: int
    generation: int
    bytes: int


class Place(msgspec.Struct):
    """Where the writer goes on after recovery. current: (segment, where its next batch goes), None to begin a new
    one; last: the highest segment number ever seen; doomed: segments that are in the folder and no longer needed;
    suspect: one that the disk could not read whole (0: none), to be put aside instead of deleted."""

    held: dict[int, Held]
    state: dict[str, bytes]
    sequence: int
    next: int
    last: int
    current: tuple[int, int, int] | None
    spares: list[tuple[str, int]]
    doomed: dict[int, int]
    suspect: int = 0


class Writer:
    """held: every live segment, the current one last; its `next` is kept up to date."""

    def __init__(self, folder: str, files: Files, options: LogOptions, place: Place) -> None:
        self._folder, self._files, self._options = folder, files, options
        self._held, self._state, self._doomed = dict(sorted(place.held.items())), place.state, place.doomed
        self._sequence, self._next, self._last = place.sequence, place.next, place.last
        self._suspect = place.suspect
        self._spares = Spares(
            folder, files, place.spares, options.segment_bytes, options.spares_max, keeps_room=options.keeps_room
        )
        self._packer = Packer(compress=options.compress)
        self._slack = options.slack_bytes
        self._bytes_live, self._recount = 0, True
        self._file: File | None = None
        # The newest segment is never freed, for it has the state; whether it is written to or not.
        self._current, self._at, self._salt, self._blocks = max(self._held, default=0), 0, 0, 0
        if place.current is not None:
            self._current, self._at, self._salt = place.current
            self._blocks = self._at
            self._file = files.open(segment_path(folder, self._current), write=True)

    def harden(self, at: int, data: bytes) -> None:
        """Write the last batch once more where it stands: the process before may have died between write and sync, or
        after a sync that failed, and only memory may hold it. The same bytes: a torn write changes nothing."""
        if self._file is not None and data:
            self._file.pwrite(data, at)
            self._file.fdatasync()
        self._files.fsync_dir(self._folder)

    def write(self, work: Batch | Replacement) -> None:
        if work.outcome is None:
            if isinstance(work, Batch):
                self._append(work)
            else:
                self._replace(work)

    def free(self, keep: int) -> None:
        """Give up the segments of which nothing is needed. What the file system refuses is tried again next time."""
        while (oldest := next(iter(self._held), self._current)) != self._current and self._held[oldest].next <= keep:
            self._doomed[oldest] = self._held.pop(oldest).bytes
        if not self._doomed:
            return
        for number, size in list(self._doomed.items()):
            path = segment_path(self._folder, number)
            self._recount = True
            with contextlib.suppress(OSError):
                if number == self._suspect:
                    self._files.makedir(os.path.join(self._folder, QUARANTINE))
                    self._files.rename(path, os.path.join(self._folder, QUARANTINE, os.path.basename(path)))
                elif not self._spares.put(path, number, size):
                    with contextlib.suppress(FileNotFoundError):
                        self._files.unlink(path)
                del self._doomed[number]

    def regain(self) -> None:
        """Make what is to be kept back, if the disk has room."""
        self._spares.regain()

    def outcome(self, created: tuple[int, int, int] | None = None, at: int = 0, written: int = 0) -> Outcome:
        spare = self._spares.bytes + sum(self._doomed.values())
        live = sum([held.bytes for held in self._held.values()]) if self._recount else self._bytes_live
        self._bytes_live, self._recount = live, False
        room = max(self._held[self._current].bytes - self._slack - self._at, 0) if self._file is not None else 0
        return Outcome(created, at, written, live, spare, room, self._spares.is_short)

    def close(self) -> None:
        self._leave()

    def _append(self, batch: Batch) -> None:
        count = len(batch.records)
        if batch.segment_bytes not in {0, self._options.segment_bytes}:
            self._options = replace(self._options, segment_bytes=batch.segment_bytes)
            self._slack = self._options.slack_bytes
            self._spares.resize(batch.segment_bytes)
        if batch.packed is None:
            raw = build_content(batch.records, batch.changes)
            batch.packed = (*self._packer.pack(raw), len(raw))
        codec, body, raw_bytes = batch.packed
        head = BatchHead(
            KIND_RECORDS, codec, 0, 0, raw_bytes, self._sequence + 1, batch.first, count, count, batch.keep, 0
        )
        size = BATCH_BYTES + len(body)
        slack = 0 if batch.is_relief else self._slack
        fits = self._file is not None and self._at + size <= self._held[self._current].bytes - slack
        begun = None
        if batch.renews or not fits:
            begun = self._begin(batch, head, body, may_stay=fits and self._last == self._current)
        if begun is not None:
            created, written = begun
        else:
            assert self._file is not None
            created = None
            self._file.pwrite(build_batch(head, body, self._salt) + body, self._at)
            written = size + self._write_ahead(self._file, size)
            self._sync(self._file)
        at = self._at
        self._at += size
        self._sequence += 1
        self._next = self._held[self._current].next = batch.first + count
        for key, value in batch.changes.items():
            if value is None:
                self._state.pop(key, None)
            else:
                self._state[key] = value
        self.free(batch.keep)
        if batch.regains or created is not None:
            self._spares.regain()
        batch.outcome = self.outcome(created, at, written)

    def _write_ahead(self, file: File, size: int) -> int:
        """Zeros behind a small batch that reaches blocks never written before: the next ones then find their blocks
        written, and their sync needs no journal. For large ones the zeros would cost more than the journal does. Page
        by page, for one large write makes large folios, of which the kernel then counts every touch as a whole.
        Returns the bytes written."""
        end = self._at + size
        if end <= self._blocks:
            return 0
        self._blocks = at = min(-(-end // ALIGNMENT) * ALIGNMENT, self._held[self._current].bytes)
        if size < ALIGNMENT:
            for _ in range(AHEAD_PAGES):
                if self._blocks + ALIGNMENT <= self._held[self._current].bytes:
                    file.pwrite(_PAGE, self._blocks)
                    self._blocks += ALIGNMENT
        return self._blocks - at

    def _sync(self, file: File) -> None:
        if not self._options.sync:
            return
        try:
            file.fdatasync()
        except OSError:
            # The kernel may now call pages clean that never reached the disk: nothing more goes into this file.
            self._leave()
            raise

    def _leave(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            with contextlib.suppress(OSError):
                file.close()

    def _begin(
        self, batch: Batch, head: BatchHead, body: bytes, *, may_stay: bool
    ) -> tuple[tuple[int, int, int], int] | None:
        """A new segment with this batch in it. None: it may stay in the old one, for there is no file to be had."""
        files, options = self._files, self._options
        table = [
            Row(number, held.first, held.next, held.generation)
            for number, held in self._held.items()
            if held.next > max(batch.keep, held.first)
        ]
        number, salt = self._last + 1, options.draw_salt()
        segment, content = segment_head(
            Head(VERSION, 0, salt, number, batch.first, self._sequence, 0, 0),
            build_snapshot(self._state, table),
            self._packer,
        )
        content += build_batch(head, body, salt) + body
        least = len(content) + self._slack
        capacity = max(grown(options.segment_bytes, segment.data), least)
        less = max(narrow(options.segment_bytes, segment.data), least) if batch.is_narrow else capacity
        target = segment_path(self._folder, number)
        try:
            path, file, capacity, recycled = self._blank(number, capacity, less, len(content) if batch.is_relief else 0)
        except OSError:
            if may_stay:
                return None
            raise
        try:
            file.pwrite(content, 0)
            if options.sync:
                file.fdatasync()
            self._last = number
            files.rename(path, target)
            if options.sync:
                files.fsync_dir(self._folder)
        except OSError:
            with contextlib.suppress(OSError):
                file.close()
            for gone in (path, target):
                with contextlib.suppress(OSError):
                    files.unlink(gone)
            raise
        self._leave()
        if self._current in self._held and self._held[self._current].first == self._held[self._current].next:
            self._doomed[self._current] = self._held.pop(self._current).bytes
        self._file, self._current, self._salt, self._at = file, number, salt, segment.data
        self._blocks = capacity if recycled else -(-len(content) // ALIGNMENT) * ALIGNMENT
        self._held[number] = Held(batch.first, batch.first, 0, capacity)
        self._recount = True
        return (number, batch.first, capacity), len(content)

    def _blank(self, number: int, capacity: int, less: int, relief_bytes: int) -> tuple[str, File, int, bool]:
        """A file to become a segment, with blocks for all of it: its path, its size, and whether something else was in
        it. less: its size rather, where the disk has room for that. relief_bytes: one that holds no more than a relief
        is better than none."""
        path = os.path.join(self._folder, f"{number:010d}{TMP_SUFFIX}")
        if less < capacity:
            self._spares.drop()
            with contextlib.suppress(OSError):  # the disk may be full: then what is kept back for that
                return path, self._allocated(path, less), less, False
        fits = capacity == self._options.segment_bytes
        spare = self._spares.take() if fits else None
        if spare is None:
            try:
                return path, self._allocated(path, capacity), capacity, False
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                spare = self._spares.take_kept() if fits else None
                if spare is None:
                    if not relief_bytes:
                        raise
                    self._spares.give()
                    capacity = -(-relief_bytes // ALIGNMENT) * ALIGNMENT
                    return path, self._allocated(path, capacity), capacity, False
        try:
            return spare, self._files.open(spare, write=True), capacity, True
        except OSError:
            with contextlib.suppress(OSError):
                self._files.unlink(spare)
            raise

    def _allocated(self, path: str, size: int) -> File:
        file = None
        try:
            file = self._files.open(path, write=True, create=True)
            file.allocate(size)
        except OSError:
            if file is not None:
                file.close()
            with contextlib.suppress(OSError):
                self._files.unlink(path)
            raise
        return file

    def _replace(self, work: Replacement) -> None:
        while True:
            try:
                return self._replace_once(work)
            except OSError as error:
                if error.errno != errno.ENOSPC or not self._spares.give():
                    raise

    def _replace_once(self, work: Replacement) -> None:
        files, row = self._files, work.row
        target = segment_path(self._folder, row.segment)
        old = SegmentReader(files.open(target), row.segment)
        scan = SegmentScan(old, row)
        try:
            written = 0
            if old.head.salt != work.salt:
                written = self._thin(work, old, scan, target)
        except Damaged as error:  # its header: nothing to thin
            raise OSError(f"{target}: {error}") from error
        finally:
            old.close()
        files.fsync_dir(self._folder)
        held = self._held[row.segment]
        held.generation, self._recount = work.generation, True
        held.bytes = files.size(target)
        work.outcome = self.outcome(None, 0, written)
        work.outcome.damages = scan.damages

    def _thin(self, work: Replacement, old: SegmentReader, scan: "SegmentScan", target: str) -> int:
        files, row = self._files, work.row
        path = os.path.join(self._folder, f"{row.segment:010d}{TMP_SUFFIX}")
        snapshot = old.snapshot()
        packer = Packer(compress=self._options.compress)
        state, table = (snapshot.state, snapshot.table) if snapshot is not None else (self._state, [])
        head = old.head._replace(version=VERSION, generation=work.generation, salt=work.salt, twin=0, data=0)
        head, content = segment_head(head, build_snapshot(state, table), packer)
        file = files.open(path, write=True, create=True)
        try:
            file.pwrite(content, 0)
            at, sequence, first = len(content), head.sequence, row.first
            kept: list[tuple[int, bytes]] = []
            held_bytes = 0

            def put(until: int, changes: Mapping[str, bytes | None]) -> int:
                raw = build_content([data for _, data in kept], changes, [number - first for number, _ in kept])
                codec, body = packer.pack(raw)
                batch = BatchHead(
                    KIND_RECORDS, codec, FLAG_SPARSE, 0, len(raw), sequence + 1, first, until - first, len(kept),
                    scan.keep, 0,
                )  # fmt: skip
                file.pwrite(build_batch(batch, body, work.salt) + body, at)
                return at + BATCH_BYTES + len(body)

            source = scan.records()
            for number, data in work.thin(source):
                if held_bytes + len(data) > THINNED_BATCH_BYTES and kept:
                    until = kept[-1][0] + 1
                    at = put(until, {})
                    sequence, first, held_bytes = sequence + 1, until, 0
                    kept.clear()
                if not max(first, kept[-1][0] + 1 if kept else 0) <= number < row.next:
                    raise ValueError(f"thinning gave record {number} out of order or out of its segment")
                kept.append((number, data))
                held_bytes += len(data)
            for _ in source:  # it may have had enough early; the state changes are wanted whole
                pass
            at = put(row.next, scan.changes)
            if self._options.sync:
                file.fdatasync()
            files.rename(path, target)
        except BaseException:  # whatever `thin` raises
            with contextlib.suppress(OSError):
                files.unlink(path)
            raise
        finally:
            file.close()
        return at


def grown(segment_bytes: int, head_bytes: int) -> int:
    """A segment's size: where the state fills its head there is still room for records, else each batch would begin a
    segment of its own."""
    return 2 * head_bytes if head_bytes > max(segment_bytes // 2, _LARGE_HEAD_BYTES) else segment_bytes


def narrow(segment_bytes: int, head_bytes: int) -> int:
    """The size of a segment begun for a commit without records where room is short: two, the one that is full and the
    one that follows it, take no more than one of those for records, unless the state is large."""
    half = segment_bytes // 2
    return half if head_bytes <= half // 2 else grown(segment_bytes, head_bytes)


class SegmentScan:
    """All sound records of a segment in order, and its state changes put together."""

    def __init__(self, reader: SegmentReader, row: Row) -> None:
        self._reader, self._row = reader, row
        self.changes: dict[str, bytes | None] = {}
        self.keep = 0
        self.damages: list[tuple[Damage, int, bytes]] = []

    def records(self) -> Iterator[tuple[int, bytes]]:
        """changes, keep and damages are whole when this has ended."""
        reader, row = self._reader, self._row
        at, expected, sequence = reader.head.data, row.first, reader.head.sequence
        while (found := reader.find(at, expected, sequence)) is not None:
            place, head = found
            if head.first + head.span > row.next:
                break
            if head.first > expected:
                self._lose(expected, head.first, "bad_header", at, place - at)
            at, sequence, expected = place + BATCH_BYTES + head.stored, head.sequence, head.first + head.span
            self.keep = max(self.keep, head.keep)
            try:
                content = parse_content(head, reader.raw(place, head))
            except Damaged as error:
                self._lose(head.first, expected, str(error), place, BATCH_BYTES + head.stored)
                continue
            self.changes.update(content.changes)
            numbers = content.numbers or range(head.first, head.first + head.records)
            yield from zip(numbers, content.records, strict=True)
        if expected < row.next:
            self._lose(expected, row.next, "bad_header", at, WINDOW_BYTES)

    def _lose(self, first: int, until: int, reason: str, at: int, size: int) -> None:
        damage = Damage(self._row.segment, first, until, reason)
        self.damages.append((damage, at, self._reader.view(at, size).rstrip(b"\0")))
