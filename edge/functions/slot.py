"""One worker of a function as the pool sees it: what it is doing, and what it may be given.

Invariants: a call given is in `in_flight` until it is answered or the worker has ended. A worker that is not concurrent
runs one at a time in the order given, so the first in flight is the one under way and its deadline counts from the
answer before it; the others have not begun. One that is concurrent says which have begun, and their deadlines count
from then; of the others the first is under way or next, and its deadline counts from when one before it moved on. While
it is not read from (`pause`), what it said cannot be heard, and no deadline counts but that of its stopping.
"""

import math
from collections import deque
from enum import Enum
from typing import Final

from edge.functions.allowance import Allowance
from edge.functions.calls import Job
from edge.functions.child import Child
from edge.functions.codec import codec
from edge.functions.grants import Grants
from edge.functions.wire import Publish, Ready

AHEAD_S: Final = 0.02  # so much work of other topics waits in the socket of a worker that is the only one
AHEAD_MAX: Final = 64
AHEAD_FIRST: Final = 8  # before it is known how long calls take
AHEAD_OF_MANY: Final = 1  # with others beside it: what waits for a slow call could run there
_WEIGHT: Final = 0.1
CONCURRENT_MAX: Final = 64
GRACE_S: Final = 1.0  # beyond a deadline that the worker is to keep itself
LAST_WORDS: Final = 3
ASIDES_PER_S: Final = 1_000.0
ASIDES_BURST: Final = 4_000.0
PUBLISHED_BYTES_PER_S: Final = 8.0 * 1024 * 1024
PUBLISHED_BYTES_BURST: Final = 2.0 * 1024 * 1024
PUBLISH_BYTES: Final = 1_600  # what handling one costs, as bytes: about 5,000 a second
PUBLISHES_A_CALL, PUBLISHES_AHEAD_MAX = 8, 512  # that cost their bytes alone
ASKS_PER_S: Final = 500.0  # of other functions and shadows, beside those that calls bring
ASKS_BURST: Final = 500.0
ASKS_A_CALL, ASKS_AHEAD_MAX = 8, 512


class State(Enum):
    STARTING = "starting"
    READY = "ready"
    LEAVING = "leaving"  # it finishes what it has, and is given no more
    ENDED = "ended"


