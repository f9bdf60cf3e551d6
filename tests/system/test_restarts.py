import json
import time

import pytest

from edge_tools.hil.board import Board, Can
from edge_tools.mosquitto import Mosquitto
from tests.system.cloud import Cloud, wait_until
from tests.system.gateway import Gateway

pytestmark = pytest.mark.system


@pytest.mark.needs(Can.RESET, Can.UNPLUG, Can.EVENTS)
def test_readings_not_yet_taken_survive_a_reset_of_the_board(board: Board, cloud: Cloud, gateway: Gateway) -> None:
    boot = gateway.board(board.name)["boot"]
    watch = gateway.watch(f"dt/{board.name}/temp")
    first_seen = cloud.stats(board.name)["readings_acknowledged"]
    cloud.ask(board.name, "interval", b"50")
    cloud.wait_readings(board.name, more=3)
    board.unplug()
    wait_until(lambda: gateway.board(board.name)["port_state"] != "open", "the gateway to see the cable pulled")
    time.sleep(0.1)
    before = len(watch.sequences(boot))
    time.sleep(1.0)
    board.reset()
    wait_until(lambda: "RESET" in board.events(), "the reset")
    board.replug()
    gateway.wait_boot(board.name, boot + 1)
    wait_until(lambda: len(watch.sequences(boot + 1)) >= 2, "readings of the next boot")
    old, new = watch.sequences(boot), watch.sequences(boot + 1)
    assert len(old) > before
    assert old == list(range(old[0], old[-1] + 1))
    assert old[0] <= first_seen + 1
    assert new[:2] == [1, 2]


@pytest.mark.needs(Can.POWER)
def test_a_power_cut_raises_the_boot_id_and_loses_nothing_acknowledged(
    board: Board, cloud: Cloud, gateway: Gateway
) -> None:
    cloud.ask(board.name, "interval", b"50")
    cloud.wait_readings(board.name, more=5)
    before = cloud.stats(board.name)
    board.power_cut()
    assert len(cloud.distinct(board.name)) >= before["readings_acknowledged"]
    board.power_on()
    gateway.wait_boot(board.name, before["boot"] + 1)
    cloud.wait_readings(board.name)
    after = cloud.stats(board.name)
    assert after["boot"] == before["boot"] + 1
    assert after["reset_reason"] == "power_on"


def test_a_gateway_killed_at_any_moment_loses_nothing(board: Board, cloud: Cloud, gateway: Gateway) -> None:
    cloud.ask(board.name, "interval", b"50")
    for _ in range(2):
        cloud.wait_readings(board.name, more=5)
        gateway.kill()
        gateway.start([board.name])
    cloud.wait_readings(board.name)
    counters = cloud.settle(board.name)
    assert len(cloud.distinct(board.name)) == counters["readings_produced"]
    assert counters["readings_shed"] == 0


def test_a_restarted_broker_costs_nothing(
    board: Board, cloud: Cloud, gateway: Gateway, cloud_server: Mosquitto
) -> None:
    cloud.ask(board.name, "interval", b"50")
    cloud.wait_readings(board.name, more=3)
    cloud_server.stop()
    wait_until(
        lambda: not all(row["connected"] for row in (gateway.status() or {"connections": []})["connections"]),
        "the gateway to see the broker gone",
    )
    cloud_server.start()
    gateway.wait_connected([board.name])
    cloud.wait_readings(board.name, more=3)
    counters = cloud.settle(board.name)
    assert len(cloud.distinct(board.name)) == counters["readings_produced"]
    assert counters["readings_shed"] == 0


def test_a_hung_application_is_reset_by_its_watchdog(board: Board, cloud: Cloud, gateway: Gateway) -> None:
    boot = gateway.board(board.name)["boot"]
    assert json.loads(cloud.ask(board.name, "fault").payload) == {"fault": True}
    gateway.wait_boot(board.name, boot + 1)
    stats = cloud.stats(board.name)
    assert stats["reset_reason"] == "watchdog"
    assert stats["watchdog_resets"] == 1
    if Can.EVENTS in board.can:
        assert "WATCHDOG" in board.events()


def test_a_reset_asked_for_is_answered_first_and_told_as_its_reason(
    board: Board, cloud: Cloud, gateway: Gateway
) -> None:
    boot = gateway.board(board.name)["boot"]
    assert json.loads(cloud.ask(board.name, "reset").payload) == {"reset": True}
    gateway.wait_boot(board.name, boot + 1)
    assert cloud.stats(board.name)["reset_reason"] == "software"
