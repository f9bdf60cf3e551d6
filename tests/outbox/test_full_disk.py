"""A disk that is full while the cloud is away: a stream that thins goes on by thinning, and every reading is held or
counted once, at each file operation at which it is killed or the power is cut."""

import asyncio
from collections.abc import Sequence
from typing import Literal

import pytest

from edge.config import StreamSettings
from edge.log import Log, LogOptions
from edge.messages import Message, Outcome, Reading
from edge.metrics import Metrics
from edge.outbox.intent import INTENT
from edge.outbox.record import decode, name_of
from edge.outbox.stream import Stream
from edge.outbox.thin import AVERAGES
from tests.log.disk import Disk, Killed, power_cuts
from tests.log.history import FOLDER, read_all, salts
from tests.outbox.rig import until

SEGMENT_BYTES = 32 * 1024
DISK_BYTES = 8 * SEGMENT_BYTES
EACH = 40
BYTES_MAX = 64 << 20
Policy = Literal["thin", "drop_oldest"]
SHED: dict[Policy, str] = {"thin": "thinned", "drop_oldest": "dropped_oldest"}
SALTS = salts()  # never twice: a replacement is known by its own


class Source:
    """A board that sends its readings in order, each until it is taken."""

    def __init__(self) -> None:
        self.taken = 0
        self.marks: list[tuple[int, int]] = []
        self.turned_away = 0
        self.disk: Disk | None = None

    def settled(self, receipts: Sequence[int], outcome: Outcome) -> None:
        if outcome is Outcome.CONGESTED:
            self.turned_away += len(receipts)
            return
        self.taken = max(self.taken, *receipts)
        if self.disk is not None:
            self.marks.append((len(self.disk.journal), self.taken))

    async def offer(self, stream: Stream, *, numeric: bool = True, count: int = EACH) -> None:
        """The next so many, and wait until they are settled."""
        payload = '{"c":%d,"noise":%d}' if numeric else "not numeric %d %d"
        messages = [
            Message("t", (payload % (n, n**21 % 10**40)).encode(), 1, receipt=n, reading=Reading("b", 1, n))
            for n in range(self.taken + 1, self.taken + count + 1)
        ]
        stream.send(messages, self)
        await until(lambda: not stream.is_busy or stream.log is None)


def opened(disk: Disk, policy: Policy = "thin", *, keeps_room: bool | None = None) -> Stream:
    settings = StreamSettings(name="s", bytes_max=BYTES_MAX, when_full=policy)
    keeps_room = policy == "thin" if keeps_room is None else keeps_room
    log_options = LogOptions(segment_bytes=SEGMENT_BYTES, keeps_room=keeps_room, draw_salt=lambda: next(SALTS))
    log = Log.open(FOLDER, disk, options=log_options)
    return Stream(settings, log, "g/s", Metrics(), boot=1, system_boot="", segment_bytes=SEGMENT_BYTES, now=lambda: 1.0)


def small_disk() -> Disk:
    disk = Disk(DISK_BYTES)
    disk.makedir(FOLDER)
    return disk


def check_accounts(stream: Stream) -> int:
    """Every reading up to the mark is held or in the ledger, and none in both or twice. Returns the mark. An average
    that was dropped is in the ledger as well."""
    held = [name_of(record, n, "g/s")[2] for n, data in read_all(stream.log) if (record := decode(data)) is not None]
    readings = [sequence for sequence in held if sequence < AVERAGES]
    shed = stream.ledger.things.get("b", [])
    gone = [sequence for entry in shed for sequence in range(entry.first, entry.last + 1)]
    mark = stream.marks.sequence("b", 1)
    assert sum(entry.count for entry in shed) == len(gone)
    assert sorted([*readings, *(one for one in gone if one < AVERAGES)]) == list(range(1, mark + 1))
    return mark


async def filled(disk: Disk, policy: Policy = "thin") -> tuple[Stream, Source]:
    """A stream on it that is about to find no room for one more segment, nor for anything else."""
    stream, source = opened(disk, policy), Source()
    size = SEGMENT_BYTES
    while disk.bytes_max - disk.taken() >= size or stream.log.room(stream.log.bytes_held) > 8 * 1024:
        await source.offer(stream)
    assert not stream.ledger.totals
    disk.bytes_max = disk.taken()
    return stream, source


