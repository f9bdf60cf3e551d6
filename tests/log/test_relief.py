"""A disk without room: what was released is freed all the same, and nothing else is lost by it."""

import errno
import random

import pytest

from edge.log import Batch, Log
from tests.log.disk import Disk
from tests.log.history import FOLDER, options, read_all


def full(log: Log, disk: Disk, record: bytes) -> Batch:
    """What finds no room on the disk, when the log has a few segments."""

    def fail(index: int, kind: str) -> None:
        if kind == "create":
            raise OSError(errno.ENOSPC, "no room")

    while len(log.segments) < 3:
        log.append([record])
        log.commit()
    disk.fault = fail
    while True:
        log.append([record])
        batch = log.seal()
        assert batch is not None
        try:
            log.write(batch)
        except OSError:
            return batch
        log.settle(batch)


def test_a_full_disk_keeps_room_for_the_release_that_frees_some_of_it() -> None:
    disk = Disk()
    log = Log.open(FOLDER, disk, options=options(64 * 1024, spares_max=0))
    rng = random.Random(1)
    batch = full(log, disk, rng.randbytes(4000))
    log.put_state("mark", b"with the next")
    first, held = log.segments[0], log.next
    assert not log.frees(first.next - 1)
    assert log.frees(first.next)
    relief = log.relief(first.next, {"cursor": b"1"})
    log.write(relief)
    log.settle(relief)
    assert (log.first, log.next, dict(log.state)) == (first.next, held, {"cursor": b"1"})
    assert log.sealed is batch
    again = Log.open(FOLDER, disk.copy(), options=options(64 * 1024))
    assert (again.first, again.next, dict(again.state)) == (first.next, held, {"cursor": b"1"})
    assert not again.damages
    disk.fault = lambda index, kind: None  # for one segment is gone
    log.write(batch)
    log.settle(batch)
    log.commit()
    assert (log.next, dict(log.state)) == (held + 1, {"cursor": b"1", "mark": b"with the next"})
    assert [number for number, _ in read_all(log)] == list(range(first.next, held + 1))


def test_a_relief_that_fails_leaves_what_it_was_to_go_before() -> None:
    disk = Disk()
    log = Log.open(FOLDER, disk, options=options(64 * 1024, spares_max=0))
    batch = full(log, disk, random.Random(1).randbytes(4000))
    relief = log.relief(log.segments[0].next, {"cursor": b"1"})

    def fail(index: int, kind: str) -> None:
        raise OSError(errno.EIO, "broken")

    disk.fault = fail
    with pytest.raises(OSError, match="broken"):
        log.write(relief)
    log.abandon(relief)
    assert log.sealed is batch
    disk.fault = lambda index, kind: None
    log.write(batch)
    log.settle(batch)
    assert dict(log.state) == {"cursor": b"1"}
    assert log.first == log.segments[0].first
    with pytest.raises(RuntimeError):
        log.relief(1, {})
