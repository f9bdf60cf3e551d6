"""Boards, emulated and real, behind one seam, so that the same test runs on both."""

import contextlib
import fcntl
import os
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Literal, Protocol, get_args

import edge_tools
from edge_tools.hil import process
from edge_tools.hil.control import CableClient, LineState, Replug, Request, Set, Status, Unplug
from edge_tools.hil.errors import HilError, NotSupported, SetupError
from edge_tools.hil.pace import BAUD_DEFAULT, Noise
from edge_tools.hil.posix import PosixBoard
from edge_tools.hil.qemu import QemuBoard

_TOOLS = Path(edge_tools.__file__).parent.parent
ResetLine = Literal["dtr", "rts"]
_MODEM_BITS = {"dtr": termios.TIOCM_DTR, "rts": termios.TIOCM_RTS}


class Can(Enum):
    """What not every board can: tests name what they need."""

    RESET = "reset"
    POWER = "power"  # cut and given back
    UNPLUG = "unplug"
    TEMPERATURE = "temperature"
    NOISE = "noise"
    PACE = "pace"  # the baud rate is set, the line's traffic is counted
    EVENTS = "events"  # resets and watchdog bites are seen from outside


_CABLE_CAN = frozenset({Can.UNPLUG, Can.NOISE, Can.PACE})


def emulated_can(kind: str) -> frozenset[Can]:
    """What an emulated board of this kind can, before one is started."""
    machine = PosixBoard if kind == "posix" else QemuBoard
    return _CABLE_CAN | {Can(word) for word in machine.can}


class Board(Protocol):
    """A board and its line. What its hardware cannot do raises NotSupported; `can` tells beforehand."""

    @property
    def name(self) -> str: ...
    @property
    def port(self) -> Path:
        """What the gateway opens."""

    @property
    def can(self) -> frozenset[Can]: ...
    def reset(self) -> None: ...
    def power_cut(self) -> None: ...
    def power_on(self) -> None: ...
    def unplug(self) -> None: ...
    def replug(self) -> None: ...
    def set_temperature(self, temperature_c: float) -> None: ...
    def set_noise(self, noise: Noise, direction: Literal["up", "down", "both"] = "both") -> None: ...
    def set_baud(self, baud: int) -> None: ...
    def set_stall(self, stall: bool) -> None:
        """The board's end of the line no longer takes what the gateway writes."""

    def line(self) -> LineState: ...
    def events(self) -> list[str]: ...


class Machine(Protocol):
    """What stands at the board's end of the cable and connects to `uart.sock` in its folder."""

    can: frozenset[str]
    """Values of Can."""

    @property
    def pid(self) -> int | None:
        """None: it is off."""

    def power_on(self) -> None: ...
    def power_cut(self) -> None: ...
    def reset(self) -> None: ...
    def set_temperature(self, temperature_c: float) -> None: ...
    def events(self) -> list[str]: ...


class EmulatedBoard:
    """A cable process and a machine, in a folder of their own. Ended by `close`, or by our own end."""

    def __init__(self, name: str, folder: Path, machine: Machine, cable: "CableProcess") -> None:
        self._name, self._folder, self.machine, self._cable = name, folder, machine, cable
        self._client = CableClient(folder / "cable.sock")

    @property
    def name(self) -> str:
        return self._name

    @property
    def port(self) -> Path:
        return self._folder / "port"

    @property
    def can(self) -> frozenset[Can]:
        return _CABLE_CAN | {Can(word) for word in self.machine.can}

    def reset(self) -> None:
        self.machine.reset()

    def power_cut(self) -> None:
        self.machine.power_cut()

    def power_on(self) -> None:
        self.machine.power_on()

    def unplug(self) -> None:
        self._ask(Unplug())

    def replug(self) -> None:
        self._ask(Replug())

    def set_temperature(self, temperature_c: float) -> None:
        self.machine.set_temperature(temperature_c)

    def set_noise(self, noise: Noise, direction: Literal["up", "down", "both"] = "both") -> None:
        self._ask(
            Set(
                direction=direction,
                bit_errors=noise.bit_errors,
                byte_loss=noise.byte_loss,
                byte_insertion=noise.byte_insertion,
                delay_ms=noise.delay_ms,
                jitter_ms=noise.jitter_ms,
            )
        )

    def set_baud(self, baud: int) -> None:
        self._ask(Set(baud=baud))

    def set_stall(self, stall: bool) -> None:
        self._ask(Set(stall=stall))

    def line(self) -> LineState:
        return self._ask(Status())

    def events(self) -> list[str]:
        return self.machine.events()

    @property
    def powered(self) -> bool:
        return self.machine.pid is not None

    def set(self, request: Set) -> LineState:
        """Several settings of the line at once."""
        return self._ask(request)

    def close(self) -> None:
        self.machine.power_cut()
        self._cable.end()

    def _ask(self, request: Request) -> LineState:
        return self._client.ask(request)


