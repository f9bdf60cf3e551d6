import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import edge_tools
from edge_tools.hil import sockets
from edge_tools.mcu.cli import FIRMWARE, main
from tests.hil.echo import build_echo

PATIENCE_S = 30.0
TOOLS = Path(edge_tools.__file__).parent.parent
MCU = (sys.executable, "-m", "edge_tools.mcu.cli")


class Emulated:
    """A running `mcu emulate --json` and what it printed."""

    def __init__(self, folder: Path, elf: Path) -> None:
        self.folder, self.elf = folder, elf
        self.process = subprocess.Popen(
            [*MCU, "emulate", "--count", "2", "--json", "--dir", str(folder), "--elf", str(elf), "--name", "b"],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(TOOLS)},
        )
        assert self.process.stdout is not None
        self.rows = [json.loads(self.process.stdout.readline()) for _ in range(2)]

    def end(self) -> int:
        for _ in range(2):
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGINT)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return self.process.wait(PATIENCE_S)


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulated]:
    started = Emulated(tmp_path_factory.mktemp("boards"), build_echo(tmp_path_factory.mktemp("echo")))
    yield started
    started.end()


def listed(emulated: Emulated, capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, object]]:
    assert main(["list", "--dir", str(emulated.folder), "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return {row["name"]: row for row in rows}


def hear(port: str, count: int) -> bytes:
    line = os.open(port, os.O_RDWR | os.O_NOCTTY)
    data = b""
    while len(data) < count:
        assert select.select([line], [], [], PATIENCE_S)[0], data
        data += os.read(line, count - len(data))
    os.close(line)
    return data


def test_emulate_prints_each_board_and_writes_the_same_to_a_file(emulated: Emulated) -> None:
    assert [row["name"] for row in emulated.rows] == ["b1", "b2"]
    assert emulated.rows[0]["port"] == str(emulated.folder / "b1" / "port")
    assert json.loads((emulated.folder / "boards.json").read_text()) == emulated.rows


def test_set_and_list_reach_the_running_boards(emulated: Emulated, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--dir", str(emulated.folder)]
    port = emulated.rows[0]["port"]
    assert hear(port, 3) == b"#0b"
    assert main(["set", "b1", *where, "--baud", "57600", "--bit-errors", "1e-4", "--temperature", "31.5"]) == 0
    assert "b1  mps2_an385  on  plugged  57600 baud" in capsys.readouterr().out
    board = listed(emulated, capsys)["b1"]
    assert isinstance(board["line"], dict)
    assert board["line"]["noise_up"]["bit_errors"] == 1e-4
    assert main(["set", "b1", *where, "--bit-errors", "0", "--reset"]) == 0
    assert hear(port, 3) == b"#1b"
    assert main(["set", "b1", *where, "--power-cut", "--unplug"]) == 0
    capsys.readouterr()
    boards = listed(emulated, capsys)
    assert (boards["b1"]["powered"], boards["b2"]["powered"]) == (False, True)
    assert not Path(port).exists()
    assert main(["set", "b1", *where, "--reset"]) == 1
    assert "the board is off. Power it on first." in capsys.readouterr().err
    assert main(["set", "b1", *where, "--replug", "--power-on"]) == 0
    assert hear(port, 3) == b"#2b"


def test_an_unknown_board_is_answered_with_those_there_are(
    emulated: Emulated, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["set", "b9", "--dir", str(emulated.folder), "--reset"]) == 1
    assert capsys.readouterr().err.endswith("no board 'b9'. There are: b1, b2.\n")


def test_a_second_emulation_in_the_same_folder_is_refused(emulated: Emulated) -> None:
    done = subprocess.run(
        [*MCU, "emulate", "--dir", str(emulated.folder), "--elf", str(emulated.elf), "--name", "b"],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(TOOLS)},
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 1
    assert b"already runs in" in done.stderr
    assert (emulated.folder / "boards.json").exists()
    assert main(["list", "--dir", str(emulated.folder)]) == 0


@pytest.mark.parametrize("line", [b"", b"\n", b"hello\n", b"{}\n", b'{"do":"set"}\n', b"[" * 5000, b"\xff\n"])
def test_a_hostile_line_is_refused_and_the_emulation_goes_on(
    emulated: Emulated, capsys: pytest.CaptureFixture[str], line: bytes
) -> None:
    with sockets.connect(emulated.folder / "mcu.sock", PATIENCE_S) as link:
        link.sendall(line)
        if not line:
            link.shutdown(1)
        assert b'"ok":false' in link.recv(65_536)
    assert len(listed(emulated, capsys)) == 2


def test_ctrl_c_ends_the_boards_in_good_order(tmp_path: Path) -> None:
    started = Emulated(tmp_path, build_echo(tmp_path))
    assert started.end() == 0
    assert not (tmp_path / "boards.json").exists()
    assert not (tmp_path / "mcu.sock").exists()
    assert not (tmp_path / "b1" / "port").exists()


def test_nothing_runs_there_is_said_with_the_line_that_starts_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["list", "--dir", str(tmp_path)]) == 1
    assert f"Start one: mcu emulate --board mps2_an385 --dir {tmp_path}" in capsys.readouterr().err


def test_a_missing_image_is_said_with_the_build_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["emulate", "--dir", str(tmp_path / "d"), "--elf", str(tmp_path / "none.elf")]) == 78
    assert "Build it: mcu build --board mps2_an385" in capsys.readouterr().err
    assert not (tmp_path / "d").exists()


def test_missing_qemu_is_said_with_the_line_that_installs_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["emulate", "--dir", str(tmp_path)]) == 78
    assert "Install it: apt-get install qemu-system-arm" in capsys.readouterr().err


