"""The cable: a process that stands between the port a gateway opens and the UART of an emulated board.

It owns a pty (`DIR/port` is a link to its slave end) and a socket `DIR/uart.sock` where the board's UART connects;
`DIR/cable.sock` takes control lines (control.py). Between the two it keeps the pace of a real line (pace.py).

Invariants:
- Bytes that nobody can receive are lost and counted, as on a real line: no board, no gateway that reads, a
  cable that is unplugged. A sender is only ever held back by the pace (and the board's end by its own speed).
- The cable holds the slave end open, so the pty outlives the gateway; unplugging closes it, and the gateway sees
  the line hang up.
- One thread, one `select` with microseconds: epoll and poll round to a millisecond, which is eleven bytes.
"""

import argparse
import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import sys
import termios
import time
import tty
from collections.abc import Sequence
from pathlib import Path
from typing import assert_never

import msgspec

from edge_tools.hil import sockets
from edge_tools.hil.control import LINE_BYTES_MAX, Answer, LineState, Replug, Request, Set, Status, Unplug, read_request
from edge_tools.hil.pace import BAUD_DEFAULT, Wire

_CLIENTS_MAX = 16
_SEND_BUFFER_BYTES = 1  # the kernel raises it to its least: a UART has next to no buffer
_PR_SET_TIMERSLACK = 29
_TIMER_SLACK_NS = 10_000


class _Port:
    """The pty under the name the gateway opens. Closed: unplugged, and the name is gone."""

    def __init__(self, link: Path) -> None:
        self._link = link
        self.master = -1
        self._slave = -1

    @property
    def plugged(self) -> bool:
        return self.master >= 0

    def plug(self) -> None:
        self.master, self._slave = os.openpty()
        tty.setraw(self._slave, termios.TCSANOW)
        os.set_blocking(self.master, False)
        fresh = self._link.with_name(self._link.name + ".new")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(os.ttyname(self._slave))
        fresh.replace(self._link)

    def unplug(self) -> None:
        self._link.unlink(missing_ok=True)
        os.close(self._slave)
        os.close(self.master)
        self.master = self._slave = -1

    def read(self, size: int) -> bytes:
        try:
            return os.read(self.master, size)
        except (BlockingIOError, InterruptedError):
            return b""

    def write(self, data: bytes) -> int:
        """How many bytes the gateway's side had room for."""
        try:
            return os.write(self.master, data)
        except (BlockingIOError, InterruptedError):
            return 0


class _Client:
    """One control connection: half a line in, unsent answers out, both bounded."""

    def __init__(self, link: socket.socket) -> None:
        self.link = link
        self._half = bytearray()
        self.out = bytearray()

    def fileno(self) -> int:
        return self.link.fileno()

    def lines(self) -> list[bytes] | None:
        """Whole lines received. None: hung up, or a line beyond the bound."""
        try:
            data = self.link.recv(LINE_BYTES_MAX)
        except (BlockingIOError, InterruptedError):
            return []
        except OSError:
            return None
        if not data:
            return None
        self._half += data
        *lines, rest = bytes(self._half).split(b"\n")
        self._half = bytearray(rest)
        if len(rest) > LINE_BYTES_MAX:
            return None
        return [line for line in lines if line.strip()]

    def flush(self) -> bool:
        """False: hung up, or it asks without ever reading the answers."""
        try:
            if self.out:
                del self.out[: self.link.send(self.out)]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            return False
        return len(self.out) <= 16 * LINE_BYTES_MAX


_Waitable = int | socket.socket | _Client


