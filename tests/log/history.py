"""What a log was told and what it must still hold: the judge of every crash image."""

from collections.abc import Iterator
from contextlib import contextmanager

from edge.log import Batch, Log, LogOptions
from edge.metrics import Metrics
from tests.log.disk import Disk, Killed

FOLDER = "/data/streams/readings"


def salts() -> Iterator[int]:
    number = 0x9E3779B9
    while True:
        number = number * 1664525 + 1013904223 & 0xFFFFFFFF
        yield number


def options(segment_bytes: int = 16 * 1024, **more: int) -> LogOptions:
    source = salts()
    return LogOptions(segment_bytes=segment_bytes, draw_salt=lambda: next(source), **more)  # type: ignore[arg-type]


def read_all(log: Log) -> list[tuple[int, bytes]]:
    return log.read(0, records_max=1 << 30, bytes_max=1 << 40)


class Held:
    """What must be there: records by number, state, all of it settled. thinned: of these only what is in it."""

    def __init__(self, records: dict[int, bytes], state: dict[str, bytes], first: int, following: int) -> None:
        self.records, self.state, self.first, self.next = records, state, first, following

    def copy(self) -> "Held":
        return Held(dict(self.records), dict(self.state), self.first, self.next)


class History:
    """Runs a log over a Disk, and notes for every point of the disk's journal what may be found there: what was
    settled (sure) and what was under way (perhaps)."""

    def __init__(self, disk: Disk, log_options: LogOptions) -> None:
        self.disk, self.options = disk, log_options
        self.sure = Held({}, {}, 1, 1)
        self.perhaps: list[Held] = []
        self.points: list[tuple[int, Held, list[Held]]] = []
        self.thinned = self.sure
        self.log = self.open()

    def note(self) -> None:
        self.points.append((len(self.disk.journal), self.sure.copy(), [held.copy() for held in self.perhaps]))

    @contextmanager
    def work(self, perhaps: Held) -> Iterator[None]:
        """What is done inside may already have happened at any point of it."""
        if perhaps not in self.perhaps:
            self.perhaps.append(perhaps)
        self.note()
        yield
        self.sure, self.perhaps = perhaps, []
        self.note()

    def open(self) -> Log:
        self.disk.makedir(FOLDER)
        self.metrics = Metrics()
        log = Log.open(FOLDER, self.disk, options=self.options, metrics=self.metrics, name="readings")
        found = judge(log, self.sure, self.perhaps)
        self.sure, self.perhaps = found.copy(), []
        self.note()
        return log

    def after(self, batch: Batch) -> Held:
        held = self.sure.copy()
        held.records.update(enumerate(batch.records, batch.first))
        held.next = batch.first + len(batch.records)
        for key, value in batch.changes.items():
            if value is None:
                held.state.pop(key, None)
            else:
                held.state[key] = value
        held.first = max(held.first, batch.keep)
        held.records = {number: data for number, data in held.records.items() if number >= held.first}
        return held

    def commit(self) -> None:
        work = self.log.sealed or self.log.seal()
        if work is None:
            return
        with self.work(self.after(work) if isinstance(work, Batch) else self.thinned):
            self.log.write(work)
            self.log.settle(work)

    def thin(self, every: int) -> None:
        work = self.log.replace_oldest(lambda pairs: (pair for pair in pairs if pair[0] % every == 0))
        if work is None:
            return
        held = self.sure.copy()
        first, until = work.row.first, work.row.next
        held.records = {n: data for n, data in held.records.items() if not first <= n < until or n % every == 0}
        self.thinned = held
        self.commit()

    def restart(self, disk: Disk) -> None:
        """Go on with what a power cut left."""
        self.disk = disk
        self.points.clear()
        self.log = self.open()

    def kill(self) -> None:
        """The process is gone; the machine is not: what it wrote is still in the cache."""
        self.log = self.open()


def judge(log: Log, sure: Held, perhaps: list[Held]) -> Held:
    """The log holds exactly what is sure, or one of what may be. Returns which."""
    records, state = dict(read_all(log)), dict(log.state)
    for held in (sure, *reversed(perhaps)):
        wanted = {number: data for number, data in held.records.items() if number >= log.first}
        if records == wanted and state == held.state and log.next == held.next and log.first <= held.first:
            return Held(records, state, log.first, log.next)
    missing = sorted(number for number in sure.records if number not in records and number >= sure.first)
    invented = sorted(set(records) - set(sure.records) - {n for held in perhaps for n in held.records})
    raise AssertionError(
        f"first {log.first} (settled {sure.first}), next {log.next} (settled {sure.next}), missing {missing[:9]}, "
        f"invented {invented[:9]}, state {state}, settled {sure.state}, damages {log.damages}"
    )


__all__ = ["FOLDER", "Held", "History", "Killed", "judge", "options", "read_all", "salts"]
