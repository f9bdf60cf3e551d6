"""Serial ports: found, opened for us alone, read and written without blocking, opened again when they come back.

The only module that imports pyserial. Invariants: a port is opened raw and locked, or not at all; at most one write is
made in a turn of the loop, of everything that is ready; whatever happens to a port ends neither the task nor another
port's; each change of state is one log line with its cause and, where a person can help, the remedy.
"""

import asyncio
import contextlib
import errno
import fcntl
import glob
import logging
import os
import random
import stat
import termios
from collections.abc import Callable, Iterable
from typing import Final, Protocol

import serial
from serial.tools import list_ports

from edge.boards.board import Board
from edge.errors import ConnectionFailed
from edge.logs import log_event
from edge.metrics import Metrics

READ_BYTES_MAX: Final = 65536
BACKOFF_S_MIN: Final = 0.25
BACKOFF_S_MAX: Final = 10.0
STEADY_S: Final = 5.0
_TICK_S_MIN = 0.005
_PTY_MAJORS = range(136, 144)

_log = logging.getLogger(__name__)


class UsbPort(Protocol):
    """What pyserial says of one port."""

    device: str
    vid: int | None
    pid: int | None
    serial_number: str | None


def find_port(name: str, ports: Callable[[], Iterable[UsbPort]] = list_ports.comports) -> str:
    """The path of a port given by path or by `usb:VID:PID[:SERIAL]` (hexadecimal). Raises ConnectionFailed.

    Refuses to guess between two that fit.
    """
    if not name.startswith("usb:"):
        return name
    vid, pid, *serials = name.removeprefix("usb:").split(":", 2)
    fits = [
        port
        for port in ports()
        if (port.vid, port.pid) == (int(vid, 16), int(pid, 16)) and (not serials or port.serial_number == serials[0])
    ]
    if not fits:
        raise ConnectionFailed("not_found", f"no USB port fits {name}", "Plug the board in, or correct its port.")
    if len(fits) > 1:
        them = ", ".join(f"{port.device} (serial {port.serial_number or 'none'})" for port in fits)
        fix = f"Name one by its serial number, usb:{vid}:{pid}:SERIAL, or by /dev/serial/by-path."
        raise ConnectionFailed("ambiguous", f"{name} fits several ports: {them}", fix)
    return fits[0].device


class SerialPort:
    """One open port: raw, locked, non-blocking. Opening raises ConnectionFailed."""

    def __init__(self, path: str, baud: int) -> None:
        self.path = path
        try:
            mode = os.stat(path)
        except FileNotFoundError:
            problem, fix = f"{path} is not there", "Plug the board in, or correct its port."
            raise ConnectionFailed("not_found", problem, fix) from None
        except OSError as error:
            raise _failure(path, error) from None
        if not stat.S_ISCHR(mode.st_mode):
            raise ConnectionFailed("not_serial", f"{path} is no serial port", "Correct the board's port.")
        try:
            self._serial = serial.Serial(path, baud, timeout=0, write_timeout=0, exclusive=True)
        except (OSError, ValueError, termios.error) as error:
            raise _failure(path, error) from None
        self.fd: int = self._serial.fileno()
        try:
            if os.major(mode.st_rdev) not in _PTY_MAJORS:  # a pty stays exclusive after a kill while its owner holds it
                fcntl.ioctl(self.fd, termios.TIOCEXCL)
            settings = termios.tcgetattr(self.fd)
            settings[6][termios.VMIN] = 1  # so that a read of nothing is told from the end
            termios.tcsetattr(self.fd, termios.TCSANOW, settings)
        except (OSError, termios.error) as error:
            self.close()
            raise _failure(path, error) from None

    def read(self) -> bytes:
        """What is there; b'' when nothing is. Raises OSError when the port is gone."""
        try:
            data = os.read(self.fd, READ_BYTES_MAX)
        except BlockingIOError:
            return b""
        if not data:
            raise OSError(errno.ENODEV, "the port hung up")
        return data

    def write(self, data: bytes) -> int:
        """How many bytes the port took. Raises OSError when the port is gone."""
        try:
            return os.write(self.fd, data)
        except BlockingIOError:
            return 0

    def close(self) -> None:
        """Never waits for what is still unsent."""
        with contextlib.suppress(OSError, termios.error):
            termios.tcflush(self.fd, termios.TCIOFLUSH)
        with contextlib.suppress(OSError, termios.error):
            self._serial.close()


def _failure(path: str, error: Exception) -> ConnectionFailed:
    number = error.args[0] if error.args and isinstance(error.args[0], int) else getattr(error, "errno", None)
    if number in {errno.EACCES, errno.EPERM}:
        fix = "Add the user that runs the gateway to the group dialout: usermod -aG dialout USER, then start it again."
        return ConnectionFailed("no_permission", f"{path} may not be opened", fix)
    if number in {errno.EBUSY, errno.EAGAIN}:
        holder = find_holder(path)
        problem = f"{path} is in use" + (f" by {holder}" if holder else "")
        return ConnectionFailed("busy", problem, f"Stop {holder or 'the program that holds it'}.")
    if number in {errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.EIO}:
        return ConnectionFailed("not_found", f"{path} is gone", "Plug the board in again.")
    if isinstance(error, ValueError):
        return ConnectionFailed("baud", f"{path}: {error}", "Choose a baud rate that the adapter has.")
    return ConnectionFailed("not_serial", f"{path} cannot be set up: {error}", "Correct the board's port or baud.")


