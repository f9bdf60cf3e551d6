"""The gateway's control socket: one JSON object a line, asked by `edge status` and `edge watch`.

Ask `{"do": "status"}` for one line; `{"do": "watch", "filter": "dt/#"}` for a line a message until either side closes.
What else may be asked, with a line for each row of the answer, is given as `asks`: `{"do": "stream", "name": "x"}`.
After the rows comes `{"rows": how many}`: without it the gateway ended before it had told all.
A watcher that does not keep up loses lines, is told how many, and slows nobody. The socket is its owner's (0600).
"""

import asyncio
import base64
import contextlib
import os
import socket
import stat
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from edge.errors import InputRejected, TransientError
from edge.messages import Message
from edge.router import Router
from edge.topics import check_filter, matches

LINE_BYTES_MAX = 65_536
ASK_BYTES_MAX = 256 * 1024
WATCHERS_MAX = 16
ROWS_A_TURN = 64
_WATCH_BYTES_MAX = 1024 * 1024


class BrokenOff(TransientError):
    """The gateway ended before its answer did."""


class Ask(msgspec.Struct, forbid_unknown_fields=True):
    """One request line."""

    do: str
    filter: str = "#"
    name: str = ""
    first: int = 0
    last: int = (1 << 63) - 1
    topic: str = ""
    payload: bytes = b""  # in base64


Rows = Iterable[Any]
Answering = Callable[[Ask], Rows | Awaitable[Rows]]


