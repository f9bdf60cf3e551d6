"""What a log keeps back for a full disk: there when it is needed, made again afterwards, and never in the way."""

import errno
import random

import pytest

from edge.log import Log
from edge.log.spares import ROOM, thinning_bytes
from tests.log.disk import Disk
from tests.log.history import FOLDER, History, options, read_all
from tests.log.test_crash import check_every_power_cut

SIZE = 16 * 1024
KEPT = options(SIZE, keeps_room=True)


def names(disk: Disk) -> set[str]:
    return {path.rpartition("/")[2] for path in disk.names}


def fill(log: Log, disk: Disk, segments: int) -> None:
    rng = random.Random(1)
    while len(log.segments) < segments:
        log.append([rng.randbytes(2000)])
        log.commit()


def test_a_log_makes_what_it_keeps_back_when_it_opens_and_says_what_it_takes() -> None:
    disk = Disk()
    log = Log.open(FOLDER, disk, options=KEPT)
    assert names(disk) == {ROOM, "spare-0000000000.segment"}
    assert log.bytes_held == disk.used(FOLDER) == log.bytes_kept == SIZE + thinning_bytes(SIZE)
    assert not log.is_short
    assert log.room(log.bytes_kept + SIZE - 1) == 0
    assert log.room(log.bytes_kept + SIZE) > 0


def test_the_last_spare_becomes_a_segment_only_when_the_disk_is_full_and_is_made_again() -> None:
    disk = Disk()
    log = Log.open(FOLDER, disk, options=KEPT)
    fill(log, disk, 3)
    assert "spare-0000000000.segment" in names(disk)
    disk.bytes_max = disk.taken()
    fill(log, disk, 4)
    assert log.is_short
    assert "spare-0000000000.segment" not in names(disk)
    disk.bytes_max += SIZE
    log.append([b"one more"])
    log.regain()
    log.commit()
    assert not log.is_short
    assert not Log.open(FOLDER, disk, options=KEPT).is_short


def test_a_full_disk_has_room_to_thin() -> None:
    disk = Disk()
    log = Log.open(FOLDER, disk, options=KEPT)
    fill(log, disk, 3)
    disk.bytes_max = disk.taken()
    work = log.replace_oldest(lambda pairs: (pair for pair in pairs if pair[0] == 1))
    assert work is not None
    log.write(work)
    assert ROOM not in names(disk)
    log.settle(work)
    assert log.is_short
    log.regain()
    log.put_state("after", b"1")
    log.commit()
    assert not log.is_short
    first = log.segments[0]
    assert [number for number, _ in read_all(log) if number < first.next] == [1]
    assert disk.used(FOLDER) == log.bytes_held


def test_what_finds_no_room_to_be_thinned_stays_as_it_was() -> None:
    disk = Disk()
    log = Log.open(FOLDER, disk, options=KEPT)
    fill(log, disk, 3)
    disk.bytes_max, disk.greedy = disk.taken(), True
    held = read_all(log)
    work = log.replace_oldest(lambda pairs: pairs)
    assert work is not None
    with pytest.raises(OSError, match="No space left"):
        log.write(work)
    log.abandon(work)
    assert not log.replaced(work.token)
    assert read_all(log) == held


def test_what_has_not_its_size_or_is_no_longer_to_be_kept_goes_when_the_log_opens() -> None:
    disk = Disk()
    log = Log.open(FOLDER, disk, options=KEPT)
    fill(log, disk, 2)
    held = read_all(log)
    del disk.content(f"{FOLDER}/{ROOM}")[100:]
    disk.content(f"{FOLDER}/spare-0000000000.segment").extend(b"more")
    again = Log.open(FOLDER, disk.copy(), options=KEPT)
    assert again.bytes_held == log.bytes_held
    other = disk.copy()
    smaller = Log.open(FOLDER, other, options=options(SIZE // 2))
    assert not any(name.startswith("spare") or name == ROOM for name in names(other))
    assert read_all(again) == read_all(smaller) == held


def test_a_relief_finds_a_place_of_its_own_when_the_segment_must_not_be_written_to_any_more() -> None:
    """A failed sync ends the segment, and there is no room for another whole one."""
    disk = Disk()
    log = Log.open(FOLDER, disk, options=options(SIZE, keeps_room=False, spares_max=0))
    fill(log, disk, 3)
    disk.bytes_max = disk.taken() + SIZE - 4096
    log.append([b"x" * 100])
    batch = log.seal()
    assert batch is not None
    failed = iter([True])

    def fail(index: int, kind: str) -> None:
        if kind == "sync" and next(failed, False):
            raise OSError(errno.ENOSPC, "no room")

    disk.fault = fail
    for problem in ("no room", "No space left"):
        with pytest.raises(OSError, match=problem):
            log.write(batch)
    relief = log.relief(log.segments[0].next, {"cursor": b"1"})
    log.write(relief)
    log.settle(relief)
    log.write(batch)
    log.settle(batch)
    assert [data for _, data in read_all(log)][-1] == b"x" * 100
    assert dict(Log.open(FOLDER, disk.copy(), options=options(SIZE)).state) == {"cursor": b"1"}


def test_every_power_cut_of_a_log_that_keeps_room_back_on_a_small_disk_leaves_what_was_settled() -> None:
    rng = random.Random(5)
    disk = Disk(5 * SIZE)
    history = History(disk, KEPT)
    for step in range(60):
        log = history.log
        if log.sealed is None:
            log.append([rng.randbytes(1500)])
        try:
            if log.sealed is None and step > 20 and step % 4 == 0:
                log.regain()
                history.thin(2)
            history.commit()
        except OSError:
            disk.bytes_max += SIZE // 4
    assert any(operation.kind == "unlink" and operation.path.endswith(ROOM) for operation in disk.journal)
    assert check_every_power_cut(history, 5) > 300
