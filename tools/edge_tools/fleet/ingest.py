"""From the broker into the store, by one thread: receive, decode, commit, acknowledge.

Invariants: a message is acknowledged only after the commit that holds all of it; without the database there is no
connection, so that the broker keeps what comes; what came over a connection that ended is dropped when the broker still
has the session, since it delivers that again, and stored when it has not. Nothing that arrives ends the loop.
"""

import logging
import time
from collections.abc import Callable, Sequence
from random import random as default_random
from typing import Protocol

import msgspec

from edge.cloud.backoff import Backoff
from edge.errors import ConfigError, ConnectionFailed, InputRejected, TransientError
from edge.logs import log_event
from edge_tools.fleet.decode import Decoder
from edge_tools.fleet.link import Incoming
from edge_tools.fleet.records import Decoded, Record, Rejection, reject
from edge_tools.fleet.store import Batch, Committed, Store, StoreAway, StoreDamaged, StoreRefused

BACKOFF_S_MIN, BACKOFF_S_MAX = 0.5, 30.0
IDLE_S = 0.5  # so long a request to stop may wait
LEAVE_QUIET_S = 5.0  # what a broker holds for this client comes without a longer pause
COMMIT_BYTES = 8 * 1024 * 1024

_log = logging.getLogger(__name__)


class Connection(Protocol):
    """What ingest needs of a link."""

    session_present: bool
    answered: bool

    def open(self, filters: Sequence[str]) -> None: ...
    def receive(self, wait_s: float) -> Sequence[Incoming]: ...
    def acknowledge(self, mids: Sequence[int]) -> None: ...
    def close(self) -> None: ...


class Bounds(msgspec.Struct, frozen=True):
    """A commit is made at so many messages or records, or so long after the first."""

    commit_records: int = 1000
    commit_ms: int = 100


class Totals(msgspec.Struct):
    """Since the start of this process. rejected: by reason."""

    messages: int = 0
    stored: int = 0
    repeats: int = 0
    conflicts: int = 0
    without_identity: int = 0
    commits: int = 0
    rejected: dict[str, int] = {}


