"""The disk is full: the gateway goes on, and is rid of everything when the cloud is there."""

import errno
import time
from pathlib import Path

import pytest

from tests.faults.mounts import small_disk
from tests.faults.worlds import World, wait_for

MB = 1024 * 1024


REST_S = 2.0


def wait_for_rest(world: World) -> int:
    """Until the boards are rid of nothing more. Returns how many they are rid of."""
    told, since_s = -1, time.monotonic()
    while time.monotonic() - since_s < REST_S:
        acknowledged = world.boards.acknowledged()
        if acknowledged != told:
            told, since_s = acknowledged, time.monotonic()
        time.sleep(0.1)
    return told


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


@pytest.mark.parametrize("killed", [False, True], ids=["alive", "killed"])
def test_a_disk_full_of_the_stream_alone_drains_by_itself(tmp_path: Path, killed: bool) -> None:
    """No reserve, no room for one more segment: what was exported is released all the same."""
    with (
        small_disk(tmp_path / "disk", 4 * MB) as disk,
        World(tmp_path, boards=1, payload_bytes=1900, data=disk / "data", bytes_max=64 * MB, ring=100_000) as world,
    ):
        assert not (disk / "data" / "reserve").exists()
        world.proxy.cut()
        world.gateway.start()
        world.boards.produce(4500)
        world.wait_counter("stream_commits_failed")
        assert 0 < wait_for_rest(world) < 4500
        if killed:
            world.gateway.kill()
            world.gateway.start()
            world.wait_counter("stream_commits_failed")
        world.drain().check()


def test_a_full_disk_drops_the_oldest_where_that_is_the_policy(tmp_path: Path) -> None:
    with (
        small_disk(tmp_path / "disk", 4 * MB) as disk,
        World(
            tmp_path,
            boards=1,
            payload_bytes=1900,
            data=disk / "data",
            bytes_max=64 * MB,
            ring=100_000,
            when_full="drop_oldest",
        ) as world,
    ):
        world.proxy.cut()
        world.gateway.start()
        world.boards.produce(6000)
        wait_for(world.boards.idle, "the boards to be rid of all")
        world.wait_counter("stream_commits_failed")
        verdict = world.drain().check(shed=["dropped_oldest"])
        assert verdict.shed["dropped_oldest"] > 1000


def test_a_disk_too_small_for_any_stream_is_refused_at_start(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", MB) as disk, World(tmp_path, data=disk / "data") as world:
        world.gateway.start()
        wait_for(world.gateway.ended, "the gateway to refuse its file")
        assert "1048576 bytes in all, and these streams need 2097152" in world.gateway.log()
