import pytest

from tests.system.cloud import Cloud, wait_until
from tests.system.conftest import StartBoards, StartGateway

pytestmark = [pytest.mark.system, pytest.mark.needs(boards=2)]

NEIGHBOUR = """
[[route]]
from = "board:board1"
topic = "cmd/board2/ping"
to = ["board:board2"]
"""


def test_what_one_board_says_reaches_another_where_a_route_allows_it(
    boards: StartBoards, start_gateway: StartGateway, cloud: Cloud
) -> None:
    """board1 answers a command on a topic that is a command of board2; board2 replies on its own."""
    start_gateway(boards(2), NEIGHBOUR)
    cloud.command("board1", "ping", b"pass it on", response_topic="cmd/board2/ping")
    replies = wait_until(lambda: cloud.arrivals("cmd/board2/reply"), "board2's reply")
    assert replies[0].payload == b"pass it on"


def test_what_no_route_allows_goes_nowhere(boards: StartBoards, start_gateway: StartGateway, cloud: Cloud) -> None:
    gateway = start_gateway(boards(2), NEIGHBOUR)
    cloud.command("board2", "ping", b"no way", response_topic="cmd/board1/ping")
    cloud.command("board1", "pause", response_topic="cmd/board2/pause")
    assert cloud.ask("board2", "ping", b"done").payload == b"done"
    wait_until(
        lambda: sum(value for name, value in gateway.counters().items() if "no_route" in name) >= 2,
        "both answers to be refused and counted",
    )
    assert cloud.arrivals("cmd/board1/reply") == []
    assert cloud.arrivals("cmd/board2/reply") == []
