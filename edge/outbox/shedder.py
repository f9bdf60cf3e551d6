"""Makes room in a stream by its declared policy, and counts what that costs.

Invariants: nothing is shed while there is room, nothing that is settled is counted as shed, and each record that is
shed is in the ledger with or before the commit that gives it up. What was on the wire when it was shed may arrive all
the same; what only waited for the connection does not. Dropping goes in slices between which the loop does other work,
and so does planning what to thin; the plan is committed as an intent (intent.py), then the thinning has the commit
thread to itself.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from edge.config import StreamSettings
from edge.log import Log, Replacement
from edge.outbox.clock import Clock
from edge.outbox.intent import INTENT, count_intent, intent
from edge.outbox.lanes import Sent
from edge.outbox.ledger import Ledger
from edge.outbox.record import decode, name_of
from edge.outbox.thin import Thinner

SLICE_RECORDS: Final = 256
SLICE_BYTES: Final = 1024 * 1024
THINNED_TIMES_MAX: Final = 3
PASSED_OVER_MAX: Final = 3
UNREADABLE: Final = ("*", 0, 0)


class Shedder:
    """sent: how far the export is. given_up(number): nothing below is there any more. commit: called when
    there is something to commit for room's sake."""

    def __init__(
        self,
        settings: StreamSettings,
        log: Log,
        own: str,
        clock: Clock,
        ledger: Ledger,
        *,
        now_ms: Callable[[], int],
        sent: Callable[[], Sent],
        given_up: Callable[[int], None],
        commit: Callable[[], None],
    ) -> None:
        self._settings, self._log, self._own, self._clock, self._ledger = settings, log, own, clock, ledger
        self._now_ms, self._sent, self._given_up, self._commit = now_ms, sent, given_up, commit
        self.too_old = False
        self._dropping = False
        self._until = 0
        self._limit_ms = 0
        self._reason = ""
        self._reading = 0
        self._plan: tuple[Replacement, Thinner] | None = None
        self._intent: bytes | None = None  # of the plan, once it is made
        self._passed_over: set[int] = set()  # segments that found no room on the disk for what thinning left of them

    def change(self, settings: StreamSettings) -> None:
        self._settings = settings

    def look_at_room(self, room: int, least: int) -> Replacement | None:
        """Called when the log is idle. Returns a piece of work for it when the policy is to thin."""
        policy = self._settings.when_full
        if self._plan is not None:
            return self._begin()
        if policy == "reject" or room >= least or self._dropping:
            return None
        if policy == "thin" and self._thin(THINNED_TIMES_MAX - 1):
            return None
        self.drop_oldest()
        return None

    def drop_oldest(self) -> None:
        """Give up the oldest segment, unless there is but one or something is being dropped already."""
        self._passed_over.clear()
        segments = self._log.segments
        oldest = next((segment for segment in segments[:-1] if segment.next > self._log.first), None)
        if oldest is not None and not self._dropping:
            self._drop(oldest.next, -1, "dropped_oldest")

    def look_at_age(self) -> Replacement | None:
        """Called now and then, when the log is idle."""
        settings = self._settings
        if self._plan is not None and self._intent is not None:
            return self._begin()
        if self._dropping or not (settings.ttl_s or settings.age_max_s):
            return None
        age_ms = self.age_of_oldest() or 0
        if settings.ttl_s and age_ms > settings.ttl_s * 1000:
            self._drop(self._log.next, int(settings.ttl_s * 1000), "expired")
            return None
        old = bool(settings.age_max_s) and age_ms > settings.age_max_s * 1000
        self.too_old = old and settings.when_full == "reject"
        if old and settings.when_full == "drop_oldest":
            self._drop(self._log.next, int(settings.age_max_s * 1000), "too_old")
        elif old and settings.when_full == "thin" and self._plan is None:
            self._thin(0, int(settings.age_max_s * 1000))
        return None

    def purge(self, reason: str) -> int:
        """Give up all that is committed. Returns how many records at most: those that were left and not exported."""
        sent = self._sent()
        count = self._log.next - max(sent.cursor, self._log.first) - (sent.live - sent.split)
        if self._dropping:
            self._until, self._limit_ms, self._reason = self._log.next, -1, reason
        else:
            self._drop(self._log.next, -1, reason)
        return max(count, 0)

    def thinned(self) -> None:
        """The replacement given out was settled."""
        self._passed_over.clear()
        self._end_plan()

    def not_thinned(self, segment: int, *, no_room: bool) -> None:
        """The replacement given out was abandoned. no_room: on the disk; what is left of the next may be less."""
        self._end_plan()
        if not no_room:
            return
        if len(self._passed_over) < PASSED_OVER_MAX:
            self._passed_over.add(segment)
        else:
            self.drop_oldest()

    def _end_plan(self) -> None:
        if count_intent(self._log, self._ledger):
            self._log.put_state(INTENT, None)
        self._plan = self._intent = None

    def stop(self) -> None:
        """The log is about to be closed."""
        self._dropping, self._plan = False, None

    def _thin(self, generation_max: int, older_ms: int = 0) -> bool:
        """Plan to thin the oldest segment that was thinned least. False: there is none, or it begins with what is not
        older."""
        for generation in range(generation_max + 1):
            work = self._log.plan_oldest(generation_max=generation, but=self._passed_over)
            if work is not None:
                if older_ms and (self._age_from(max(work.row.first, self._sent().cursor)) or 0) <= older_ms:
                    return False
                self._plan = work, Thinner(self._own, self._sent())
                self._plan_on(work, work.row.first)
                return True
        return False

    def _plan_on(self, work: Replacement, number: int) -> None:
        """Look at the next slice."""
        if self._plan is None or self._plan[0] is not work:
            return
        thinner = self._plan[1]
        try:
            found = self._log.read(number, records_max=SLICE_RECORDS, bytes_max=SLICE_BYTES)
        except OSError:  # tried again when room or age is looked at next
            self._plan = None
            return
        rows = [row for row in found if row[0] < work.row.next]
        thinner.feed(rows)
        if rows and rows[-1][0] + 1 < work.row.next:
            asyncio.get_running_loop().call_soon(self._plan_on, work, rows[-1][0] + 1)
            return
        thinner.finish()
        self._intent = intent(work.token, thinner.shed)
        self._log.put_state(INTENT, self._intent)
        self._commit()

    def _begin(self) -> Replacement | None:
        """What was planned, once its intent is committed."""
        if self._plan is None or self._intent is None or self._log.state.get(INTENT) != self._intent:
            return None
        work, thinner = self._plan
        if self._log.begin(work, thinner.thin):
            return work
        self._forget_plan()
        return None

    def _forget_plan(self) -> None:
        if self._intent is not None:
            self._log.put_state(INTENT, None)
        self._plan = self._intent = None

    def age_of_oldest(self) -> int | None:
        """In ms; None where nothing is left to export, or its age is not known."""
        return self._age_from(max(self._sent().cursor, self._log.first))

    def _age_from(self, number: int) -> int | None:
        for _, data in self._log.read(number, records_max=1, bytes_max=0):
            record = decode(data)
            if record is not None:
                return self._clock.age_ms(record.boot, record.taken_ms, self._now_ms()) or None
        return None

    def _drop(self, until: int, limit_ms: int, reason: str) -> None:
        self._forget_plan()
        self._dropping = True
        self._until, self._limit_ms, self._reason = until, limit_ms, reason
        self._reading = self._sent().cursor
        self._step()

    def _step(self) -> None:
        """Give up the next slice."""
        if not self._dropping:
            return
        try:
            rows = self._log.read(self._reading, records_max=SLICE_RECORDS, bytes_max=SLICE_BYTES)
        except OSError:  # what cannot be read cannot be counted: tried again when room or age is looked at next
            self._dropping = False
            return
        sent = self._sent()
        now_ms = self._now_ms()
        ended = not rows
        for number, data in rows:
            if number >= self._until:
                ended = True
                break
            record = decode(data)
            if (
                self._limit_ms >= 0
                and record is not None
                and self._clock.age_ms(record.boot, record.taken_ms, now_ms) <= self._limit_ms
            ):
                self._until = number
                ended = True
                break
            name = name_of(record, number, self._own) if record is not None else UNREADABLE
            if not sent.is_settled(number, name[0]):
                self._ledger.add(*name, self._reason)
            self._reading = number + 1
        if not ended:
            self._log.release(self._reading)
            asyncio.get_running_loop().call_soon(self._step)
            return
        self._reading = max(self._reading, self._until)
        self._log.release(self._reading)
        self._given_up(self._reading)
        self._dropping = False
        self._commit()


def count_refused(
    log: Log, ledger: Ledger, own: tuple[str, int], first: int, last: int, *, reason: str = "refused"
) -> None:
    """Enter these records: whoever they go to will never take them. own: thing and boot of the stream."""
    number = first
    try:
        while number <= last and (rows := log.read(number, records_max=SLICE_RECORDS, bytes_max=SLICE_BYTES)):
            for number, data in rows:
                if number > last:
                    return
                record = decode(data)
                ledger.add(*(name_of(record, number, own[0]) if record else UNREADABLE), reason)
            number += 1
    except OSError:
        ledger.add(*own, last, reason, last - number + 1)
