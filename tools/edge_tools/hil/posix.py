"""The firmware as a Linux process: thousands of times lighter than QEMU, for many boards; its clock drifts."""

import os
import signal
import subprocess
from pathlib import Path

from edge_tools.hil import process
from edge_tools.hil.errors import HilError, NotSupported
from edge_tools.hil.identity import factory_flash
from edge_tools.hil.qemu import check_elf


class PosixBoard:
    """Off at first. Its UART is the socket uart.sock in folder; flash.bin holds the identity, as on QEMU."""

    can = frozenset({"power", "reset"})

    def __init__(self, folder: Path, board_id: str, program: Path) -> None:
        check_elf("posix", program)
        self._folder, self._program = folder, program.absolute()
        self._child: subprocess.Popen[bytes] | None = None
        flash = folder / "flash.bin"
        if not flash.exists():
            factory_flash(flash, board_id)

    @property
    def pid(self) -> int | None:
        return None if self._child is None else self._child.pid

    def power_on(self) -> None:
        if self._child is None:
            self._child = process.start(
                [str(self._program), "--uart", "uart.sock", "--flash", "flash.bin"],
                self._folder,
                self._folder / "posix.log",
            )

    def power_cut(self) -> None:
        if self._child is not None:
            process.kill(self._child)
            self._child = None

    def reset(self) -> None:
        """The process starts anew: as a power cut, its memory is gone."""
        if self._child is None:
            raise HilError("the board is off", "Power it on first.")
        os.kill(self._child.pid, signal.SIGKILL)
        self._child.wait()
        self._child = None
        self.power_on()

    def set_temperature(self, temperature_c: float) -> None:
        raise NotSupported(
            f"a posix board has no sensor to set to {temperature_c} °C", "Use an mps2_an385: --board mps2_an385"
        )

    def events(self) -> list[str]:
        raise NotSupported("a posix board has no events", "Use an mps2_an385: --board mps2_an385")
