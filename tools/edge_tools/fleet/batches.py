"""A batch of records in one message: gunzip, cut, check each row. Pure; every step is bounded in memory.

A row is {"topic", "thing", "boot", "seq", "t", "payload" | "payload_base64"}, one JSON object a line, or CBOR maps as a
sequence (RFC 8742) or an array. `payload` is the payload's text; in CBOR a byte string as well. A payload that is
another JSON or CBOR value stands for its JSON text. Fields beyond these are ignored. A bad row costs itself alone,
except where damaged CBOR leaves unknown where the next begins.
"""

import base64
import binascii
import re
import zlib
from collections.abc import Iterator
from typing import Any

import msgspec

from edge.errors import InputRejected
from edge_tools.fleet import cbor
from edge_tools.fleet.records import Decoded, Record, Rejection, make_record, reject

UNPACKED_BYTES_MAX = 16 * 1024 * 1024
ROWS_MAX = 65_536
REJECTIONS_KEPT_MAX = 8  # of one batch; the rest is counted
NDJSON = "application/x-ndjson"
CBOR_TYPES = ("application/cbor-seq", "application/cbor")
GZIP_MAGIC = b"\x1f\x8b"  # no JSON begins like this, and no CBOR
_INFLATE_STEP_BYTES = 256 * 1024
_FIELD = re.compile(r"\$\.(topic|thing|boot|seq|t|payload|payload_base64)\b")


class _Row(msgspec.Struct, frozen=True, gc=False):
    topic: str
    thing: str | None = None
    boot: int | None = None
    seq: int | None = None
    t: int | None = None
    payload: msgspec.Raw = msgspec.Raw()  # empty: not there
    payload_base64: str | None = None


_json = msgspec.json.Decoder(_Row)
_text = msgspec.json.Decoder(str)


def decode_batch(topic: str, data: bytes, content_type: str, encoding: str, received: int) -> Decoded:
    """topic: of the message that carried it. Never raises for what is in the data."""
    gathered = _Gathered(topic, received)
    try:
        unpacked = _unpack(data, encoding)
        rows = _rows_of(unpacked, content_type)
        for record in rows(unpacked, gathered):
            if len(gathered.records) >= ROWS_MAX:
                raise InputRejected("too_many_rows", f"a batch holds more than {ROWS_MAX} rows")
            gathered.records.append(record)
    except InputRejected as problem:
        gathered.reject(problem, data)
    return Decoded(gathered.records, gathered.rejections, gathered.beyond)


class _Gathered:
    def __init__(self, topic: str, received: int) -> None:
        self.received = received
        self.records: list[Record] = []
        self.rejections: list[Rejection] = []
        self.beyond: dict[str, int] = {}
        self._topic = topic

    def reject(self, problem: InputRejected, sample: bytes) -> None:
        if len(self.rejections) < REJECTIONS_KEPT_MAX:
            self.rejections.append(reject(problem, self._topic, sample, self.received))
        else:
            self.beyond[problem.reason] = self.beyond.get(problem.reason, 0) + 1


def _unpack(data: bytes, encoding: str) -> bytes:
    if encoding not in {"", "identity", "gzip"}:
        raise InputRejected("unknown_encoding", f"encoding {encoding!r}, not gzip")
    return gunzip(data) if encoding == "gzip" or data[:2] == GZIP_MAGIC else data


def gunzip(data: bytes) -> bytes:
    """All members (RFC 1952, 2.2), each whole and with its right CRC. Raises InputRejected."""
    parts: list[bytes] = []
    size = 0
    try:
        while data:
            member = zlib.decompressobj(wbits=31)
            while not member.eof:
                part = member.decompress(data, _INFLATE_STEP_BYTES)
                data = member.unconsumed_tail
                size += len(part)
                if size > UNPACKED_BYTES_MAX:
                    raise InputRejected("too_large_unpacked", f"more than {UNPACKED_BYTES_MAX} bytes when unpacked")
                if not part and not member.eof:
                    raise InputRejected("truncated_gzip", "the gzip ends before its end")
                parts.append(part)
            data = member.unused_data.lstrip(b"\0")
    except zlib.error as error:
        raise InputRejected("bad_gzip", str(error)) from None
    return b"".join(parts)


