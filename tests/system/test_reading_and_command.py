import json

import pytest

from edge_tools.hil.board import Board, Can
from tests.system.cloud import Cloud, wait_until
from tests.system.gateway import Gateway

pytestmark = pytest.mark.system


def wait_for_temperature(cloud: Cloud, board: str, temperature_c: float) -> None:
    def seen() -> bool:
        readings = cloud.readings(board)
        return bool(readings) and readings[-1]["c"] == temperature_c

    wait_until(seen, f"a reading of {temperature_c} °C")


@pytest.mark.needs(Can.TEMPERATURE)
@pytest.mark.usefixtures("gateway")
def test_the_temperature_set_at_the_sensor_is_seen_in_the_cloud(board: Board, cloud: Cloud) -> None:
    for temperature_c in (31.5, -7.25, 21.0625):
        board.set_temperature(temperature_c)
        wait_for_temperature(cloud, board.name, temperature_c)
    shown = [reading["c"] for reading in cloud.readings(board.name)]
    changes = [one for at, one in enumerate(shown) if not at or one != shown[at - 1]]
    assert changes[-3:] == [31.5, -7.25, 21.0625], "each until the next was set, and nothing in between"


@pytest.mark.usefixtures("gateway")
def test_every_reading_arrives_in_order_and_is_acknowledged(board: Board, cloud: Cloud) -> None:
    cloud.ask(board.name, "interval", b"50")
    cloud.wait_readings(board.name, more=20)
    counters = cloud.settle(board.name)
    times = [reading["up_ms"] for reading in cloud.readings(board.name)]
    assert times == sorted(times)
    assert len(cloud.distinct(board.name)) == counters["readings_produced"] == counters["readings_acknowledged"]
    assert counters["readings_shed"] == counters["bad_crc"] == counters["uart_overrun"] == 0


def test_commands_are_answered_on_the_topic_asked_for_with_their_correlation_data(
    board: Board, cloud: Cloud, gateway: Gateway
) -> None:
    assert cloud.ask(board.name, "ping", bytes(range(32))).payload == bytes(range(32))
    assert cloud.ask(board.name, "ping").payload == b""
    assert json.loads(cloud.ask(board.name, "interval", b"250").payload) == {"interval_ms": 250}
    assert json.loads(cloud.ask(board.name, "pause").payload) == {"paused": True}
    assert json.loads(cloud.ask(board.name, "resume").payload) == {"paused": False}
    assert json.loads(cloud.ask(board.name, "dance").payload) == {"error": "unknown_command"}
    stats = cloud.stats(board.name)
    assert stats["boot"] == gateway.board(board.name)["boot"]
    assert stats["commands_received"] >= 6  # whether it counts itself is its own affair


@pytest.mark.usefixtures("gateway")
def test_a_command_without_a_response_topic_is_answered_on_the_boards_own(board: Board, cloud: Cloud) -> None:
    cloud.publish(f"cmd/{board.name}/ping", b"hello")
    replies = wait_until(lambda: cloud.arrivals(f"cmd/{board.name}/reply"), "a reply")
    assert [reply.payload for reply in replies] == [b"hello"]


@pytest.mark.usefixtures("gateway")
def test_many_commands_at_once_are_all_answered(board: Board, cloud: Cloud) -> None:
    for number in range(30):
        cloud.publish(f"cmd/{board.name}/ping", str(number).encode())
    topic = f"cmd/{board.name}/reply"
    wait_until(lambda: len({reply.payload for reply in cloud.arrivals(topic)}) >= 30, "30 replies")
    assert {reply.payload for reply in cloud.arrivals(topic)} == {b"%d" % number for number in range(30)}
