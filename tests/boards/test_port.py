import asyncio
import errno
import fcntl
import logging
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path

import msgspec
import pytest
import serial

from edge.boards import port as port_module
from edge.boards.board import Board
from edge.boards.gateway import Gateway
from edge.boards.port import SerialPort, find_holder, find_port, run_port
from edge.boards.readings import MarksInMemory
from edge.config import BoardSettings, MqttSnSettings
from edge.errors import ConnectionFailed
from edge.messages import Message, Origin, Outcome
from edge.metrics import Metrics
from tests.fakes.board import FakeBoard
from tests.fakes.pty_board import PtyBoard


class Usb(msgspec.Struct):
    device: str
    vid: int | None
    pid: int | None
    serial_number: str | None


USB = [
    Usb("/dev/ttyACM0", 0x0483, 0x5740, "A1"),
    Usb("/dev/ttyACM1", 0x0483, 0x5740, "B2"),
    Usb("/dev/ttyUSB0", 0x10C4, 0xEA60, None),
    Usb("/dev/ttyS0", None, None, None),
]


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("/dev/serial/by-id/x", "/dev/serial/by-id/x"),
        ("usb:10C4:ea60", "/dev/ttyUSB0"),
        ("usb:0483:5740:B2", "/dev/ttyACM1"),
    ],
)
def test_a_port_is_found_by_path_or_usb_identity(name: str, path: str) -> None:
    assert find_port(name, lambda: USB) == path


def test_between_two_that_fit_nothing_is_guessed() -> None:
    with pytest.raises(ConnectionFailed, match=r"ttyACM0 \(serial A1\), /dev/ttyACM1 \(serial B2\).*SERIAL") as failure:
        find_port("usb:0483:5740", lambda: USB)
    assert failure.value.cause == "ambiguous"


def test_a_usb_identity_that_is_not_there_says_so() -> None:
    with pytest.raises(ConnectionFailed, match="usb:0483:5740:C3") as failure:
        find_port("usb:0483:5740:C3", lambda: USB)
    assert failure.value.cause == "not_found"


def test_a_wrong_path_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConnectionFailed, match=r"nothing-here is not there. Plug the board in") as failure:
        SerialPort(str(tmp_path / "nothing-here"), 115_200)
    assert failure.value.cause == "not_found"
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ConnectionFailed, match="is no serial port") as failure:
        SerialPort(str(file), 115_200)
    assert failure.value.cause == "not_serial"
    with pytest.raises(ConnectionFailed, match="cannot be set up"):
        SerialPort("/dev/null", 115_200)


@pytest.mark.parametrize(
    ("number", "cause", "remedy"),
    [
        (errno.EACCES, "no_permission", "dialout"),
        (errno.EBUSY, "busy", "Stop"),
        (errno.EIO, "not_found", "Plug"),
    ],
)
def test_what_opening_fails_of_is_told_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, number: int, cause: str, remedy: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise serial.SerialException(number, os.strerror(number))

    monkeypatch.setattr("edge.boards.port.serial.Serial", refuse)
    with pytest.raises(ConnectionFailed, match=remedy) as failure:
        SerialPort("/dev/null", 115_200)
    assert failure.value.cause == cause


