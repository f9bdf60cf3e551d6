"""What a function says to the world: checked against its grants, sent on by Publishes, told to who asked."""

import logging
from functools import partial

from edge.functions.calls import Job
from edge.functions.figures import Figures
from edge.functions.grants import Denial, Grants
from edge.functions.invocation import Invocation
from edge.functions.publishes import Publishes, Told
from edge.functions.surroundings import Answer
from edge.functions.wire import Publish, Reply
from edge.logs import log_event
from edge.messages import Message, Properties

_log = logging.getLogger(__name__)


class Outgoing:
    """Of one function. What goes out nowhere is told to the handler where it asked; else its call fails."""

    def __init__(self, function: str, publishes: Publishes, figures: Figures) -> None:
        self.publishes = publishes
        self._function, self._figures = function, figures

    def publish(self, one: Publish, job: Job | None, grants: Grants, answer: Answer) -> bool:
        """It goes out with `publishes.flush`: whether it does. grants: of the worker that says it. answer: called where
        the publish carries an id, when it is settled."""
        try:
            grants.check(one.topic, one.payload)
        except Denial as denial:
            self._count_denied(one.topic, denial)
            if one.id:
                answer(Reply(one.id, ok=False, error=denial.reason, message=denial.detail))
            elif job is not None:
                job.refused = f"PublishDenied: {denial.detail}"
            return False
        self._figures.publishes.value += 1
        message = Message(one.topic, one.payload, one.qos, one.retain, 0, one.properties)
        if job is not None and isinstance(job.handle, Invocation):
            job.handle.published(message)
        told: Told
        if one.id:
            told = partial(self._tell, one.id, answer)
        elif job is not None:
            told = partial(self._fail, job, job.attempt, one.topic)
        else:
            told = self._count_refused
        self.publishes.add(message, job, told)
        return True

    def answer(self, job: Job, message: Message, result: bytes, grants: Grants) -> None:
        """To a request. Its requester named the topic; the function must be allowed to publish there all the same."""
        properties = message.properties
        assert properties is not None
        topic = properties.response_topic or ""
        try:
            grants.check(topic, result)
        except Denial as denial:
            self._figures.answers_denied.value += 1
            self._count_denied(topic, denial)
            return
        correlation = Properties(correlation_data=properties.correlation_data)
        self.publishes.add(Message(topic, result, 1, properties=correlation), job, self._count_refused)

    def _tell(self, id_: int, answer: Answer, taken: bool) -> None:
        if taken:
            answer(Reply(id_))
        else:
            self._count_refused(taken)
            answer(Reply(id_, ok=False, error="refused", message="no route takes it, or its target refused"))

    def _fail(self, job: Job, attempt: int, topic: str, taken: bool) -> None:
        """Unless it was called again meanwhile."""
        if not taken:
            self._count_refused(taken)
            if job.attempt == attempt:
                job.refused = f"PublishRefused: {topic[:200]!r}: no route takes it, or its target refused"

    def _count_refused(self, taken: bool) -> None:
        if not taken:
            self._figures.publishes_refused.value += 1

    def _count_denied(self, topic: str, denial: Denial) -> None:
        if not self._figures.denied.value:
            log_event(
                _log,
                "function_publish_denied",
                level=logging.WARNING,
                function=self._function,
                topic=topic[:200],
                problem=denial.detail,
            )
        self._figures.denied.value += 1