class Slot:
    """version: the number of the code and settings that it runs. is_program: it speaks lines, and is given one call at
    a time. grants: those of its version, to its end."""

    def __init__(
        self,
        number: int,
        version: int,
        now: float,
        *,
        timeout_s: float,
        start_timeout_s: float,
        is_program: bool,
        grants: Grants | None = None,
    ) -> None:
        self.number, self.version = number, version
        self.grants = grants or Grants(())
        self.state = State.STARTING
        self.child: Child | None = None
        self.is_program = is_program
        self.codec = codec(is_program=is_program)
        self.ready: Ready | None = None
        self.in_flight: dict[int, Job] = {}
        self.started_at = self.idle_since = now
        self.asides = Allowance(now, per_s=ASIDES_PER_S, burst=ASIDES_BURST)
        """Of what is neither an answer nor goes anywhere: kibibytes of a program's log on its stdout, denied requests,
        attempts told. Each costs the gateway about 10 µs."""
        self.published = Allowance(now, per_s=PUBLISHED_BYTES_PER_S, burst=PUBLISHED_BYTES_BURST)
        """In bytes. Beyond it the worker is not read from, so that what it publishes delays others little."""
        self.asked = Allowance(now, per_s=ASKS_PER_S, burst=ASKS_BURST)
        """Requests to other functions and for shadows; beyond it the worker is not read from either."""
        self._publishes_free = self._asks_free = 0
        self.unsent: list[bytes] = []
        self.done = 0
        self.why = ""
        """Why the gateway ends it; empty while it does not."""
        self.error = self.traceback = ""
        self.is_refused = False
        """It was not begun, for want of what is demanded."""
        self.last_words: deque[str] = deque(maxlen=LAST_WORDS)
        """On its stderr: often why it ended."""
        self._timeout_s = timeout_s
        self._head_at = self._mean_s = 0.0
        self._untold: dict[int, None] = {}
        """Of a concurrent one, calls of which it has not said that they have begun."""
        self._told: dict[int, Job] = {}
        self._ahead = AHEAD_FIRST
        self._alone = False
        self._start_deadline = now + start_timeout_s
        self._paused_at: float | None = None
        self.stop_deadline = 0.0

    @property
    def is_concurrent(self) -> bool:
        return self.ready is not None and self.ready.concurrent

    def room(self, *, alone: bool, only: bool) -> int:
        """How many calls it may be given. alone: for a job that has to be; only: it is the function's only worker."""
        if self.state is not State.READY or self._alone:
            return 0
        if alone:
            return 0 if self.in_flight else 1
        ahead = 0 if self.is_program else self._ahead if only else AHEAD_OF_MANY
        most = CONCURRENT_MAX if self.is_concurrent else 1 + ahead
        return most - len(self.in_flight)

    def give(self, id_: int, job: Job, now: float) -> None:
        if not (self._untold if self.is_concurrent else self.in_flight):
            self._head_at = now
        if self.is_concurrent:
            self._untold[id_] = None
        job.began_at = now
        self._alone = job.alone
        self._publishes_free = min(self._publishes_free + PUBLISHES_A_CALL, PUBLISHES_AHEAD_MAX)
        self._asks_free = min(self._asks_free + ASKS_A_CALL, ASKS_AHEAD_MAX)
        self.in_flight[id_] = job

    def cost(self, publish: Publish) -> int:
        """Of what it allows itself, in bytes."""
        size = len(publish.topic) + len(publish.payload)
        if self._publishes_free:
            self._publishes_free -= 1
            return size
        return size + PUBLISH_BYTES

    def cost_of_asking(self) -> int:
        """Of what it allows itself: 1, or 0 for what a call brings along."""
        if self._asks_free:
            self._asks_free -= 1
            return 0
        return 1

    def begun(self, id_: int, ago_s: float, now: float) -> bool:
        """It says so. False: it cannot be."""
        job = self.in_flight.get(id_)
        if job is None or id_ in self._told:
            return False
        if self.is_concurrent:
            self._move_on(id_, now)
            self._told[id_] = job
            job.began_at = max(job.began_at, now - ago_s)
        return True

    def _move_on(self, id_: int, now: float) -> None:
        """Ids rise: what was given before the first untold one, or is it, holds up no other any more."""
        if id_ <= next(iter(self._untold), 0):
            self._head_at = now
        self._untold.pop(id_, None)

    def answered(self, id_: int, now: float) -> tuple[Job, float] | None:
        """(the job, how long it took); None for what was never asked."""
        job = self.in_flight.get(id_)
        if job is None:
            return None
        if self.is_concurrent:
            took = now - job.began_at
            self._move_on(id_, now)
            self._told.pop(id_, None)
        elif next(iter(self.in_flight)) != id_:
            return None
        else:
            took = now - self._head_at
            self._head_at = now
            self._mean_s += (took - self._mean_s) * _WEIGHT if self._mean_s else took
            self._ahead = min(max(int(AHEAD_S / max(self._mean_s, 1e-6)), 1), AHEAD_MAX)
        del self.in_flight[id_]
        self._alone = False
        self.done += 1
        self.idle_since = now
        return job, took

    @property
    def deadline(self) -> float | None:
        """When it is to be ended for want of an answer, a start, or its stopping."""
        is_heard = self._paused_at is None
        if self.state is State.STARTING:
            return self._start_deadline if is_heard else None
        when = self.stop_deadline or None
        if self.in_flight and is_heard and self.state is not State.ENDED:
            begun = [job.began_at for job in self._told.values()]
            if self._untold or not self.is_concurrent:
                begun.append(self._head_at)
            late = min(begun) + self._timeout_s + (GRACE_S if self.is_concurrent else 0.0)
            when = late if when is None else min(late, when)
        return when

    def left_s(self, id_: int, now: float) -> float:
        """How long a call may still take; without end for what is asked outside of any."""
        job = self.in_flight.get(id_)
        if job is None:
            return math.inf
        return max((job.began_at if self.is_concurrent else self._head_at) + self._timeout_s - now, 0.0)

    def pause(self, now: float) -> None:
        """Read no more of it, once it runs."""
        if self._paused_at is None and self.child is not None:
            self._paused_at = now
            self.child.pause()

    def resume(self, now: float) -> None:
        if self._paused_at is None:
            return
        late, self._paused_at = now - self._paused_at, None
        self._start_deadline += late
        self._head_at = min(self._head_at + late, now)
        for job in self.in_flight.values():
            job.began_at = min(job.began_at + late, now)
        if self.child is not None:
            self.child.resume()

    def split(self) -> tuple[list[Job], list[Job]]:
        """(calls it had begun, calls it had not); it has none afterwards."""
        jobs = list(self.in_flight.values())
        self.in_flight, self._untold, self._told = {}, {}, {}
        self._alone = False
        return (jobs, []) if self.is_concurrent else (jobs[:1], jobs[1:])
