"""Rules over recorded messages: lines as `edge watch --json` and `edge record` write them."""

import base64
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from edge.errors import InputRejected
from edge.messages import Message
from edge.rules.payloads import Decoder
from edge.rules.rule import Row, Rule
from edge.topics import matches


class Recorded(msgspec.Struct, frozen=True):
    """One line. time: Unix seconds of arrival."""

    time: float
    topic: str
    payload: str | None = None
    payload_base64: str | None = None
    source: str = ""

    def message(self) -> Message:
        raw = base64.b64decode(self.payload_base64 or "") if self.payload is None else self.payload.encode()
        return Message(self.topic, raw)


def read_lines(lines: Iterable[bytes]) -> Iterator[Recorded]:
    """Raises InputRejected naming the line that is none."""
    for place, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield msgspec.json.decode(line, type=Recorded)
        except (ValueError, RecursionError) as error:
            raise InputRejected("recording", f"line {place}: {error}") from None


class Trial:
    """One rule over a recording. offered: messages that its FROM takes; rejected: those whose payload is unreadable."""

    def __init__(self, rule: Rule, decode: Decoder) -> None:
        self.rule = rule
        self._decode = decode
        self.offered = self.rejected = self.rows = 0
        self.bytes_in = self.bytes_out = 0

    def feed(self, recorded: Recorded) -> list[Any]:
        """Rows that this message, or the time it came at, brings."""
        now = round(recorded.time * 1000)
        rows = self.rule.tick(now)
        if any(matches(topic, recorded.topic) for topic in self.rule.plan.topics):
            message = recorded.message()
            self.offered += 1
            self.bytes_in += len(message.payload)
            try:
                doc = self._decode(message.payload)
            except (ValueError, RecursionError, InputRejected):
                self.rejected += 1
            else:
                rows += self.rule.run([message], [doc], now)
        return self._out(rows)

    def finish(self) -> list[Any]:
        """Close what is still open."""
        return self._out(self.rule.flush())

    def _out(self, rows: Sequence[Row]) -> list[Any]:
        found = [row for _, row in rows]
        self.rows += len(found)
        self.bytes_out += sum(len(msgspec.json.encode(row)) for row in found)
        return found

    def report(self) -> dict[str, Any]:
        saved = self.bytes_in - self.bytes_out
        return {
            "rule": self.rule.name,
            "messages": self.offered,
            "rows": self.rows,
            "payloads_rejected": self.rejected,
            "dropped": dict(self.rule.counts),
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "saved_percent": round(100 * saved / self.bytes_in, 1) if self.bytes_in else 0.0,
        }
