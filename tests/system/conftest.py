"""The whole line from a board to a broker that stands for the cloud, with real parts, on loopback."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from edge_tools.hil.board import Board, RealBoard, default_elf, start_boards
from edge_tools.mosquitto import Mosquitto, user_acl
from edge_tools.pki import Credential
from tests.hil.options import chosen_board, real_board
from tests.system.cloud import Cloud
from tests.system.gateway import NAME, ROOT, Gateway, OnPort, gateway_file

StartBoards = Callable[[int], Sequence[Board]]
StartGateway = Callable[..., Gateway]


@pytest.fixture
def boards(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[StartBoards]:
    """`boards(2)`: that many, powered on, called board1, board2; ended with the test."""
    kind = chosen_board(request.config)
    with ExitStack() as stack:

        def start(count: int) -> Sequence[Board]:
            real = real_board(request.config)
            if real is not None:
                return [real]
            return stack.enter_context(start_boards(count, kind, tmp_path, default_elf(kind, ROOT / "firmware")))

        yield start


@pytest.fixture
def board(boards: StartBoards) -> Board:
    """One board, emulated or the real one."""
    return boards(1)[0]


@pytest.fixture
def cloud_server(tmp_path: Path, server_credential: Credential) -> Iterator[Mosquitto]:
    """Mutual TLS only; the gateway may publish and hear what its boards need, the observer everything."""
    mine = ("write dt/#", "write answers/#", "write sn/#", "readwrite cmd/#")
    acl = (*user_acl("observer", "readwrite #"), *user_acl(NAME, *mine))
    with Mosquitto(tmp_path / "cloud", plain=False, tls=server_credential, acl=acl, persistent=True) as broker:
        yield broker


@pytest.fixture
def cloud(cloud_server: Mosquitto, observer_credential: Credential) -> Iterator[Cloud]:
    observer = Cloud(cloud_server.tls_port, observer_credential)
    yield observer
    observer.close()


@pytest.fixture
def start_gateway(tmp_path: Path, cloud_server: Mosquitto, thing_credential: Credential) -> Iterator[StartGateway]:
    """`start_gateway(boards, more="…")`: running, connected, every board heard; its log is shown when a test fails."""
    started: list[Gateway] = []

    def start(boards: Sequence[OnPort], more: str = "", *, wait: bool = True) -> Gateway:
        text = gateway_file(boards, cloud_server.tls_port, thing_credential, more)
        gateway = Gateway(tmp_path, text)
        started.append(gateway)
        gateway.start([board.name for board in boards] if wait else [])
        return gateway

    yield start
    for gateway in started:
        print(gateway.log()[-8000:])
        gateway.stop()


@pytest.fixture
def gateway(board: Board, start_gateway: StartGateway, cloud: Cloud) -> Gateway:
    """The gateway with one board; the observer is there before it, so it sees everything of the board's boot.

    A real board has been running: it hands over what it holds and begins a new boot.
    """
    gateway = start_gateway([board])
    if isinstance(board, RealBoard):
        boot = gateway.board(board.name)["boot"]
        cloud.settle(board.name)
        cloud.forget()
        cloud.ask(board.name, "reset")
        gateway.wait_boot(board.name, boot + 1)
    return gateway
