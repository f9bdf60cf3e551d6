"""One call asked for by `edge invoke`, or by another function: what it gave, published and printed. Pure."""

import base64
from collections.abc import Callable
from typing import Any, Final

from edge.messages import Message

PUBLISHES_MAX: Final = 100
LINES_MAX: Final = 200


class Invocation:
    """ended: called once, when it is."""

    def __init__(
        self,
        topic: str,
        payload: bytes,
        ended: Callable[["Invocation"], None],
        *,
        context: bytes = b"",
    ) -> None:
        self.topic, self.payload, self.context = topic, payload, context
        self.result: bytes | None = None
        self.error = self.message = self.traceback = ""
        self.took_s = 0.0
        self.publishes: list[Message] = []
        self.lines: list[str] = []
        self.is_over = False
        self._ended = ended

    def published(self, message: Message) -> None:
        if len(self.publishes) < PUBLISHES_MAX:
            self.publishes.append(message)

    def printed(self, line: str) -> None:
        if len(self.lines) < LINES_MAX:
            self.lines.append(line)

    def done(self, result: bytes | None, took_s: float) -> None:
        self.result, self.took_s = result, took_s
        self._end()

    def failed(self, error: str, message: str, traceback: str, took_s: float) -> None:
        self.error, self.message, self.traceback, self.took_s = error, message, traceback, took_s
        self._end()

    def _end(self) -> None:
        if not self.is_over:
            self.is_over = True
            self._ended(self)

    def row(self) -> dict[str, Any]:
        """As `edge invoke --json` prints it."""
        row: dict[str, Any] = {"ok": not self.error, "duration_ms": round(1000 * self.took_s, 3)}
        if self.error:
            row |= {"error": self.error, "message": self.message, "traceback": self.traceback}
        row |= _shown("result", self.result)
        row["publishes"] = [
            {"topic": one.topic, **_shown("payload", one.payload), "qos": one.qos} for one in self.publishes
        ]
        row["logs"] = self.lines
        return row


def _shown(name: str, value: bytes | None) -> dict[str, Any]:
    if value is None:
        return {name: None}
    try:
        return {name: value.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(value).decode()}
