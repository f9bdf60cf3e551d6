from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.cloud import Cloud, wait_until
from tests.system.conftest import StartGateway
from tests.system.plain_client import LINK, PINGREQ, PINGRESP, PlainClient

pytestmark = pytest.mark.system

ROUTE = """
[[route]]
from = "boards"
topic = "sn/{board}/#"
to = ["cloud"]
"""


@pytest.fixture
def client(tmp_path: Path) -> Iterator[PlainClient]:
    started = PlainClient(tmp_path, "plain1")
    yield started
    started.close()


def test_a_client_that_never_says_hello_publishes_and_receives(
    client: PlainClient, start_gateway: StartGateway, cloud: Cloud
) -> None:
    start_gateway([client], ROUTE, wait=False)
    assert client.connect() == 0
    topic = client.register("sn/plain1/level")
    for number in range(3):
        assert client.publish(topic, str(number).encode()) == 0
    wait_until(lambda: len(cloud.arrivals("sn/plain1/level")) == 3, "what the client published")
    assert [arrival.payload for arrival in cloud.arrivals("sn/plain1/level")] == [b"0", b"1", b"2"]

    client.subscribe("cmd/plain1/#")
    cloud.publish("cmd/plain1/open", b"now")
    assert client.receive() == ("cmd/plain1/open", b"now")
    client.send(PINGREQ, b"")
    assert client.hear(PINGRESP) == b""
    assert {content[:2] for content in client.others} <= {bytes([LINK, 3])}
    assert len(client.others) <= 1


def test_a_client_with_the_id_of_another_board_is_refused(client: PlainClient, start_gateway: StartGateway) -> None:
    gateway = start_gateway([client], ROUTE, wait=False)
    client.name = "plain2"
    assert client.connect() != 0
    assert not gateway.board("plain1")["connected"]
