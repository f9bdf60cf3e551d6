"""`mcu emulate`: boards that run until they are told to end, and the socket `DIR/mcu.sock` that `mcu set` speaks to.

One JSON object a line each way, one exchange a connection; who says nothing within a moment is hung up on.
"""

import contextlib
import select
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, assert_never

import msgspec

from edge_tools.hil import sockets
from edge_tools.hil.board import EmulatedBoard
from edge_tools.hil.control import LINE_BYTES_MAX, LineState, Set
from edge_tools.hil.errors import HilError

SOCKET = "mcu.sock"
BOARDS_FILE = "boards.json"
_SILENCE_S = 2.0
_SIGNAL_SEEN_S = 0.5
_PATIENCE_S = 30.0


class BoardState(msgspec.Struct, frozen=True):
    """What `mcu list` tells of one board. port: what a gateway file names."""

    name: str
    board: str
    port: str
    powered: bool
    line: LineState


class ListBoards(msgspec.Struct, frozen=True, tag="list", tag_field="do", forbid_unknown_fields=True):
    pass


class SetBoard(msgspec.Struct, frozen=True, tag="set", tag_field="do", forbid_unknown_fields=True, omit_defaults=True):
    """What is left out stays as it is. Order: the line, the plug, the sensor, then power and reset."""

    name: str
    line: Set | None = None
    plugged: bool | None = None
    temperature_c: float | None = None
    powered: bool | None = None
    reset: bool = False


Request = ListBoards | SetBoard


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    ok: bool
    error: str = ""
    fix: str = ""
    boards: tuple[BoardState, ...] = ()


_requests: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
_answers = msgspec.json.Decoder(Answer)


@contextlib.contextmanager
def claim(folder: Path) -> Iterator[socket.socket]:
    """The folder's control socket, taken before any board starts: one emulation a folder. Raises HilError."""
    try:
        with sockets.connect(folder / SOCKET, _SILENCE_S):
            raise HilError(f"`mcu emulate` already runs in {folder}", "End it, or give another --dir.")
    except OSError:
        listener = sockets.listen(folder / SOCKET)
    try:
        yield listener
    finally:
        listener.close()
        (folder / SOCKET).unlink(missing_ok=True)


class Emulation:
    """The boards of one folder, served to `mcu set` and `mcu list`. boards: already running."""

    def __init__(self, folder: Path, board: str, boards: Sequence[EmulatedBoard]) -> None:
        self._folder, self._kind, self._boards = folder, board, boards

    def describe(self) -> list[dict[str, str]]:
        return [{"name": board.name, "board": self._kind, "port": str(board.port)} for board in self._boards]

    def serve(self, listener: socket.socket, on_ready: Callable[[], None]) -> None:
        """Until a signal's handler raises. boards.json is there meanwhile; on_ready is called once it is."""
        file = self._folder / BOARDS_FILE
        file.write_bytes(msgspec.json.format(msgspec.json.encode(self.describe()), indent=2) + b"\n")
        try:
            on_ready()
            while True:
                # A signal that came just before the wait is seen after it: never wait for good.
                if not select.select([listener], [], [], _SIGNAL_SEEN_S)[0]:
                    continue
                with contextlib.suppress(OSError):
                    self._exchange(listener)
        finally:
            file.unlink(missing_ok=True)

    def _exchange(self, listener: socket.socket) -> None:
        link, _ = listener.accept()
        with link:
            link.settimeout(_SILENCE_S)
            link.sendall(msgspec.json.encode(self.answer(_line(link))) + b"\n")

    def answer(self, line: bytes) -> Answer:
        try:
            request = _requests.decode(line)
            match request:
                case ListBoards():
                    return Answer(ok=True, boards=tuple(self._state(board) for board in self._boards))
                case SetBoard():
                    return Answer(ok=True, boards=(self._set(request),))
                case _:
                    assert_never(request)
        except HilError as refused:
            return Answer(ok=False, error=refused.problem, fix=refused.fix)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as problem:
            return Answer(ok=False, error=str(problem), fix="Ask as `mcu list` and `mcu set` do.")

    def _set(self, request: SetBoard) -> BoardState:
        board = next((board for board in self._boards if board.name == request.name), None)
        if board is None:
            names = ", ".join(board.name for board in self._boards)
            raise HilError(f"no board {request.name!r}", f"There are: {names}.")
        if request.line is not None:
            board.set(request.line)
        if request.plugged is not None:
            (board.replug if request.plugged else board.unplug)()
        if request.temperature_c is not None:
            board.set_temperature(request.temperature_c)
        if request.powered is not None:
            (board.power_on if request.powered else board.power_cut)()
        if request.reset:
            board.reset()
        return self._state(board)

    def _state(self, board: EmulatedBoard) -> BoardState:
        return BoardState(
            name=board.name, board=self._kind, port=str(board.port), powered=board.powered, line=board.line()
        )


def ask(folder: Path, request: Request) -> tuple[BoardState, ...]:
    """Ask the emulation that runs in folder. Raises HilError when none does, or when it refuses."""
    try:
        with sockets.connect(folder / SOCKET, _PATIENCE_S) as link:
            link.sendall(msgspec.json.encode(request) + b"\n")
            answer = _answers.decode(_line(link, bytes_max=1024 * 1024))
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as problem:
        raise HilError(
            f"no emulation runs in {folder}", f"Start one: mcu emulate --board mps2_an385 --dir {folder}"
        ) from problem
    except (OSError, msgspec.MsgspecError) as problem:
        raise HilError(f"the emulation in {folder} does not answer: {problem}", "Start it anew.") from problem
    if not answer.ok:
        raise HilError(f"{folder}: {answer.error}", answer.fix)
    return answer.boards


def _line(link: socket.socket, bytes_max: int = LINE_BYTES_MAX) -> bytes:
    """One line, or what came before the other side hung up or grew too long."""
    line = b""
    while not line.endswith(b"\n") and len(line) <= bytes_max:
        chunk = link.recv(65_536)
        if not chunk:
            break
        line += chunk
    return line


def as_json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
