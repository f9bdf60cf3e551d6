"""The power is cut at every operation of a stream's files, sectors torn and unsynced ones missing in any order."""

import asyncio
from bisect import bisect_right
from collections.abc import Sequence

import pytest

from edge.config import StreamSettings
from edge.log import Log
from edge.messages import Message, Outcome, Reading
from edge.metrics import Metrics
from edge.outbox.marks import Marks
from edge.outbox.record import messages_of
from edge.outbox.stream import Stream
from tests.faults.oracle import Arrival, Books, Id, Produced, arrival, judge, payload
from tests.log.disk import Disk, power_cuts
from tests.log.history import FOLDER, options, read_all

RECORDS, EACH = 120, 6
SEGMENT_BYTES = 32 * 1024


class Source:
    """Offers readings in order; notes at which operation of the disk each was acknowledged."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self.made: list[Id] = []
        self.acknowledged: list[tuple[int, int]] = []

    def settled(self, receipts: Sequence[int], outcome: Outcome) -> None:
        assert outcome is Outcome.TAKEN
        self.acknowledged.append((len(self._disk.journal), max(receipts)))

    def offer(self, stream: Stream, count: int) -> None:
        fresh = [Id("board1", 1, len(self.made) + n + 1) for n in range(count)]
        self.made += fresh
        messages = [
            Message("dt/board1/temp", payload(one, 300), 1, receipt=one.sequence, reading=Reading(*one))
            for one in fresh
        ]
        stream.send(messages, self)


async def run(disk: Disk, source: Source, commit: str) -> None:
    log = Log.open(FOLDER, disk, options=options(SEGMENT_BYTES, sync=commit != "never"))
    settings = StreamSettings(name="readings", commit=commit, commit_records_max=2 * EACH)
    stream = Stream(settings, log, "gw/readings", Metrics(), boot=1, system_boot="b", segment_bytes=SEGMENT_BYTES)
    for number in range(RECORDS // EACH):
        source.offer(stream, EACH)
        while number % 3 and (not source.acknowledged or source.acknowledged[-1][1] < len(source.made)):
            await asyncio.sleep(0.001)
    while source.acknowledged[-1][1] < RECORDS:
        await asyncio.sleep(0.001)
    stream.close()


def lived(commit: str) -> tuple[Disk, Disk, Source]:
    """The disk after it, the one before, and the source."""
    disk, before = Disk(), Disk()
    disk.makedir(FOLDER)
    before.makedir(FOLDER)
    source = Source(disk)
    asyncio.run(run(disk, source, commit))
    return disk, before, source


def what_is_in(log: Log) -> list[Arrival]:
    messages, unknown = messages_of(read_all(log), "gw/readings", lambda boot, ms: 0)
    assert not unknown
    return [arrival(one.payload, None if one.reading is None else _id(one.reading)) for one in messages]


@pytest.mark.parametrize("commit", ["every message", "20 ms"])
def test_a_stream_keeps_all_it_acknowledged_and_its_marks_agree_at_every_power_cut(commit: str) -> None:
    disk, before, source = lived(commit)
    count = 0
    for cut in power_cuts(disk.journal, before, seed=1):
        index = bisect_right(source.acknowledged, cut.operations, key=lambda point: point[0]) - 1
        sure = source.acknowledged[index][1] if index >= 0 else 0
        log = Log.open(FOLDER, cut.disk, options=options(SEGMENT_BYTES))
        found = what_is_in(log)
        kept = [one.made for one in found]
        held = set(source.made[sure:]) - set(kept)
        try:
            judge(Books(Produced(source.made, set(source.made[:sure]), held), found)).check(held=True)
        except AssertionError as error:
            raise AssertionError(f"cut after {cut.operations} ({cut.choice}): {error}") from error
        assert Marks(log.state).things.get("board1", {}).get(1, 0) == len(kept)
        log.close()
        count += 1
    assert count > 100


def test_where_the_system_decides_when_to_write_a_power_cut_costs_records_and_nothing_else() -> None:
    """`commit = "never"`: what is left is in order, as it was made and each once, and the stream opens."""
    disk, before, source = lived("never")
    count = fewer = 0
    for cut in power_cuts(disk.journal, before, seed=1):
        log = Log.open(FOLDER, cut.disk, options=options(SEGMENT_BYTES))
        found = what_is_in(log)
        kept = {one.made for one in found}
        left = [one for one in source.made if one in kept]
        judge(Books(Produced(left, set(left)), found)).check()
        log.close()
        count += 1
        fewer += len(kept) < source.acknowledged[-1][1]
    assert fewer > 0.5 * count > 50


def _id(reading: Reading) -> Id:
    return Id(reading.thing, reading.boot, reading.sequence)
