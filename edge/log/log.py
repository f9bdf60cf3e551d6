"""The durable log: numbered records and a small state, changed together by commits.

Threads: everything belongs to the thread of the event loop but `write`, which may run in a worker while the loop goes
on appending and reading. There are no locks because nothing is shared: the writing half (Writer) has files, table and
state of its own and works only between `seal` and `settle`; what goes across is the piece of work, handed over like a
baton. So there is one piece of work at a time.
"""

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from types import MappingProxyType

import msgspec
from msgspec.structs import replace

from edge.log.damage import Damage, Damages
from edge.log.files import DiskFiles, Files
from edge.log.format import Row
from edge.log.reader import Reader, Stretch
from edge.log.recovery import Recovery
from edge.log.writer import Batch, LogOptions, Records, Replacement, Writer, grown, narrow
from edge.metrics import Metrics

_HEAD_BYTES_LEAST = 2 * 4096
_ALL_BYTES = 1 << 62
_BATCH_OVERHEAD_BYTES = 512


class Segment(msgspec.Struct):
    """A live segment as readers see it: it accounts for the records first … next."""

    number: int
    first: int
    next: int
    generation: int
    bytes: int


class Log:
    """Records (bytes) numbered from 1. Only committed ones are read, counted or survive.

    Every loss by damage is in `damages` and in the metrics log_batches_damaged, log_records_lost, log_segments_damaged,
    log_tails_cut (label stream). Damage stays where it is until its segment is freed, and every opening counts it anew;
    batches next to each other whose headers are damaged count as one stretch.
    """

    def __init__(self, folder: str, files: Files, options: LogOptions, metrics: Metrics, name: str, *, read_only: bool):
        damages = Damages(folder, files, metrics, name, options.quarantine_bytes_max, read_only=read_only)
        recovered = Recovery(folder, files, damages, read_only=read_only).run()
        place = recovered.place
        self._folder, self._files, self._options, self._damages = folder, files, options, damages
        self._written = metrics.counter("log_bytes_written", stream=name)
        self._commits = metrics.counter("log_commits", stream=name)
        self._segments = [
            Segment(number, held.first, held.next, held.generation, held.bytes)
            for number, held in sorted(place.held.items())
        ]
        self._state = dict(place.state)
        self._state_bytes = sum(map(_entry_bytes, self._state.items()))
        self._next = self._next_given = place.next
        self._keep = self._keep_wanted = min(recovered.keep, place.next)
        self._records: list[bytes] = []
        self._changes: dict[str, bytes | None] = {}
        self._buffered_bytes = 0
        self._bytes_max = _ALL_BYTES
        self._work: Batch | Replacement | None = None
        self._aside: Batch | None = None  # what waits until a relief is settled
        self._work_bytes = 0
        self._stretch = Stretch(0, 0)
        self._reader = Reader(folder, files, damages)
        self._writer: Writer | None = None
        self._bytes_live = sum(segment.bytes for segment in self._segments)
        self._bytes_spare, self._room, self._is_short, self._regains, self._renews = 0, 0, False, False, False
        if not read_only:
            self._writer = Writer(folder, files, options, place)
            try:
                self._writer.harden(recovered.last_at, recovered.last_bytes)
            except OSError:
                self._writer.close()
                raise
            self._writer.free(self._keep)
            self._writer.regain()
            outcome = self._writer.outcome()
            self._bytes_live, self._bytes_spare, self._room = outcome.bytes_live, outcome.bytes_spare, outcome.room
            self._is_short = outcome.is_short
            self._forget_freed()

    @classmethod
    def open(
        cls,
        folder: str,
        files: Files | None = None,
        *,
        options: LogOptions | None = None,
        metrics: Metrics | None = None,
        name: str = "",
    ) -> "Log":
        """Makes the folder if it is not there. name: the label of the metrics.

        Raises ConfigError for a newer version, OSError when the disk does not answer; never for damage.
        """
        files = files or DiskFiles()
        files.makedir(folder)
        return cls(folder, files, options or LogOptions(), metrics or Metrics(), name, read_only=False)

    @classmethod
    def open_read_only(cls, folder: str, files: Files | None = None, *, metrics: Metrics | None = None) -> "Log":
        """For tools while no gateway has the folder: nothing in it is touched. append and the like raise ValueError.

        Raises FileNotFoundError when there is no such folder, besides what open raises.
        """
        return cls(folder, files or DiskFiles(), LogOptions(), metrics or Metrics(), "", read_only=True)

    @property
    def first(self) -> int:
        """The number of the oldest record held; `next` if none is."""
        oldest = self._segments[0].first if self._segments else self._next
        return min(max(self._keep, oldest), self._next)

    @property
    def next(self) -> int:
        """The number after the newest committed record."""
        return self._next

    @property
    def next_appended(self) -> int:
        """The number the next record appended gets."""
        return self._next_given

    @property
    def state(self) -> Mapping[str, bytes]:
        """As committed."""
        return MappingProxyType(self._state)

    @property
    def bytes_held(self) -> int:
        """Bytes on disk: live segments and spares (quarantine has its own bound)."""
        return self._bytes_live + self._bytes_spare

    @property
    def bytes_live(self) -> int:
        """Of these in segments that hold records."""
        return self._bytes_live

    @property
    def bytes_kept(self) -> int:
        """Of the others, what is to be kept back for a full disk."""
        return self._options.kept_bytes

    @property
    def is_short(self) -> bool:
        """The disk has no room for what the log should keep back: it is full, or was until the last commit."""
        return self._is_short

    @property
    def buffered(self) -> tuple[int, int]:
        """(records, bytes) appended and not yet sealed."""
        return len(self._records), self._buffered_bytes

    @property
    def sealed(self) -> Batch | Replacement | None:
        """The piece of work not yet settled."""
        return self._work

    @property
    def segments(self) -> Sequence[Segment]:
        """Live segments, oldest first; the last one is being written to. To look at."""
        return self._segments

    @property
    def damages(self) -> Sequence[Damage]:
        """The last few hundred, oldest first."""
        return tuple(self._damages.told)

    @property
    def bytes_reserved(self) -> int:
        """What `room` leaves for commits without records: for a segment of theirs, and the one that follows it."""
        return 2 * narrow(self._options.segment_bytes, self._head_bytes)

    def room(self, bytes_max: int) -> int:
        """How many bytes of records the next batch may have so that bytes_held stays within bytes_max, even if nothing
        shrinks, and however many commits without records follow. What is buffered or sealed is taken off. Where the
        state has made segments larger there is room for something as long as nothing is held.

        bytes_max is also what commits without records keep to from now on.
        """
        self._bytes_max = bytes_max
        head, slack = self._head_bytes, self._options.slack_bytes
        size = grown(self._options.segment_bytes, head)
        free = self._free
        rest = self._room if free >= 0 else 0
        if self._work_bytes > rest:  # it begins a segment
            made = max(size, head + self._work_bytes + slack)
            free, rest = free - made, made - head - slack
        rest -= self._work_bytes
        most = max(rest, free - head - slack) if free >= size else rest
        if size > self._options.segment_bytes and self._keep_wanted == self._next_given:
            most = max(most, size - head - slack)
        return max(most - self._batch_bytes, 0)

    @property
    def is_outgrown(self) -> bool:
        """The segment that is written to was made for larger bounds than those of now: beside it there is no room for
        another, whatever is released, and so none for records before long."""
        newest = self._segments[-1].bytes if self._segments else 0
        size = grown(self._options.segment_bytes, self._head_bytes)
        return newest > size > self._bytes_max - self._options.kept_bytes - newest - self.bytes_reserved

    @property
    def _head_bytes(self) -> int:
        """Of a segment's head and twin, at most."""
        return max(_HEAD_BYTES_LEAST, 2 * (4096 + self._state_bytes))

    @property
    def _free(self) -> int:
        """Of the bound, without what is reserved."""
        return self._bytes_max - self._options.kept_bytes - self._bytes_live - self.bytes_reserved

    @property
    def _batch_bytes(self) -> int:
        """What is buffered, as a batch: with the lengths of its records and the changes to the state, at most about."""
        return self._buffered_bytes + 4 * len(self._records) + self._state_bytes + _BATCH_OVERHEAD_BYTES

    def append(self, records: Sequence[bytes]) -> int:
        """Buffer. Returns the first number given."""
        self._check_writable()
        first = self._next_given
        self._records.extend(records)
        self._buffered_bytes += sum(map(len, records))
        self._next_given += len(records)
        return first

    def put_state(self, key: str, value: bytes | None) -> None:
        """Buffer: it commits with what is appended before the next seal. None removes the key."""
        self._check_writable()
        self._changes[key] = value

    def release(self, before: int) -> None:
        """Buffer: records below are no longer needed, and no longer read from now on."""
        self._check_writable()
        self._keep_wanted = max(self._keep_wanted, min(before, self._next))

    def regain(self) -> None:
        """With the next batch look whether the disk has room again for what is kept back."""
        self._regains = True

    def resize(self, segment_bytes: int) -> None:
        """Let segments have this size from now on. Spares are given up with the next batch."""
        self._options = replace(self._options, segment_bytes=segment_bytes)

    def renew(self) -> None:
        """Let the next batch begin a segment if that written to is outgrown, which then can be freed, thinned and
        dropped as any other; there is a next batch even if nothing is buffered. Where the disk has no room for it
        nothing changes."""
        self._renews = self.is_outgrown

    def seal(self) -> Batch | None:
        """Everything buffered as one batch; None if there is nothing. Raises RuntimeError while one is unsettled."""
        self._check_idle()
        if not (self._records or self._changes or self._keep_wanted > self._keep or self._renews):
            return None
        is_narrow = not self._records and self._free < grown(self._options.segment_bytes, self._head_bytes)
        batch = Batch(
            self._next,
            self._records,
            self._changes,
            self._keep_wanted,
            is_narrow=is_narrow,
            regains=self._regains,
            renews=self._renews,
            segment_bytes=self._options.segment_bytes,
        )
        self._regains = self._renews = False
        self._work, self._work_bytes = batch, self._batch_bytes
        self._records, self._changes, self._buffered_bytes = [], {}, 0
        return batch

    def frees(self, before: int) -> bool:
        """Whether a whole segment is free when this is released, with what was released before."""
        before = max(before, self._keep_wanted)
        return any(segment.next <= before for segment in self._segments[:-1])

    def relief(self, before: int, changes: Mapping[str, bytes | None]) -> Batch:
        """For a batch that `write` found no room for: another without records to be written and settled before it, that
        releases what lies below `before` and makes these changes, which must be true without the batch. It fits into
        what every segment keeps for this. Then, or when the relief is abandoned, the batch is the piece of work again.
        """
        work = self._work
        if not isinstance(work, Batch) or work.outcome is not None or self._aside is not None:
            raise RuntimeError("there is no batch to be relieved")
        self.release(before)
        batch = Batch(self._next, [], dict(changes), self._keep_wanted, is_relief=True)
        work.changes.update(changes)
        work.keep, work.packed = batch.keep, None
        self._work, self._aside = batch, work
        return batch

    def replace_oldest(self, thin: Callable[[Records], Records], *, generation_max: int = 0) -> Replacement | None:
        """Thin the oldest segment that is not written to and was thinned at most generation_max times.

        thin: called in `write`'s thread with the (number, record) pairs in order, yields those to keep, which may be
        other bytes, in order and with numbers out of the segment's range (replacement.row: first … next); it must not
        touch the log. None: there is no such segment. Then `write` and `settle` as for a batch; while it is written
        the folder holds up to one segment more. After a crash `replaced(token)` tells whether it was done.
        """
        self._check_idle()
        work = self.plan_oldest(generation_max=generation_max)
        return work if work is not None and self.begin(work, thin) else None

    def plan_oldest(self, *, generation_max: int = 0, but: Collection[int] = ()) -> Replacement | None:
        """What `replace_oldest` would do, not begun yet: so that its token can be committed before with what it will
        cost. but: segments to be passed over."""
        for segment in self._segments[:-1]:
            if (
                segment.generation > generation_max
                or segment.number in but
                or segment.first == segment.next
                or segment.next <= self._keep_wanted
            ):
                continue
            generation = self._reader.generation(segment.number)
            if generation is None or generation > generation_max:
                segment.generation = generation if generation is not None else segment.generation
                continue
            row = Row(segment.number, segment.first, segment.next, generation)
            return Replacement(row, iter, self._options.draw_salt())
        return None

    def begin(self, work: Replacement, thin: Callable[[Records], Records]) -> bool:
        """Take up what was planned, as `replace_oldest` does. False: its segment is released or was thinned since."""
        self._check_idle()
        row = work.row
        generation = self._reader.generation(row.segment) if row.next > self._keep_wanted else None
        if generation != row.generation or all(segment.number != row.segment for segment in self._segments):
            return False
        work.thin = thin
        self._reader.pin(row.segment)
        self._work = work
        return True

    def replaced(self, token: bytes) -> bool:
        """Whether the replacement with this token took place. False when its segment is gone."""
        number, salt = int.from_bytes(token[:8], "little"), int.from_bytes(token[8:12], "little")
        return any(segment.number == number for segment in self._segments) and self._reader.salt(number) == salt

    def write(self, work: Batch | Replacement) -> None:
        """Make it durable; may run in a worker thread. Raises OSError: nothing of it counts, and the same may be
        written again. A batch keeps its place in the log: no other can be sealed before it is settled."""
        self._check_writable().write(work)

    def settle(self, work: Batch | Replacement) -> None:
        """Now it counts: first, next, state, bytes_held move."""
        outcome = work.outcome
        if work is not self._work or outcome is None:
            raise RuntimeError("settled what was not written")
        self._work, self._aside = self._aside, None
        if self._work is None:
            self._work_bytes = 0
        self._bytes_live, self._bytes_spare = outcome.bytes_live, outcome.bytes_spare
        self._room, self._is_short = outcome.room, outcome.is_short
        self._written.value += outcome.bytes_written
        if isinstance(work, Replacement):
            self._reader.drop(work.row.segment)
            self._stretch = Stretch(0, 0)
            for damage, at, body in outcome.damages:
                self._damages.lost(damage, at=at, body=body, keep=self._keep)
            for segment in self._segments:
                if segment.number == work.row.segment:
                    segment.generation = work.generation
            return
        self._commits.value += 1
        if self._segments:
            self._reader.written(self._segments[-1].number)
        if outcome.created is not None:
            number, first, size = outcome.created
            if self._segments and self._segments[-1].first == self._segments[-1].next:
                self._reader.drop(self._segments.pop().number)
            self._segments.append(Segment(number, first, first, 0, size))
        self._next = self._segments[-1].next = work.first + len(work.records)
        for key, value in work.changes.items():
            before = self._state.pop(key, None) if value is None else self._state.get(key)
            if before is not None:
                self._state_bytes -= _entry_bytes((key, before))
            if value is not None:
                self._state[key] = value
                self._state_bytes += _entry_bytes((key, value))
        self._keep = work.keep
        self._forget_freed()

    def abandon(self, work: Batch | Replacement) -> None:
        """Give up a replacement or a relief that could not be written. A replacement may have taken place all the same:
        ask `replaced`."""
        if work is not self._work or (isinstance(work, Batch) and self._aside is None):
            raise RuntimeError("abandoned what was not sealed")
        self._work, self._aside = self._aside, None
        if isinstance(work, Replacement):
            self._reader.drop(work.row.segment)
            self._stretch = Stretch(0, 0)

    def commit(self) -> None:
        """seal, write, settle."""
        batch = self._work if isinstance(self._work, Batch) else self.seal()
        if batch is not None:
            self.write(batch)
            self.settle(batch)

    def read(self, number: int, *, records_max: int, bytes_max: int) -> list[tuple[int, bytes]]:
        """Committed records from `number` on, in order; numbers may skip (thinned, damaged). Empty: there are none.
        At least one if there is one, even above bytes_max. Raises OSError the first few times a place is unreadable;
        then it is damaged, and skipped."""
        number = max(number, self._keep_wanted, self.first)
        taken: list[tuple[int, bytes]] = []
        while number < self._next and records_max > 0 and (bytes_max > 0 or not taken):
            stretch = self._stretch
            if not stretch.first <= number < stretch.next:
                stretch = self._stretch = self._load(number)
            some = stretch.take(number, records_max, bytes_max)
            if taken and some and len(some[0][1]) > bytes_max:
                break
            if some:
                taken += some
                records_max -= len(some)
                bytes_max -= sum([len(data) for _, data in some])
                number = some[-1][0] + 1
                if number < stretch.next and not stretch.take(number, 1, 0):
                    number = stretch.next
            else:
                number = stretch.next
        return taken

    def read_released(self, number: int = 0) -> Iterator[list[tuple[int, bytes]]]:
        """Records from `number` on that `read` gives no more and that lie in a live segment still, in order, a batch at
        a time: to look at. What cannot be read of them is passed over, and counts nowhere."""
        until = max(self._keep_wanted, self.first)
        reader = Reader(self._folder, self._files, Damages(self._folder, self._files, Metrics(), "", 0, read_only=True))
        try:
            for segment in list(self._segments):
                number = max(number, segment.first)
                while number < min(segment.next, until):
                    try:
                        stretch = reader.load(number, segment.number, segment.first, segment.next, until)
                    except OSError:
                        break
                    rows = stretch.take(number, until - number, _ALL_BYTES)
                    number = max(number + 1, stretch.next)
                    if rows := [row for row in rows if row[0] < until]:
                        yield rows
        finally:
            reader.close()

    def close(self) -> None:
        """What was not committed is gone."""
        self._reader.close()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _load(self, number: int) -> Stretch:
        index = bisect_right(self._segments, number, key=lambda segment: segment.first) - 1
        segment = self._segments[index]
        if index < 0 or number >= segment.next:  # a segment is missing here, and was counted when the log was opened
            following = self._segments[index + 1].first if index + 1 < len(self._segments) else self._next
            return Stretch(number, following)
        return self._reader.load(number, segment.number, segment.first, segment.next, self._keep)

    def _forget_freed(self) -> None:
        freed = 0
        for segment in self._segments[:-1]:
            if segment.next > self._keep:
                break
            self._reader.drop(segment.number)
            freed += 1
        del self._segments[:freed]

    def _check_writable(self) -> Writer:
        if self._writer is None:
            raise ValueError("the log is open for reading only, or closed")
        return self._writer

    def _check_idle(self) -> None:
        self._check_writable()
        if self._work is not None:
            raise RuntimeError("a piece of work is not settled yet")


def _entry_bytes(entry: tuple[str, bytes]) -> int:
    key, value = entry
    return len(key) + len(value) + 8
