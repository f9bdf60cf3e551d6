import os
import pty
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_tools.hil.board import Board, Can, RealBoard, emulated_can
from edge_tools.hil.errors import HilError, NotSupported, SetupError
from edge_tools.hil.pace import Noise


@pytest.fixture
def port() -> Iterator[Path]:
    """A terminal in place of a USB adapter; it has no modem lines."""
    master, slave = pty.openpty()
    yield Path(os.ttyname(slave))
    os.close(slave)
    os.close(master)


def test_a_real_board_refuses_what_its_hardware_cannot_and_says_what_to_do(port: Path) -> None:
    board: Board = RealBoard(port, "bench-7")
    assert board.can == frozenset()
    for refused in (
        board.power_cut,
        board.power_on,
        board.unplug,
        board.replug,
        board.line,
        board.events,
        lambda: board.set_temperature(20.0),
        lambda: board.set_noise(Noise()),
        lambda: board.set_baud(9600),
        lambda: board.set_stall(True),
    ):
        with pytest.raises(NotSupported, match=r"the real board bench-7 at .* cannot .*--board mps2_an385"):
            refused()
    with pytest.raises(NotSupported, match="Wire DTR or RTS to its reset"):
        board.reset()


def test_a_wired_reset_makes_a_real_board_able_to_be_reset(port: Path) -> None:
    assert RealBoard(port, reset_line="rts").can == {Can.RESET}


def test_a_port_without_modem_lines_says_so_at_reset(port: Path) -> None:
    with pytest.raises(HilError, match="Does this port have modem lines"):
        RealBoard(port, reset_line="dtr").reset()


def test_a_port_that_is_not_there_is_said_with_where_to_look(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="ls /dev/serial/by-id"):
        RealBoard(tmp_path / "none")


def test_an_mps2_an385_can_everything() -> None:
    assert emulated_can("mps2_an385") == frozenset(Can)
