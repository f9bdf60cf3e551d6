"""The store in PostgreSQL (13 or newer), for several ingesters at once. The only module that knows psycopg.

Rows of a batch are inserted in the order of their identities, so that two ingesters that hold the same readings wait
for each other one way only; what the server still breaks off as a deadlock is tried again.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import psycopg
from psycopg import conninfo, errors

from edge.errors import ConfigError
from edge_tools.fleet.records import AVERAGES, Record, Rejection, printable, reject
from edge_tools.fleet.schema import COLUMNS, GAPS, REJECTED_COLUMNS, TIME, conflict
from edge_tools.fleet.store import (
    CONFLICT,
    FORMS,
    REJECTED,
    REJECTED_MAX,
    Batch,
    Committed,
    Losses,
    Query,
    Store,
    StoreAway,
    StoreRefused,
    check_version,
    conditions,
    gather_losses,
    gather_records,
)

CONNECT_TIMEOUT_S = 5
STATEMENT_TIMEOUT_MS = 30_000
_TRIES = 5
_CURSOR_ROWS = 2000
_LOCK = 0x45444745  # of the advisory lock that upgrades take: "EDGE"

# Version n is reached by the statements at n - 1. What is released is never changed, only added to.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE telemetry (
            number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            thing text, boot bigint, seq bigint,
            topic text NOT NULL, t bigint, received bigint NOT NULL, payload bytea NOT NULL
        )""",
        "CREATE UNIQUE INDEX telemetry_identity ON telemetry (thing, boot, seq)"
        " WHERE thing IS NOT NULL AND boot IS NOT NULL AND seq IS NOT NULL",
        f"CREATE INDEX telemetry_time ON telemetry (({TIME}))",
        f"CREATE INDEX telemetry_thing_time ON telemetry (thing, ({TIME}))",
        """CREATE TABLE telemetry_rejected (
            number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            reason text NOT NULL, detail text NOT NULL, topic text NOT NULL, sample bytea NOT NULL,
            received bigint NOT NULL
        )""",
        "CREATE TABLE telemetry_counters (name text PRIMARY KEY, value bigint NOT NULL)",
    ),
)

_ROWS = (
    "unnest(%s::text[], %s::bigint[], %s::bigint[], %s::text[], %s::bigint[], %s::bigint[], %s::bytea[])"
    " WITH ORDINALITY AS given (thing, boot, seq, topic, t, received, payload, place)"
)
_INSERT = f"INSERT INTO telemetry ({COLUMNS}) SELECT {COLUMNS} FROM {_ROWS} ORDER BY place ON CONFLICT DO NOTHING"  # noqa: S608
_CONFLICTS = (
    f"SELECT place FROM {_ROWS} JOIN telemetry AS had ON had.thing = given.thing AND had.boot = given.boot"  # noqa: S608
    " AND had.seq = given.seq WHERE had.topic <> given.topic OR had.payload <> given.payload ORDER BY place"
)
_REJECT = (
    f"INSERT INTO telemetry_rejected ({REJECTED_COLUMNS})"  # noqa: S608
    " SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::bytea[], %s::bigint[])"
)
_TRIM = "DELETE FROM telemetry_rejected WHERE number <= (SELECT max(number) FROM telemetry_rejected) - %s"
_COUNT = (
    "INSERT INTO telemetry_counters (name, value) VALUES (%s, %s)"
    " ON CONFLICT (name) DO UPDATE SET value = telemetry_counters.value + excluded.value"
)

Connection = psycopg.Connection[tuple[Any, ...]]


def check_address(url: str) -> None:
    """Raises ConfigError; says nothing of what is in it, since that may be a password."""
    try:
        conninfo.conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        raise ConfigError("--database", "", "the address of the PostgreSQL database is malformed", FORMS) from None


def open_store(url: str, *, write: bool, migrations: Sequence[Sequence[str]] = MIGRATIONS) -> Store:
    """Raises StoreAway, ConfigError."""
    place = _place(url)
    with _translated(place):
        database = psycopg.connect(
            url,
            autocommit=True,
            connect_timeout=CONNECT_TIMEOUT_S,
            application_name="edgeloop-fleet",
            options=f"-c statement_timeout={STATEMENT_TIMEOUT_MS}"
            + ("" if write else " -c default_transaction_read_only=on"),
            tcp_user_timeout=STATEMENT_TIMEOUT_MS,
            client_encoding="UTF8",
        )
    try:
        with _translated(place):
            if write:
                _migrate(database, place, migrations)
            else:
                version = _version(database)
                check_version(place, version, len(migrations), _WAY_BACK)
                if not version:
                    raise ConfigError(place, "", "it holds no telemetry", "Name the database of `fleet ingest`.")
    except BaseException:
        database.close()
        raise
    return PostgresqlStore(database, place)


