"""The way to the cloud is cut, slow, reset, half-open; its broker ends and forgets: all arrives once, in order."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.receivers import FakeCloud
from tests.faults.worlds import World, wait_for

HURT_S = 1.5
TYPES = {"ndjson": "application/x-ndjson", "cbor": "application/cbor-seq"}


def fake_cloud(world: World) -> FakeCloud:
    assert isinstance(world.cloud, FakeCloud)
    return world.cloud


def thinks_it_is_connected(world: World) -> bool:
    """Whether the gateway takes itself for connected."""
    status = world.gateway.status()
    return status is None or all(one["connected"] for one in status["connections"])


def cut(world: World) -> None:
    for _ in range(3):
        world.proxy.cut()
        time.sleep(HURT_S / 6)
        world.proxy.restore()
        time.sleep(HURT_S / 6)


def delay(world: World) -> None:
    world.proxy.latency_s = 0.3
    time.sleep(HURT_S)


def throttle(world: World) -> None:
    world.proxy.bytes_per_s = 4000
    time.sleep(HURT_S)


def reset(world: World) -> None:
    for _ in range(6):
        time.sleep(HURT_S / 6)
        world.proxy.reset()


def reset_in_the_middle_of_packets(world: World) -> None:
    world.proxy.reset_after_bytes = 3001
    world.proxy.reset()
    time.sleep(HURT_S)


def leave_half_open(world: World) -> None:
    """Nothing comes through and nobody says so: only the keep-alive finds out."""
    world.proxy.black_hole = True
    wait_for(lambda: not thinks_it_is_connected(world), "the gateway to find out")


def kill_the_broker(world: World) -> None:
    for _ in range(3):
        world.cloud.stop()
        time.sleep(HURT_S / 6)
        world.cloud.start()
        time.sleep(HURT_S / 6)


def let_the_broker_forget_its_sessions(world: World) -> None:
    for _ in range(3):
        fake_cloud(world).stop(forget_sessions=True)
        time.sleep(HURT_S / 6)
        world.cloud.start()
        time.sleep(HURT_S / 6)


def hold_acknowledgements(world: World) -> None:
    """Everything arrives, nothing is acknowledged, and the connection breaks: all of it comes a second time."""
    before = fake_cloud(world).received()
    fake_cloud(world).wish("hold_acks", True)
    wait_for(lambda: fake_cloud(world).received() > before, "something to arrive")
    time.sleep(HURT_S)
    world.proxy.reset()
    fake_cloud(world).wish("hold_acks", False)


HURTS = [
    cut,
    delay,
    throttle,
    reset,
    reset_in_the_middle_of_packets,
    leave_half_open,
    kill_the_broker,
    let_the_broker_forget_its_sessions,
    hold_acknowledgements,
]


@pytest.mark.parametrize("hurt", HURTS, ids=lambda hurt: str(hurt.__name__))
def test_all_arrives_once_and_in_order_although_the_network_would(
    tmp_path: Path, hurt: Callable[[World], None]
) -> None:
    with World(tmp_path, boards=3) as world:
        world.gateway.start()
        world.boards.run_at(100)
        world.wait_counter("stream_records_in", 30)
        hurt(world)
        world.proxy.restore()
        verdict = world.drain().check()
        assert verdict.produced > 100
        assert world.proxy.connections > 1 or hurt in {delay, throttle}
        if hurt is hold_acknowledgements:
            assert verdict.repeats > 0


@pytest.mark.parametrize(("form", "gzip"), [("ndjson", True), ("cbor", False)])
def test_batches_arrive_once_and_in_order_although_the_network_is_cut(tmp_path: Path, form: str, gzip: bool) -> None:
    with World(tmp_path, boards=3, format=form, gzip=gzip, batch_records_max=40, batch_wait_s=0.1) as world:
        world.gateway.start()
        world.boards.run_at(100)
        world.wait_counter("stream_records_in", 30)
        reset_in_the_middle_of_packets(world)
        world.proxy.restore()
        cut(world)
        verdict = world.drain().check()
        came = fake_cloud(world).published()
        assert {(one.topic, one.properties.content_type) for one in came} == {("batch/gateway-1/readings", TYPES[form])}
        assert all((("encoding", "gzip") in one.properties.user) is gzip for one in came)
        assert verdict.arrivals > 5 * len(came), "batches of several records"