def _rows_of(data: bytes, content_type: str) -> Any:
    kind = content_type.partition(";")[0].strip().lower()
    if kind == NDJSON or (not kind and data[:1] == b"{"):
        return _ndjson_rows
    if kind in CBOR_TYPES or not kind:
        return _cbor_rows
    raise InputRejected("unknown_content_type", f"{content_type[:80]!r} on a batch topic")


def _ndjson_rows(data: bytes, gathered: _Gathered) -> Iterator[Record]:
    received, lines, begin = gathered.received, 0, 0
    while begin < len(data):
        end = data.find(b"\n", begin)
        end = len(data) if end < 0 else end
        line = data[begin:end]
        begin = end + 1
        lines += 1
        if lines > 2 * ROWS_MAX:
            raise InputRejected("too_many_rows", f"a batch holds more than {2 * ROWS_MAX} lines")
        if not line.strip():
            continue
        try:
            row = _json_row(line)
            payload = _json_payload(row)
            yield make_record(row.topic, payload, received, thing=row.thing, boot=row.boot, seq=row.seq, t=row.t)
        except InputRejected as problem:
            gathered.reject(problem, line)


def _json_row(line: bytes) -> _Row:
    try:
        return _json.decode(line)
    except msgspec.ValidationError as error:
        field = _FIELD.search(str(error))
        raise InputRejected(f"bad_{field[1]}" if field else "bad_row", str(error)) from None
    except UnicodeDecodeError as error:
        raise InputRejected("bad_utf8", str(error)) from None
    except ValueError as error:
        raise InputRejected("bad_json", str(error)) from None
    except RecursionError as error:
        raise InputRejected("too_deep", str(error)) from None


def _json_payload(row: _Row) -> bytes:
    if row.payload_base64 is not None:
        if bytes(row.payload):
            raise InputRejected("bad_payload", "both payload and payload_base64")
        return _base64(row.payload_base64)
    raw = bytes(row.payload)
    if not raw:
        raise InputRejected("bad_payload", "neither payload nor payload_base64")
    try:
        return _text.decode(raw).encode() if raw[:1] == b'"' else _utf8(raw)
    except UnicodeError as error:
        raise InputRejected("bad_utf8", str(error)) from None


def _utf8(raw: bytes) -> bytes:
    raw.decode()
    return raw


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputRejected("bad_payload_base64", str(error)) from None


def _cbor_rows(data: bytes, gathered: _Gathered) -> Iterator[Record]:
    at, rows = 0, 0
    while at < len(data):
        if rows > 2 * ROWS_MAX:
            raise InputRejected("too_many_rows", f"a batch holds more than {2 * ROWS_MAX} items")
        listed = cbor.array_length(data, at)
        left: int | None = 1
        if listed is not None:
            left, at = listed
            rows += 1
        while left is None or left > 0:
            if left is None and cbor.is_break(data, at):
                at += 1
                break
            rows += 1
            if rows > 2 * ROWS_MAX:
                break  # the loop around says so
            begin = at
            value, at = cbor.decode_item(data, at)
            left = None if left is None else left - 1
            try:
                yield _cbor_record(value, gathered.received)
            except InputRejected as problem:
                gathered.reject(problem, data[begin:at])


def _cbor_record(row: Any, received: int) -> Record:
    if not isinstance(row, dict):
        raise InputRejected("bad_row", "a row is a map")
    topic = row.get("topic")
    if not isinstance(topic, str):
        raise InputRejected("bad_topic", "topic is no text")
    thing = row.get("thing")
    if not isinstance(thing, str | None):
        raise InputRejected("bad_thing", "thing is no text")
    boot, seq, t = (_number(row, name) for name in ("boot", "seq", "t"))
    return make_record(topic, _cbor_payload(row), received, thing=thing, boot=boot, seq=seq, t=t)


def _number(row: dict[Any, Any], name: str) -> int | None:
    value = row.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise InputRejected(f"bad_{name}", f"{name} is no integer")
    return value


def _cbor_payload(row: dict[Any, Any]) -> bytes:
    if "payload_base64" in row:
        text = row["payload_base64"]
        if "payload" in row or not isinstance(text, str):
            raise InputRejected("bad_payload_base64", "not a text alone")
        return _base64(text)
    if "payload" not in row:
        raise InputRejected("bad_payload", "neither payload nor payload_base64")
    match row["payload"]:
        case bytes() as payload:
            return payload
        case str() as text:
            return text.encode()
        case value if cbor.finite(value):
            return msgspec.json.encode(value)
        case _:
            raise InputRejected("bad_payload", "a value that JSON cannot say")
