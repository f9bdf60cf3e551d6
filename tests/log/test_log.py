"""What the log promises to those who use it, on a real disk."""

import os
import random
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge.log import Batch, Log, LogOptions
from edge.log.segment import segment_path
from edge.log.writer import Records
from edge.metrics import Metrics
from tests.log.disk import Disk
from tests.log.history import FOLDER, options, read_all


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "streams/readings")


@pytest.fixture
def log(folder: str) -> Iterator[Log]:
    log = Log.open(folder, options=LogOptions(segment_bytes=64 * 1024), name="readings")
    yield log
    log.close()


def fill(log: Log, records: int, size: int = 300) -> dict[int, bytes]:
    rng = random.Random(records)
    held: dict[int, bytes] = {}
    while records > 0:
        batch = [rng.randbytes(size) for _ in range(min(records, 20))]
        first = log.append(batch)
        held.update(enumerate(batch, first))
        log.commit()
        records -= len(batch)
    return held


def test_an_empty_log_holds_nothing_and_takes_no_room(log: Log, folder: str) -> None:
    assert (log.first, log.next, log.bytes_held, dict(log.state)) == (1, 1, 0, {})
    assert read_all(log) == []
    assert log.seal() is None
    assert os.listdir(folder) == []


def test_records_are_read_back_in_order_after_a_restart(log: Log, folder: str) -> None:
    held = fill(log, 1000)
    assert dict(read_all(log)) == held
    log.close()
    again = Log.open(folder)
    assert list(dict(read_all(again))) == list(range(1, 1001))
    assert dict(read_all(again)) == held
    again.close()


def test_nothing_counts_before_it_is_settled(log: Log) -> None:
    assert log.append([b"a", b"b"]) == 1
    log.put_state("k", b"v")
    assert (log.next, log.next_appended, dict(log.state), read_all(log)) == (1, 3, {}, [])
    batch = log.seal()
    assert batch is not None
    log.write(batch)
    assert (log.next, dict(log.state), read_all(log)) == (1, {}, [])
    assert log.append([b"c"]) == 3
    log.settle(batch)
    assert (log.next, log.next_appended, dict(log.state)) == (3, 4, {"k": b"v"})
    assert read_all(log) == [(1, b"a"), (2, b"b")]


def test_one_piece_of_work_at_a_time(log: Log) -> None:
    log.append([b"a"])
    batch = log.seal()
    assert batch is not None
    assert log.sealed is batch
    with pytest.raises(RuntimeError):
        log.seal()
    with pytest.raises(RuntimeError):
        log.settle(batch)
    log.write(batch)
    log.write(batch)
    log.settle(batch)
    with pytest.raises(RuntimeError):
        log.settle(batch)
    assert read_all(log) == [(1, b"a")]


def test_appending_and_reading_go_on_while_a_worker_writes(log: Log) -> None:
    rng = random.Random(3)
    held: dict[int, bytes] = {}
    for _ in range(120):
        records = [rng.randbytes(rng.randrange(600)) for _ in range(10)]
        held.update(enumerate(records, log.append(records)))
        log.put_state("mark", b"%d" % log.next_appended)
        if log.next > 400:
            log.release(log.next - 400)
        batch = log.seal()
        assert isinstance(batch, Batch)
        worker = threading.Thread(target=log.write, args=(batch,))
        worker.start()
        while worker.is_alive():
            number = rng.randint(log.first, log.next)
            for found, record in log.read(number, records_max=20, bytes_max=5000):
                assert held[found] == record
        worker.join()
        log.settle(batch)
    assert not log.damages
    assert [number for number, _ in read_all(log)] == list(range(log.first, log.next))


def test_state_alone_can_be_committed_and_keys_removed(log: Log, folder: str) -> None:
    log.put_state("a", b"1")
    log.put_state("b", b"2")
    log.commit()
    log.put_state("a", None)
    log.put_state("never there", None)
    log.commit()
    log.close()
    again = Log.open(folder)
    assert dict(again.state) == {"b": b"2"}
    again.close()


def test_records_of_no_bytes_and_of_more_than_a_segment_are_held(log: Log, folder: str) -> None:
    big = random.Random(1).randbytes(200 * 1024)
    for record in (b"", big, b"", b"end"):
        log.append([record])
        log.commit()
    assert read_all(log) == [(1, b""), (2, big), (3, b""), (4, b"end")]
    log.close()
    again = Log.open(folder)
    assert read_all(again) == [(1, b""), (2, big), (3, b""), (4, b"end")]
    again.close()


