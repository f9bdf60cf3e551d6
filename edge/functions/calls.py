"""Which call comes next, which waits for its retry, which is given up. Pure: time is what it is told.

A job is one message (or schedule, or invocation) for a function; a lane is all jobs of one topic, in order.
Invariants:
- Of one lane one job is under way at a time, the first; the next follows when that one returned or was given up.
- A job that returned and fails afterwards (`undone`) stands before all of its lane that came after it.
- A lane that waits for a retry holds up no other.
- Each job added ends exactly once: `returned`, or in the list of the given up.
- What was not begun when its worker ended is offered again at once and costs no attempt. When a worker ends with
  several begun, none is to blame for sure: each goes again alone in its worker (`alone`), and then it is known.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from heapq import heappop, heappush
from typing import Final

import msgspec

from edge.functions.wire import Kind
from edge.messages import Message

HELD_BYTES_MAX: Final = 1024 * 1024  # of messages in memory; of more only their numbers are kept
HELD_OVERHEAD_BYTES: Final = 400


class Retry(msgspec.Struct, frozen=True):
    """As Step Functions name them."""

    interval_s: float = 1.0
    max_attempts: int = 3
    backoff_rate: float = 2.0
    max_delay_s: float = 60.0

    def delay_s(self, attempt: int) -> float:
        """How long after this attempt (from 1) failed the next one comes."""
        try:
            return min(self.interval_s * self.backoff_rate ** (attempt - 1), self.max_delay_s)
        except OverflowError:
            return self.max_delay_s


ONCE: Final = Retry(max_attempts=1)


class Job:
    """number: its record in the inbox, 0 for none. message: None while only the number is kept. attempt: of the next
    call, or of the one under way. open: its publishes that are not settled. refused: what became of one that did not go
    out, so that the call failed. request: its name for the handler, given with its first attempt. is_buried: it failed
    to the last; is_given_up: and there is no letter of it."""

    __slots__ = (
        "alone",
        "attempt",
        "began_at",
        "context",
        "error",
        "handle",
        "has_returned",
        "is_buried",
        "is_given_up",
        "kind",
        "lane",
        "message",
        "number",
        "open",
        "refused",
        "request",
        "retry",
        "schedule",
        "size",
    )

    def __init__(
        self, lane: str, message: Message, number: int = 0, *, kind: Kind = "message", attempt: int = 1
    ) -> None:
        self.lane, self.number, self.kind, self.attempt = lane, number, kind, attempt
        self.message: Message | None = message
        self.size = len(message.payload) + HELD_OVERHEAD_BYTES
        self.alone = self.has_returned = self.is_buried = self.is_given_up = False
        self.open = 0
        self.error = self.refused = self.request = ""
        self.retry: Retry | None = None
        self.schedule = 0
        self.context = b""
        self.handle: object = None
        self.began_at = 0.0


class _Lane:
    __slots__ = ("busy", "jobs", "waits_until")

    def __init__(self) -> None:
        self.jobs: deque[Job] = deque()
        self.busy = False
        self.waits_until = 0.0


class Calls:
    """Of one function."""

    def __init__(self, retry: Retry) -> None:
        self.retry = retry
        self._lanes: dict[str, _Lane] = {}
        self._ready: deque[str] = deque()
        self._waiting: list[tuple[float, int, str]] = []
        self._tie = 0
        self.held = 0
        """Jobs that are not under way."""
        self._held_bytes = 0

    @property
    def ready(self) -> int:
        """How many could be called now."""
        return len(self._ready)

    @property
    def may_wait(self) -> bool:
        """False: no lane waits for a retry. Cheap."""
        return bool(self._waiting)

    @property
    def waiting(self) -> int:
        """How many lanes wait for a retry."""
        return sum(1 for lane in self._lanes.values() if lane.waits_until)

    def has_lane(self, name: str) -> bool:
        return name in self._lanes

    def add(self, job: Job) -> None:
        name = job.lane
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = _Lane()
        if not lane.jobs and not lane.busy:
            self._ready.append(name)
        self.held += 1
        if job.number and self._held_bytes + job.size > HELD_BYTES_MAX and (lane.jobs or lane.busy):
            job.message = None
        else:
            self._held_bytes += job.size
        lane.jobs.append(job)

    def take(self) -> Job | None:
        """The next to call; it counts as under way."""
        if not self._ready:
            return None
        lane = self._lanes[self._ready.popleft()]
        job = lane.jobs.popleft()
        lane.busy = True
        self.held -= 1
        if job.message is not None:
            self._held_bytes -= job.size
        return job

    def peek(self) -> Job | None:
        return self._lanes[self._ready[0]].jobs[0] if self._ready else None

    def returned(self, job: Job) -> None:
        """Its handler did; the next of the lane may come."""
        lane = self._lanes[job.lane]
        lane.busy = False
        if not lane.jobs:
            del self._lanes[job.lane]
        elif not lane.waits_until:
            self._ready.append(job.lane)

    def failed(self, job: Job, now: float) -> bool:
        """True: it comes again later. False: it is given up."""
        retry = job.retry or self.retry
        if job.attempt >= retry.max_attempts:
            self.returned(job)
            return False
        lane = self._back(job)
        self._wait(job, lane, now + retry.delay_s(job.attempt))
        return True

    def undone(self, job: Job, now: float) -> bool:
        """It had returned, and fails all the same. True: it comes again later. False: it is given up."""
        retry = job.retry or self.retry
        if job.attempt >= retry.max_attempts:
            return False
        lane = self._lanes.get(job.lane)
        if lane is None:
            lane = self._lanes[job.lane] = _Lane()
        elif lane.jobs and not lane.busy and not lane.waits_until:
            self._ready.remove(job.lane)
        self._put(job, lane)
        self._wait(job, lane, now + retry.delay_s(job.attempt))
        return True

    def _wait(self, job: Job, lane: _Lane, until: float) -> None:
        lane.waits_until = until
        job.attempt += 1
        self._tie += 1
        heappush(self._waiting, (until, self._tie, job.lane))

    def ended(self, begun: Sequence[Job], others: Iterable[Job], now: float) -> tuple[list[Job], list[Job]]:
        """A worker ended. begun: calls it had begun; others: those it had not. Returns (jobs to come again after a
        wait, jobs given up); the rest is offered again at once."""
        again: list[Job] = []
        given_up: list[Job] = []
        for job in reversed(list(others)):
            self._offer_again(job)
        if len(begun) == 1:
            (again if self.failed(begun[0], now) else given_up).append(begun[0])
        else:
            for job in reversed(begun):
                job.alone = True
                self._offer_again(job)
        return again, given_up

    def due(self, now: float) -> None:
        """Let those whose wait is over be ready."""
        while self._waiting and self._waiting[0][0] <= now:
            when, _, name = heappop(self._waiting)
            lane = self._lanes.get(name)
            if lane is not None and lane.waits_until == when:
                lane.waits_until = 0.0
                if not lane.busy:
                    self._ready.append(name)

    def next_due(self) -> float | None:
        """When `due` has something to do."""
        return self._waiting[0][0] if self._waiting else None

    def give_up_waiting(self) -> list[Job]:
        """End the wait of all that wait for a retry, for want of room: they are given up."""
        given_up = []
        for name, lane in list(self._lanes.items()):
            if lane.waits_until:
                lane.waits_until = 0.0
                job = lane.jobs.popleft()
                job.attempt -= 1  # it is not made
                self.held -= 1
                if job.message is not None:
                    self._held_bytes -= job.size
                given_up.append(job)
                if lane.busy:
                    continue
                if lane.jobs:
                    self._ready.append(name)
                else:
                    del self._lanes[name]
        self._waiting.clear()
        return given_up

    def drop(self, handle: object) -> None:
        """Forget a job with this handle, alone in its lane, that is not under way."""
        for name, lane in self._lanes.items():
            if lane.jobs and lane.jobs[0].handle is handle:
                job = lane.jobs.popleft()
                self.held -= 1
                self._held_bytes -= job.size
                self._ready.remove(name)
                del self._lanes[name]
                return

    def _back(self, job: Job) -> _Lane:
        lane = self._lanes[job.lane]
        lane.busy = False
        self._put(job, lane)
        return lane

    def _put(self, job: Job, lane: _Lane) -> None:
        """Before all that came after it; before those stand at most a few that were undone."""
        at = 0
        while at < len(lane.jobs) and lane.jobs[at].number < job.number:
            at += 1
        lane.jobs.insert(at, job)
        self.held += 1
        if job.message is not None:
            self._held_bytes += job.size

    def _offer_again(self, job: Job) -> None:
        if not self._back(job).waits_until:
            self._ready.appendleft(job.lane)
