"""Makes room in a stream by its declared policy, and counts what that costs.

Invariants: nothing is shed while there is room, nothing that is settled is counted as shed, and each record that is
shed is in the ledger before the commit that gives it up. What was under way when it was shed may arrive all the same.
Dropping goes in slices between which the loop does other work; thinning has the commit thread to itself meanwhile.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from edge.config import StreamSettings
from edge.log import Log, Replacement
from edge.outbox.clock import Clock
from edge.outbox.lanes import Sent
from edge.outbox.ledger import Ledger
from edge.outbox.note import Note
from edge.outbox.record import decode, name_of
from edge.outbox.thin import Thinner

SLICE_RECORDS: Final = 256
SLICE_BYTES: Final = 1024 * 1024
THINNED_TIMES_MAX: Final = 3
THINNED: Final = "thinned"  # the token of the last thinning that is in the ledger
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
        folder: str = "",
    ) -> None:
        self._settings, self._log, self._own, self._clock, self._ledger = settings, log, own, clock, ledger
        self._now_ms, self._sent, self._given_up, self._commit = now_ms, sent, given_up, commit
        self.too_old = False
        self._dropping = False
        self._until = 0
        self._limit_ms = 0
        self._reason = ""
        self._reading = 0
        self._thinner: tuple[bytes, Ledger] | None = None
        self._note = Note(folder)
        token, things = self._note.read()
        if token and token != log.state.get(THINNED) and log.replaced(token):
            ledger.take(things)  # a kill came between the thinning and the commit that tells it
            log.put_state(THINNED, token)

    def look_at_room(self, room: int, least: int) -> Replacement | None:
        """Called when the log is idle. Returns a piece of work for it when the policy is to thin."""
        policy = self._settings.when_full
        if policy == "reject" or room >= least or self._dropping:
            return None
        if policy == "thin" and (work := self._thin(THINNED_TIMES_MAX - 1)) is not None:
            return work
        segments = self._log.segments
        oldest = next((segment for segment in segments[:-1] if segment.next > self._log.first), None)
        if oldest is not None:
            self._drop(oldest.next, -1, "dropped_oldest")
        return None

    def look_at_age(self) -> Replacement | None:
        """Called now and then, when the log is idle."""
        settings = self._settings
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
        elif old and settings.when_full == "thin":
            return self._thin_old()
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
        if self._thinner is not None:
            token, shed = self._thinner
            self._ledger.take(shed.things)
            self._log.put_state(THINNED, token)
            self._thinner = None

    def abandoned(self) -> None:
        self._thinner = None

    def _thin(self, generation_max: int) -> Replacement | None:
        thinner = Thinner(self._own, self._sent())
        token, shed = b"", Ledger({})

        def thin(rows: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
            yield from thinner.thin(rows)
            for thing, boot, sequence in thinner.shed:
                shed.add(thing, boot, sequence, "thinned")
            self._note.write(token, shed)

        for generation in range(generation_max + 1):
            work = self._log.replace_oldest(thin, generation_max=generation)
            if work is not None:
                token = work.token
                self._thinner = token, shed
                return work
        return None

    def _thin_old(self) -> Replacement | None:
        """The oldest segment not thinned yet, if what it begins with is too old; what was thinned is left in peace."""
        work = self._thin(0)
        if work is None:
            return None
        age_ms = self._age_from(max(work.row.first, self._sent().cursor)) or 0
        if age_ms > self._settings.age_max_s * 1000:
            return work
        self._log.abandon(work)
        self.abandoned()
        return None

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
        self._dropping = True
        self._until, self._limit_ms, self._reason = until, limit_ms, reason
        self._reading = self._sent().cursor
        self._step()

    def _step(self) -> None:
        """Give up the next slice."""
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
            if not sent.is_settled(number):
                name = name_of(record, number, self._own) if record is not None else UNREADABLE
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
