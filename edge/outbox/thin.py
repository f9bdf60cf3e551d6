"""Thinning: fewer records that still show the shape of what was measured. Pure.

Numeric payloads (a JSON number, or an object whose values at the top are numbers) become one record per source, topic
and minute: the averages, with count, min and max under `thinned`. Of all others every KEEP_EVERY-th of a source and
topic stays, and the last.

Identity: an average is no reading, and never has the name of one: it is (thing, boot, AVERAGES + sequence of the last
reading it stands for), and all of these are told as gone. So whoever got one of them before, by a connection that broke
before it could say so, stores both and finds no two payloads under one name. An average is not thinned again.
Invariants: numbers and order of what stays are as they were; what goes is told, each once.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from edge.outbox.lanes import Sent
from edge.outbox.record import Record, decode, encode, name_of

MINUTE_MS: Final = 60_000
KEEP_EVERY: Final = 10
NOTHING_SENT: Final = Sent(0, 0, 0, 0, 0)
THINNED: Final = "thinned"
AVERAGES: Final = 1 << 52  # above every sequence and number, and exact in every JSON reader
Name = tuple[str, int, int]

_parse = msgspec.json.Decoder().decode
_write = msgspec.json.Encoder().encode


class _Minute:
    __slots__ = ("count", "high", "low", "name", "number", "record", "sums")

    def __init__(self, number: int, name: Name, record: Record) -> None:
        self.count = 0
        self.number, self.name, self.record = number, name, record
        self.sums: dict[str, float] = {}
        self.low: dict[str, float] = {}
        self.high: dict[str, float] = {}

    def gather(self, values: Mapping[str, float]) -> None:
        self.count += 1
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
            self.low[name] = min(self.low.get(name, value), value)
            self.high[name] = max(self.high.get(name, value), value)


class Thinner:
    """`feed` it all records of a stretch in order, then `finish`: `shed` is what goes, `thin` does it.

    own: the thing that records without a reading are named by. sent: what is exported goes and is not told, what is
    under way stays.
    """

    def __init__(self, own: str, sent: Sent = NOTHING_SENT) -> None:
        self._own, self._sent = own, sent
        self._going: dict[int, Name | None] = {}
        self._averages: dict[int, bytes] = {}
        self._minutes: dict[tuple[object, ...], _Minute] = {}
        self._others: dict[tuple[str, str], tuple[int, int, Name]] = {}

    @property
    def shed(self) -> list[Name]:
        """In order of number."""
        return [name for _, name in sorted(self._going.items()) if name is not None]

    def feed(self, rows: Sequence[tuple[int, bytes]]) -> None:
        sent, own, going = self._sent, self._own, self._going
        for number, data in rows:
            if sent.is_settled(number):
                going[number] = None
                continue
            record = decode(data) if sent.is_untouched(number) else None
            if record is None or (record.reading is not None and record.reading[2] >= AVERAGES):
                continue
            name = name_of(record, number, own)
            values = _numbers(record.payload)
            if values is None:
                seen, last, last_name = self._others.get((name[0], record.topic), (0, 0, name))
                if last and (seen - 1) % KEEP_EVERY:
                    going[last] = last_name
                self._others[name[0], record.topic] = seen + 1, number, name
                continue
            key = (*name[:2], record.topic, record.boot, record.taken_ms // MINUTE_MS, *sorted(values))
            minute = self._minutes.get(key)
            if minute is None:
                minute = self._minutes[key] = _Minute(number, name, record)
            else:
                going[minute.number] = minute.name
                minute.number, minute.name, minute.record = number, name, record
            minute.gather(values)

    def finish(self) -> None:
        for minute in self._minutes.values():
            if minute.count > 1:
                self._going[minute.number] = minute.name
                self._averages[minute.number] = _average(minute)
        self._minutes.clear()
        self._others.clear()

    def thin(self, rows: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
        for number, data in rows:
            if number not in self._going:
                yield number, data
            elif number in self._averages:
                yield number, self._averages[number]


def _numbers(payload: bytes) -> Mapping[str, float] | None:
    """Values by name; None where it is not numeric."""
    try:
        value = _parse(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if _is_number(value):
        return {"value": value}
    if not isinstance(value, dict) or not value or THINNED in value or not all(map(_is_number, value.values())):
        return None
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def _average(minute: _Minute) -> bytes:
    body: dict[str, Any] = {name: round(total / minute.count, 6) for name, total in minute.sums.items()}
    body[THINNED] = {"count": minute.count, "min": minute.low, "max": minute.high}
    thing, boot, sequence = minute.name
    name = thing, boot, AVERAGES + sequence
    return encode(msgspec.structs.replace(minute.record, payload=_write(body), reading=name))