def test_a_read_is_bounded_but_never_empty_when_there_is_a_record(log: Log) -> None:
    fill(log, 100)
    assert [number for number, _ in log.read(50, records_max=3, bytes_max=10_000)] == [50, 51, 52]
    assert [number for number, _ in log.read(50, records_max=30, bytes_max=900)] == [50, 51, 52]
    assert [number for number, _ in log.read(50, records_max=30, bytes_max=1)] == [50]
    assert [number for number, _ in log.read(19, records_max=4, bytes_max=10_000)] == [19, 20, 21, 22]
    assert log.read(101, records_max=3, bytes_max=1000) == []
    assert log.read(1, records_max=0, bytes_max=1000) == []


def test_reading_in_order_looks_at_each_batch_once() -> None:
    disk = Disk()
    log = Log.open(FOLDER, disk, options=options(256 * 1024))
    fill(log, 2000)
    reads = []
    disk.read_fault = lambda path, offset, size: reads.append(size)
    number = 1
    while number < log.next:
        number = log.read(number, records_max=7, bytes_max=1 << 20)[-1][0] + 1
    assert sum(reads) < 2.2 * log.bytes_held
    reads.clear()
    log.read(1500, records_max=1, bytes_max=1 << 20)
    log.read(1490, records_max=1, bytes_max=1 << 20)
    assert sum(reads) < 600 * 1024


def test_what_is_released_is_read_no_more_and_its_room_is_used_again(log: Log, folder: str) -> None:
    fill(log, 1500)
    full = log.bytes_held
    assert full > 6 * 64 * 1024
    log.release(1400)
    assert log.first == 1
    assert log.read(1, records_max=1, bytes_max=1000)[0][0] == 1400
    log.commit()
    assert log.first == 1400
    assert log.bytes_held <= 4 * 64 * 1024
    assert sum(os.stat(entry).st_size for entry in os.scandir(folder) if entry.is_file()) == log.bytes_held
    for _ in range(20):
        fill(log, 100)
        log.release(log.next - 50)
        log.commit()
    assert log.bytes_held <= 5 * 64 * 1024
    log.close()
    again = Log.open(folder)
    assert again.first == again.next - 50
    again.close()


def test_release_never_goes_back_or_beyond_what_is_committed(log: Log) -> None:
    fill(log, 100)
    log.append([b"not yet"])
    log.release(1000)
    log.release(5)
    log.commit()
    assert log.first == 101
    assert read_all(log) == [(101, b"not yet")]


