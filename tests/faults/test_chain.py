"""The whole chain at once: eight boards, outages, kills of everything. What was produced is what was received."""

import random
import time
from pathlib import Path

import pytest

from tests.faults.chain import Struck, shake
from tests.faults.fleet_cloud import FleetCloud
from tests.faults.receivers import RealCloud
from tests.faults.worlds import World

BOARDS = 8
SHAKEN_S = 12.0
# Twice each of these is killed. The seed lets the network be away while the broker and the ingester are.
SEED_TO_THE_DATABASE = 35
KILLED = ("gateway", "broker", "ingester")


@pytest.mark.parametrize("seed", [1])
def test_eight_boards_through_outages_and_kills_lose_nothing_and_show_nothing_twice(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    with World(tmp_path, boards=BOARDS, cloud=RealCloud(tmp_path / "cloud")) as world:
        world.gateway.start()
        world.boards.run_at(25)
        until_s = time.monotonic() + SHAKEN_S

        def go_on(so_far: Struck) -> bool:
            enough = so_far.counts.get("gateway", 0) > 2 and so_far.counts.get("power", 0) > 0
            return time.monotonic() < until_s or not enough

        struck = shake(world, rng, go_on=go_on, power=True)
        verdict = world.drain().check(shed=["board_power"])
        assert struck.counts.get("gateway", 0) > 2, struck
        assert struck.counts.get("power", 0) > 0, struck
        assert verdict.produced > 1000


def test_what_boards_produced_through_outages_and_kills_is_what_the_database_shows(tmp_path: Path) -> None:
    with World(tmp_path, boards=BOARDS, cloud=FleetCloud(tmp_path / "cloud")) as world:
        world.gateway.start()
        world.boards.run_at(10)
        shake(
            world,
            random.Random(SEED_TO_THE_DATABASE),
            go_on=lambda so_far: any(so_far.counts.get(name, 0) < 2 for name in KILLED),
            pause_s=(0.5, 1.2),
        )
        verdict = world.drain().check()
        assert verdict.produced == verdict.received == verdict.arrivals


def test_boards_that_lose_their_power_account_for_what_they_held(tmp_path: Path) -> None:
    with World(tmp_path, boards=2, ring=200) as world:
        world.gateway.start()
        world.boards.produce(50)
        world.wait_counter("stream_records_in", 100)
        world.gateway.kill()
        world.boards.produce(300)
        world.boards.cut_power("board1")
        world.boards.produce(10)
        verdict = world.drain().check(shed=["board_ring", "board_power"])
        assert verdict.shed["board_power"] == 200
        assert 200 <= verdict.shed["board_ring"] <= 300
        told = {row["thing"]: row["shed"] for row in world.gateway.ask("stream", "losses", "readings")}
        mine = [shed.first for shed in world.boards.shed() if shed.thing == "board2" and shed.reason == "board_ring"]
        assert [(one["last"], one["reason"]) for one in told["board2"]] == [(max(mine), "shed_by_board")]
        # The first few may have been stored, their PUBACK lost in the kill: a window of them at most.
        assert min(mine) <= told["board2"][0]["first"] <= min(mine) + 16
