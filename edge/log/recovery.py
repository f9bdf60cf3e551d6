"""From a folder in whatever state to a log that goes on.

Reads the newest segment alone while its snapshot is sound. Damage never keeps a log from opening; what is wrong is
counted. Raises ConfigError for a newer version, OSError when the disk does not answer (try again later).
"""

import contextlib
import os

import msgspec

from edge.errors import ConfigError
from edge.log.damage import Damage, Damages
from edge.log.files import Files
from edge.log.format import BATCH_BYTES, BatchHead, Damaged, NewerVersion, parse_changes
from edge.log.segment import SPARE_PREFIX, SUFFIX, TMP_SUFFIX, SegmentReader, segment_number, segment_path
from edge.log.tail import find_remains
from edge.log.writer import Held, Place


class Recovered(msgspec.Struct):
    """keep: records below it are released. last_at, last_bytes: the last sound batch of the current segment."""

    place: Place
    keep: int
    last_at: int
    last_bytes: bytes


class Recovery:
    """One use."""

    def __init__(self, folder: str, files: Files, damages: Damages, *, read_only: bool) -> None:
        self._folder, self._files, self._damages, self._read_only = folder, files, damages, read_only
        self._held: dict[int, Held] = {}
        self._state: dict[str, bytes] = {}
        self._sequence, self._next, self._keep = 0, 1, 1
        self._end, self._last_at, self._last_size = 0, 0, 0
        self._lost: list[Damage] = []  # counted when all is read that may have released it

    def run(self) -> Recovered:
        numbers, spares = self._list()
        chain: list[SegmentReader] = []
        try:
            based = False
            for number in reversed(numbers):
                reader = self._open(number)
                if reader is None:
                    continue
                chain.append(reader)
                snapshot = reader.snapshot()
                if snapshot is not None:
                    self._state = dict(snapshot.state)
                    self._held = {row.segment: Held(row.first, row.next, row.generation, 0) for row in snapshot.table}
                    self._sequence, self._next = reader.head.sequence, reader.head.first
                    based = True
                    break
            chain.reverse()
            if chain and not based:
                self._next = chain[0].head.first
            for reader in chain:
                self._replay(reader, newest=reader is chain[-1])
            current, last = self._current(chain, numbers)
        finally:
            for reader in chain:
                reader.close()
        doomed = self._look_after(numbers)
        suspect = next((reader.number for reader in chain if reader.unreadable), 0)
        place = Place(
            self._held,
            self._state,
            self._sequence,
            self._next,
            max(numbers, default=0),
            current,
            spares,
            doomed,
            suspect,
        )
        return Recovered(place, self._keep, self._last_at, last)

    def _list(self) -> tuple[list[int], list[tuple[str, int]]]:
        numbers, spares = [], []
        for name in self._files.listdir(self._folder):
            path = os.path.join(self._folder, name)
            if (number := segment_number(name)) is not None and name == os.path.basename(segment_path("", number)):
                numbers.append(number)
            elif name.startswith(SPARE_PREFIX) and name.endswith(SUFFIX):
                spares.append((path, self._files.size(path)))
            elif name.endswith(TMP_SUFFIX) and not self._read_only:
                with contextlib.suppress(OSError):
                    self._files.unlink(path)
        return sorted(numbers), spares

    def _open(self, number: int) -> SegmentReader | None:
        path = segment_path(self._folder, number)
        file = self._files.open(path)
        try:
            return SegmentReader(file, number, tolerant=True)
        except NewerVersion as error:
            file.close()
            raise ConfigError(
                path,
                "",
                f"written in version {error.args[0]} of the log's format, which this edgeloop does not know",
                "Start the newer edgeloop again and let it drain the stream, or move the folder away",
            ) from error
        except Damaged as error:
            file.close()
            # How many records it held only a later segment's table could tell.
            self._damages.segment(Damage(number, 0, 0, str(error)))
            return None

    def _replay(self, reader: SegmentReader, *, newest: bool) -> None:
        """Take over what a segment says: state, numbers, its own range."""
        head, number = reader.head, reader.number
        if head.first > self._next:
            self._find_lost(Damage(number, self._next, head.first, "missing"))
        for held in self._held.values():
            held.next = min(held.next, max(head.first, held.first))
        self._next, self._sequence = head.first, head.sequence
        own = self._held[number] = Held(head.first, head.first, head.generation, reader.size)
        at, pending = head.data, None
        self._end, self._last_at, self._last_size = at, 0, 0
        while (found := reader.find(at, self._next, self._sequence)) is not None:
            if pending is not None:
                self._lose(reader, *pending)
                pending = None
            place, batch = found
            if batch.first > self._next:
                body = reader.view(at, place - at)
                self._find_lost(Damage(number, self._next, batch.first, "bad_header"), at=at, body=body)
            elif batch.sequence > self._sequence + 1 and not head.generation:
                body = reader.view(at, place - at)
                self._find_lost(Damage(number, self._next, self._next, "bad_header"), at=at, body=body)
            at = place + BATCH_BYTES + batch.stored
            self._next, self._sequence = batch.first + batch.span, batch.sequence
            try:
                changes = parse_changes(batch, reader.body(place, batch), head.salt)
            except Damaged:
                pending = (place, batch)
                continue
            self._keep = max(self._keep, batch.keep)
            self._end, self._last_at, self._last_size = at, place, BATCH_BYTES + batch.stored
            for key, value in changes.items():
                if value is None:
                    self._state.pop(key, None)
                else:
                    self._state[key] = value
        if pending is not None and not newest:
            self._lose(reader, *pending)
        if newest:
            for lost in self._lost:
                self._damages.count(lost, self._keep)
        if pending is not None and newest:
            # The last batch has a sound header and no sound body: torn, or damaged. Its numbers are given again.
            place, batch = pending
            self._next, self._sequence = batch.first, batch.sequence - 1
            body = reader.view(place, BATCH_BYTES + batch.stored)
            self._damages.cut(Damage(number, batch.first, batch.first + batch.span, "tail"), place, body)
        elif newest:
            self._look_at_tail(reader, at)
        own.next = self._next

    def _lose(self, reader: SegmentReader, place: int, batch: BatchHead) -> None:
        body = reader.view(place, BATCH_BYTES + batch.stored)
        damage = Damage(reader.number, batch.first, batch.first + batch.span, "bad_crc")
        self._find_lost(damage, at=place, body=body)

    def _find_lost(self, damage: Damage, *, at: int = -1, body: bytes = b"") -> None:
        if self._damages.found(damage, at=at, body=body):
            self._lost.append(damage)

    def _look_at_tail(self, reader: SegmentReader, at: int) -> None:
        if (remains := find_remains(reader, at, self._sequence + 1, self._next)) is not None:
            count, data = remains
            self._damages.cut(Damage(reader.number, self._next, self._next + count, "tail"), at, data)

    def _current(self, chain: list[SegmentReader], numbers: list[int]) -> tuple[tuple[int, int, int] | None, bytes]:
        """Where to go on, and the last batch's bytes. Not in a segment that the disk could not read whole."""
        if not chain or chain[-1].unreadable or chain[-1].number != numbers[-1]:
            return None, b""
        newest = chain[-1]
        last = newest.view(self._last_at, self._last_size) if self._last_at else b""
        return (newest.number, self._end, newest.head.salt), last

    def _look_after(self, numbers: list[int]) -> dict[int, int]:
        """Sizes and presence of what the table names. Returns what is in the folder and not needed."""
        there = set(numbers)
        newest = max(self._held, default=0)
        for number, held in list(self._held.items()):
            if number != newest and (held.next <= self._keep or held.next <= held.first):
                del self._held[number]
                continue
            size = self._files.size(segment_path(self._folder, number)) if number in there else 0
            held.bytes = size
            if not size and number != newest:
                del self._held[number]
                first = max(held.first, self._keep)
                self._damages.segment(Damage(number, first, held.next, "missing"))
        doomed = {}
        for number in there - set(self._held):
            with contextlib.suppress(FileNotFoundError):
                doomed[number] = self._files.size(segment_path(self._folder, number))
        return doomed
