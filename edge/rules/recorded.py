"""Rules over recorded messages: lines as `edge watch --json` and `edge record` write them."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from edge.errors import InputRejected
from edge.messages import Message, Properties, Reading
from edge.rules.engine import Seen
from edge.rules.payloads import Decoder
from edge.rules.rule import Row, Rule
from edge.topics import matches


class Recorded(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line, as `edge.control.describe` makes it. time: Unix seconds of arrival. payload_is_utf8: None where the
    message had no properties, or an older gateway recorded it."""

    time: float
    topic: str
    payload: str | None = None
    payload_base64: bytes | None = None
    source: str = ""
    thing: str = ""
    boot: int = 0
    sequence: int = 0
    response_topic: str | None = None
    correlation_data: bytes | None = None
    content_type: str | None = None
    payload_is_utf8: bool | None = None
    expiry_s: int | None = None
    user_properties: tuple[tuple[str, str], ...] = ()

    def message(self) -> Message:
        raw = self.payload_base64 or b"" if self.payload is None else self.payload.encode()
        reading = Reading(self.thing, self.boot, self.sequence) if self.thing else None
        properties = Properties(
            self.response_topic,
            self.correlation_data,
            self.content_type,
            bool(self.payload_is_utf8),
            self.expiry_s,
            self.user_properties,
        )
        has_none = self.payload_is_utf8 is None and properties == Properties()
        return Message(self.topic, raw, properties=None if has_none else properties, reading=reading)


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
    """One rule over a recording. seen: of this rule alone. offered: messages that its FROM takes, a reading once;
    rejected: those whose payload is unreadable."""

    def __init__(self, rule: Rule, decode: Decoder, seen: Seen) -> None:
        self.rule = rule
        self._decode, self._seen = decode, seen
        self.offered = self.rejected = self.rows = 0
        self.bytes_in = self.bytes_out = 0

    def feed(self, recorded: Recorded) -> list[Any]:
        """Rows that this message, or the time it came at, brings."""
        now = round(recorded.time * 1000)
        rows = self.rule.tick(now)
        if any(matches(topic, recorded.topic) for topic in self.rule.plan.topics) and self._is_new(recorded):
            message = recorded.message()
            self.offered += 1
            self.bytes_in += len(message.payload)
            try:
                doc = self._decode(message.payload)
            except (ValueError, RecursionError, InputRejected):
                self.rejected += 1
            else:
                self.rule.heard_ms = now
                rows += self.rule.run([message], [doc], now)
        return self._out(rows)

    def _is_new(self, one: Recorded) -> bool:
        return not one.thing or self._seen.advance(one.thing, one.boot, one.sequence)

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
