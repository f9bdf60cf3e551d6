"""The database seam: where telemetry is kept. Two stand behind it, SQLite and PostgreSQL, held to one contract test.

Invariants of every store: `commit` is one transaction, on disk when it returns; a record with identity is stored at
most once, whatever other processes write meanwhile; a record whose identity is taken by another content is entered as
rejected (`identity_conflict`); `rejected` keeps the newest REJECTED_MAX, the counters count all of them.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from itertools import islice
from typing import Any, Protocol

import msgspec

from edge.errors import ConfigError, TransientError
from edge.topics import matches
from edge_tools.fleet.records import Record, Rejection
from edge_tools.fleet.schema import TIME

REJECTED_MAX = 10_000
CONFLICT = "identity_conflict"
WITHOUT_IDENTITY = "without_identity"
REJECTED = "rejected:"  # the prefix of a reason among the counters
FORMS = "Use sqlite:///FILE or postgresql://USER@HOST/NAME."


class StoreAway(TransientError):
    """The database does not answer, or not now. cause: a stable word; remedy: what a person can do."""

    code = "store_away"

    def __init__(self, cause: str, problem: str, remedy: str) -> None:
        self.cause, self.problem, self.remedy = cause, problem, remedy
        super().__init__(f"{problem}. {remedy}")


class StoreDamaged(StoreAway):
    """The database contradicts itself; `quarantine` may help."""

    code = "store_damaged"


class StoreRefused(StoreAway):
    """The database is there, and does not take what it was given: one value of the batch is to blame."""

    code = "store_refused"


class Batch(msgspec.Struct, frozen=True):
    """What goes into one transaction. counts: further rejections, by reason."""

    records: Sequence[Record] = ()
    rejections: Sequence[Rejection] = ()
    counts: dict[str, int] = {}

    def tally(self) -> dict[str, int]:
        """What the counters rise by, but for conflicts, which the database finds."""
        counts = {REJECTED + reason: count for reason, count in self.counts.items()}
        for one in self.rejections:
            counts[REJECTED + one.reason] = counts.get(REJECTED + one.reason, 0) + 1
        bare = sum(not record.has_identity for record in self.records)
        if bare:
            counts[WITHOUT_IDENTITY] = bare
        return counts


class Committed(msgspec.Struct, frozen=True):
    """What became of the records: stored now, there already, or their identity taken by another content."""

    stored: int = 0
    repeats: int = 0
    conflicts: int = 0


class Query(msgspec.Struct, frozen=True):
    """begin, end: Unix ms, end excluded, of the time of measuring (of receiving where that is unknown). limit: the
    newest so many, 0 for all."""

    thing: str | None = None
    topic_filter: str | None = None
    begin: int | None = None
    end: int | None = None
    limit: int = 0


class Missing(msgspec.Struct, frozen=True):
    """A stretch of sequence numbers that are not there, both ends included."""

    first: int
    last: int


class Losses(msgspec.Struct, frozen=True):
    """What is there of one boot of one thing. Sequence numbers count from 1, so `missing` may begin before `first`.
    missing, unknown: at most MISSING_MAX stretches; the counts count all.

    unknown: numbers of a gateway's log that are not there. Other things' records have numbers of it too, so nobody can
    tell here whether one is missing.
    """

    thing: str
    boot: int
    first: int
    last: int
    count: int
    missing_count: int
    missing: tuple[Missing, ...] = ()
    unknown_count: int = 0
    unknown: tuple[Missing, ...] = ()


MISSING_MAX = 1000


class Store(Protocol):
    """Not for use by several threads at a time. What needs the database raises StoreAway when it is not there."""

    def commit(self, batch: Batch) -> Committed: ...

    def query(self, wanted: Query) -> Iterator[Record]:
        """In order of time, then thing, boot, seq."""
        ...

    def newest(self) -> int:
        """The highest record number given so far, perhaps to a record that is not there yet."""
        ...

    def horizon(self) -> int:
        """A record number up to which all is decided: what is not there now never will be."""
        ...

    def after(self, number: int, horizon: int, limit: int) -> Sequence[tuple[int, Record]]:
        """Records with their numbers, above number, up to horizon, in order of number."""
        ...

    def losses(self, thing: str | None = None) -> Iterator[Losses]: ...

    def rejected(self, limit: int) -> Sequence[Rejection]:
        """The newest first."""
        ...

    def counters(self) -> dict[str, int]: ...

    def quarantine(self) -> str:
        """Put a damaged database aside, so that the next open begins a new one. Returns where it lies, or ''."""
        ...

    def close(self) -> None: ...


def opener(url: str) -> Callable[[bool], Store]:
    """A function that opens the store: True to write (it makes or upgrades the schema), False to read.

    Raises ConfigError for an address that names none. The function raises StoreAway, and ConfigError for a schema
    that is newer than this program or not there to be read.
    """
    if url.startswith("sqlite:///") and len(url) > len("sqlite:///"):
        from edge_tools.fleet import sqlite

        path = url.removeprefix("sqlite:///")
        return lambda write: sqlite.open_store(path, write=write)
    if url.startswith(("postgresql://", "postgres://")):
        try:
            from edge_tools.fleet import postgresql
        except ImportError as error:
            fix = "Install it with: pip install 'edgeloop[fleet]'."
            raise ConfigError("--database", "", f"PostgreSQL's client is not installed: {error}", fix) from None

        postgresql.check_address(url)
        return lambda write: postgresql.open_store(url, write=write)
    raise ConfigError("--database", "", "the address names no database that is known here", FORMS)


def check_version(name: str, version: int, newest: int, way_back: str) -> None:
    """Raises ConfigError for a schema from a newer program."""
    if version > newest:
        raise ConfigError(
            name,
            "",
            f"its telemetry schema has version {version}, this program knows versions up to {newest}",
            f"Run the newer edgeloop that wrote it, or go back: {way_back}",
        )


def conditions(wanted: Query, mark: str) -> tuple[str, list[str | int]]:
    """What stands behind WHERE, and its values. mark: how the database's driver writes a place for one."""
    named = (("thing =", wanted.thing), (f"{TIME} >=", wanted.begin), (f"{TIME} <", wanted.end))
    given = [(condition, value) for condition, value in named if value is not None]
    where = " AND ".join(f"{condition} {mark}" for condition, _ in given) or "1 = 1"
    return where, [value for _, value in given]