async def on_for(stream: Stream, source: Source, segments: int) -> None:
    """Go on until so many more segments have begun."""
    last = stream.log.segments[-1].number
    while stream.log.segments[-1].number < last + segments or stream.is_busy or stream.state.get(INTENT):
        await source.offer(stream)


def test_a_full_disk_is_thinned_segment_by_segment_and_holds_no_source_back() -> None:
    async def run() -> None:
        stream, source = await filled(small_disk())
        await on_for(stream, source, 8)
        assert source.turned_away == 0
        assert set(stream.ledger.totals) == {"thinned"}
        assert stream.shortage.is_told
        assert check_accounts(stream) == source.taken
        stream.close()

    asyncio.run(run())


def test_what_is_not_numeric_is_thinned_on_a_full_disk_until_only_dropping_is_left() -> None:
    async def run() -> None:
        stream, source = await filled(small_disk())
        reasons: list[set[str]] = []
        while "dropped_oldest" not in stream.ledger.totals:
            await source.offer(stream, numeric=False)
            reasons.append(set(stream.ledger.totals))
        assert source.turned_away == 0
        assert {"thinned"} in reasons
        stream.close()

    asyncio.run(run())


def test_a_disk_that_has_room_again_ends_the_thinning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.outbox.stream.TICK_S", 0.005)
    monkeypatch.setattr("edge.outbox.shortage.WELL_S", 0.0)

    async def run() -> None:
        disk = small_disk()
        stream, source = await filled(disk)
        moment = iter(range(1, 1 << 30))
        stream._now = lambda: float(next(moment))
        stream.start()
        await on_for(stream, source, 4)
        disk.bytes_max *= 4
        await until(lambda: not stream.is_busy)
        await source.offer(stream)
        await until(lambda: not stream.shortage.is_told)
        shed = stream.ledger.totals
        await on_for(stream, source, 6)
        assert stream.ledger.totals == shed
        assert not stream.log.is_short
        assert check_accounts(stream) == source.taken
        stream.close()

    asyncio.run(run())


@pytest.mark.parametrize("greedy", [False, True], ids=["full from the start", "what is freed is taken by others"])
def test_without_any_room_to_thin_the_oldest_are_dropped_and_counted(greedy: bool) -> None:
    """No room could be kept back, or it is gone; then dropping a segment is what makes some."""

    async def run() -> None:
        disk = small_disk()
        if greedy:
            stream, source = await filled(disk)
            disk.greedy = True
            disk.bytes_max = disk.taken()
        else:
            stream, source = opened(disk, keeps_room=False), Source()
            while len(stream.log.segments) < 7:
                await source.offer(stream)
            stream.close()
            disk.bytes_max = disk.taken()
            stream = opened(disk)
        last = stream.log.segments[-1].number
        while stream.log.segments[-1].number < last + 8:
            await source.offer(stream)
        assert set(stream.ledger.totals) == ({"dropped_oldest"} if greedy else {"dropped_oldest", "thinned"})
        assert check_accounts(stream) == source.taken
        stream.close()

    asyncio.run(run())


def guard(stream: Stream, killed: asyncio.Event) -> None:
    """A kill in the thread of the commits ends the stream's life, not the test's."""
    write, loop = stream.log.write, asyncio.get_running_loop()

    def guarded(work: object) -> None:
        try:
            write(work)  # type: ignore[arg-type]
        except Killed:
            loop.call_soon_threadsafe(killed.set)
            raise OSError("killed") from None

    stream.log.write = guarded  # type: ignore[method-assign]


async def killed_at(disk: Disk, policy: Policy, taken: int, kill_at: int) -> bool:
    """Go on with this disk, be killed at this operation; start again twice, go on. False: it ended before."""
    stream, source, killed = opened(disk, policy), Source(), asyncio.Event()
    source.taken = taken
    guard(stream, killed)
    begin = disk.index

    def fault(index: int, kind: str) -> None:
        if index >= begin + kill_at:
            raise Killed

    disk.fault = fault
    going = asyncio.create_task(on_for(stream, source, 2))
    dying = asyncio.create_task(killed.wait())
    await asyncio.wait([going, dying], return_when=asyncio.FIRST_COMPLETED)
    for task in (going, dying):
        task.cancel()
    stream.abandon()
    disk.held_open.clear()
    disk.fault = lambda index, kind: None
    for _ in range(2):
        again = opened(disk, policy)
        assert check_accounts(again) >= source.taken
        again.close()
    again = opened(disk, policy)
    source.taken = again.marks.sequence("b", 1)
    await on_for(again, source, 1)
    assert check_accounts(again) == source.taken
    assert set(again.ledger.totals) <= {SHED[policy]}
    again.close()
    return killed.is_set()