class _Pending:
    """What is received and not committed yet."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.rejections: list[Rejection] = []
        self.counts: dict[str, int] = {}
        self.mids: list[int] = []
        self.messages = self.bytes = 0
        self.since: float | None = None

    def add(self, decoded: Decoded, message: Incoming, now: float) -> None:
        self.records += decoded.records
        self.rejections += decoded.rejections
        for reason, count in decoded.beyond.items():
            self.counts[reason] = self.counts.get(reason, 0) + count
        if message.mid:
            self.mids.append(message.mid)
        self.messages += 1
        self.bytes += len(message.payload) + sum(len(record.payload) for record in decoded.records)
        if self.since is None:
            self.since = now

    def batch(self) -> Batch:
        return Batch(self.records, self.rejections, self.counts)


class Ingest:
    """open_store, make_link: called for every try. stopped: asked at least every IDLE_S. subscribed: told each time.

    leave: end, too, when the broker has ended the subscriptions and what it held for this client is stored (`left`).
    """

    def __init__(
        self,
        open_store: Callable[[], Store],
        make_link: Callable[[], Connection],
        filters: Sequence[str],
        decoder: Decoder,
        *,
        bounds: Bounds,
        stopped: Callable[[], bool],
        subscribed: Callable[[], None] = lambda: None,
        leave: bool = False,
        random: Callable[[], float] = default_random,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._open_store, self._make_link, self._filters, self._decoder = open_store, make_link, filters, decoder
        self._bounds, self._stopped, self._subscribed = bounds, stopped, subscribed
        self._clock, self._wall_clock, self._sleep = clock, wall_clock, sleep
        self._backoff = Backoff(BACKOFF_S_MIN, BACKOFF_S_MAX, random)
        self._store: Store | None = None
        self._pending = _Pending()
        self._cause, self._logged_open = "", False
        self._since = self._heard = clock()  # heard: when something was last acknowledged
        self._leave, self.left = leave, False
        self.totals = Totals()

    def run(self) -> None:
        """Until stopped, or left. Raises ConfigError for what no retry mends."""
        try:
            while not self._stopped() and not self.left:
                self._since = self._clock()
                try:
                    self._once()
                except ConfigError:
                    raise
                except TransientError as problem:
                    self._failed(problem)
                except Exception as error:  # noqa: BLE001  nothing from outside may end the service
                    _log.exception("ingest_broke")
                    self._failed(ConnectionFailed("internal_error", repr(error), "Report this with the log."))
        finally:
            self._let_go()

    def _once(self) -> None:
        """Open both ends, and carry from one to the other until one fails, which it raises, or until stopped."""
        if self._store is None:
            self._store = self._open_store()
        link = self._make_link()
        try:
            link.open(self._filters)
            if link.session_present:
                self._pending = _Pending()
            self._pending.mids.clear()  # of a connection that is gone
            told = False
            while not self._stopped() and not self.left:
                self._step(link, self._store)
                if link.answered and not told:
                    told, self._heard = True, self._clock()
                    self._opened(session_present=link.session_present)
                self.left = self._leave and told and self._is_quiet()
            self._flush(link, self._store)
        finally:
            link.close()

    def _opened(self, *, session_present: bool) -> None:
        if not self._logged_open:
            self._logged_open = True
            log_event(_log, "ingest_connected", session_present=session_present)
        if not self._leave:
            self._subscribed()

    def _is_quiet(self) -> bool:
        return not self._pending.messages and self._clock() - self._heard >= LEAVE_QUIET_S

    def _step(self, link: Connection, store: Store) -> None:
        pending, bounds = self._pending, self._bounds
        wait_s = IDLE_S
        if pending.since is not None:
            wait_s = max(0.0, min(IDLE_S, self._due() - self._clock()))
        for message in link.receive(wait_s):
            pending.add(self._decode(message), message, self._clock())
        full = max(pending.messages, len(pending.records)) >= bounds.commit_records or pending.bytes >= COMMIT_BYTES
        if full or (pending.since is not None and self._clock() >= self._due()):
            self._flush(link, store)
        if self._cause and self._backoff.lasted(self._clock() - self._since):
            self._cause = ""

    def _due(self) -> float:
        return (self._pending.since or 0.0) + self._bounds.commit_ms / 1000

    def _decode(self, message: Incoming) -> Decoded:
        received = int(self._wall_clock() * 1000)
        if not message.broken:
            return self._decoder.decode(message.topic, message.payload, message.content_type, message.user, received)
        problem = InputRejected("bad_properties", message.broken)
        return Decoded(rejections=[reject(problem, message.topic, message.payload, received)])

    def _flush(self, link: Connection, store: Store) -> None:
        pending = self._pending
        if not pending.messages:
            return
        self._commit(store, pending.batch())
        self._pending = _Pending()
        self.totals.messages += pending.messages
        link.acknowledge(pending.mids)
        self._heard = self._clock()

    def _commit(self, store: Store, batch: Batch) -> None:
        try:
            self._count(batch, store.commit(batch))
        except StoreRefused:
            if len(batch.records) > 1:
                for record in batch.records:
                    self._commit(store, Batch([record]))
                self._commit(store, Batch((), batch.rejections, batch.counts))
            elif batch.records:
                self._commit(store, Batch((), [_refused(batch.records[0]), *batch.rejections], batch.counts))
            else:
                raise

    def _count(self, batch: Batch, committed: Committed) -> None:
        totals = self.totals
        totals.commits += 1
        totals.stored += committed.stored
        totals.repeats += committed.repeats
        totals.conflicts += committed.conflicts
        for name, count in batch.tally().items():
            _, _, reason = name.partition(":")
            if reason:
                totals.rejected[reason] = totals.rejected.get(reason, 0) + count
            else:
                totals.without_identity += count

    def _failed(self, problem: TransientError) -> None:
        """Tell a cause once, until it changes or a connection lasted; then wait."""
        if isinstance(problem, StoreAway):
            self._store_failed(problem)
        elif self._backoff.lasted(self._clock() - self._since):
            self._cause = ""
        cause = getattr(problem, "cause", problem.code)
        delay_s = self._backoff.next_s()
        if cause != self._cause:
            self._cause, self._logged_open = cause, False
            fields = {"cause": cause, "problem": getattr(problem, "problem", str(problem))}
            remedy = getattr(problem, "remedy", "")
            log_event(
                _log, "ingest_failed", level=logging.WARNING, **fields, remedy=remedy, next_try_s=round(delay_s, 1)
            )
        end = self._clock() + delay_s
        while not self._stopped() and (left := end - self._clock()) > 0:
            self._sleep(min(left, IDLE_S))

    def _store_failed(self, problem: StoreAway) -> None:
        store, self._store = self._store, None
        if store is None:
            return
        if isinstance(problem, StoreDamaged) and (aside := store.quarantine()):
            log_event(_log, "database_quarantined", level=logging.ERROR, problem=problem.problem, moved_to=aside)
        else:
            store.close()

    def _let_go(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None


def _refused(record: Record) -> Rejection:
    problem = InputRejected("refused_by_database", f"{record.thing}, boot {record.boot}, seq {record.seq}")
    return reject(problem, record.topic, record.payload, record.received)