def gather_records(
    wanted: Query, rows: Generator[tuple[Any, ...], None, None], record: Callable[[Sequence[Any]], Record]
) -> Iterator[Record]:
    """rows: schema.COLUMNS, the oldest first, or with a limit the newest first. They are closed before the newest are
    handed on, and read no further than needed."""
    with closing(rows):
        found = (record(row) for row in rows if not wanted.topic_filter or matches(wanted.topic_filter, row[3]))
        if not wanted.limit:
            yield from found
            return
        newest = list(islice(found, wanted.limit))
    yield from reversed(newest)


def is_of_a_log(thing: str) -> bool:
    """Whether a gateway named its records by the numbers of a log: GATEWAY/STREAM or GATEWAY/rule/RULE. Boards' names
    hold no slash."""
    return "/" in thing


def gather_losses(
    boots: Iterator[tuple[str, int, int, int, int]], gaps: Iterator[tuple[str, int, int, int]]
) -> Iterator[Losses]:
    """boots: thing, boot, first, last, count; gaps: thing, boot, first missing, last missing; both in the same order
    of thing and boot."""
    gap = next(gaps, None)
    for thing, boot, first, last, count in boots:
        missing: list[Missing] = []
        total = 0
        while gap is not None and gap[:2] == (thing, boot):
            total += gap[3] - gap[2] + 1
            if len(missing) < MISSING_MAX:
                missing.append(Missing(gap[2], gap[3]))
            gap = next(gaps, None)
        if is_of_a_log(thing):
            yield Losses(thing, boot, first, last, count, 0, (), total, tuple(missing))
        else:
            yield Losses(thing, boot, first, last, count, total, tuple(missing))
