"""A kill at every file operation of a thinning, and a purge while it is written: what it took is counted once."""

import asyncio
import errno
from collections.abc import Sequence

from edge.config import StreamSettings
from edge.log import Log, Replacement
from edge.messages import Message, Outcome, Reading
from edge.metrics import Metrics
from edge.outbox.intent import INTENT
from edge.outbox.record import decode, name_of
from edge.outbox.stream import Stream
from edge.outbox.thin import AVERAGES
from tests.log.disk import Disk, Killed
from tests.log.history import FOLDER, options, read_all
from tests.outbox.rig import until

SEGMENT_BYTES = 16 * 1024
BYTES_MAX = 8 * SEGMENT_BYTES


class Source:
    """An origin that knows how many of its readings were taken."""

    def __init__(self) -> None:
        self.taken = 0

    def settled(self, receipts: Sequence[int], outcome: Outcome) -> None:
        if outcome is Outcome.TAKEN:
            self.taken = max(self.taken, *receipts)


def opened(disk: Disk) -> Stream:
    settings = StreamSettings(name="s", bytes_max=2 << 20, when_full="thin")
    log = Log.open(FOLDER, disk, options=options(SEGMENT_BYTES))
    return Stream(settings, log, "g/s", Metrics(), boot=1, system_boot="", segment_bytes=SEGMENT_BYTES, now=lambda: 1.0)


def check_accounts(stream: Stream, taken: int) -> None:
    """Every reading taken is held or in the ledger, and none in both or twice."""
    held = [name_of(record, n, "g/s")[2] for n, data in read_all(stream.log) if (record := decode(data)) is not None]
    readings = [sequence for sequence in held if sequence < AVERAGES]
    shed = stream.ledger.things.get("b", [])
    gone = [sequence for entry in shed for sequence in range(entry.first, entry.last + 1)]
    assert sum(entry.count for entry in shed) == len(gone)
    assert sorted([*readings, *gone]) == list(range(1, taken + 1))


async def fill(stream: Stream, segments: int, payload: str = '{"c":%d,"noise":%d}') -> int:
    """Readings 1 … until there are so many segments. Returns how many."""
    source, count = Source(), 0
    while len(stream.log.segments) < segments:
        names = range(count + 1, count + 51)
        stream.send(
            [
                Message("t", (payload % (n % 7, n * 7919**5)).encode(), 1, receipt=n, reading=Reading("b", 1, n))
                for n in names
            ],
            source,
        )
        count += 50
        await until(lambda: not stream.is_busy)
    return count


async def thin_once(disk: Disk, kill_at: int) -> bool:
    """Fill three segments, thin one, be killed at this operation of it; start again twice. False: it ended before."""
    stream = opened(disk)
    count = await fill(stream, 3)
    begin = disk.index

    def fault(index: int, kind: str) -> None:
        if index >= begin + kill_at:
            raise Killed

    disk.fault = fault
    killed = asyncio.Event()
    write, loop = stream.log.write, asyncio.get_running_loop()

    def guarded(work: object) -> None:
        try:
            write(work)  # type: ignore[arg-type]
        except Killed:
            loop.call_soon_threadsafe(killed.set)
            raise OSError("killed") from None

    stream.log.write = guarded  # type: ignore[method-assign]
    stream._bytes_max = BYTES_MAX // 4
    stream.keep("begin", b"1")
    stream._commit_soon()
    await until(
        lambda: (
            killed.is_set() or (not stream.is_writing and bool(stream.ledger.totals) and not stream.state.get(INTENT))
        )
    )
    ended = not killed.is_set()
    stream.abandon()
    disk.fault = lambda index, kind: None
    for _ in range(2):
        again = opened(disk)
        check_accounts(again, count)
        again.close()
    return not ended


def test_a_kill_at_any_operation_of_a_thinning_leaves_every_reading_held_or_counted_once() -> None:
    kill_at = 0
    while True:
        disk = Disk()
        disk.makedir(FOLDER)
        if not asyncio.run(thin_once(disk, kill_at)):
            break
        kill_at += 1
    assert kill_at > 6


def test_what_is_purged_while_a_thinning_is_written_is_counted_once() -> None:
    async def run(fails: bool) -> dict[str, int]:
        disk = Disk()
        disk.makedir(FOLDER)
        stream = opened(disk)
        count = await fill(stream, 3, payload="no numbers: %d %d")
        thin = stream._thin

        def purge(work: Replacement) -> None:
            thin(work)
            if fails:
                disk.fault = fail
            assert stream.purge() == count

        def fail(index: int, kind: str) -> None:
            disk.fault = lambda index, kind: None
            raise OSError(errno.EIO, kind)

        stream._thin = purge  # type: ignore[method-assign]
        stream._bytes_max = BYTES_MAX // 4
        stream.keep("begin", b"1")
        stream._commit_soon()
        await until(lambda: stream.log.first == stream.log.next == count + 1)
        stream.close()
        found = opened(disk).ledger.totals
        assert sum(found.values()) == count
        return found

    assert set(asyncio.run(run(fails=False))) == {"thinned", "purged"}
    assert set(asyncio.run(run(fails=True))) == {"purged"}