class PostgresqlStore:
    def __init__(self, database: Connection, place: str) -> None:
        self._database, self._place = database, place
        self._pending: tuple[int, int] | None = None
        self._horizon = self._cursors = 0

    def commit(self, batch: Batch) -> Committed:
        records = sorted(batch.records, key=_identity)
        columns: list[list[Any]] = [
            [r.thing for r in records],
            [r.boot for r in records],
            [r.seq for r in records],
            [r.topic for r in records],
            [r.t for r in records],
            [r.received for r in records],
            [r.payload for r in records],
        ]
        with _translated(self._place):
            for left in reversed(range(_TRIES)):
                try:
                    return self._commit_once(batch, records, columns)
                except (errors.DeadlockDetected, errors.SerializationFailure):
                    if not left:
                        raise
        raise AssertionError

    def _commit_once(self, batch: Batch, records: Sequence[Record], columns: list[list[Any]]) -> Committed:
        counts = batch.tally()
        rejections = list(batch.rejections)
        conflicts: list[Rejection] = []
        stored = 0
        with self._database.transaction(), self._database.cursor() as cursor:
            if records:
                cursor.execute("SELECT pg_current_xact_id()")  # before any number is drawn: see horizon()
                stored = cursor.execute(_INSERT, columns).rowcount
                if stored < len(records):
                    places = [row[0] - 1 for row in cursor.execute(_CONFLICTS, columns)]
                    clashes = [records[place] for place in places]
                    conflicts = [reject(conflict(r), r.topic, r.payload, r.received) for r in clashes]
            if conflicts:
                counts[REJECTED + CONFLICT] = len(conflicts)
                rejections += conflicts
            if rejections:
                kept = rejections[-REJECTED_MAX:]
                cursor.execute(
                    _REJECT,
                    (
                        [r.reason for r in kept],
                        [r.detail for r in kept],
                        [r.topic for r in kept],
                        [r.sample for r in kept],
                        [r.received for r in kept],
                    ),
                )
                cursor.execute(_TRIM, (REJECTED_MAX,))
            for name, count in sorted(counts.items()):  # in one order: no two ingesters wait for each other
                cursor.execute(_COUNT, (name, count))
        return Committed(stored, len(records) - stored - len(conflicts), len(conflicts))

    def query(self, wanted: Query) -> Iterator[Record]:
        where, values = conditions(wanted, "%s")
        direction = ("DESC NULLS LAST", "ASC NULLS FIRST")[not wanted.limit]
        columns = (TIME, 'thing COLLATE "C"', "boot", "seq", "number")
        order = ", ".join(f"{column} {direction}" for column in columns)
        text = f"SELECT {COLUMNS} FROM telemetry WHERE {where} ORDER BY {order}"  # noqa: S608
        return gather_records(wanted, self._rows(text, values), _record)

    def newest(self) -> int:
        with _translated(self._place), self._database.cursor() as cursor:
            return self._drawn(cursor)

    def horizon(self) -> int:
        """Numbers are drawn before they are committed, by several at once. So: note the highest number drawn, and
        draw a transaction id; once all transactions with a lower id have ended, the number noted is settled."""
        with _translated(self._place), self._database.transaction(), self._database.cursor() as cursor:
            if self._pending is not None:
                number, transaction = self._pending
                row = cursor.execute("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint").fetchone()
                assert row is not None
                if row[0] <= transaction:
                    return self._horizon
                self._horizon = number
            drawn = self._drawn(cursor)
            row = cursor.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
            assert row is not None
            self._pending = (drawn, row[0])
        return self._horizon

    def _drawn(self, cursor: psycopg.Cursor[tuple[Any, ...]]) -> int:
        row = cursor.execute(
            "SELECT coalesce(pg_sequence_last_value(pg_get_serial_sequence('telemetry', 'number')::regclass), 0)"
        ).fetchone()
        assert row is not None
        drawn: int = row[0]
        return drawn

    def after(self, number: int, horizon: int, limit: int) -> Sequence[tuple[int, Record]]:
        text = f"SELECT {COLUMNS}, number FROM telemetry WHERE number > %s AND number <= %s ORDER BY number LIMIT %s"  # noqa: S608
        with _translated(self._place), self._database.cursor(binary=True) as cursor:
            return [(row[7], _record(row)) for row in cursor.execute(text, (number, horizon, limit))]

    def losses(self, thing: str | None = None) -> Iterator[Losses]:
        wanted = (
            f"thing IS NOT NULL AND boot IS NOT NULL AND seq NOT BETWEEN {AVERAGES} AND {2 * AVERAGES}"
            " AND (%s::text IS NULL OR thing = %s)"
        )
        boots = (
            f"SELECT thing, boot, min(seq), max(seq), count(*) FROM telemetry WHERE {wanted}"  # noqa: S608
            ' GROUP BY thing, boot ORDER BY thing COLLATE "C", boot'
        )
        with _translated(self._place), self._database.transaction():
            self._database.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")  # one state for both questions
            yield from gather_losses(
                self._rows(boots, (thing, thing), within=True),
                self._rows(GAPS.format(wanted=wanted, collate='COLLATE "C"'), (thing, thing), within=True),
            )

    def rejected(self, limit: int) -> Sequence[Rejection]:
        text = f"SELECT {REJECTED_COLUMNS} FROM telemetry_rejected ORDER BY number DESC LIMIT %s"  # noqa: S608
        with _translated(self._place):
            return [Rejection(*row) for row in self._database.execute(text, (limit,))]

    def counters(self) -> dict[str, int]:
        with _translated(self._place):
            return dict(self._database.execute("SELECT name, value FROM telemetry_counters ORDER BY name").fetchall())

    def quarantine(self) -> str:
        """A server's database is its administrator's to mend."""
        self.close()
        return ""

    def close(self) -> None:
        self._database.close()

    def _rows(
        self, text: str, values: Sequence[Any], *, within: bool = False
    ) -> Generator[tuple[Any, ...], None, None]:
        """From a cursor on the server: a large answer is never in memory whole. within: a transaction is open."""
        outer = nullcontext() if within else self._database.transaction()
        self._cursors += 1
        with _translated(self._place), outer, self._database.cursor(f"rows_{self._cursors}", binary=True) as cursor:
            cursor.itersize = _CURSOR_ROWS
            yield from cursor.execute(text, values)