def find_holder(path: str) -> str:
    """`pid 12 (minicom)` for whoever has the port locked or else open, '' when /proc does not tell."""
    with contextlib.suppress(OSError):
        inode = os.stat(path).st_ino
        with open("/proc/locks", encoding="ascii", errors="replace") as locks:
            for fields in map(str.split, locks):
                if len(fields) > 5 and fields[1] == "FLOCK" and fields[5].endswith(f":{inode}") and fields[4] != "-1":
                    pid = fields[4]
                    if _has_open(pid, path):
                        return _named(pid)
    for entry in glob.iglob("/proc/[0-9]*"):
        pid = entry.rpartition("/")[2]
        if pid != str(os.getpid()) and _has_open(pid, path):
            return _named(pid)
    return ""


def _has_open(pid: str, path: str) -> bool:
    wanted = os.path.realpath(path)
    for link in glob.iglob(f"/proc/{pid}/fd/*"):
        with contextlib.suppress(OSError):
            if os.readlink(link) == wanted:
                return True
    return False


def _named(pid: str) -> str:
    if pid == str(os.getpid()):
        return f"this gateway itself (pid {pid}), for another board"
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as comm:
            return f"pid {pid} ({comm.read().strip()})"
    except OSError:
        return f"pid {pid}"


async def run_port(
    board: Board,
    metrics: Metrics,
    *,
    rng: random.Random | None = None,
    ports: Callable[[], Iterable[UsbPort]] = list_ports.comports,
) -> None:
    """Keep one board's port open until cancelled; the board is ticked while it is closed, too."""
    rng = rng or random.Random()  # noqa: S311 (jitter)
    loop = asyncio.get_running_loop()
    backoff_s, last_cause = BACKOFF_S_MIN, ""
    opened = metrics.counter("port_opened", board=board.name)
    while True:
        since = loop.time()
        try:
            path = await asyncio.to_thread(find_port, board.settings.port, ports)
            port = SerialPort(path, board.settings.baud)
        except ConnectionFailed as failure:
            problem: ConnectionFailed | None = failure
        else:
            opened.value += 1
            log_event(_log, "port_opened", board=board.name, port=board.settings.port, path=path)
            last_cause = ""
            try:
                problem = await _Session(board, port).run()
            finally:
                port.close()
                board.closed("the gateway stops")
        assert problem is not None
        board.closed(str(problem))
        metrics.counter("port_failed", board=board.name, cause=problem.cause).value += 1
        if problem.cause != last_cause and (last_cause, problem.cause) != ("unplugged", "not_found"):
            _log_closed(board, problem)
        last_cause = last_cause if problem.cause == "not_found" and last_cause else problem.cause
        if loop.time() - since >= STEADY_S:
            backoff_s = BACKOFF_S_MIN
        await _tick_for(board, backoff_s * rng.uniform(0.5, 1.0))
        backoff_s = min(backoff_s * 2, BACKOFF_S_MAX)


def _log_closed(board: Board, problem: ConnectionFailed) -> None:
    log_event(
        _log,
        "port_closed",
        level=logging.WARNING,
        board=board.name,
        port=board.settings.port,
        cause=problem.cause,
        problem=problem.problem,
        remedy=problem.remedy,
    )


async def _tick_for(board: Board, wait_s: float) -> None:
    loop = asyncio.get_running_loop()
    until = loop.time() + wait_s
    while (now := loop.time()) < until:
        board.tick(now)
        due = board.deadline()
        await asyncio.sleep(max(_TICK_S_MIN, min(until, until if due is None else due) - now))


class _Session:
    """One port while it is open."""

    def __init__(self, board: Board, port: SerialPort) -> None:
        self._board, self._port = board, port
        self._loop = asyncio.get_running_loop()
        self._gone: asyncio.Future[ConnectionFailed] = self._loop.create_future()
        self._unsent = memoryview(b"")
        self._flushing = False
        self._timer: asyncio.TimerHandle | None = None

    async def run(self) -> ConnectionFailed:
        """Until the port is gone; returns why."""
        board = self._board
        board.wake = self._wake
        self._loop.add_reader(self._port.fd, self._on_readable)
        try:
            board.opened(self._loop.time())
            self._flush()
            return await self._gone
        finally:
            board.wake = _nobody
            self._gone.cancel()  # so that a flush still to come leaves the file descriptor alone
            self._loop.remove_reader(self._port.fd)
            self._loop.remove_writer(self._port.fd)
            if self._timer is not None:
                self._timer.cancel()

    def _on_readable(self) -> None:
        try:
            data = self._port.read()
        except OSError as error:
            self._lose(error)
            return
        if data:
            self._board.receive(data, self._loop.time())
            self._flush()

    def _wake(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if self._gone.done():
            return
        if not self._unsent:
            self._send(self._board.output(self._loop.time()))
        self._arm()

    def _send(self, data: bytes | memoryview) -> None:
        if not data:
            return
        try:
            sent = self._port.write(bytes(data))
        except OSError as error:
            self._lose(error)
            return
        self._unsent = memoryview(data)[sent:]
        if self._unsent:
            self._loop.add_writer(self._port.fd, self._on_writable)

    def _on_writable(self) -> None:
        self._loop.remove_writer(self._port.fd)
        self._send(self._unsent)
        if not self._unsent:
            self._flush()

    def _arm(self) -> None:
        due = self._board.deadline()
        if due is None:
            return
        if self._timer is not None:
            if self._timer.when() <= due:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(max(due, self._loop.time() + _TICK_S_MIN), self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        self._board.tick(self._loop.time())
        self._flush()

    def _lose(self, error: OSError) -> None:
        if not self._gone.done():
            problem = f"{self._port.path} is gone ({error.strerror or error})"
            self._gone.set_result(ConnectionFailed("unplugged", problem, "Plug the board in again."))


def _nobody() -> None:
    pass
