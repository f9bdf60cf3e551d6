"""The store in one SQLite file: WAL, synchronous=FULL, so that a commit is on disk when it returns.

Upgrades copy the file first, to FILE.vN. A file that SQLite finds damaged is put aside by `quarantine`, never deleted.
"""

import logging
import os
import sqlite3
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from edge.errors import ConfigError
from edge.logs import log_event
from edge_tools.fleet.records import AVERAGES, Record, Rejection, reject
from edge_tools.fleet.schema import COLUMNS, GAPS, REJECTED_COLUMNS, TIME, conflict
from edge_tools.fleet.store import (
    CONFLICT,
    REJECTED,
    REJECTED_MAX,
    Batch,
    Committed,
    Losses,
    Query,
    Store,
    StoreAway,
    StoreDamaged,
    StoreRefused,
    check_version,
    conditions,
    gather_losses,
    gather_records,
)

BUSY_TIMEOUT_S = 10.0
_HEADER = b"SQLite format 3\0"
_log = logging.getLogger(__name__)

# Version n is reached by the statements at n - 1. What is released is never changed, only added to.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE telemetry (
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            thing TEXT, boot INTEGER, seq INTEGER,
            topic TEXT NOT NULL, t INTEGER, received INTEGER NOT NULL, payload BLOB NOT NULL
        ) STRICT""",
        "CREATE UNIQUE INDEX telemetry_identity ON telemetry (thing, boot, seq)"
        " WHERE thing IS NOT NULL AND boot IS NOT NULL AND seq IS NOT NULL",
        f"CREATE INDEX telemetry_time ON telemetry ({TIME})",
        f"CREATE INDEX telemetry_thing_time ON telemetry (thing, {TIME})",
        """CREATE TABLE telemetry_rejected (
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            reason TEXT NOT NULL, detail TEXT NOT NULL, topic TEXT NOT NULL, sample BLOB NOT NULL,
            received INTEGER NOT NULL
        ) STRICT""",
        "CREATE TABLE telemetry_counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT",
    ),
)

_INSERT = f"INSERT INTO telemetry ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"  # noqa: S608
_CONFLICT = "SELECT 1 FROM telemetry WHERE thing = ? AND boot = ? AND seq = ? AND NOT (topic = ? AND payload = ?)"
_REJECT = f"INSERT INTO telemetry_rejected ({REJECTED_COLUMNS}) VALUES (?, ?, ?, ?, ?)"  # noqa: S608
_TRIM = "DELETE FROM telemetry_rejected WHERE number <= (SELECT max(number) FROM telemetry_rejected) - ?"
_COUNT = (
    "INSERT INTO telemetry_counters (name, value) VALUES (?, ?)"
    " ON CONFLICT (name) DO UPDATE SET value = telemetry_counters.value + excluded.value"
)


def open_store(path: str, *, write: bool, migrations: Sequence[Sequence[str]] = MIGRATIONS) -> Store:
    """A file found damaged is put aside when it is to be written to. Raises StoreAway, ConfigError."""
    file = Path(path).absolute()
    _check_file(file, write=write)
    try:
        return _open(file, write, migrations)
    except StoreDamaged as damage:
        if not write:
            raise
        moved_to = put_aside(file)
        log_event(_log, "database_quarantined", level=logging.ERROR, problem=damage.problem, moved_to=moved_to)
        return _open(file, write, migrations)


def _open(file: Path, write: bool, migrations: Sequence[Sequence[str]]) -> Store:
    with _translated(file):
        mode = "rwc" if write else "ro"
        database = sqlite3.connect(
            f"file:{quote(str(file))}?mode={mode}", uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None
        )
    try:
        with _translated(file):
            if write:
                database.execute("PRAGMA journal_mode = WAL")
                database.execute("PRAGMA synchronous = FULL")
                _migrate(database, file, migrations)
            else:
                version = _version(database)
                check_version(str(file), version, len(migrations), _way_back(file, len(migrations)))
                if not version:
                    raise ConfigError(str(file), "", "it holds no telemetry", "Name the database of `fleet ingest`.")
    except BaseException:
        database.close()
        raise
    return SqliteStore(database, file)


class SqliteStore:
    def __init__(self, database: sqlite3.Connection, file: Path) -> None:
        self._database, self._file = database, file

    def commit(self, batch: Batch) -> Committed:
        rows = [(r.thing, r.boot, r.seq, r.topic, r.t, r.received, r.payload) for r in batch.records]
        counts = batch.tally()
        rejections = list(batch.rejections)
        with self._transaction() as database:
            stored = database.executemany(_INSERT, rows).rowcount if rows else 0
            conflicts = self._conflicts(batch.records) if stored < len(rows) else []
            if conflicts:
                counts[REJECTED + CONFLICT] = len(conflicts)
                rejections += conflicts
            if rejections:
                kept = rejections[-REJECTED_MAX:]
                database.executemany(_REJECT, [(r.reason, r.detail, r.topic, r.sample, r.received) for r in kept])
                database.execute(_TRIM, (REJECTED_MAX,))
            database.executemany(_COUNT, sorted(counts.items()))
        return Committed(stored, len(rows) - stored - len(conflicts), len(conflicts))

    def _conflicts(self, records: Sequence[Record]) -> list[Rejection]:
        find = self._database.execute
        return [
            reject(conflict(one), one.topic, one.payload, one.received)
            for one in records
            if one.has_identity and find(_CONFLICT, (one.thing, one.boot, one.seq, one.topic, one.payload)).fetchone()
        ]

    def query(self, wanted: Query) -> Iterator[Record]:
        where, values = conditions(wanted, "?")
        direction = "DESC" if wanted.limit else "ASC"
        order = ", ".join(f"{column} {direction}" for column in (TIME, "thing", "boot", "seq", "number"))
        text = f"SELECT {COLUMNS} FROM telemetry WHERE {where} ORDER BY {order}"  # noqa: S608
        return gather_records(wanted, self._rows(text, values), _record)

    def newest(self) -> int:
        return self.horizon()

    def horizon(self) -> int:
        number: int = next(self._rows("SELECT coalesce(max(number), 0) FROM telemetry", ()))[0]
        return number

    def after(self, number: int, horizon: int, limit: int) -> Sequence[tuple[int, Record]]:
        text = f"SELECT {COLUMNS}, number FROM telemetry WHERE number > ? AND number <= ? ORDER BY number LIMIT ?"  # noqa: S608
        return [(row[7], _record(row)) for row in self._rows(text, (number, horizon, limit))]

    def losses(self, thing: str | None = None) -> Iterator[Losses]:
        wanted = (
            f"thing IS NOT NULL AND boot IS NOT NULL AND seq NOT BETWEEN {AVERAGES} AND {2 * AVERAGES}"
            " AND (?1 IS NULL OR thing = ?1)"
        )
        boots = (
            f"SELECT thing, boot, min(seq), max(seq), count(*) FROM telemetry WHERE {wanted}"  # noqa: S608
            " GROUP BY thing, boot ORDER BY thing, boot"
        )
        with self._transaction("BEGIN"):  # one state for both questions
            yield from gather_losses(
                self._rows(boots, (thing,)), self._rows(GAPS.format(wanted=wanted, collate=""), (thing,))
            )

    def rejected(self, limit: int) -> Sequence[Rejection]:
        text = f"SELECT {REJECTED_COLUMNS} FROM telemetry_rejected ORDER BY number DESC LIMIT ?"  # noqa: S608
        return [Rejection(*row) for row in self._rows(text, (limit,))]

    def counters(self) -> dict[str, int]:
        return dict(self._rows("SELECT name, value FROM telemetry_counters ORDER BY name", ()))

    def quarantine(self) -> str:
        self.close()
        return put_aside(self._file)

    def close(self) -> None:
        self._database.close()

    def _rows(self, text: str, values: Sequence[object]) -> Generator[tuple[Any, ...], None, None]:
        with _translated(self._file):
            yield from self._database.execute(text, values)

    @contextmanager
    def _transaction(self, begin: str = "BEGIN IMMEDIATE") -> Iterator[sqlite3.Connection]:
        with _translated(self._file):
            self._database.execute(begin)
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise


def put_aside(file: Path) -> str:
    """Rename a database with its journal files; returns the new name."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    aside = file.with_name(f"{file.name}.damaged-{stamp}-{os.getpid()}")
    for tail in ("-wal", "-shm", ""):  # the file itself last: until then the next open finds it damaged again
        part = file.with_name(file.name + tail)
        if part.exists():
            part.rename(aside.with_name(aside.name + tail))
    return str(aside)