def test_an_open_port_is_locked_and_the_holder_is_named() -> None:
    master, slave = os.openpty()
    path = os.ttyname(slave)
    script = (
        "import fcntl, os, sys\n"
        "fd = os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY)\n"
        "fcntl.flock(fd, fcntl.LOCK_EX)\n"
        "print('locked', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(ConnectionFailed, match=f"in use by pid {holder.pid} ") as failure:
            SerialPort(path, 115_200)
        assert failure.value.cause == "busy"
        assert f"Stop pid {holder.pid}" in failure.value.remedy
        assert holder.stdin is not None
        holder.stdin.close()
        holder.wait()
    mine = SerialPort(path, 115_200)
    with pytest.raises(ConnectionFailed, match="this gateway itself"):
        SerialPort(path, 115_200)
    other = os.open(path, os.O_RDWR | os.O_NOCTTY)
    with pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(other)
    mine.close()
    assert not find_holder(path)
    SerialPort(path, 3_000_000).close()
    os.close(master)
    os.close(slave)


def test_reads_of_nothing_are_told_from_the_end() -> None:
    master, slave = os.openpty()
    port = SerialPort(os.ttyname(slave), 115_200)
    os.close(slave)
    assert port.read() == b""
    os.write(master, b"\x00\xff\x0d\x03")
    assert port.read() == b"\x00\xff\x0d\x03", "raw both ways"
    port.write(b"\x0a\x0d\x11")
    assert os.read(master, 10) == b"\x0a\x0d\x11"
    os.close(master)
    with pytest.raises(OSError, match=r"hung up|Input/output"):
        port.read()
    port.close()


class House:
    """A gateway with boards on ptys, on the real clock."""

    def __init__(self, folder: Path, *names: str, output_bytes_max: int = 65_536) -> None:
        self.metrics = Metrics()
        self.taken: list[Message] = []
        self.settings = [
            BoardSettings(name=name, port=str(folder / name), baud=3_000_000, output_bytes_max=output_bytes_max)
            for name in names
        ]
        sn_settings = MqttSnSettings(retry_s=0.5)
        clock = lambda: self.loop.time()  # noqa: E731, PLW0108 (no loop yet)
        self.gateway = Gateway(sn_settings, self.settings, self.route, self.metrics, clock)
        marks = MarksInMemory()
        self.boards = {
            one.name: Board(one, self.gateway, self.metrics, marks, unix_time_ms=lambda: 1) for one in self.settings
        }
        self.ptys = {name: PtyBoard(FakeBoard(name, retry_s=0.3), folder / name) for name in names}

    def route(self, source: str, sender: str, messages: Sequence[Message], origin: Origin) -> None:
        self.taken += messages
        self.loop.call_soon(origin.settled, [one.receipt for one in messages if one.qos], Outcome.TAKEN)

    def run(self, test: Callable[[], Coroutine[None, None, None]]) -> None:
        async def main() -> None:
            self.loop = asyncio.get_running_loop()
            tasks = [asyncio.ensure_future(self._port(board)) for board in self.boards.values()]
            try:
                await test()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                for one in self.ptys.values():
                    one.unplug()

        asyncio.run(main())

    async def _port(self, board: Board) -> None:
        await run_port(board, self.metrics, rng=random.Random(1), ports=list)

    async def until(self, met: Callable[[], bool]) -> None:
        until = time.monotonic() + 20
        while not met():
            assert time.monotonic() < until, self.metrics.snapshot()
            await asyncio.sleep(0.01)

    def unplug_all(self) -> None:
        for one in self.ptys.values():
            one.unplug()


def readings(messages: Sequence[Message], thing: str) -> list[int]:
    return [one.reading.sequence for one in messages if one.reading is not None and one.reading.thing == thing]


def test_readings_cross_real_ports_and_unplugging_loses_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    house = House(tmp_path, "b1", "b2")

    async def test() -> None:
        for one in house.ptys.values():
            one.plug()
        await house.until(lambda: all(one.fake.ready for one in house.ptys.values()))
        for _ in range(3):
            for one in house.ptys.values():
                for _ in range(40):
                    one.fake.produce()
            await asyncio.sleep(0.05)
            house.ptys["b1"].unplug()
            await house.until(lambda: house.boards["b1"].status().port_state == "closed")
            house.ptys["b1"].plug()
            await house.until(lambda: house.boards["b1"].status().port_state == "open")
        await house.until(lambda: all(one.fake.idle for one in house.ptys.values()))

    house.run(test)
    for name in house.ptys:
        assert readings(house.taken, name) == list(range(1, 121))
    opened = [record for record in caplog.records if record.getMessage() == "port_opened"]
    closed = [record for record in caplog.records if record.getMessage() == "port_closed"]
    assert (len(opened), len(closed)) == (5, 3), "one line for each change of state"
    assert {record.__dict__["fields"]["board"] for record in closed} == {"b1"}
    assert {record.__dict__["fields"]["remedy"] for record in closed} == {"Plug the board in again."}
    assert house.metrics.counter("port_failed", board="b1", cause="unplugged").value >= 3


def test_a_port_that_is_not_there_is_logged_once_and_opened_when_it_comes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    house = House(tmp_path, "b1")

    async def test() -> None:
        failed = house.metrics.counter("port_failed", board="b1", cause="not_found")
        await house.until(lambda: failed.value >= 3)
        assert "is not there" in house.boards["b1"].status().port_cause
        house.ptys["b1"].plug()
        await house.until(lambda: house.ptys["b1"].fake.ready)

    house.run(test)
    assert [record.getMessage() for record in caplog.records if record.name == port_module.__name__] == [
        "port_closed",
        "port_opened",
    ]


def test_a_board_that_never_reads_does_not_hold_up_the_other(tmp_path: Path) -> None:
    house = House(tmp_path, "b1", "b2", output_bytes_max=8192)

    class Nobody:
        def settled(self, receipts: Sequence[int], outcome: Outcome) -> None: ...

    async def test() -> None:
        for one in house.ptys.values():
            one.plug()
        await house.until(lambda: all(one.fake.ready for one in house.ptys.values()))
        deaf = house.ptys["b1"]
        house.gateway.target("boards").send([Message("cmd/b1/x", b"")], Nobody())
        await house.until(lambda: bool(deaf.fake.commands))
        deaf.deaf = True
        await asyncio.sleep(0.05)
        for _ in range(600):
            house.gateway.target("boards").send([Message("cmd/b1/x", b"x" * 200)] * 5, Nobody())
            await asyncio.sleep(0)
        assert house.metrics.counter("messages_dropped", reason="output_full").value > 100
        for _ in range(50):
            house.ptys["b2"].fake.produce()
        await house.until(lambda: house.ptys["b2"].fake.idle)
        deaf.deaf = False
        deaf.fake.produce()
        await house.until(lambda: deaf.fake.idle)

    house.run(test)
    assert readings(house.taken, "b2") == list(range(1, 51))


def test_acknowledgements_of_one_settlement_are_one_write(tmp_path: Path) -> None:
    house = House(tmp_path, "b1")
    pty = house.ptys["b1"]

    async def test() -> None:
        pty.plug()
        await house.until(lambda: pty.fake.ready)
        await asyncio.sleep(0.1)
        for _ in range(16):
            pty.fake.produce()
        pty.reads.clear()
        await house.until(lambda: pty.fake.idle)

    house.run(test)
    assert len([data for data in pty.reads if data]) <= 2
