"""What is said to a cable over its control socket: one JSON object a line each way.

A request names itself in "do": {"do": "status"}, {"do": "set", "baud": 9600}, {"do": "unplug"}, {"do": "replug"}.
An answer holds "ok", and "error" or the line's state. A line that is too long, no JSON, of an unknown kind, with
an unknown field or a value out of bounds is answered with an error and changes nothing.
"""

import socket
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from edge_tools.hil import sockets
from edge_tools.hil.errors import HilError
from edge_tools.hil.pace import BAUD_MAX, BAUD_MIN, Counts, Noise

LINE_BYTES_MAX = 4096
_PATIENCE_S = 10.0

_Rate = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
_Ms = Annotated[float, msgspec.Meta(ge=0.0, le=10_000.0)]
_Baud = Annotated[int, msgspec.Meta(ge=BAUD_MIN, le=BAUD_MAX)]
Direction = Literal["up", "down", "both"]


class Status(msgspec.Struct, frozen=True, tag="status", tag_field="do", forbid_unknown_fields=True):
    pass


class Set(msgspec.Struct, frozen=True, tag="set", tag_field="do", forbid_unknown_fields=True):
    """What is left out stays as it is. stall: the board's end no longer reads what the gateway writes."""

    direction: Direction = "both"
    baud: _Baud | None = None
    bit_errors: _Rate | None = None
    byte_loss: _Rate | None = None
    byte_insertion: _Rate | None = None
    delay_ms: _Ms | None = None
    jitter_ms: _Ms | None = None
    stall: bool | None = None

    def noise(self, before: Noise) -> Noise:
        def chosen(new: float | None, old: float) -> float:
            return old if new is None else new

        return Noise(
            bit_errors=chosen(self.bit_errors, before.bit_errors),
            byte_loss=chosen(self.byte_loss, before.byte_loss),
            byte_insertion=chosen(self.byte_insertion, before.byte_insertion),
            delay_ms=chosen(self.delay_ms, before.delay_ms),
            jitter_ms=chosen(self.jitter_ms, before.jitter_ms),
        )


class Unplug(msgspec.Struct, frozen=True, tag="unplug", tag_field="do", forbid_unknown_fields=True):
    pass


class Replug(msgspec.Struct, frozen=True, tag="replug", tag_field="do", forbid_unknown_fields=True):
    pass


Request = Status | Set | Unplug | Replug


class LineState(msgspec.Struct, frozen=True):
    """now_s: the cable's own monotonic clock, for rates between two states. up: board to gateway; down: back."""

    now_s: float
    baud: int
    plugged: bool
    stalled: bool
    board_connected: bool
    up: Counts
    down: Counts
    noise_up: Noise
    noise_down: Noise


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    ok: bool
    error: str = ""
    line: LineState | None = None


_requests: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
_answers = msgspec.json.Decoder(Answer)


def read_request(line: bytes) -> Request | Answer:
    """The request, or the answer that refuses it."""
    if len(line) > LINE_BYTES_MAX:
        return Answer(ok=False, error=f"a line of more than {LINE_BYTES_MAX} bytes")
    try:
        return _requests.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as problem:
        return Answer(ok=False, error=str(problem))


class CableClient:
    """Speaks to a running cable. Each request connects anew: a cable may be ended and started in between."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def ask(self, request: Request) -> LineState:
        """Raises HilError when the cable is not there or refuses."""
        try:
            with sockets.connect(self._path, _PATIENCE_S) as link:
                link.sendall(msgspec.json.encode(request) + b"\n")
                answer = _answers.decode(_read_line(link))
        except (OSError, msgspec.MsgspecError) as problem:
            raise HilError(
                f"no answer from the cable at {self._path}: {problem}", "Is `mcu emulate` still running there?"
            ) from problem
        if not answer.ok or answer.line is None:
            raise HilError(f"the cable at {self._path} refused: {answer.error}", "Change the value.")
        return answer.line


def _read_line(link: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        chunk = link.recv(LINE_BYTES_MAX)
        if not chunk:
            raise ConnectionResetError("it hung up")
        line += chunk
    return line