class RealBoard:
    """A board on a real port. reset_line: the modem line that is wired to its reset, if one is."""

    def __init__(self, port: Path, name: str = "board", reset_line: ResetLine | None = None) -> None:
        if not port.exists():
            raise SetupError(f"no port {port}", "Plug the board in; `ls /dev/serial/by-id` shows what is there.")
        self._port, self._name, self._reset_line = port, name, reset_line

    @property
    def name(self) -> str:
        return self._name

    @property
    def port(self) -> Path:
        return self._port

    @property
    def can(self) -> frozenset[Can]:
        return frozenset({Can.RESET}) if self._reset_line else frozenset()

    def reset(self) -> None:
        if self._reset_line is None:
            raise self._cannot("be reset", "Wire DTR or RTS to its reset and name it: --board-reset dtr")
        bits = struct.pack("I", _MODEM_BITS[self._reset_line])
        port = os.open(self._port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            fcntl.ioctl(port, termios.TIOCMBIS, bits)
            time.sleep(0.05)
            fcntl.ioctl(port, termios.TIOCMBIC, bits)
        except OSError as problem:
            raise HilError(f"{self._port}: {problem}", "Does this port have modem lines?") from problem
        finally:
            os.close(port)

    def power_cut(self) -> None:
        raise self._cannot("have its power cut")

    def power_on(self) -> None:
        raise self._cannot("have its power switched")

    def unplug(self) -> None:
        raise self._cannot("be unplugged by a program")

    def replug(self) -> None:
        raise self._cannot("be plugged in by a program")

    def set_temperature(self, temperature_c: float) -> None:
        raise self._cannot(f"be brought to {temperature_c} °C")

    def set_noise(self, noise: Noise, direction: Literal["up", "down", "both"] = "both") -> None:
        raise self._cannot("have noise put on its line")

    def set_baud(self, baud: int) -> None:
        raise self._cannot(f"be set to {baud} baud from here")

    def set_stall(self, stall: bool) -> None:
        raise self._cannot("be stopped from reading")

    def line(self) -> LineState:
        raise self._cannot("have its line counted")

    def events(self) -> list[str]:
        raise self._cannot("be watched from outside")

    def close(self) -> None:
        """Nothing is held."""

    def _cannot(self, what: str, fix: str = "Run this on an emulated board: --board mps2_an385") -> NotSupported:
        return NotSupported(f"the real board {self._name} at {self._port} cannot {what}", fix)


class CableProcess:
    """The cable of one board (cable.py), started in the board's folder."""

    def __init__(self, folder: Path, baud: int, seed: int) -> None:
        self._log = folder / "cable.log"
        self._child = process.start(
            [sys.executable, "-m", "edge_tools.hil.cable", "--dir", ".", "--baud", str(baud), "--seed", str(seed)],
            folder,
            self._log,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(_TOOLS)},
        )

    @property
    def pid(self) -> int:
        return self._child.pid

    def wait_ready(self) -> None:
        process.first_line(self._child, self._log)

    def end(self) -> None:
        process.end(self._child)


@contextlib.contextmanager
def start_boards(
    count: int,
    board: str,
    folder: Path,
    elf: Path,
    baud: int = BAUD_DEFAULT,
    *,
    prefix: str = "board",
    seed: int = 0,
) -> Iterator[list[EmulatedBoard]]:
    """Boards named PREFIX1…, each in folder/NAME, all powered on. board: mps2_an385 or posix. Ended on leaving."""
    with contextlib.ExitStack() as stack:
        names = [f"{prefix}{number}" for number in range(1, count + 1)]
        started: list[EmulatedBoard] = []
        cables: list[CableProcess] = []
        for index, name in enumerate(names):
            place = folder / name
            place.mkdir(parents=True, exist_ok=True)
            cable = CableProcess(place, baud, seed + index)
            stack.callback(cable.end)
            cables.append(cable)
        for name, cable in zip(names, cables, strict=True):
            cable.wait_ready()
            place = folder / name
            machine: Machine = PosixBoard(place, name, elf) if board == "posix" else QemuBoard(board, place, name, elf)
            emulated = EmulatedBoard(name, place, machine, cable)
            stack.callback(emulated.close)
            started.append(emulated)
        for emulated in started:
            emulated.power_on()
        yield started


def default_elf(board: str, firmware: Path) -> Path:
    """Where `mcu build` leaves the image."""
    return firmware / "build" / board / ("app" if board == "posix" else "app.elf")


RESET_LINES: tuple[str, ...] = get_args(ResetLine)
