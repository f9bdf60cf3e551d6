"""Structured events: a name in the past tense, and fields. State changes are logged; per-message facts are counted.

Text for people (`2026-11-21T08:00:00Z INFO cloud connected host=…`) or one JSON object a line.
"""

import logging
import sys
from datetime import UTC, datetime
from typing import Literal

import msgspec


def log_event(logger: logging.Logger, name: str, *, level: int = logging.INFO, **fields: object) -> None:
    """fields: what a person needs to act on it; never a secret."""
    if logger.isEnabledFor(level):
        logger.log(level, name, extra={"fields": fields})


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {key}={_plain(value)}" for key, value in getattr(record, "fields", {}).items())
        line = f"{_stamp(record)} {record.levelname} {_place(record)} {record.getMessage()}{fields}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        row: dict[str, object] = {
            "time": _stamp(record),
            "level": record.levelname.lower(),
            "part": _place(record),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            row["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(row, enc_hook=str).decode()


def _stamp(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def _place(record: logging.LogRecord) -> str:
    return record.name.removeprefix("edge.")


def _plain(value: object) -> str:
    text = str(value)
    return repr(text) if not text or any(c.isspace() or not c.isprintable() for c in text) else text


def set_up_logs(form: Literal["text", "json"] = "text", *, verbose: bool = False) -> None:
    """Send all events to stderr; called once, by the command line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Text())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