def _check_file(file: Path, *, write: bool) -> None:
    """Raises ConfigError for a file that is not SQLite's: it may be somebody's document."""
    try:
        with file.open("rb") as opened:
            begin = opened.read(len(_HEADER))
    except FileNotFoundError:
        if write and file.parent.is_dir():
            return
        place = "its folder" if write else "it"
        raise ConfigError(str(file), "", f"{place} does not exist", "Correct the path of --database.") from None
    except OSError as error:
        raise ConfigError(str(file), "", f"it cannot be read: {error.strerror}", "Correct its permissions.") from None
    # Zeros: a power cut took the first page of a database just being made; SQLite or `put_aside` deals with it.
    if begin.strip(b"\0") and begin != _HEADER:
        raise ConfigError(str(file), "", "it is no SQLite database", "Name another file, or move this one away.")


def _version(database: sqlite3.Connection) -> int:
    there = database.execute("SELECT 1 FROM sqlite_schema WHERE name = 'telemetry_schema'").fetchone()
    return database.execute("SELECT max(version) FROM telemetry_schema").fetchone()[0] if there else 0


def _migrate(database: sqlite3.Connection, file: Path, migrations: Sequence[Sequence[str]]) -> None:
    version = _version(database)
    check_version(str(file), version, len(migrations), _way_back(file, len(migrations)))
    if version == len(migrations):
        return
    if version:
        _copy(database, file.with_name(f"{file.name}.v{version}"))
    database.execute("BEGIN IMMEDIATE")
    try:
        version = _version(database)  # another process may have been quicker
        database.execute("CREATE TABLE IF NOT EXISTS telemetry_schema (version INTEGER NOT NULL) STRICT")
        for statements in migrations[version:]:
            for statement in statements:
                database.execute(statement)
        database.execute("DELETE FROM telemetry_schema")
        database.execute("INSERT INTO telemetry_schema VALUES (?)", (max(version, len(migrations)),))
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


