"""Records as rows to print, and times as people write them. Pure."""

import base64
import re
from datetime import UTC, datetime
from typing import Any

import msgspec

from edge_tools.fleet.records import Record

_SPAN = re.compile(r"-(\d{1,9})(ms|s|m|h|d|w)")
_UNIT_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}


def row_of(record: Record) -> dict[str, Any]:
    """As a batch row: payload_base64 where the payload is no UTF-8 text. What is not known is null."""
    row: dict[str, Any] = {
        "topic": record.topic,
        "thing": record.thing,
        "boot": record.boot,
        "seq": record.seq,
        "t": record.t,
        "received": record.received,
    }
    try:
        row["payload"] = record.payload.decode()
    except UnicodeDecodeError:
        row["payload_base64"] = base64.b64encode(record.payload).decode()
    return row


def line_of(record: Record) -> str:
    """For people."""
    row = row_of(record)
    payload = row.get("payload", row.get("payload_base64", ""))
    text = payload if payload.isprintable() else repr(payload)
    known = record.thing is not None
    identity = f"{record.thing} {_or_dash(record.boot)}/{_or_dash(record.seq)}" if known else "-"
    return f"{stamp(record.received if record.t is None else record.t)}  {identity}  {record.topic}  {text}"


def as_json(row: object) -> str:
    return msgspec.json.encode(row).decode()


def stamp(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def parse_time(text: str, now_ms: int) -> int:
    """Unix ms of an ISO 8601 time (UTC where it names no zone) or of a span before now, such as -1h or -2d.
    Raises ValueError."""
    if span := _SPAN.fullmatch(text):
        return now_ms - int(span[1]) * _UNIT_MS[span[2]]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is neither a time such as 2026-11-21T08:00 nor a span such as -1h") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)


def _or_dash(value: int | None) -> str:
    return "-" if value is None else str(value)
