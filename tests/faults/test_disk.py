"""The disk is full, fails, turns read-only, or is slow: the gateway goes on, nothing acknowledged is lost."""

from pathlib import Path

import pytest

from tests.faults.block import RecordedDisk
from tests.faults.kills import calls_of, spread, strike_all
from tests.faults.worlds import World, wait_for

MOST = 10


@pytest.mark.parametrize("code", ["EIO", "ENOSPC", "EROFS"])
def test_an_error_at_any_write_loses_nothing(tmp_path: Path, code: str) -> None:
    calls = [kill for kill in calls_of(tmp_path / "whole") if kill.path.startswith("streams/readings")]
    struck = strike_all(tmp_path, spread(calls, MOST), f"error={code}")
    assert sum(1 for one in struck if one.where) >= 0.8 * len(struck)


def test_a_full_stream_holds_the_boards_back_and_keeps_their_order(tmp_path: Path) -> None:
    with World(tmp_path, boards=2, payload_bytes=1500, bytes_max=2 * 1024 * 1024, when_full="reject") as world:
        world.proxy.cut()
        world.gateway.start()
        world.boards.produce(1500)
        world.wait_counter("stream_messages_congested", 50)
        assert 0 < world.boards.acknowledged() < 3000
        world.drain().check()


def test_a_disk_that_fails_under_the_file_system_and_turns_read_only_loses_nothing(tmp_path: Path) -> None:
    """The device answers every write with an error, so the kernel makes its ext4 read-only; then it is repaired."""
    with RecordedDisk(tmp_path / "disk") as disk, World(tmp_path, data=disk.mount / "data") as world:
        world.proxy.cut()
        world.gateway.start()
        world.boards.produce(50)
        wait_for(world.boards.idle, "the first records to be stored")
        disk.fail_writes(True)
        world.boards.produce(50)
        world.wait_counter("stream_commits_failed", 3)
        assert world.boards.acknowledged() < 100
        world.gateway.kill()
        disk.fail_writes(False)
        disk.mount_again()
        verdict = world.drain().check()
        assert verdict.received == 100


def test_flushes_of_30_ms_only_slow_things_down(tmp_path: Path) -> None:
    slow = ["strace", "-f", "-qq", "-e", "trace=fdatasync,fsync", "-e", "inject=fdatasync,fsync:delay_exit=30000"]
    with World(tmp_path, boards=4) as world:
        world.gateway.start([*slow, "-o", "/dev/null"])
        world.boards.produce(200)
        verdict = world.drain().check()
        assert verdict.received == 800
