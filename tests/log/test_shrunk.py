"""A log whose bound and segments became smaller than the file that it writes to."""

import contextlib
import errno
import random

import pytest

from edge.log import Log
from tests.log.disk import Disk, Killed
from tests.log.history import FOLDER, History, options, read_all
from tests.log.test_crash import check_every_power_cut, live

BEFORE_BYTES, NOW_BYTES = 64 * 1024, 16 * 1024
BOUND_BYTES = 90_000


def opened(disk: Disk, segment_bytes: int = NOW_BYTES) -> Log:
    return Log.open(FOLDER, disk, options=options(segment_bytes))


def shrunk(disk: Disk, *, drained: bool) -> Log:
    """With ten records of the time before, all in one segment, and a note in the state."""
    log = opened(disk, BEFORE_BYTES)
    log.append([b"record %d" % number for number in range(10)])
    log.put_state("mark", b"10")
    log.commit()
    if drained:
        log.release(log.next)
        log.commit()
    log.close()
    log = opened(disk)
    assert log.room(BOUND_BYTES) == 0
    assert log.is_outgrown
    return log


def test_a_log_that_holds_nothing_takes_records_again_within_the_smaller_bound() -> None:
    disk = Disk()
    log = shrunk(disk, drained=True)
    log.renew()
    log.commit()
    assert not log.is_outgrown
    taken = 0
    while room := log.room(BOUND_BYTES):
        log.append([bytes([taken % 251]) * min(room, 900)])
        log.commit()
        taken += 1
        assert disk.used(FOLDER) <= log.bytes_held <= BOUND_BYTES
    assert taken > 10
    assert len(read_all(opened(disk))) == taken
    assert opened(disk).state == {"mark": b"10"}


def test_what_is_held_stays_and_its_segment_is_freed_like_any_other() -> None:
    disk = Disk()
    log = shrunk(disk, drained=False)
    log.renew()
    log.commit()
    assert [segment.bytes for segment in log.segments] == [BEFORE_BYTES, NOW_BYTES]
    assert len(read_all(log)) == len(read_all(opened(disk.copy()))) == 10
    assert log.frees(log.next)
    log.release(log.next)
    log.commit()
    assert [segment.bytes for segment in log.segments] == [NOW_BYTES]
    assert log.room(BOUND_BYTES) > NOW_BYTES
    assert opened(disk).state == {"mark": b"10"}


def test_the_segment_stays_where_it_is_not_outgrown_or_the_disk_has_no_room_for_another() -> None:
    disk = Disk()
    log = shrunk(disk, drained=True)
    disk.bytes_max = disk.taken()
    log.renew()
    log.append([b"one more"])
    log.commit()
    assert [segment.bytes for segment in log.segments] == [BEFORE_BYTES]
    assert read_all(opened(disk.copy())) == [(11, b"one more")]
    disk.bytes_max = 0
    assert log.room(4 * BEFORE_BYTES) > NOW_BYTES
    log.renew()
    assert log.seal() is None


def test_segments_and_spares_of_a_log_that_is_open_become_smaller_with_the_next_batch() -> None:
    disk = Disk()
    log = Log.open(FOLDER, disk, options=options(BEFORE_BYTES, keeps_room=True))
    for _ in range(3):
        log.append([bytes(range(250)) * 120])
        log.append([random.Random(log.next).randbytes(40_000)])
        log.commit()
    log.release(log.next)
    log.commit()
    assert log.bytes_held > 2 * BEFORE_BYTES
    log.resize(NOW_BYTES)
    assert log.room(BOUND_BYTES) == 0
    log.renew()
    log.commit()
    assert not log.is_short
    assert log.segments[-1].bytes == NOW_BYTES
    assert disk.used(FOLDER) == log.bytes_held == NOW_BYTES + log.bytes_kept <= BOUND_BYTES
    assert log.room(BOUND_BYTES) > 0
    log.append([b"goes on"])
    log.commit()
    assert [data for _, data in read_all(opened(disk))] == [b"goes on"]


def begin_smaller(history: History) -> None:
    """Open the history's log with smaller segments, and let it go on in one of them."""
    history.options = options(NOW_BYTES)
    history.kill()
    history.log.room(BOUND_BYTES)
    if history.log.sealed is None:
        history.log.renew()
    with contextlib.suppress(OSError):
        history.commit()


@pytest.mark.parametrize("seed", range(4))
def test_every_power_cut_while_a_smaller_segment_is_begun_leaves_what_was_settled(seed: int) -> None:
    rng = random.Random(300 + seed)
    history = History(Disk(), options(BEFORE_BYTES))
    live(history, rng, 10)
    if seed % 2:
        history.log.release(history.log.next)
    begin_smaller(history)
    assert history.log.segments[-1].bytes == NOW_BYTES
    live(history, rng, 3)
    assert check_every_power_cut(history, seed) > 50


@pytest.mark.parametrize("code", [0, errno.ENOSPC, errno.EIO])
def test_a_kill_or_an_error_at_every_operation_of_beginning_a_smaller_segment_loses_nothing(code: int) -> None:
    at, struck = 0, True
    while struck:
        rng = random.Random(9)
        history = History(Disk(), options(BEFORE_BYTES))
        live(history, rng, 10)
        begin, struck = history.disk.index, False

        def strike(index: int, kind: str, at: int = begin + at) -> None:
            nonlocal struck
            if index == at:
                struck = True
                raise OSError(code, kind) if code else Killed

        history.disk.fault = strike
        with contextlib.suppress(Killed, OSError):
            begin_smaller(history)
            live(history, rng, 3)
        history.disk.fault = lambda index, kind: None
        history.kill()
        live(history, rng, 3)
        history.kill()
        at += 1
    assert at > 8
