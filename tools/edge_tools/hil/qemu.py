"""A board in QEMU: flash that survives a power cut, a sensor with a value that can be set, reset and watchdog."""

import math
import shutil
import socket
import subprocess
from pathlib import Path

from edge_tools.hil import process, sockets
from edge_tools.hil.errors import HilError, SetupError
from edge_tools.hil.identity import FLASH_BYTES, factory_flash
from edge_tools.hil.qmp import Qmp

PROGRAM = "qemu-system-arm"
MACHINES = {"mps2_an385": "mps2-an385"}
_SENSOR = "/machine/peripheral/t1"
_SEND_BUFFER_BYTES = 1  # the kernel raises it to its least: the UART's own buffer is one byte


def command(board: str, elf: Path, core: int, uart_fd: int, qmp_fd: int) -> list[str]:
    """To be run in the board's folder, where flash.bin is; uart_fd and qmp_fd: sockets the child inherits."""
    return [
        *("taskset", "-c", str(core), PROGRAM),
        *("-M", f"{MACHINES[board]},memory-backend=ram"),
        *("-object", f"memory-backend-file,id=ram,size={FLASH_BYTES >> 20}M,mem-path=flash.bin,share=on"),
        *("-display", "none", "-nodefaults", "-kernel", str(elf.absolute())),
        *("-chardev", f"socket,id=u0,fd={uart_fd}", "-serial", "chardev:u0"),
        *("-chardev", f"socket,id=qmp,fd={qmp_fd}", "-mon", "chardev=qmp,mode=control"),
        *("-device", "tmp105,id=t1,bus=i2c,address=0x48"),
    ]


def check(board: str, elf: Path) -> None:
    """Raises SetupError with the line that helps when QEMU or the image is missing."""
    if board not in MACHINES:
        raise SetupError(f"no emulated board {board!r}", f"There are: {', '.join(sorted(MACHINES))}, posix.")
    for program, package in ((PROGRAM, "qemu-system-arm"), ("taskset", "util-linux"), ("setpriv", "util-linux")):
        if shutil.which(program) is None:
            raise SetupError(f"{program} is not installed", f"Install it: apt-get install {package}")
    check_elf(board, elf)


def check_elf(board: str, elf: Path) -> None:
    if not elf.is_file():
        raise SetupError(f"no firmware at {elf}", f"Build it: mcu build --board {board}")


class QemuBoard:
    """One machine, off at first. flash.bin is made at the first start and kept from then on."""

    can = frozenset({"power", "reset", "temperature", "events"})

    def __init__(self, board: str, folder: Path, board_id: str, elf: Path) -> None:
        check(board, elf)
        self._board, self._folder, self._elf = board, folder, elf
        self._core = process.next_core()
        self._child: subprocess.Popen[bytes] | None = None
        self._qmp: Qmp | None = None
        self._temperature_c: float | None = None
        flash = folder / "flash.bin"
        if not flash.exists():
            factory_flash(flash, board_id)

    @property
    def pid(self) -> int | None:
        return None if self._child is None else self._child.pid

    def power_on(self) -> None:
        """Does nothing when it is on. The sensor has the temperature set last."""
        if self._child is not None and self._child.poll() is None:
            return
        self.power_cut()
        uart = sockets.connect(self._folder / "uart.sock", 10.0)
        uart.settimeout(None)
        uart.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        ours, theirs = socket.socketpair()
        with uart, theirs:
            fds = (uart.fileno(), theirs.fileno())
            self._child = process.start(
                command(self._board, self._elf, self._core, fds[0], fds[1]),
                self._folder,
                self._folder / "qemu.log",
                pass_fds=fds,
            )
        self._qmp = Qmp(ours)
        try:
            self._qmp.command("query-status")
            if self._temperature_c is not None:
                self.set_temperature(self._temperature_c)
        except HilError as problem:
            self.power_cut()
            log = self._folder / "qemu.log"
            raise HilError(f"QEMU did not start: {process.tail(log)}", f"See {log}.") from problem

    def power_cut(self) -> None:
        """SIGKILL at any moment: memory is gone, flash stays as it is."""
        if self._qmp is not None:
            self._qmp.close()
            self._qmp = None
        if self._child is not None:
            process.kill(self._child)
            self._child = None

    def reset(self) -> None:
        self._on().command("system_reset")

    def pause(self) -> None:
        """Time stands still for the board."""
        self._on().command("stop")

    def resume(self) -> None:
        self._on().command("cont")

    def set_temperature(self, temperature_c: float) -> None:
        """What the TMP105 measures from now on, to its 1/16 °C: -128 to 127.9, kept over resets and power cuts."""
        if not -128.0 <= temperature_c < 128.0:
            raise HilError(f"the sensor cannot measure {temperature_c} °C", "Give -128 to 127.9.")
        if self._qmp is not None:
            milli_c = int(math.copysign(math.ceil(abs(round(temperature_c * 16)) * 62.5), temperature_c))
            self._qmp.command("qom-set", path=_SENSOR, property="temperature", value=milli_c)
        self._temperature_c = temperature_c

    def temperature(self) -> float:
        """As the sensor shows it, in steps of 1/16 °C."""
        milli_c: int = self._on().command("qom-get", path=_SENSOR, property="temperature")
        return round(milli_c * 16 / 1000) / 16

    def events(self) -> list[str]:
        """QEMU's events since power-on, such as RESET and WATCHDOG."""
        return self._on().events()

    def _on(self) -> Qmp:
        if self._qmp is None:
            raise HilError("the board is off", "Power it on first.")
        return self._qmp
