"""The firmware as a Linux process: a hundredth of QEMU's weight, for many boards; its clock drifts."""

import subprocess
from pathlib import Path

from edge_tools.hil import process
from edge_tools.hil.errors import HilError, NotSupported
from edge_tools.hil.identity import factory_flash
from edge_tools.hil.qemu import check_elf

_TEMPERATURE_C = 20.0


class PosixBoard:
    """Off at first. Its UART connects to uart.sock in folder, its flash is flash.bin, its sensor temperature.txt."""

    can = frozenset({"power", "temperature"})

    def __init__(self, folder: Path, board_id: str, program: Path) -> None:
        check_elf("posix", program)
        self._folder, self._program = folder, program.absolute()
        self._child: subprocess.Popen[bytes] | None = None
        flash = folder / "flash.bin"
        if not flash.exists():
            factory_flash(flash, board_id)
        self.set_temperature(_TEMPERATURE_C)

    @property
    def pid(self) -> int | None:
        return None if self._child is None else self._child.pid

    def power_on(self) -> None:
        """Does nothing when it is on."""
        if self._child is not None and self._child.poll() is None:
            return
        self.power_cut()
        command = [str(self._program), "--uart", "uart.sock", "--flash", "flash.bin", "--temperature"]
        self._child = process.start([*command, "temperature.txt"], self._folder, self._folder / "posix.log")

    def power_cut(self) -> None:
        """SIGKILL at any moment: memory is gone, flash stays as it is."""
        if self._child is not None:
            process.kill(self._child)
            self._child = None

    def reset(self) -> None:
        raise NotSupported("a posix board has no reset button", "Send it the command `reset`, or use an mps2_an385.")

    def set_temperature(self, temperature_c: float) -> None:
        """What the sensor measures from its next sample on."""
        if not -128.0 <= temperature_c < 128.0:
            raise HilError(f"the sensor cannot measure {temperature_c} °C", "Give -128 to 127.9.")
        fresh = self._folder / "temperature.new"
        fresh.write_text(f"{temperature_c}\n")
        fresh.replace(self._folder / "temperature.txt")

    def events(self) -> list[str]:
        raise NotSupported("a posix board has no events", "Use an mps2_an385: --board mps2_an385")