class Control:
    """Serves one gateway. status: returns what `edge status` shows, as anything msgspec can encode. asks: by what is
    asked, what gives the rows of the answer, None for a pause; each may raise InputRejected."""

    def __init__(
        self,
        path: str,
        status: Callable[[], Any],
        router: Router,
        asks: Mapping[str, Answering] | None = None,
    ) -> None:
        self._asks = asks or {}
        self._path = path
        self._status = status
        self._router = router
        self._watchers = 0

    async def run(self) -> None:
        """Serve until cancelled; the socket's file is gone afterwards."""
        server = await asyncio.start_unix_server(self._serve, sock=_bind(self._path), limit=ASK_BYTES_MAX)
        try:
            await server.serve_forever()
        finally:
            server.close()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._answer(reader, writer)
        except InputRejected as error:
            _write(writer, {"error": error.reason, "detail": error.detail})
        except (ConnectionError, TimeoutError):
            pass  # the asker went away; nobody is left to tell
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await asyncio.wait_for(reader.readline(), 10)
            ask = msgspec.json.decode(line, type=Ask)
        except (ValueError, RecursionError) as error:
            raise InputRejected("bad_request", str(error)) from None
        if ask.do == "status":
            _write(writer, self._status())
            await writer.drain()
        elif ask.do == "watch":
            check_filter(ask.filter)
            if self._watchers >= WATCHERS_MAX:
                raise InputRejected("too_many_watchers", f"{WATCHERS_MAX} watch already")
            await self._watch(ask.filter, reader, writer)
        elif ask.do in self._asks:
            rows = self._asks[ask.do](ask)
            told = 0
            for count, row in enumerate(await rows if isinstance(rows, Awaitable) else rows):
                if row is not None:
                    _write(writer, row)
                    told += 1
                    await writer.drain()
                if row is None or count % ROWS_A_TURN == 0:
                    await asyncio.sleep(0)
            _write(writer, {"rows": told})
        else:
            known = ", ".join(("status", "watch", *self._asks))
            raise InputRejected("unknown_request", f"{ask.do[:40]!r}; known are {known}")

    async def _watch(self, topic_filter: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        transport = writer.transport
        lost = 0

        def tap(source: str, messages: Sequence[Message]) -> None:
            nonlocal lost
            for message in messages:
                if matches(topic_filter, message.topic):
                    if transport.get_write_buffer_size() > _WATCH_BYTES_MAX:
                        lost += 1
                        continue
                    if lost:
                        _write(writer, {"lost": lost})
                        lost = 0
                    _write(writer, describe(source, message, time.time()))

        _write(writer, {"watching": topic_filter})
        end = self._router.tap(tap)
        self._watchers += 1
        try:
            while await reader.read(LINE_BYTES_MAX):
                pass  # what a watcher says further is of no meaning; its end is
        finally:
            self._watchers -= 1
            end()


def describe(source: str, message: Message, now_s: float) -> dict[str, Any]:
    """One message as a watcher sees it, and as `edge.rules.recorded` reads it again: `payload` where it is text, else
    `payload_base64`; of the properties those that are there. now_s: Unix time."""
    row: dict[str, Any] = {"time": round(now_s, 3), "source": source, "topic": message.topic}
    try:
        row["payload"] = message.payload.decode()
    except UnicodeDecodeError:
        row["payload_base64"] = base64.b64encode(message.payload).decode()
    row["qos"] = message.qos
    if message.retain:
        row["retain"] = True
    if message.reading is not None:
        row |= {"thing": message.reading.thing, "boot": message.reading.boot, "sequence": message.reading.sequence}
    if (properties := message.properties) is not None:
        found = msgspec.structs.asdict(properties)
        user = found.pop("user")
        row |= {name: value for name, value in found.items() if value is not None}
        if user:
            row["user_properties"] = user
    return row


def _write(writer: asyncio.StreamWriter, row: Any) -> None:
    writer.write(msgspec.json.encode(row) + b"\n")


def _bind(path: str) -> socket.socket:
    """A listening socket's file left by a gateway that was killed is replaced; the data_dir's lock keeps two apart."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.stat(path).st_mode):
            os.unlink(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        old = os.umask(0o177)
        try:
            sock.bind(path)
        finally:
            os.umask(old)
    except OSError:
        sock.close()
        raise
    return sock


def ask_status(path: str) -> Any:
    """What a running gateway says of itself. Raises TransientError if none answers."""
    for line in _ask(path, {"do": "status"}):
        return msgspec.json.decode(line)
    raise BrokenOff(f"The gateway at {path} closed without an answer. Ask again.")


def watch(path: str, topic_filter: str) -> Iterator[dict[str, Any]]:
    """Messages as they are routed, until the gateway ends. Raises TransientError, InputRejected."""
    for line in _ask(path, {"do": "watch", "filter": topic_filter}):
        row: dict[str, Any] = msgspec.json.decode(line)
        if "error" in row:
            raise InputRejected(row["error"], row.get("detail", ""))
        yield row


def ask_rows(path: str, do: str, **fields: str | int | bytes) -> Iterator[dict[str, Any]]:
    """The rows of an answer. Raises TransientError, InputRejected; BrokenOff, perhaps after some of the rows."""
    for told, line in enumerate(_ask(path, {"do": do, **fields})):
        row: dict[str, Any] = msgspec.json.decode(line)
        if row == {"rows": told}:
            return
        if "error" in row and "detail" in row:
            raise InputRejected(row["error"], row["detail"])
        yield row
    raise BrokenOff(f"The gateway at {path} ended before it had told all. Ask again.")


def _ask(path: str, ask: Mapping[str, str | int | bytes]) -> Iterator[bytes]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            sock.connect(path)
        except PermissionError:
            raise TransientError(
                f"{path} may not be opened. Run this as the gateway's own user, or with sudo."
            ) from None
        except OSError as error:
            fix = "Is the gateway running, and is this its gateway file (--config) or socket (--socket)?"
            raise TransientError(f"No gateway answers at {path}: {error.strerror}. {fix}") from None
        try:
            sock.sendall(msgspec.json.encode(ask) + b"\n")
            with sock.makefile("rb") as lines:
                for line in lines:
                    if line.endswith(b"\n"):  # else it ended within it
                        yield line
        except OSError:
            return  # it ended with our question unread
