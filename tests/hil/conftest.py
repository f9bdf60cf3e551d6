"""A cable with a socket in place of the board and a descriptor in place of the gateway."""

import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_tools.hil import sockets
from edge_tools.hil.board import CableProcess
from edge_tools.hil.control import CableClient, LineState, Request

PATIENCE_S = 120.0


class Bench:
    """One running cable and both of its ends."""

    def __init__(self, folder: Path, baud: int) -> None:
        self.folder = folder
        self.cable = CableProcess(folder, baud, seed=7)
        self.cable.wait_ready()
        self.client = CableClient(folder / "cable.sock")
        self.board = sockets.connect(folder / "uart.sock", PATIENCE_S)
        self.gateway = self.open_port()

    def open_port(self) -> int:
        return os.open(self.folder / "port", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)

    def ask(self, request: Request) -> LineState:
        return self.client.ask(request)

    def at_gateway(self, count: int) -> bytes:
        """The next count bytes that arrive at the gateway."""
        data = b""
        while len(data) < count:
            ready, _, _ = select.select([self.gateway], [], [], PATIENCE_S)
            assert ready, f"{len(data)} bytes of {count} arrived: {data[-80:]!r}"
            data += os.read(self.gateway, count - len(data))
        return data

    def at_board(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            chunk = self.board.recv(count - len(data))
            assert chunk
            data += chunk
        return data

    def close(self) -> None:
        self.cable.end()
        self.board.close()
        os.close(self.gateway)


@pytest.fixture
def bench(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bench]:
    """`@pytest.mark.parametrize("bench", [baud], indirect=True)` sets the baud rate."""
    started = Bench(tmp_path, getattr(request, "param", 115_200))
    yield started
    started.close()


@pytest.fixture
def raw_control(bench: Bench) -> Iterator[socket.socket]:
    link = sockets.connect(bench.folder / "cable.sock", PATIENCE_S)
    yield link
    link.close()