def _copy(database: sqlite3.Connection, to: Path) -> None:
    partial = to.with_name(to.name + ".partial")
    partial.unlink(missing_ok=True)
    copy = sqlite3.connect(partial)
    try:
        database.backup(copy)
    finally:
        copy.close()
    partial.rename(to)


def _way_back(file: Path, version: int) -> str:
    return f"stop all that use it, and put the copy {file.name}.v{version}, which the upgrade made, in its place."


def _record(row: Sequence[Any]) -> Record:
    thing, boot, seq, topic, t, received, payload = row[:7]
    return Record(topic, payload, received, thing, boot, seq, t)


@contextmanager
def _translated(file: Path) -> Iterator[None]:
    """SQLite's errors in this project's terms."""
    try:
        yield
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", "") or ""
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            raise StoreDamaged("database_damaged", f"{file}: {error}", "It is put aside, see the log.") from error
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            remedy = "See which other program keeps it locked."
            raise StoreAway("database_locked", f"{file}: {error}", remedy) from error
        if name.startswith("SQLITE_FULL"):
            raise StoreAway("disk_full", f"{file}: {error}", "Make room on its disk.") from error
        if name.startswith(("SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM")):
            remedy = "Check its disk, its folder and their permissions."
            raise StoreAway("database_unusable", f"{file}: {error} ({name})", remedy) from error
        if isinstance(error, sqlite3.DataError | sqlite3.IntegrityError):
            raise StoreRefused("refused_by_database", f"{file}: {error}", "See the rejected input.") from error
        raise
    except OverflowError as error:
        raise StoreRefused("refused_by_database", f"{file}: {error}", "See the rejected input.") from error
