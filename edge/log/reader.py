"""The log's reading half: any number is found quickly, sequential reading decodes each batch once.

Invariants: memory is bounded: one decoded batch, one open segment (and one pinned while it is being replaced), sparse
marks of a few segments. Damage found here is counted once and skipped. A read error is raised the first times, for it
may pass; after that what the disk cannot read counts as damaged.
"""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from edge.log.damage import Damage, Damages
from edge.log.files import Files
from edge.log.format import BATCH_BYTES, Content, Damaged, NewerVersion, parse_content
from edge.log.segment import WINDOW_BYTES, SegmentReader, segment_path

ERRORS_RAISED = 3
MARK_EVERY_BYTES = 64 * 1024
_MARKED_SEGMENTS_MAX = 4


class Stretch:
    """Numbers first … next: the decoded records among them."""

    __slots__ = ("first", "next", "numbers", "records")

    def __init__(self, first: int, until: int, content: Content | None = None) -> None:
        self.first, self.next = first, until
        self.records: list[bytes] = content.records if content else []
        self.numbers: list[int] | None = content.numbers if content else []

    def take(self, number: int, records_max: int, bytes_max: int) -> list[tuple[int, bytes]]:
        """From `number` on, at least one if there is one."""
        numbers: Sequence[int]
        if self.numbers is None:
            start = max(number - self.first, 0)
            records = self.records[start : start + records_max]
            numbers = range(self.first + start, self.first + start + len(records))
        else:
            start = bisect_right(self.numbers, number - 1)
            records = self.records[start : start + records_max]
            numbers = self.numbers[start : start + records_max]
        taken = list(zip(numbers, records, strict=True))
        if sum(map(len, records)) > bytes_max:
            ends = accumulate(map(len, records))
            del taken[max(sum(end <= bytes_max for end in ends), 1) :]
        return taken


class Reader:
    """Reads batches of segments whose ranges the log tells it."""

    def __init__(self, folder: str, files: Files, damages: Damages) -> None:
        self._folder, self._files, self._damages = folder, files, damages
        self._open: SegmentReader | None = None
        self._pinned: SegmentReader | None = None
        self._marks: dict[int, list[tuple[int, int, int]]] = {}
        self._position = (0, 0, 0, 0)  # segment, next number, offset, sequence
        self._errors: dict[int, int] = {}

    def load(self, number: int, segment: int, first: int, until: int, keep: int) -> Stretch:
        """The stretch that has `number` in it. first, until: what the segment accounts for; keep: records below are
        released. Raises OSError."""
        try:
            reader = self._segment(segment)
            return self._find(reader, number, first, until, keep)
        except FileNotFoundError:
            self._damages.segment(Damage(segment, number, until, "missing"))
        except Damaged as error:
            self._damages.segment(Damage(segment, number, until, str(error)))
        except NewerVersion:
            self._damages.segment(Damage(segment, number, until, "newer_version"))
        except OSError:
            self.drop(segment)
            self._errors[segment] = self._errors.get(segment, 0) + 1
            raise
        return Stretch(number, until)

    def pin(self, segment: int) -> None:
        """Go on reading what the segment is now, whatever takes its name, until drop()."""
        self._pinned = self._segment(segment)
        self._open = None

    def salt(self, segment: int) -> int | None:
        """The salt in its header; None if it cannot be read."""
        try:
            return self._segment(segment).head.salt
        except (OSError, Damaged, NewerVersion):
            return None

    def generation(self, segment: int) -> int | None:
        try:
            return self._segment(segment).head.generation
        except (OSError, Damaged, NewerVersion):
            return None

    def drop(self, segment: int) -> None:
        """The segment is gone, or another than it was."""
        if self._open is not None and self._open.number == segment:
            self._open.close()
            self._open = None
        if self._pinned is not None and self._pinned.number == segment:
            self._pinned.close()
            self._pinned = None
        self._marks.pop(segment, None)
        if self._position[0] == segment:
            self._position = (0, 0, 0, 0)

    def written(self, segment: int) -> None:
        """It, or a newer one, was written to: what was looked at before may be old."""
        if self._open is not None and self._open.number >= segment:
            self._open.forget()

    def close(self) -> None:
        for reader in (self._open, self._pinned):
            if reader is not None:
                self.drop(reader.number)

    def _segment(self, number: int) -> SegmentReader:
        if self._pinned is not None and self._pinned.number == number:
            return self._pinned
        if self._open is None or self._open.number != number:
            if self._open is not None:
                self._open.close()
                self._open = None
            file = self._files.open(segment_path(self._folder, number))
            tolerant = self._errors.get(number, 0) >= ERRORS_RAISED
            try:
                self._open = SegmentReader(file, number, tolerant=tolerant)
            except (Damaged, NewerVersion, OSError):
                file.close()
                raise
        return self._open

    def _find(self, reader: SegmentReader, number: int, first: int, until: int, keep: int) -> Stretch:
        segment, head = reader.number, reader.head
        expected, at, sequence = self._start(segment, number, (first, head.data, head.sequence))
        while True:
            found = reader.find(at, expected, sequence)
            if found is None or found[1].first + found[1].span > until:
                damage = Damage(segment, expected, until, "bad_header")
                self._damages.lost(damage, at=at, body=reader.view(at, WINDOW_BYTES).rstrip(b"\0"), keep=keep)
                return Stretch(number, until)
            place, batch = found
            if batch.first > expected:
                body = reader.view(at, place - at)
                self._damages.lost(Damage(segment, expected, batch.first, "bad_header"), at=at, body=body, keep=keep)
                if number < batch.first:
                    self._position = (segment, batch.first, place, sequence)
                    return Stretch(number, batch.first)
            self._mark(segment, batch.first, place, sequence)
            at, sequence, expected = place + BATCH_BYTES + batch.stored, batch.sequence, batch.first + batch.span
            if expected <= number:
                continue
            self._position = (segment, expected, at, sequence)
            try:
                content = parse_content(batch, reader.raw(place, batch))
            except Damaged as error:
                body = reader.view(place, BATCH_BYTES + batch.stored)
                self._damages.lost(Damage(segment, batch.first, expected, str(error)), at=place, body=body, keep=keep)
                return Stretch(batch.first, expected)
            return Stretch(batch.first, expected, content)

    def _start(self, segment: int, number: int, start: tuple[int, int, int]) -> tuple[int, int, int]:
        """(number, offset, sequence before) of the nearest known batch at or below `number`."""
        if marks := self._marks.get(segment):
            index = bisect_right(marks, (number, 1 << 62, 0)) - 1
            if index >= 0:
                start = marks[index]
        known, expected, at, sequence = self._position
        if known == segment and start[0] <= expected <= number:
            start = (expected, at, sequence)
        return start

    def _mark(self, segment: int, first: int, at: int, sequence: int) -> None:
        marks = self._marks.get(segment)
        if marks is None:
            if len(self._marks) >= _MARKED_SEGMENTS_MAX:
                del self._marks[next(iter(self._marks))]
            marks = self._marks[segment] = []
        if not marks or at >= marks[-1][1] + MARK_EVERY_BYTES:
            marks.append((first, at, sequence))
