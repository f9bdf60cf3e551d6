"""Where messages go that failed to the last: the dead-letter stream, or nowhere, counted.

Invariants: a message is settled in its inbox after its dead letter is; one for which there is no room any more, or no
stream, is counted in the inbox's ledger as refused (`Job.is_given_up`). Nobody waits for it.
"""

from collections.abc import Callable, Sequence
from typing import Final

from edge.functions.calls import Job
from edge.functions.figures import Figures
from edge.functions.inbox import Inbox
from edge.functions.letters import dead_letter
from edge.functions.publishes import Publishes
from edge.messages import Message, Outcome, Target

WAITING_MAX: Final = 256


class Burial:
    """stream: of dead letters; None: they are only counted. settled: a job's letter is."""

    def __init__(
        self,
        function: str,
        inbox: Inbox,
        stream: Target | None,
        figures: Figures,
        *,
        settled: Callable[[Job], None],
        now: Callable[[], float],
        moved: Callable[[], None],
    ) -> None:
        self._function, self._inbox, self.stream, self._figures = function, inbox, stream, figures
        self._publishes = Publishes(self._send, settled, now, moved)
        self._now = now

    @property
    def again_at(self) -> float:
        return self._publishes.again_at

    @property
    def under_way(self) -> int:
        return self._publishes.under_way

    def look(self) -> None:
        if self._publishes.again_at and self._now() >= self._publishes.again_at:
            self._publishes.offer_again()

    def bury(self, job: Job) -> None:
        """job.error says why. What is given up has no letter to wait for."""
        message = job.message
        if message is None:
            try:
                message = self._inbox.again(job.number)
            except OSError:
                message = None
        if message is None or self.stream is None or self._publishes.under_way >= WAITING_MAX:
            self._count(job, taken=False)
            return
        reading = None if self._inbox.is_from_nowhere(message) else message.reading
        letter = dead_letter(self._function, message, job.error, job.attempt, reading)
        self._publishes.add(letter, job, lambda taken: self._count(job, taken=taken))
        self._publishes.flush()

    def _count(self, job: Job, *, taken: bool) -> None:
        if taken:
            self._figures.dead_letters.value += 1
        else:
            self._figures.given_up.value += 1
            job.is_given_up = True

    def _send(self, messages: Sequence[Message], origin: Publishes) -> None:
        if self.stream is None:  # no more: the function's settings changed while this waited
            origin.settled([message.receipt for message in messages], Outcome.REFUSED)
        else:
            self.stream.send(messages, origin)
