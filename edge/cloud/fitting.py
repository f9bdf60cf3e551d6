"""Keeps from a connection what its broker would hang up on for the length of its topic: REFUSED, counted, told once."""

import logging
from collections.abc import Sequence
from typing import Final

from edge.logs import log_event
from edge.messages import Message, Origin, Outcome
from edge.metrics import Metrics
from edge.topic_bounds import TopicBounds

TOPICS_REMEMBERED_MAX: Final = 4096
_REMEDY: Final = "Publish to shorter topics; topic_levels_max and topic_bytes_max of the connection say what it takes."

_log = logging.getLogger(__name__)


class Fitting:
    """Of one connection."""

    def __init__(self, name: str, bounds: TopicBounds, metrics: Metrics) -> None:
        self._name, self._bounds, self._metrics = name, bounds, metrics
        self._known: set[str] = set()
        self._told: set[str] = set()

    def passing(self, messages: Sequence[Message], origin: Origin) -> Sequence[Message]:
        """Those that may go; the others are settled. Costs a look at a set while topics are known."""
        if self._known.issuperset([message.topic for message in messages]):
            return messages
        passed: list[Message] = []
        refused: list[int] = []
        for message in messages:
            reason = self._reason(message.topic)
            if not reason:
                passed.append(message)
                continue
            what = "refused" if message.qos else "dropped"
            self._metrics.counter(f"connection_messages_{what}", connection=self._name, reason=reason).value += 1
            if message.qos:
                refused.append(message.receipt)
        if refused:
            origin.settled(refused, Outcome.REFUSED)
        return passed

    def _reason(self, topic: str) -> str:
        if topic in self._known:
            return ""
        wrong = self._bounds.wrong(topic)
        if wrong is None:
            if len(self._known) >= TOPICS_REMEMBERED_MAX:
                self._known.clear()
            self._known.add(topic)
            return ""
        reason, problem = wrong
        if reason not in self._told:
            self._told.add(reason)
            shown = topic[:200].encode(errors="backslashreplace").decode()
            log_event(
                _log,
                "topic_refused",
                level=logging.WARNING,
                connection=self._name,
                topic=shown,
                problem=problem,
                remedy=_REMEDY,
            )
        return reason
