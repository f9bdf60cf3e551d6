"""What a function publishes, on its way through the router. Pure but for what it is given.

Invariants:
- Messages go to the router in the order in which the function published them; while one waits for room, those after it
  wait too.
- A job's publishes are settled one by one; `settled` is told when the last one of a job is.
- Bounded: whoever publishes beyond HELD_MAX is no longer read from until there is room (`is_full`). What others send by
  the same connection waits behind all that, so it is little.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from edge.functions.calls import Job
from edge.messages import Message, Outcome

HELD_MAX: Final = 256
HELD_BYTES_MAX: Final = 128 * 1024
AGAIN_S_MIN: Final = 0.05
AGAIN_S_MAX: Final = 5.0

Told = Callable[[bool], None]
"""Called with whether it was taken."""


class Publishes:
    """route: hands a batch to the router with this object as origin. job_settled: of a job, all publishes are settled.

    moved: called when there may be room, or another time to wait for. again_at: when `offer_again` is to be called; 0:
    never.
    """

    def __init__(
        self,
        route: Callable[[Sequence[Message], "Publishes"], None],
        job_settled: Callable[[Job], None],
        now: Callable[[], float],
        moved: Callable[[], None],
    ) -> None:
        self._route, self._job_settled, self._now, self._moved = route, job_settled, now, moved
        self._open: dict[int, tuple[Message, Job | None, Told | None]] = {}
        self._bytes = 0
        self._gathered: list[Message] = []
        self._held: deque[int] = deque()
        self._away: list[int] = []
        self._receipt = 0
        self._wait_s = AGAIN_S_MIN
        self.again_at = 0.0
        self.refused = 0
        self.source = ""
        """Whose they are, where that is one."""

    @property
    def is_full(self) -> bool:
        return len(self._open) >= HELD_MAX or self._bytes >= HELD_BYTES_MAX

    @property
    def under_way(self) -> int:
        return len(self._open)

    @property
    def oldest(self) -> int | None:
        """The receipt of the first that is not settled."""
        return next(iter(self._open), None)

    @property
    def newest(self) -> int:
        return self._receipt

    def add(self, message: Message, job: Job | None = None, told: Told | None = None) -> None:
        """message: its receipt is replaced. It goes out with `flush`. QoS 0 is not settled: it counts as taken."""
        if not message.qos:
            self._gathered.append(message)
            if told is not None:
                told(True)
            return
        self._receipt += 1
        receipt = self._receipt
        message = Message(message.topic, message.payload, message.qos, message.retain, receipt, message.properties)
        self._open[receipt] = message, job, told
        self._bytes += len(message.payload)
        if job is not None:
            job.open += 1
        if self._away or self._held:
            self._held.append(receipt)
        else:
            self._gathered.append(message)

    def flush(self) -> None:
        """Hand on what was added."""
        if self._gathered:
            messages, self._gathered = self._gathered, []
            self._route(messages, self)

    def offer_again(self) -> None:
        """Its time has come: what found no room, and what waited behind it."""
        self.again_at = 0.0
        receipts = sorted(self._away)
        self._away = []
        receipts += self._held
        self._held.clear()
        if messages := [self._open[receipt][0] for receipt in receipts if receipt in self._open]:
            self._route(messages, self)

    def settled(self, receipts: Sequence[int], outcome: Outcome) -> None:
        self._moved()
        if outcome is Outcome.CONGESTED:
            self._away += [receipt for receipt in receipts if receipt in self._open]
            if not self.again_at:
                self.again_at = self._now() + self._wait_s
                self._wait_s = min(2 * self._wait_s, AGAIN_S_MAX)
            return
        self._wait_s = AGAIN_S_MIN
        if outcome is Outcome.REFUSED:
            self.refused += len(receipts)
        for receipt in receipts:
            found = self._open.pop(receipt, None)
            if found is None:
                continue
            message, job, told = found
            self._bytes -= len(message.payload)
            if told is not None:
                told(outcome is Outcome.TAKEN)
            if job is not None:
                job.open -= 1
                if not job.open:
                    self._job_settled(job)