@pytest.mark.parametrize("policy", SHED)
def test_a_kill_at_any_operation_on_a_full_disk_leaves_every_reading_held_or_counted_once(policy: Policy) -> None:
    disk = small_disk()

    async def fill() -> int:
        stream, source = await filled(disk, policy)
        stream.abandon()
        return source.taken

    taken = asyncio.run(fill())
    kill_at = 0
    while True:
        again = disk.copy()
        again.bytes_max = disk.bytes_max
        if not asyncio.run(killed_at(again, policy, taken, kill_at)):
            break
        kill_at += 1
    assert kill_at > 40


@pytest.mark.parametrize("policy", SHED)
def test_a_power_cut_at_any_operation_on_a_full_disk_leaves_every_reading_held_or_counted_once(policy: Policy) -> None:
    disk = small_disk()

    async def run() -> tuple[Disk, Source]:
        stream, source = await filled(disk, policy)
        stream.close()
        before = disk.copy()
        disk.journal.clear()
        source.disk, source.marks = disk, [(0, source.taken)]
        stream = opened(disk, policy)
        await on_for(stream, source, 3)
        stream.close()
        return before, source

    before, source = asyncio.run(run())
    count = 0
    kinds = {operation.path.rpartition("/")[2] for operation in disk.journal if operation.kind == "unlink"}
    assert ("room" in kinds) is (policy == "thin")
    for cut in power_cuts(disk.journal, before, seed=1, random_choices=1):
        sure = max(taken for at, taken in source.marks if at <= cut.operations)
        cut.disk.bytes_max = DISK_BYTES
        try:
            stream = opened(cut.disk, policy)
            assert check_accounts(stream) >= sure
            assert set(stream.ledger.totals) <= {SHED[policy]}
            stream.close()
        except AssertionError as error:
            raise AssertionError(f"cut after {cut.operations} ({cut.choice}): {error}") from error
        count += 1
    assert count > 200


@pytest.mark.parametrize("kill_at", range(1, 12))
def test_what_is_purged_on_a_full_disk_is_counted_wherever_a_kill_comes(kill_at: int) -> None:
    """The batch that says so finds no room; what is released goes before it, and so must the count."""

    async def run() -> None:
        disk = small_disk()
        stream, source = await filled(disk, "drop_oldest")
        killed = asyncio.Event()
        guard(stream, killed)
        begin = disk.index

        def fault(index: int, kind: str) -> None:
            if index >= begin + kill_at:
                raise Killed

        disk.fault = fault
        stream._interval_s = 900.0  # all in one batch
        going = asyncio.create_task(source.offer(stream, count=20 * EACH))
        await asyncio.sleep(0)
        stream.purge()
        dying = asyncio.create_task(killed.wait())
        await asyncio.wait([going, dying], return_when=asyncio.FIRST_COMPLETED)
        for task in (going, dying):
            task.cancel()
        stream.abandon()
        disk.held_open.clear()
        disk.fault = lambda index, kind: None
        again = opened(disk, "drop_oldest")
        assert check_accounts(again) >= source.taken
        again.close()

    asyncio.run(run())


def test_errors_of_a_full_disk_at_any_operation_lose_nothing() -> None:
    disk = small_disk()

    async def fill() -> int:
        stream, source = await filled(disk)
        stream.abandon()
        return source.taken

    taken = asyncio.run(fill())

    async def fail_at(again: Disk, at: int) -> bool:
        stream, source = opened(again), Source()
        source.taken = taken
        begin, struck = again.index, False

        def fault(index: int, kind: str) -> None:
            nonlocal struck
            if begin + at <= index < begin + at + 3 and kind not in {"unlink", "rename"}:
                struck = True
                raise OSError(28, "no room")

        again.fault = fault
        await on_for(stream, source, 2)
        again.fault = lambda index, kind: None
        assert check_accounts(stream) == source.taken
        assert set(stream.ledger.totals) <= {"thinned", "dropped_oldest"}
        stream.close()
        return struck

    at = 0
    while True:
        again = disk.copy()
        again.bytes_max = disk.bytes_max
        if not asyncio.run(fail_at(again, at)):
            break
        at += 2
    assert at > 60
