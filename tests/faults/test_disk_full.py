"""The disk is full: the gateway goes on, and is rid of everything when the cloud is there."""

import errno
from pathlib import Path

from tests.faults.mounts import small_disk
from tests.faults.worlds import World, wait_for

MB = 1024 * 1024


def fill(disk: Path) -> Path:
    """Something else takes all the room there is."""
    ballast = disk / "ballast"
    with ballast.open("ab", buffering=0) as file:
        for size in (MB, 4096):
            try:
                while True:
                    file.write(bytes(size))
            except OSError as error:
                assert error.errno == errno.ENOSPC
    return ballast


def test_a_disk_filled_by_others_leaves_the_reserve_to_go_on_with(tmp_path: Path) -> None:
    with (
        small_disk(tmp_path / "disk", 48 * MB) as disk,
        World(tmp_path, boards=2, payload_bytes=1500, data=disk / "data", bytes_max=64 * MB) as world,
    ):
        world.proxy.cut()
        world.gateway.start()
        world.boards.produce(10)
        wait_for(world.boards.idle, "the first to be stored")
        fill(disk)
        world.boards.produce(2500)
        world.wait_counter("stream_commits_failed")
        verdict = world.drain().check()
        assert verdict.received == 5020


def test_a_disk_without_any_room_holds_the_boards_back_until_there_is_some(tmp_path: Path) -> None:
    with (
        small_disk(tmp_path / "disk", 16 * MB) as disk,
        World(tmp_path, boards=2, payload_bytes=1500, data=disk / "data", bytes_max=64 * MB) as world,
    ):
        world.proxy.cut()
        world.gateway.start()
        world.boards.produce(10)
        wait_for(world.boards.idle, "the first to be stored")
        ballast = fill(disk)
        world.boards.produce(2500)
        world.wait_counter("stream_commits_failed", 3)
        assert 20 < world.boards.acknowledged() < 5020
        assert world.gateway.status() is not None
        ballast.unlink()
        world.drain().check()
