"""The power is cut under a real ext4, at the points where the block device saw a write or a flush."""

from pathlib import Path

import pytest

from edge.log import Log
from tests.faults import block
from tests.faults.block import Write, images, mounted
from tests.faults.block_runs import cut_points, record_log
from tests.faults.log_runs import LogRun
from tests.faults.oracle import payload


def test_a_log_on_ext4_keeps_all_it_acknowledged_at_every_cut_point_tried(tmp_path: Path) -> None:
    recorded = record_log(tmp_path, commits=60)
    cuts = cut_points(recorded, most=60)
    assert recorded.judge_all(tmp_path, cuts, parts=1) > len(cuts)


def test_a_device_that_lies_about_a_flush_is_found_out(tmp_path: Path) -> None:
    """The harness can fail: the same images without what the last flushes had made durable."""
    recorded = record_log(tmp_path, commits=30)
    last = recorded.acknowledged_at[-1]
    flushes = [n for n, entry in enumerate(recorded.journal[:last]) if entry is None]
    kept = recorded.journal[: flushes[len(flushes) // 2]]
    image = next(images(recorded.base, [*kept, None], [len(kept) + 1], seed=1)).content
    with mounted(image, tmp_path) as mount, pytest.raises(AssertionError):
        recorded.run.judge(mount / "log", last).check()


def test_writes_that_were_flushed_are_in_every_image_and_the_others_in_some() -> None:
    base = bytes(4 * block.SECTOR)
    one, other = Write(0, b"a" * block.SECTOR), Write(block.SECTOR, b"b" * 2 * block.SECTOR)
    found = [image.content for image in images(base, [one, None, other], [3], seed=1, parts=8)]
    assert all(content.startswith(one.data) for content in found)
    assert found[0] == one.data + base[block.SECTOR :]
    assert found[1] == one.data + other.data + base[3 * block.SECTOR :]
    assert len(set(found)) > 2


def test_what_is_missing_for_the_block_level_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(block.NEEDS, "no-such-program", "no-such-package")
    with pytest.raises(block.Missing, match="apt-get install no-such-package"):
        block.check_can_run()


def test_a_run_of_the_log_judges_what_it_finds(tmp_path: Path) -> None:
    run = LogRun(tmp_path / "log", lambda: 0)
    run.commit(5)
    run.commit(5)
    run.close()
    run.judge(tmp_path / "log", 0).check()
    log = Log.open(str(tmp_path / "log"))
    log.append([payload(run.made[0])])
    log.put_state("mark/board1", b"%d" % log.next)
    log.commit()
    log.close()
    with pytest.raises(AssertionError):
        run.judge(tmp_path / "log", 0).check()
