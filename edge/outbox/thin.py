"""Thinning: fewer records that still show the shape of what was measured. Pure.

Numeric payloads (a JSON number, or an object whose values at the top are numbers) become one record per source, topic
and minute: the averages, with count, min and max under `thinned`; it takes the number and the name of the last of them.
Of all others every KEEP_EVERY-th of a source and topic stays, and the last. What was averaged before keeps its weight.
Invariants: numbers and order of what stays are as they were; what goes is told, each once.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from edge.outbox.lanes import Sent
from edge.outbox.record import Record, decode, encode

MINUTE_MS: Final = 60_000
KEEP_EVERY: Final = 10
NOTHING_SENT: Final = Sent(0, 0, 0, 0)
THINNED: Final = "thinned"
Name = tuple[str, int, int]

_parse = msgspec.json.Decoder().decode
_write = msgspec.json.Encoder().encode


class _Minute:
    __slots__ = ("count", "high", "low", "number", "record", "sums")

    def __init__(self) -> None:
        self.count = 0
        self.number = 0
        self.record: Record | None = None
        self.sums: dict[str, float] = {}
        self.low: dict[str, float] = {}
        self.high: dict[str, float] = {}


class Thinner:
    """own: the thing that records without a reading are named by. sent: what is exported goes, what is under way stays.
    `shed`: what went, filled while `thin` runs."""

    def __init__(self, own: str, sent: Sent = NOTHING_SENT) -> None:
        self._own, self._sent = own, sent
        self.shed: list[Name] = []

    def thin(self, rows: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
        sent = self._sent
        kept: dict[int, bytes] = {}
        minutes: dict[tuple[object, ...], _Minute] = {}
        others: dict[tuple[str, str], tuple[int, int, Name]] = {}
        for number, data in rows:
            if sent.is_settled(number):
                continue
            record = decode(data) if sent.is_untouched(number) else None
            if record is None:
                kept[number] = data
                continue
            name: Name = record.reading or (self._own, record.boot, number)
            values = _numbers(record.payload)
            if values is None:
                seen, last, last_name = others.get((name[0], record.topic), (0, 0, name))
                if last and (seen - 1) % KEEP_EVERY:
                    del kept[last]
                    self.shed.append(last_name)
                others[name[0], record.topic] = seen + 1, number, name
                kept[number] = data
                continue
            key = (name[0], record.topic, record.boot, record.taken_ms // MINUTE_MS, *sorted(values[0]))
            minute = minutes.get(key)
            if minute is None:
                minute = minutes[key] = _Minute()
            elif minute.record is not None:
                before = minute.record
                self.shed.append(before.reading or (self._own, before.boot, minute.number))
                del kept[minute.number]
            _gather(minute, values)
            minute.number, minute.record = number, record
            kept[number] = data
        for minute in minutes.values():
            if minute.count > 1 and minute.record is not None:
                kept[minute.number] = _average(minute, minute.record)
        yield from sorted(kept.items())


def _numbers(payload: bytes) -> tuple[Mapping[str, float], Mapping[str, Any]] | None:
    """(values by name, what an earlier thinning said of them); None where it is not numeric."""
    try:
        value = _parse(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if _is_number(value):
        return {"value": value}, {}
    if not isinstance(value, dict):
        return None
    earlier = value.pop(THINNED, {})
    if not value or not isinstance(earlier, dict) or not all(map(_is_number, value.values())):
        return None
    return value, earlier


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def _gather(minute: _Minute, found: tuple[Mapping[str, float], Mapping[str, Any]]) -> None:
    values, earlier = found
    weight = earlier.get("count", 1)
    weight = weight if isinstance(weight, int) and 0 < weight < 1 << 40 else 1
    minute.count += weight
    for name, value in values.items():
        low, high = _bound(earlier, "min", name, value), _bound(earlier, "max", name, value)
        minute.sums[name] = minute.sums.get(name, 0.0) + value * weight
        minute.low[name] = min(minute.low.get(name, low), low)
        minute.high[name] = max(minute.high.get(name, high), high)


def _bound(earlier: Mapping[str, Any], which: str, name: str, value: float) -> float:
    given = earlier.get(which)
    found = given.get(name, value) if isinstance(given, dict) else value
    return found if _is_number(found) else value


def _average(minute: _Minute, record: Record) -> bytes:
    body: dict[str, Any] = {name: round(total / minute.count, 6) for name, total in minute.sums.items()}
    body[THINNED] = {"count": minute.count, "min": minute.low, "max": minute.high}
    changed = msgspec.structs.replace(record, payload=_write(body))
    return encode(changed)
