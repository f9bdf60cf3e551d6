import time

import pytest

from edge_tools.hil.board import Board, Can
from edge_tools.hil.pace import Noise
from tests.system.cloud import Cloud, wait_until
from tests.system.conftest import StartBoards, StartGateway
from tests.system.gateway import Gateway

pytestmark = pytest.mark.system


@pytest.mark.needs(Can.NOISE)
@pytest.mark.usefixtures("gateway")
@pytest.mark.parametrize(
    "noise",
    [Noise(bit_errors=1e-4), Noise(byte_loss=5e-4, byte_insertion=5e-4), Noise(delay_ms=40, jitter_ms=40)],
    ids=["bit-errors", "bytes-lost-and-inserted", "late"],
)
def test_a_bad_line_loses_no_reading(board: Board, cloud: Cloud, noise: Noise) -> None:
    cloud.ask(board.name, "interval", b"40")
    board.set_noise(noise)
    cloud.wait_readings(board.name, more=100)
    damage = board.line()
    board.set_noise(Noise())
    counters = cloud.settle(board.name)
    assert len(cloud.distinct(board.name)) == counters["readings_produced"]
    assert counters["readings_shed"] == 0
    if not noise.delay_ms:
        assert damage.up.bit_errors + damage.up.bytes_lost + damage.up.bytes_inserted > 0


@pytest.mark.needs(Can.UNPLUG)
def test_what_was_read_while_unplugged_arrives_after_replugging(board: Board, cloud: Cloud, gateway: Gateway) -> None:
    cloud.ask(board.name, "interval", b"50")
    cloud.wait_readings(board.name)
    board.unplug()
    wait_until(lambda: gateway.board(board.name)["port_state"] != "open", "the gateway to see the cable pulled")
    time.sleep(1.0)
    board.replug()
    gateway.wait_connected([board.name])
    cloud.wait_readings(board.name)
    counters = cloud.settle(board.name)
    assert len(cloud.distinct(board.name)) == counters["readings_produced"]
    assert counters["readings_shed"] == 0


@pytest.mark.needs(Can.PACE, boards=2)
def test_a_board_that_never_reads_does_not_disturb_the_other(
    boards: StartBoards, start_gateway: StartGateway, cloud: Cloud
) -> None:
    deaf, other = boards(2)
    gateway = start_gateway([deaf, other])
    deaf.set_stall(True)
    for _ in range(200):
        cloud.publish(f"cmd/{deaf.name}/ping", b"x" * 100, qos=0)
    for number in range(5):
        assert cloud.ask(other.name, "ping", str(number).encode()).payload == str(number).encode()
    cloud.wait_readings(other.name, more=2)
    deaf.set_stall(False)
    gateway.wait_connected([deaf.name])
    assert cloud.ask(deaf.name, "ping", b"back").payload == b"back"
