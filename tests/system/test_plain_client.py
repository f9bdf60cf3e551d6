import random
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


def test_garbage_on_the_line_is_counted_and_the_very_next_frame_is_heard(
    client: PlainClient, start_gateway: StartGateway, cloud: Cloud
) -> None:
    gateway = start_gateway([client], ROUTE, wait=False)
    assert client.connect() == 0
    topic = client.register("sn/plain1/level")
    dice = random.Random("garbage")
    whole = b"\0\x0f" + bytes(range(1, 15)) + b"\0"
    pieces = [
        dice.randbytes(3000),
        b"\xfe" * 6000,
        whole[: len(whole) // 2],
        bytes(500),
        b"".join(dice.randbytes(dice.randrange(1, 40)) + b"\0" for _ in range(50)),
    ]
    for number, piece in enumerate(pieces):
        client.babble(piece)
        assert client.publish(topic, str(number).encode()) == 0
    wait_until(lambda: len(cloud.arrivals("sn/plain1/level")) == len(pieces), "what was said in between")
    rejected = {name: value for name, value in gateway.counters().items() if "frames_rejected" in name and value}
    assert any("bad_crc" in name or "bad_cobs" in name for name in rejected), rejected
    assert any("too_long" in name for name in rejected), rejected


def test_a_client_with_the_id_of_another_board_is_refused(client: PlainClient, start_gateway: StartGateway) -> None:
    gateway = start_gateway([client], ROUTE, wait=False)
    client.name = "plain2"
    assert client.connect() != 0
    assert not gateway.board("plain1")["connected"]
