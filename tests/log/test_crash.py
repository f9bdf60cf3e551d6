"""Every power cut and every kill of a run: what was settled is there, in order, and nothing is invented."""

import contextlib
import errno
import random
from bisect import bisect_right

import pytest

from edge.log import Log
from edge.metrics import Metrics
from tests.log.disk import Disk, Killed, power_cuts
from tests.log.history import FOLDER, History, judge, options, read_all


def live(history: History, rng: random.Random, steps: int) -> None:
    """Something of everything. Errors of the disk are lived with: the same work is done again."""
    for _ in range(steps):
        log = history.log
        if log.sealed is None:
            if rng.random() < 0.8:
                log.append([rng.randbytes(rng.randrange(1500)) for _ in range(rng.randrange(4))])
            if rng.random() < 0.5:
                log.put_state(f"mark/{rng.randrange(4)}", rng.randbytes(8) if rng.random() < 0.8 else None)
            if rng.random() < 0.15:
                log.release(rng.randint(log.first, log.next))
        try:
            if log.sealed is None and rng.random() < 0.1:
                history.thin(rng.choice((2, 3)))
            history.commit()
        except OSError:
            continue


def check_every_power_cut(history: History, seed: int) -> int:
    lengths = [length for length, _, _ in history.points]
    count = 0
    for cut in power_cuts(history.disk.journal, Disk(), seed=seed):
        index = bisect_right(lengths, cut.operations) - 1
        if index < 0:
            continue
        _, sure, perhaps = history.points[index]
        metrics = Metrics()
        try:
            log = Log.open(FOLDER, cut.disk, options=history.options, metrics=metrics)
            held = judge(log, sure, perhaps)
            lost = {name: value for name, value in metrics.snapshot().items() if "damaged" in name or "lost" in name}
            assert not any(lost.values()), (lost, log.damages)
            # It goes on from there, and what it found is there once more.
            first = log.append([b"after", b"the cut"])
            log.put_state("after", b"1")
            log.commit()
            wanted = held.records | {first: b"after", first + 1: b"the cut"}
            assert dict(read_all(log)) == wanted
            log.close()
            again = Log.open(FOLDER, cut.disk.copy(), options=history.options)
            assert dict(read_all(again)) == wanted
            assert dict(again.state) == held.state | {"after": b"1"}
        except AssertionError as error:
            before = history.disk.journal[max(cut.operations - 6, 0) : cut.operations]
            steps = [f"{one.kind} {one.path} {one.offset}+{len(one.data)}" for one in before]
            raise AssertionError(f"cut after {cut.operations} ({cut.choice}), {steps}: {error}") from error
        count += 1
    return count


@pytest.mark.parametrize("seed", range(4))
def test_every_power_cut_leaves_all_that_was_settled_and_nothing_invented(seed: int) -> None:
    rng = random.Random(seed)
    history = History(Disk(), options())
    live(history, rng, 60)
    assert len({operation.path for operation in history.disk.journal}) > 4
    assert check_every_power_cut(history, seed) > 300


@pytest.mark.parametrize("seed", range(3))
def test_power_cuts_after_kills_leave_what_the_restarted_log_showed(seed: int) -> None:
    """Records found again after a kill -9 count as stored, although only the page cache may have held them."""
    rng = random.Random(100 + seed)
    history = History(Disk(), options())
    for _ in range(8):
        live(history, rng, 4)
        kill_at = history.disk.index + rng.randrange(1, 12)

        def die(index: int, kind: str, at: int = kill_at) -> None:
            if index == at:
                raise Killed

        history.disk.fault = die
        with contextlib.suppress(Killed):
            live(history, rng, 8)
        history.disk.fault = lambda index, kind: None
        history.kill()
    assert check_every_power_cut(history, seed) > 300


@pytest.mark.parametrize("seed", range(3))
def test_power_cuts_after_failed_writes_and_syncs_leave_what_was_settled(seed: int) -> None:
    """After a failed fdatasync the kernel forgets: what was written before must be written again elsewhere."""
    rng = random.Random(200 + seed)
    history = History(Disk(), options())

    def fail(index: int, kind: str) -> None:
        if rng.random() < (0.3 if kind in {"sync", "sync_dir"} else 0.05):
            raise OSError(rng.choice((errno.EIO, errno.ENOSPC)), kind)

    for _ in range(6):
        history.disk.fault = fail
        live(history, rng, 8)
        history.disk.fault = lambda index, kind: None
        history.kill()
    assert history.sure.records
    assert check_every_power_cut(history, seed) > 300


def test_a_kill_at_every_operation_of_a_run_loses_nothing() -> None:
    at = 1  # the first is in open()
    while True:
        rng = random.Random(7)
        history = History(Disk(), options())

        def die(index: int, kind: str, at: int = at) -> None:
            if index == at:
                raise Killed

        history.disk.fault = die
        try:
            live(history, rng, 25)
            break
        except Killed:
            history.disk.fault = lambda index, kind: None
            history.kill()
            live(history, rng, 3)
            history.kill()
        at += 1
    assert at > 40


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("lasting", [1, 5])
def test_an_error_at_every_operation_of_a_run_loses_nothing(code: int, lasting: int) -> None:
    at = 1  # the first is in open()
    while True:
        rng = random.Random(8)
        history = History(Disk(), options())
        struck = False

        def fail(index: int, kind: str, at: int = at) -> None:
            nonlocal struck
            if at <= index < at + lasting:
                struck = True
                raise OSError(code, kind)

        history.disk.fault = fail
        live(history, rng, 25)
        history.disk.fault = lambda index, kind: None
        history.commit()
        judge(history.log, history.sure, history.perhaps)
        history.kill()
        if not struck:
            break
        at += 1
    assert at > 40


def test_without_sync_a_power_cut_may_cost_records_but_invents_none_and_keeps_nothing_from_opening() -> None:
    rng = random.Random(10)
    disk = Disk()
    unsynced = options(sync=False)
    log = Log.open(FOLDER, disk, options=unsynced)
    appended: dict[int, bytes] = {}
    for _ in range(25):
        records = [rng.randbytes(rng.randrange(1500)) for _ in range(2)]
        appended.update(enumerate(records, log.append(records)))
        log.commit()
    count = 0
    for cut in power_cuts(disk.journal, Disk(), seed=1):
        if FOLDER not in cut.disk.folders:
            continue
        again = Log.open(FOLDER, cut.disk, options=unsynced)
        found = read_all(again)
        assert set(found) <= appended.items()
        assert found == sorted(found)
        first = again.append([b"goes on"])
        again.commit()
        assert read_all(again) == [*found, (first, b"goes on")]
        count += 1
    assert count > 100


def test_the_folder_stays_within_what_the_log_says_it_holds() -> None:
    rng = random.Random(9)
    history = History(Disk(), options())
    for _ in range(30):
        live(history, rng, 5)
        used = history.disk.used(FOLDER)
        assert used <= history.log.bytes_held, [*history.disk.names]