def test_dry_runs_change_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    elf = tmp_path / "app.elf"
    elf.touch()
    assert main(["emulate", "--dir", str(tmp_path / "d"), "--elf", str(elf), "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "board1"
    assert main(["set", "b1", "--dir", str(tmp_path), "--baud", "9600", "--dry-run"]) == 0
    assert json.loads(capsys.readouterr().out)["line"]["baud"] == 9600
    assert list(tmp_path.iterdir()) == [elf]


@pytest.mark.parametrize(
    "words",
    [
        ["emulate"],
        ["emulate", "--dir", "d", "--count", "0"],
        ["emulate", "--dir", "d", "--baud", "3000001"],
        ["emulate", "--dir", "d", "--board", "esp32"],
        ["set", "b1", "--dir", "d", "--bit-errors", "2"],
        ["set", "b1", "--dir", "d", "--bit-errors", "nan"],
        ["set", "b1", "--dir", "d", "--unplug", "--replug"],
        ["flash"],
    ],
)
def test_wrong_usage_exits_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "usage: mcu" in capsys.readouterr().err


def test_set_without_a_setting_exits_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["set", "b1", "--dir", str(tmp_path)]) == 2
    assert "nothing to set" in capsys.readouterr().err


def test_a_board_name_that_is_no_client_id_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["emulate", "--dir", str(tmp_path), "--name", "x" * 23]) == 1
    assert "does not fit" in capsys.readouterr().err


def firmware_with(tmp_path: Path, *names: str) -> Path:
    presets = [{"name": name} for name in (*names, "host")] + [{"name": "base", "hidden": True}]
    (tmp_path / "CMakePresets.json").write_text(json.dumps({"version": 3, "configurePresets": presets}))
    for name in names:
        (tmp_path / "boards" / name).mkdir(parents=True)
    return tmp_path


def test_build_runs_the_presets_of_the_board(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    firmware = firmware_with(tmp_path, "mps2_an385")
    assert main(["build", "--board", "mps2_an385", "--firmware", str(firmware), "--dry-run"]) == 0
    assert capsys.readouterr().out == "cmake --preset mps2_an385\ncmake --build --preset mps2_an385\n"


def test_build_names_the_boards_there_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    firmware = firmware_with(tmp_path, "mps2_an385", "posix")
    assert main(["build", "--board", "host", "--firmware", str(firmware)]) == 78
    assert "There are: mps2_an385, posix." in capsys.readouterr().err


def test_build_without_a_checkout_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", "--board", "posix", "--firmware", str(tmp_path)]) == 78
    assert "Run from a checkout" in capsys.readouterr().err


def test_the_firmware_is_looked_for_in_the_checkout() -> None:
    assert FIRMWARE.name == "firmware"
    assert (FIRMWARE.parent / "pyproject.toml").is_file()
