import stat
from pathlib import Path

import pytest

from edge_tools.hil.board import Can, emulated_can
from edge_tools.hil.errors import HilError, NotSupported, SetupError
from edge_tools.hil.posix import PosixBoard
from tests.system.cloud import wait_until


@pytest.fixture
def machine(tmp_path: Path) -> PosixBoard:
    """Its program says what it was given and waits."""
    program = tmp_path / "app"
    program.write_text('#!/bin/sh\necho "$@" > said.txt\nexec sleep 60\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return PosixBoard(tmp_path, "board1", program)


def test_the_process_gets_its_line_flash_and_sensor_and_starts_anew_after_a_power_cut(
    machine: PosixBoard, tmp_path: Path
) -> None:
    assert (tmp_path / "flash.bin").read_bytes()[:4] == b"ELID"
    machine.power_on()
    first = machine.pid
    machine.power_on()
    assert machine.pid == first is not None
    machine.power_cut()
    assert machine.pid is None
    assert not Path(f"/proc/{first}").exists()
    machine.power_on()
    said = tmp_path / "said.txt"
    wait_until(lambda: said.exists() and said.read_text(), "the program's words")
    machine.power_cut()
    assert said.read_text() == "--uart uart.sock --flash flash.bin --temperature temperature.txt\n"


def test_the_sensor_is_a_file_that_is_replaced_whole(machine: PosixBoard, tmp_path: Path) -> None:
    assert float((tmp_path / "temperature.txt").read_text()) == 20.0
    machine.set_temperature(-7.25)
    assert float((tmp_path / "temperature.txt").read_text()) == -7.25
    with pytest.raises(HilError, match="cannot measure 200"):
        machine.set_temperature(200)


def test_what_a_posix_board_cannot_is_told_beforehand_and_refused(machine: PosixBoard) -> None:
    assert Can.RESET not in emulated_can("posix")
    assert Can.TEMPERATURE in emulated_can("posix")
    with pytest.raises(NotSupported, match="no reset button"):
        machine.reset()
    with pytest.raises(NotSupported, match="no events"):
        machine.events()


def test_a_missing_program_is_said_with_the_build_line(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="Build it: mcu build --board posix"):
        PosixBoard(tmp_path, "board1", tmp_path / "app")