def _identity(record: Record) -> tuple[str, int, int]:
    return (record.thing or "", record.boot or 0, record.seq or 0)


def _record(row: Sequence[Any]) -> Record:
    thing, boot, seq, topic, t, received, payload = row[:7]
    return Record(topic, bytes(payload), received, thing, boot, seq, t)


def _version(database: Connection) -> int:
    there = database.execute("SELECT to_regclass('telemetry_schema')").fetchone()
    if there is None or there[0] is None:
        return 0
    row = database.execute("SELECT max(version) FROM telemetry_schema").fetchone()
    return (row and row[0]) or 0


_WAY_BACK = "restore the dump (pg_dump) that was taken before the upgrade."


def _migrate(database: Connection, place: str, migrations: Sequence[Sequence[str]]) -> None:
    with database.transaction():
        database.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        version = _version(database)
        check_version(place, version, len(migrations), _WAY_BACK)
        if version == len(migrations):
            return
        database.execute("CREATE TABLE IF NOT EXISTS telemetry_schema (version bigint NOT NULL)")
        for statements in migrations[version:]:
            for statement in statements:
                database.execute(statement.encode())
        database.execute("DELETE FROM telemetry_schema")
        database.execute("INSERT INTO telemetry_schema VALUES (%s)", (len(migrations),))


def _place(url: str) -> str:
    """The address without its password."""
    parts = conninfo.conninfo_to_dict(url)
    return f"postgresql://{parts.get('host') or ''}:{parts.get('port') or ''}/{parts.get('dbname') or ''}"


@contextmanager
def _translated(place: str) -> Iterator[None]:
    """psycopg's errors in this project's terms."""
    try:
        yield
    except errors.InsufficientPrivilege as error:
        raise StoreAway("database_denied", _said(place, error), "Grant this user what it needs there.") from error
    except (errors.InvalidPassword, errors.InvalidAuthorizationSpecification, errors.InvalidCatalogName) as error:
        remedy = "Correct user, password and name in --database."
        raise StoreAway("database_denied", _said(place, error), remedy) from error
    except errors.DiskFull as error:
        raise StoreAway("disk_full", _said(place, error), "Make room on the server's disk.") from error
    except (psycopg.DataError, psycopg.IntegrityError, errors.ProgramLimitExceeded) as error:
        raise StoreRefused("refused_by_database", _said(place, error), "See the rejected input.") from error
    except psycopg.OperationalError as error:
        remedy = "See whether PostgreSQL runs there, and the address in --database."
        raise StoreAway("database_away", _said(place, error), remedy) from error
    except psycopg.Error as error:
        raise StoreAway("database_unusable", _said(place, error), "See the server's log.") from error


def _said(place: str, error: psycopg.Error) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return f"{place}: {printable(lines[0])}"