class Cable:
    """folder: where the port and the sockets appear. The same seed gives the same noise on the same bytes."""

    def __init__(self, folder: Path, baud: int = BAUD_DEFAULT, seed: int = 0) -> None:
        self.up = Wire(baud, f"{seed} up")
        self.down = Wire(baud, f"{seed} down")
        self._stalled = False
        self._port = _Port(folder / "port")
        self._board: socket.socket | None = None
        self._to_board = bytearray()
        self._uart_listener = sockets.listen(folder / "uart.sock")
        self._control_listener = sockets.listen(folder / "cable.sock")
        self._clients: list[_Client] = []
        self._port.plug()

    def run(self) -> None:
        """Until the process is ended."""
        while True:
            self.step()

    def step(self) -> None:
        """Wait for the next byte, control line or due time, and handle what is there."""
        now_s = time.monotonic()
        readable: list[_Waitable] = [self._uart_listener, self._control_listener, *self._clients]
        writable: list[_Waitable] = [client for client in self._clients if client.out]
        board, master = self._board, self._port.master
        if board is not None:
            if self.up.room() > 0:
                readable.append(board)
            if self._to_board:
                writable.append(board)
        if master >= 0 and not self._stalled and self.down.room() > 0:
            readable.append(master)
        due_s = self.up.next_s(now_s)
        if not self._to_board:
            down_s = self.down.next_s(now_s)
            if down_s is not None and (due_s is None or down_s < due_s):
                due_s = down_s
        timeout_s = None if due_s is None else max(0.0, due_s - now_s)
        ready, sendable, _ = select.select(readable, writable, [], timeout_s)

        now_s = time.monotonic()
        self._deliver(now_s)
        if ready:
            self._receive(ready, now_s)
        if sendable and self._to_board:
            self._send_to_board(b"")
        if ready or sendable:
            self._answer_clients()

    def _deliver(self, now_s: float) -> None:
        data = self.up.take(now_s)
        if data:
            self.up.counts.bytes_out += len(data)
            if not self._port.plugged:
                self.up.counts.bytes_unheard += len(data)
            else:
                self.up.counts.bytes_overrun += len(data) - self._port.write(data)
        if not self._to_board:
            data = self.down.take(now_s)
            if data:
                self._send_to_board(data)

    def _send_to_board(self, data: bytes) -> None:
        self.down.counts.bytes_out += len(data)
        if self._board is None:
            self.down.counts.bytes_unheard += len(data)
            return
        self._to_board += data
        try:
            del self._to_board[: self._board.send(self._to_board)]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self._board_gone()

    def _board_gone(self) -> None:
        if self._board is not None:
            self._board.close()
            self._board = None
        self.down.counts.bytes_unheard += len(self._to_board)
        self._to_board.clear()

    def _receive(self, ready: Sequence[_Waitable], now_s: float) -> None:
        if self._board is not None and self._board in ready:
            try:
                data = self._board.recv(self.up.room())
            except (BlockingIOError, InterruptedError):
                data = None
            except OSError:
                data = b""
            if data:
                self.up.put(data, now_s)
            elif data is not None:
                self._board_gone()
        if self._port.master in ready:
            data = self._port.read(self.down.room())
            if data:
                self.down.put(data, now_s)
        if self._uart_listener in ready:
            self._accept_board()
        for client in [client for client in self._clients if client in ready]:
            lines = client.lines()
            if lines is None:
                client.link.close()
                self._clients.remove(client)
                continue
            for line in lines:
                client.out += msgspec.json.encode(self.answer(read_request(line))) + b"\n"
        if self._control_listener in ready:
            with contextlib.suppress(OSError):
                link, _ = self._control_listener.accept()
                if len(self._clients) >= _CLIENTS_MAX:
                    link.close()
                else:
                    link.setblocking(False)
                    self._clients.append(_Client(link))

    def _accept_board(self) -> None:
        with contextlib.suppress(OSError):
            link, _ = self._uart_listener.accept()
            self._board_gone()
            link.setblocking(False)
            link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
            self._board = link

    def _answer_clients(self) -> None:
        for client in self._clients[:]:
            if not client.flush():
                client.link.close()
                self._clients.remove(client)

    def answer(self, request: Request | Answer) -> Answer:
        match request:
            case Answer():
                return request
            case Status():
                pass
            case Set():
                self._set(request)
            case Unplug():
                if self._port.plugged:
                    self._port.unplug()
                    self.down.counts.bytes_unheard += self.down.clear()
            case Replug():
                if not self._port.plugged:
                    self._port.plug()
            case _:
                assert_never(request)
        return Answer(ok=True, line=self._state())

    def _set(self, request: Set) -> None:
        if request.baud is not None:
            self.up.set_baud(request.baud)
            self.down.set_baud(request.baud)
        if request.stall is not None:
            self._stalled = request.stall
        for wire, other in ((self.up, "down"), (self.down, "up")):
            noise = request.noise(wire.noise)
            if request.direction != other and noise != wire.noise:
                wire.set_noise(noise)

    def _state(self) -> LineState:
        return LineState(
            now_s=time.monotonic(),
            baud=self.up.baud,
            plugged=self._port.plugged,
            stalled=self._stalled,
            board_connected=self._board is not None,
            up=self.up.counts,
            down=self.down.counts,
            noise_up=self.up.noise,
            noise_down=self.down.noise,
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints one JSON line when the port is there. SIGTERM ends it on the spot: it keeps nothing."""
    parser = argparse.ArgumentParser(prog="cable", description="A paced serial line to an emulated board.")
    parser.add_argument("--dir", type=Path, required=True, help="the board's folder")
    parser.add_argument("--baud", type=int, default=BAUD_DEFAULT)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; who started us ends us
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, _TIMER_SLACK_NS, 0, 0, 0)
    cable = Cable(chosen.dir, chosen.baud, chosen.seed)
    print(json.dumps({"port": str(chosen.dir / "port")}), flush=True)
    cable.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
