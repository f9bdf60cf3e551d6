import os
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_tools.hil.board import Can, EmulatedBoard, start_boards
from edge_tools.hil.errors import HilError, SetupError
from edge_tools.hil.pace import Noise
from edge_tools.hil.qemu import QemuBoard, check, command
from tests.hil.echo import build_echo

PATIENCE_S = 120.0


@pytest.fixture(scope="module")
def echo_elf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_echo(tmp_path_factory.mktemp("echo"))


class Talk:
    """A board that echoes, and its port held open."""

    def __init__(self, board: EmulatedBoard) -> None:
        self.board = board
        self.port = os.open(board.port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)

    def hear(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            assert select.select([self.port], [], [], PATIENCE_S)[0], f"after {data!r}"
            data += os.read(self.port, count - len(data))
        return data

    def say(self, data: bytes) -> None:
        assert os.write(self.port, data) == len(data)


@pytest.fixture
def talk(tmp_path: Path, echo_elf: Path) -> Iterator[Talk]:
    with start_boards(1, "mps2_an385", tmp_path, echo_elf, prefix="echo") as (board,):
        talking = Talk(board)
        yield talking
        os.close(talking.port)


def test_a_board_starts_echoes_is_reset_bitten_by_its_watchdog_and_survives_a_power_cut(talk: Talk) -> None:
    board = talk.board
    assert talk.hear(3) == b"#0e"
    talk.say(b"hello")
    assert talk.hear(5) == b"hello"

    board.set_temperature(31.5)
    assert isinstance(board, EmulatedBoard)
    assert isinstance(board.machine, QemuBoard)
    assert board.machine.temperature() == 31.5
    for temperature_c in (-0.0625, 21.0625, 127.9375, -128.0, 31.5):
        board.set_temperature(temperature_c)
        assert board.machine.temperature() == temperature_c
    board.reset()
    assert talk.hear(3) == b"#1e"
    assert "RESET" in board.events()
    assert board.machine.temperature() == 31.5

    board.power_cut()
    board.power_on()
    assert talk.hear(3) == b"#2e"
    assert board.machine.temperature() == 31.5

    talk.say(b"!")
    assert talk.hear(4) == b"!#3e"
    assert "WATCHDOG" in board.events()

    board.machine.pause()
    talk.say(b"late")
    assert not select.select([talk.port], [], [], 0.2)[0]
    board.machine.resume()
    assert talk.hear(4) == b"late"

    board.set_noise(Noise(byte_loss=1.0), "down")
    talk.say(b"gone")
    while board.line().down.bytes_lost < 4:
        select.select([], [], [], 0.01)
    board.set_noise(Noise())
    talk.say(b"back")
    assert talk.hear(4) == b"back"

    board.power_cut()
    with pytest.raises(HilError, match="the board is off"):
        board.reset()
    assert {Can.RESET, Can.POWER, Can.UNPLUG, Can.TEMPERATURE, Can.NOISE} <= board.can


def test_two_boards_start_and_end_together(tmp_path: Path, echo_elf: Path) -> None:
    deep = tmp_path / ("a-long-folder-name-" * 6)
    with start_boards(2, "mps2_an385", deep, echo_elf, prefix="echo") as boards:
        assert [board.name for board in boards] == ["echo1", "echo2"]
        for board in boards:
            talking = Talk(board)
            assert talking.hear(3) == b"#0e"
            os.close(talking.port)
        pids = [board.machine.pid for board in boards if isinstance(board.machine, QemuBoard)]
    assert len(pids) == 2
    for pid in pids:
        assert pid is not None
        assert not Path(f"/proc/{pid}").exists()


def test_a_board_that_cannot_start_says_why(tmp_path: Path) -> None:
    elf = tmp_path / "app.elf"
    elf.write_bytes(b"no firmware")
    (tmp_path / "b1").mkdir()
    (tmp_path / "b1" / "flash.bin").write_bytes(b"short")
    with pytest.raises(HilError, match=r"QEMU did not start: .*size.*See .*qemu\.log"):
        start_boards(1, "mps2_an385", tmp_path, elf, prefix="b").__enter__()


def test_the_command_is_pinned_keeps_flash_in_a_file_and_has_no_network() -> None:
    words = command("mps2_an385", Path("/fw/app.elf"), 1, 5, 6)
    assert words[:4] == ["taskset", "-c", "1", "qemu-system-arm"]
    text = " ".join(words)
    assert "-M mps2-an385,memory-backend=ram " in text
    assert "memory-backend-file,id=ram,size=16M,mem-path=flash.bin,share=on" in text
    assert "-nodefaults" in words
    assert "-kernel /fw/app.elf" in text
    assert "-chardev socket,id=u0,fd=5 -serial chardev:u0" in text
    assert "tmp105,id=t1,bus=i2c,address=0x48" in text


def test_what_is_missing_is_named_with_the_line_that_brings_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SetupError, match="Build it: mcu build --board mps2_an385"):
        check("mps2_an385", tmp_path / "none.elf")
    with pytest.raises(SetupError, match="no emulated board 'esp32'"):
        check("esp32", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SetupError, match="Install it: apt-get install qemu-system-arm"):
        check("mps2_an385", tmp_path / "none.elf")