def test_the_room_told_is_enough_for_that_many_bytes() -> None:
    disk = Disk()
    log = Log.open(FOLDER, disk, options=options(64 * 1024))
    bytes_max = 10 * 64 * 1024
    rng = random.Random(5)
    count = 0
    while log.room(bytes_max) > 1500 + 100:
        log.append([rng.randbytes(rng.randrange(1500))])
        log.commit()
        count += 1
        assert log.bytes_held <= bytes_max
        assert disk.used(FOLDER) == log.bytes_held
    assert count > 400
    log.append([rng.randbytes(1000)])
    before = log.room(bytes_max)
    log.release(log.next // 2)
    log.commit()
    assert log.room(bytes_max) > before + 3 * 64 * 1024


@pytest.mark.parametrize("state_bytes", [10, 3000, 12_000])
@pytest.mark.parametrize("piece", [50, 1500, 40_000])
def test_commits_without_records_keep_to_the_bound_of_a_full_log_whatever_their_number(
    state_bytes: int, piece: int
) -> None:
    disk = Disk()
    log = Log.open(FOLDER, disk, options=options(64 * 1024))
    bytes_max = 12 * 64 * 1024
    rng = random.Random(piece)

    def commit() -> None:
        log.commit()
        assert disk.used(FOLDER) == log.bytes_held <= bytes_max

    def spend(commits: int) -> None:
        log.room(bytes_max)
        for number in range(commits):
            log.put_state(f"key{number % 3}", rng.randbytes(state_bytes))
            commit()

    spend(5)
    for _ in range(2):
        while (room := log.room(bytes_max)) > piece + 8:
            for _ in range(min(room // (piece + 8), 3)):
                log.append([rng.randbytes(piece)])
            log.put_state("mark", rng.randbytes(20))
            commit()
        held = log.next - log.first
        assert held * piece > (4 * 64 * 1024 if state_bytes < 1000 else 0)
        spend(40 * 64 * 1024 // (state_bytes + 100))
        log.close()
        log = Log.open(FOLDER, disk, options=options(64 * 1024))
        assert log.next - log.first == held
        spend(3)
        log.release(log.first + held // 2)
        spend(3)
    log.close()


def test_a_retained_backlog_costs_next_to_no_memory() -> None:
    """100,000 records, then 300,000 more: what stays in memory is the table of segments."""
    disk = Disk()
    log = Log.open(FOLDER, disk, options=options(256 * 1024))
    batch = [b'{"c":21.5,"up_ms":%d}' % number for number in range(5000)]

    def grow(batches: int) -> int:
        for _ in range(batches):
            log.append(batch)
            log.commit()
        read_all_but_keep_nothing(log)
        disk.journal.clear()
        kept = sum(map(len, disk.inodes.values()))
        return tracemalloc.get_traced_memory()[0] - kept

    tracemalloc.start()
    try:
        before = grow(20)
        growth = grow(60) - before
    finally:
        tracemalloc.stop()
    assert log.next == 400_001
    assert growth < 300_000


def read_all_but_keep_nothing(log: Log) -> None:
    number = log.first
    while taken := log.read(number, records_max=1000, bytes_max=1 << 20):
        number = taken[-1][0] + 1


def every(step: int) -> Callable[[Records], Records]:
    def thin(records: Records) -> Records:
        return ((number, b"thin " + data[:20]) for number, data in records if number % step == 0)

    return thin


def test_the_oldest_segment_is_thinned_in_place(log: Log, folder: str) -> None:
    held = fill(log, 1000)
    before = log.bytes_held
    work = log.replace_oldest(every(10))
    assert work is not None
    assert read_all(log) == list(held.items())
    log.write(work)
    assert read_all(log) == list(held.items())
    log.settle(work)
    first, until = work.row.first, work.row.next
    wanted = {
        number: b"thin " + data[:20] if number < until else data
        for number, data in held.items()
        if number >= until or number % 10 == 0
    }
    assert first == 1 < until < 1000
    assert dict(read_all(log)) == wanted
    assert log.bytes_held < before - 40 * 1024
    assert log.replaced(work.token)
    assert not log.damages
    following = log.replace_oldest(every(10))
    assert following is not None
    assert following.row.first == until
    log.abandon(following)
    assert not log.replaced(following.token)
    again = log.replace_oldest(every(20), generation_max=1)
    assert again is not None
    assert again.row.first == 1
    log.abandon(again)
    log.close()
    opened = Log.open(folder)
    assert dict(read_all(opened)) == wanted
    assert opened.replaced(work.token)
    assert not opened.damages
    opened.close()


def test_what_is_found_damaged_while_thinning_is_counted_and_kept_aside() -> None:
    for body in (True, False):
        disk, metrics = Disk(), Metrics()
        log = Log.open(FOLDER, disk, options=options(64 * 1024), metrics=metrics, name="readings")
        held = fill(log, 400)
        content = disk.content(f"{FOLDER}/0000000001.segment")
        second = bytes(content).index(b"ELB\x01", bytes(content).index(b"ELB\x01", 4096 + 100) + 1)
        content[second + (100 if body else 20)] ^= 1
        work = log.replace_oldest(every(2))
        assert work is not None
        log.write(work)
        log.settle(work)
        assert metrics.snapshot()['log_records_lost{stream="readings"}'] == 20
        assert [(damage.first, damage.next) for damage in log.damages] == [(21, 41)]
        assert any("/quarantine/" in path for path in disk.names)
        wanted = [n for n in held if n >= work.row.next or (n % 2 == 0 and not 21 <= n < 41)]
        assert [number for number, _ in read_all(log)] == wanted
        read_all(log)
        assert len(log.damages) == 1


@pytest.mark.parametrize("numbers", [[5, 4], [5, 5], [0], [100_000]])
def test_thinning_that_gives_wrong_numbers_changes_nothing(log: Log, folder: str, numbers: list[int]) -> None:
    held = fill(log, 400)
    work = log.replace_oldest(lambda records: ((number, b"x") for number in numbers))
    assert work is not None
    with pytest.raises(ValueError, match="out of order"):
        log.write(work)
    log.abandon(work)
    assert dict(read_all(log)) == held
    assert not [name for name in os.listdir(folder) if name.endswith(".tmp")]


def test_thinning_keeps_the_state_that_a_replay_needs() -> None:
    disk = Disk()
    log = Log.open(FOLDER, disk, options=options())
    for index in range(14):
        log.append([random.Random(index).randbytes(1000)])
        log.put_state(f"key/{index % 5}", b"%d" % index)
        log.commit()
    state = dict(log.state)
    while (work := log.replace_oldest(lambda records: iter(()))) is not None:
        log.write(work)
        log.settle(work)
    newest = disk.content(f"{FOLDER}/{log.segments[-1].number:010d}.segment")
    newest[64 + 60] ^= 1
    newest[4096 + 64 + 60] ^= 1
    again = Log.open(FOLDER, disk, options=options())
    assert dict(again.state) == state
    assert again.next == 15


def test_a_log_opened_for_reading_only_touches_nothing(folder: str) -> None:
    log = Log.open(folder, options=LogOptions(segment_bytes=64 * 1024))
    held = fill(log, 300)
    log.append([b"not committed"])
    before = {entry.name: (entry.stat().st_mtime_ns, entry.stat().st_size) for entry in os.scandir(folder)}
    reader = Log.open_read_only(folder)
    assert dict(read_all(reader)) == held
    for forbidden in (lambda: reader.append([b"x"]), lambda: reader.put_state("k", b""), reader.seal):
        with pytest.raises(ValueError, match="reading only"):
            forbidden()
    reader.close()
    assert {e.name: (e.stat().st_mtime_ns, e.stat().st_size) for e in os.scandir(folder)} == before
    log.close()
    with pytest.raises(FileNotFoundError):
        Log.open_read_only(folder + "/nowhere")


def test_without_sync_nothing_is_synced_and_a_kill_loses_nothing() -> None:
    disk = Disk()
    log = Log.open(FOLDER, disk, options=options(16 * 1024, sync=False))
    before = len(disk.journal)
    held = fill(log, 200)
    assert not [operation for operation in disk.journal[before:] if "sync" in operation.kind]
    assert dict(read_all(Log.open(FOLDER, disk, options=options()))) == held


def test_compressible_records_take_less_room_than_they_have_bytes(folder: str) -> None:
    metrics = Metrics()
    log = Log.open(folder, metrics=metrics, name="readings")
    for index in range(50):
        log.append([b'{"thing":"board-%d","c":21.5000,"up_ms":%d}' % (index % 8, index * 100 + n) for n in range(100)])
        log.commit()
    counted = metrics.snapshot()
    assert counted['log_commits{stream="readings"}'] == 50
    assert log.segments[-1].number == 1
    log.close()
    content = Path(folder, "0000000001.segment").read_bytes().rstrip(b"\0")
    assert len(content) < 50 * 100 * 20


def test_a_state_larger_than_a_segment_does_not_cost_a_segment_a_batch() -> None:
    disk = Disk()
    disk.makedir(FOLDER)
    log = Log.open(FOLDER, disk, options=options(64 * 1024, compress=False))
    for number in range(100):
        log.put_state(f"k{number}", bytes(1000))
    log.commit()
    for _ in range(100):
        log.append([bytes(100)])
        log.put_state("k0", None)
        log.put_state("k0", bytes(1000))
        log.commit()
    assert len(log.segments) < 5
    assert log.room(1 << 30) > 1 << 28
    log.close()
    again = Log.open(FOLDER, disk, options=options(64 * 1024))
    assert (len(again.state), again.next) == (100, 101)


def test_what_is_released_can_be_looked_at_while_its_segment_lives(log: Log, folder: str) -> None:
    held = fill(log, 500)
    log.release(400)
    assert log.next > log.segments[-1].first > 1
    log.commit()
    oldest = log.segments[0].first
    assert 1 < oldest < 400
    expected = {number: data for number, data in held.items() if oldest <= number < 400}
    assert dict(row for rows in log.read_released() for row in rows) == expected
    assert next(log.read_released(399)) == [(399, held[399])]
    assert list(log.read_released(400)) == []
    assert list(dict(read_all(log))) == list(range(400, 501))
    log.close()
    again = Log.open_read_only(folder)
    assert dict(row for rows in again.read_released() for row in rows) == expected
    again.close()


def test_damage_in_what_is_released_is_passed_over_and_counted_nowhere(log: Log, folder: str) -> None:
    held = fill(log, 500)
    first = log.segments[1]
    until = first.first + 50
    log.release(until)
    log.commit()
    assert log.segments[0] is first
    path = Path(segment_path(folder, first.number))
    body = bytearray(path.read_bytes())
    body[body.index(held[first.first])] ^= 1
    path.write_bytes(body)
    found = dict(row for rows in log.read_released() for row in rows)
    assert found.items() < {number: data for number, data in held.items() if first.first <= number < until}.items()
    assert found
    assert log.damages == ()
