"""How the calls of one function end: they returned, come again, or are buried; then the inbox is told.

Invariants:
- A message is settled in the inbox when its handler returned and all it published was settled by the router, or when
  its dead letter was; never before. So a kill at any time repeats calls, and loses none.
- A call of which a publish went nowhere without its handler being told has failed, as if the handler had raised.
"""

from collections.abc import Callable, Sequence

from edge.errors import InputRejected
from edge.functions.burial import Burial
from edge.functions.calls import ONCE, Calls, Job
from edge.functions.crew import Crew
from edge.functions.figures import Figures
from edge.functions.inbox import Inbox
from edge.functions.invocation import Invocation
from edge.functions.lines import tell_failure
from edge.functions.wire import Failed
from edge.messages import Target


class Endings:
    """Of one function. letters: the dead-letter stream, None for none. crew: is told what went wrong last."""

    def __init__(
        self,
        function: str,
        inbox: Inbox,
        calls: Calls,
        crew: Crew,
        *,
        figures: Figures,
        letters: Target | None,
        now: Callable[[], float],
        wake: Callable[[], None],
    ) -> None:
        self._function, self._inbox, self._calls, self._crew, self._figures = function, inbox, calls, crew, figures
        self._now, self._wake = now, wake
        self.burial = Burial(function, inbox, letters, figures, settled=self.settled, now=now, moved=wake)
        self._ended: list[int] = []
        self._given_up: list[int] = []

    # -- what became of a call

    def returned(self, job: Job, result: bytes | None, took: float) -> None:
        """Its handler did; what it published may still be on its way."""
        if job.refused:
            self._count(job, job.refused, "", took)
            self.failed(job)
            return
        if isinstance(job.handle, Invocation):
            job.handle.done(result, took)
        job.has_returned = True
        job.alone = False
        self._calls.returned(job)
        if not job.open:
            self.settled(job)

    def raised(self, job: Job, one: Failed, took: float) -> None:
        if one.error == "TimeoutError":
            self._figures.timeouts.value += 1
        self._count(job, f"{one.error}: {one.message}" if one.message else one.error, one.traceback, took)
        self.failed(job)

    def passed_over(self, job: Job) -> None:
        """There is nothing to call: no handler takes it, or it is no longer there."""
        self._calls.returned(job)
        self._ended.append(job.number)

    def failed(self, job: Job) -> None:
        """job.error says why. It comes again, or is buried."""
        if self._calls.failed(job, self._now()):
            self._comes_again(job)
        else:
            self._bury(job)

    def give_up(self, job: Job, error: InputRejected) -> None:
        """It would not go better another time."""
        job.error = str(error)
        job.retry = ONCE
        if isinstance(job.handle, Invocation):
            job.handle.failed(error.reason, error.detail, "", 0.0)
        self._calls.returned(job)
        self._bury(job)

    def give_up_waiting(self) -> None:
        """All that wait for a retry, for want of room."""
        for job in self._calls.give_up_waiting():
            job.error = f"{job.error} (given up before its time: the inbox is crowded)"
            self._bury(job)

    def lost(self, begun: Sequence[Job], others: Sequence[Job], error: str, *, timed_out: bool) -> None:
        """Their worker ended by itself, or had to be ended: calls it had begun, and those it had not."""
        for job in begun:
            job.error = error
        if begun:
            figures = self._figures
            figures.errors.value += 1
            figures.timeouts.value += timed_out
            if len(begun) == 1:
                figures.calls.value += 1
                tell_failure(self._function, begun[0])
                if isinstance(begun[0].handle, Invocation):
                    begun[0].handle.failed(error.partition(":")[0], error.partition(": ")[2], "", 0.0)
        again, given_up = self._calls.ended(begun, others, self._now())
        for job in again:
            self._comes_again(job)
        for job in given_up:
            self._bury(job)

    def handed_back(self, jobs: Sequence[Job], error: str) -> None:
        """Their worker was ended for no fault of theirs."""
        for job in jobs:
            job.error = error
        self._calls.ended((), jobs, self._now())

    # -- what became of what it published

    def settled(self, job: Job) -> None:
        """All its publishes are. Where one was refused the call failed, although its handler returned."""
        if not job.has_returned:
            return
        if job.refused and not job.is_buried:
            self._undo(job)
        elif job.number:
            (self._given_up if job.is_given_up else self._ended).append(job.number)
        self._wake()

    def _undo(self, job: Job) -> None:
        self._count(job, job.refused, "", 0.0)
        if self._calls.undone(job, self._now()):
            job.has_returned = False
            self._comes_again(job)
        else:
            self._bury(job)

    # -- the last of it

    def tell_inbox(self) -> None:
        """Called once a turn."""
        if self._ended:
            ended, self._ended = self._ended, []
            self._inbox.done(ended)
        if self._given_up:
            given_up, self._given_up = self._given_up, []
            self._inbox.give_up(given_up)

    def _count(self, job: Job, error: str, traceback: str, took: float) -> None:
        self._figures.errors.value += 1
        job.error = self._crew.last_error = error
        if isinstance(job.handle, Invocation):
            name, _, message = error.partition(": ")
            job.handle.failed(name, message, traceback, took)
        if job.attempt == 1 or job.attempt >= (job.retry or self._calls.retry).max_attempts:
            tell_failure(self._function, job, traceback)

    def _comes_again(self, job: Job) -> None:
        self._figures.retries.value += 1
        if job.number:
            self._inbox.failed(job.number, job.attempt)

    def _bury(self, job: Job) -> None:
        """It failed to the last."""
        job.has_returned = job.is_buried = True
        if not job.number:
            return
        self.burial.bury(job)
        if not job.open:
            self.settled(job)
