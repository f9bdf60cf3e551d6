"""QEMU's machine protocol on a socket we hold one end of: commands, and the events that arrive meanwhile."""

import json
import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

from edge_tools.hil.errors import HilError

_PATIENCE_S = 10.0


class Qmp:
    """One command at a time. Events are kept, by name, in the order they came; all are read on demand."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._half = b""
        self._lock = Lock()
        self._events: list[str] = []
        self._greeted = False

    def command(self, name: str, **arguments: object) -> Any:
        """What QEMU returned. Raises HilError when it refuses or is gone."""
        with self._lock:
            if not self._greeted:
                self._ask("qmp_capabilities", {})
                self._greeted = True
            return self._ask(name, arguments)

    def events(self) -> list[str]:
        """All events since the start, such as RESET, WATCHDOG, STOP, RESUME."""
        with self._lock, self._gone():
            while select.select([self._link], [], [], 0)[0]:
                for message in self._receive():
                    self._note(message)
            return list(self._events)

    def close(self) -> None:
        self._link.close()

    def _ask(self, name: str, arguments: dict[str, object]) -> Any:
        with self._gone():
            self._link.settimeout(_PATIENCE_S)
            self._link.sendall(json.dumps({"execute": name, "arguments": arguments}).encode() + b"\n")
            deadline_s = time.monotonic() + _PATIENCE_S
            answer: dict[str, Any] | None = None
            while answer is None:
                if time.monotonic() > deadline_s:
                    raise TimeoutError("no answer")
                for message in self._receive():
                    if "return" in message or "error" in message:
                        answer = message
                    else:
                        self._note(message)
        if "error" in answer:
            raise HilError(f"QEMU refused {name}: {answer['error'].get('desc', answer)}", "Check the board's devices.")
        return answer["return"]

    def _note(self, message: dict[str, Any]) -> None:
        if "event" in message:
            self._events.append(message["event"])

    def _receive(self) -> list[dict[str, Any]]:
        data = self._link.recv(65_536)
        if not data:
            raise ConnectionResetError("QEMU hung up")
        *lines, self._half = (self._half + data).split(b"\n")
        return [json.loads(line) for line in lines if line.strip()]

    @contextmanager
    def _gone(self) -> Iterator[None]:
        try:
            yield
        except OSError as problem:
            raise HilError(f"QEMU does not answer: {problem}", "See the board's qemu.log.") from problem
