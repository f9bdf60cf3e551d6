from pathlib import Path

import pytest

from edge_tools.hil.board import default_elf, start_boards
from tests.system.cloud import Cloud
from tests.system.conftest import StartGateway
from tests.system.gateway import ROOT

pytestmark = [pytest.mark.system, pytest.mark.needs(boards=8)]
COUNT = 8


def test_eight_boards_as_processes_share_one_gateway(tmp_path: Path, start_gateway: StartGateway, cloud: Cloud) -> None:
    with start_boards(COUNT, "posix", tmp_path, default_elf("posix", ROOT / "firmware")) as boards:
        start_gateway(boards)
        for number, board in enumerate(boards):
            board.set_temperature(10.0 + number)
            cloud.ask(board.name, "interval", b"100")
        for board in boards:
            cloud.wait_readings(board.name, more=5)
        for number, board in enumerate(boards):
            counters = cloud.settle(board.name)
            assert len(cloud.distinct(board.name)) == counters["readings_produced"]
            assert cloud.readings(board.name)[-1]["c"] == 10.0 + number
