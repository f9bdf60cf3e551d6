"""Payloads that rules cannot read: counted by rule, and told, so that whoever sends them is found."""

import logging
from collections.abc import Sequence
from typing import Final

from edge.logs import log_event
from edge.messages import Message
from edge.metrics import Metrics

TOLD_MAX: Final = 10  # events in TOLD_MS, of different clients, topics or reasons
TOLD_MS: Final = 60_000

_log = logging.getLogger(__name__)


class Rejections:
    """Of all rules that share a form of payload. An event is told once in TOLD_MS for each client, topic and reason."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._told: set[tuple[str, str, str]] = set()
        self._since_ms = -TOLD_MS
        self._untold = 0

    def count(self, rules: Sequence[str], message: Message, client: str, reason: str, now_ms: int) -> None:
        """rules: the names of those that take the message; client: who sent it, as far as that is known."""
        for rule in rules:
            self._metrics.counter("rule_payloads_rejected", rule=rule, reason=reason).value += 1
        if not 0 <= now_ms - self._since_ms < TOLD_MS:  # or the clock was put back
            self._since_ms = now_ms
            self._told.clear()
        named = client, message.topic, reason
        if named in self._told or len(self._told) >= TOLD_MAX:
            self._untold += 1
            return
        self._told.add(named)
        log_event(
            _log,
            "rule_payload_rejected",
            level=logging.WARNING,
            rule=", ".join(rules),
            topic=message.topic,
            client=client,
            reason=reason,
            payload_bytes=len(message.payload),
            untold=self._untold,
        )
        self._untold = 0
