"""What streams show of themselves: to `edge stream`, by the running gateway or from the folder alone."""

import base64
import os
from collections.abc import Iterator
from typing import Any

import msgspec

from edge.config import RULES, Config
from edge.errors import InputRejected
from edge.log import Log
from edge.outbox.clock import Clock
from edge.outbox.intent import count_intent
from edge.outbox.lanes import Lanes, Sent
from edge.outbox.ledger import Ledger, Shed
from edge.outbox.marks import Marks
from edge.outbox.record import RETAIN, decode, name_of

FOLDER = "streams"
CURSOR = "cursor"
SLICE_RECORDS = 256
SLICE_BYTES = 1024 * 1024


class StreamStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One stream, for `edge stream list`. backlog_records: held and not exported, about; oldest_age_s: of the oldest of
    them, None where it is not known; records_per_s: taken in, drained_per_s: exported, over the last seconds;
    drain_s: how long the backlog takes at this rate, None where it does not shrink; failing: why commits fail, or
    nothing gets on; disk_full: the policy acts for the disk's sake."""

    name: str
    first: int
    next: int
    backlog_records: int
    bytes: int
    bytes_max: int
    oldest_age_s: float | None = None
    records_per_s: float | None = None
    drained_per_s: float | None = None
    drain_s: float | None = None
    under_way: int = 0
    shed: dict[str, int] = {}
    damaged_records: int = 0
    failing: str = ""
    disk_full: bool = False


class SourceLosses(msgspec.Struct, frozen=True):
    """One thing's: marks, (boot, sequence) up to which this stream took its readings; and what was shed of them."""

    thing: str
    marks: list[tuple[int, int]]
    shed: list[dict[str, Any]]


def rows(log: Log, own: str, clock: Clock, first: int, last: int) -> Iterator[dict[str, Any]]:
    """Records first to last as `edge stream export` prints them."""
    number = max(first, log.first)
    while number <= last and (found := log.read(number, records_max=SLICE_RECORDS, bytes_max=SLICE_BYTES)):
        for number, data in found:
            if number > last:
                return
            record = decode(data)
            if record is None:
                yield {"number": number, "error": "unreadable"}
                continue
            thing, boot, sequence = name_of(record, number, own)
            row: dict[str, Any] = {"number": number, "topic": record.topic, "thing": thing, "boot": boot}
            row["seq"] = sequence
            if stamp := clock.unix_ms(record.boot, record.taken_ms):
                row["t"] = stamp
            try:
                row["payload"] = record.payload.decode()
            except UnicodeDecodeError:
                row["payload_base64"] = base64.b64encode(record.payload).decode()
            if record.flags & RETAIN:
                row["retain"] = True
            yield row
        number += 1


def losses(marks: Marks, ledger: Ledger) -> list[SourceLosses]:
    """Every thing this stream took readings of or shed something of, by name."""
    return [
        SourceLosses(
            thing,
            sorted(marks.things.get(thing, {}).items()),
            [_entry(entry) for entry in ledger.things.get(thing, [])],
        )
        for thing in sorted({*marks.things, *ledger.things})
    ]


def _entry(entry: Shed) -> dict[str, Any]:
    return {field: getattr(entry, field) for field in ("boot", "first", "last", "count", "reason")}


def backlog(log: Log, sent: Sent) -> int:
    return max(log.next - max(sent.cursor, log.first) - (sent.live - sent.split), 0)


def path_of(config: Config, name: str) -> str:
    """The folder of a stream's log; the rules' log is one beside those of the file."""
    return os.path.join(config.gateway.data_dir, *((RULES,) if name == RULES else (FOLDER, name)))


class Folder:
    """A stream as its folder shows it while no gateway has it; nothing is changed. Raises InputRejected when it is not
    there."""

    def __init__(self, config: Config, name: str) -> None:
        path = path_of(config, name)
        try:
            self.log = Log.open_read_only(path)
        except OSError as error:
            raise InputRejected("no_such_stream", f"{path}: {error.strerror}") from None
        self.name, self.own = name, f"{config.gateway.name}/{name}"
        state = self.log.state
        self.clock = Clock(state, 0, "")
        self.marks, self.ledger = Marks(state), Ledger(state)
        count_intent(self.log, self.ledger)
        self.sent = Lanes(state.get(CURSOR), self.log.first, live_first=False).sent
        found = [stream.bytes_max for stream in config.all_streams if stream.name == name]
        self.bytes_max = config.rules_log.bytes_max if name == RULES else found[0] if found else 0

    def status(self) -> StreamStatus:
        return StreamStatus(
            name=self.name,
            first=self.log.first,
            next=self.log.next,
            backlog_records=backlog(self.log, self.sent),
            bytes=self.log.bytes_held,
            bytes_max=self.bytes_max,
            shed=self.ledger.totals,
            damaged_records=sum(damage.next - damage.first for damage in self.log.damages),
        )

    def rows(self, first: int, last: int) -> Iterator[dict[str, Any]]:
        return rows(self.log, self.own, self.clock, first, last)

    def losses(self) -> list[SourceLosses]:
        return losses(self.marks, self.ledger)


def held(config: Config) -> list[str]:
    """All that have one: the streams, and the rules' log."""
    return [*folders(config), *([RULES] if os.path.isdir(path_of(config, RULES)) else [])]


def folders(config: Config) -> list[str]:
    """The names of the streams that have a folder; what else lies there is nobody's."""
    try:
        with os.scandir(os.path.join(config.gateway.data_dir, FOLDER)) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir())
    except FileNotFoundError:
        return []
