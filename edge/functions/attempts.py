"""What a function tried and is not granted, and the limits it reached: counted, told, shown.

The kernel tells what it refused (`sandbox.refusals`), whatever code asked. Of the rest, of files above all, a worker
says itself what its Python code tried (`watching`): its word is not proof."""

import logging
from collections import deque
from typing import Final

from edge.functions.slot import Slot
from edge.functions.wire import Denied
from edge.logs import log_event
from edge.metrics import Metrics

SHOWN_MAX: Final = 16

_log = logging.getLogger(__name__)


class Attempts:
    """Of one function. One event a kind and worker."""

    def __init__(self, function: str, metrics: Metrics) -> None:
        self._function, self._metrics = function, metrics
        self._told: set[tuple[Slot, str]] = set()
        self._last: deque[str] = deque(maxlen=SHOWN_MAX)

    @property
    def last(self) -> tuple[str, ...]:
        """The last of them, each once."""
        return tuple(self._last)

    def tried(self, slot: Slot, what: Denied, detail: str) -> None:
        self._metrics.counter("function_attempts_denied", function=self._function, what=what).value += 1
        self._show(f"{what}: {detail}")
        if (slot, what) not in self._told:
            self._told.add((slot, what))
            log_event(
                _log,
                "function_attempt_denied",
                level=logging.WARNING,
                function=self._function,
                what=what,
                tried=detail,
            )

    def reached(self, slot: Slot, limit: str, words: str) -> None:
        """Counted and told once a worker."""
        key = slot, f"limit {limit}"
        if key in self._told:
            return
        self._told.add(key)
        self._metrics.counter("function_limits_reached", function=self._function, limit=limit).value += 1
        self._show(f"{limit}: reached {words}")
        log_event(
            _log, "function_limit_reached", level=logging.WARNING, function=self._function, limit=limit, reached=words
        )

    def ended(self, slot: Slot) -> None:
        self._told = {key for key in self._told if key[0] is not slot}

    def _show(self, row: str) -> None:
        if row not in self._last:
            self._last.append(row)
