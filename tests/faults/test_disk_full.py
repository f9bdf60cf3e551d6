"""The disk is full: the gateway goes on, and is rid of everything when the cloud is there."""

import errno
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edge.outbox.outbox import RESERVE
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


@contextmanager
def on_disk(tmp_path: Path, size: int, **options: Any) -> Iterator[tuple[Path, World]]:
    """A gateway whose data are on a disk of this size, which its streams may outgrow, offline and started."""
    with (
        small_disk(tmp_path / "disk", size) as disk,
        World(tmp_path, data=disk / "data", **{"bytes_max": 64 * MB, "ring": 100_000, **options}) as world,
    ):
        world.proxy.cut()
        world.gateway.start()
        yield disk, world


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
    with on_disk(tmp_path, 48 * MB, boards=2, payload_bytes=1500) as (disk, world):
        world.boards.produce(10)
        wait_for(world.boards.idle, "the first to be stored")
        fill(disk)
        world.boards.produce(3500)
        world.wait_counter("stream_commits_failed")
        verdict = world.drain().check()
        assert verdict.received == 7020


def test_a_disk_without_any_room_holds_the_boards_back_until_there_is_some(tmp_path: Path) -> None:
    with on_disk(tmp_path, 16 * MB, boards=2, payload_bytes=1500) as (disk, world):
        world.boards.produce(10)
        wait_for(world.boards.idle, "the first to be stored")
        (disk / "data" / RESERVE).unlink()
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
    with on_disk(tmp_path, 4 * MB, boards=1, payload_bytes=1900) as (disk, world):
        assert not (disk / "data" / "reserve").exists()
        world.boards.produce(4500)
        world.wait_counter("stream_commits_failed")
        assert 0 < wait_for_rest(world) < 4500
        if killed:
            world.gateway.kill()
            world.gateway.start()
            world.wait_counter("stream_commits_failed")
        world.drain().check()


def test_a_full_disk_drops_the_oldest_where_that_is_the_policy(tmp_path: Path) -> None:
    with on_disk(tmp_path, 4 * MB, boards=1, payload_bytes=1900, when_full="drop_oldest") as (_disk, world):
        world.boards.produce(6000)
        wait_for(world.boards.idle, "the boards to be rid of all")
        world.wait_counter("stream_commits_failed")
        verdict = world.drain().check(shed=["dropped_oldest"])
        assert verdict.shed["dropped_oldest"] > 1000


@pytest.mark.parametrize("numeric", [True, False], ids=["averages", "every tenth"])
@pytest.mark.parametrize("killed", [False, True], ids=["alive", "killed"])
def test_a_full_disk_thins_where_that_is_the_policy(tmp_path: Path, numeric: bool, killed: bool) -> None:
    with on_disk(tmp_path, 4 * MB, boards=1, payload_bytes=1700, numeric=numeric, when_full="thin") as (_disk, world):
        world.boards.produce(9000)
        if killed:
            for count in (3000, 6000):
                world.wait_acknowledged(count)
                world.gateway.kill()
                world.gateway.start()
        wait_for(world.boards.idle, "the boards to be rid of all")
        verdict = world.drain().check(shed=["thinned"])
        assert verdict.shed["thinned"] > 3000


def test_streams_that_share_a_full_disk_each_make_room_by_their_own_policy(tmp_path: Path) -> None:
    others = {"drop_oldest": "board2", "reject": "board3"}
    more = "".join(
        f'[[stream]]\nname = "{policy}"\nfrom = ["boards"]\ntopics = ["dt/{board}/#"]\n'
        f'bytes_max = {64 * MB}\ncommit = "20 ms"\nwhen_full = "{policy}"\n'
        for policy, board in others.items()
    )
    with on_disk(
        tmp_path,
        12 * MB,
        boards=3,
        payload_bytes=1700,
        when_full="thin",
        topics=["dt/board1/#"],
        more=more,
        streams=("readings", *others),
    ) as (_disk, world):
        world.boards.produce(8000)  # more than the whole disk, of each
        world.wait_counter("stream_records_in", 2 * 8000 + 100)
        world.gateway.kill()
        world.gateway.start()

        def reasons() -> dict[str, set[str]]:
            return {name: {one.reason for one in world.gateway.shed(name)} for name in ("readings", *others)}

        acted = {"readings": {"thinned"}, "drop_oldest": {"dropped_oldest"}, "reject": set[str]()}
        wait_for(lambda: reasons() == acted, "each to have acted by its policy, and by no other")
        world.drain().check(shed=["thinned", "dropped_oldest"])


def test_a_disk_that_others_filled_is_thinned_on_and_left_alone_when_it_has_room_again(tmp_path: Path) -> None:
    with on_disk(tmp_path, 16 * MB, boards=1, payload_bytes=1700, when_full="thin") as (disk, world):
        world.boards.produce(3000)
        wait_for(world.boards.idle, "the first to be stored")
        ballast = fill(disk)
        world.boards.produce(6000)
        wait_for(world.boards.idle, "the boards to be rid of all")
        assert disk_is_full(world)
        shed = sum(one.count for one in world.gateway.shed())
        ballast.unlink()
        world.boards.produce(1500)
        wait_for(world.boards.idle, "the boards to be rid of all")
        assert sum(one.count for one in world.gateway.shed()) == shed
        verdict = world.drain().check(shed=["thinned"])
        assert verdict.shed["thinned"] > 1000


def disk_is_full(world: World) -> bool:
    """As `edge status` says."""
    status = world.gateway.status()
    assert status is not None
    return any(stream["disk_full"] for stream in status["streams"])


def test_a_disk_too_small_for_any_stream_is_refused_at_start(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", MB) as disk, World(tmp_path, data=disk / "data") as world:
        world.gateway.start()
        wait_for(world.gateway.ended, "the gateway to refuse its file")
        assert "1048576 bytes in all, and these streams need 2097152" in world.gateway.log()


@pytest.mark.parametrize("policy", ["reject", "drop_oldest"])
def test_a_disk_that_others_have_filled_beside_the_first_segment_drains_and_goes_on(
    tmp_path: Path, policy: str
) -> None:
    with on_disk(tmp_path, 24 * MB, boards=2, payload_bytes=1500, when_full=policy, ring=200_000) as (disk, world):
        world.boards.produce(10)
        wait_for_rest(world)
        fill(disk)
        world.boards.produce(6000)
        world.wait_counter("stream_commits_failed", 1)
        world.proxy.restore()
        world.drain().check(shed=["dropped_oldest"] if policy == "drop_oldest" else [])
