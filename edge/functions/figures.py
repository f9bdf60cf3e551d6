"""A function's figures: counted as metrics, shown by `edge status` and `edge function`."""

from array import array
from collections.abc import Callable
from typing import Final

import msgspec

from edge.metrics import Counter, Metrics

REMEMBERED: Final = 1024


class FunctionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One function. state: `ready`, `starting`, `installing`, `waiting` (on demand, not needed now), `backing_off`,
    `refused` (what it demands does not hold here: last_error says what would help), `stopping`.

    p50_ms, p99_ms: of the last calls, None before the first; publishes_refused: by the routes or their targets, denied:
    by the grants; retrying: topics that wait for a retry; contained_by: what holds it here; attempts: at what it is not
    granted, and limits reached, the last ones; next_start_s: while it
    backs off; tidied: what was taken out of its folder last, which was beyond its bounds; cpu_percent_without_call: of
    a core, by workers that are busy while no call is under way."""

    name: str
    state: str
    pids: tuple[int, ...] = ()
    version: str = ""
    calls: int = 0
    errors: int = 0
    timeouts: int = 0
    retries: int = 0
    dead_letters: int = 0
    restarts: int = 0
    p50_ms: float | None = None
    p99_ms: float | None = None
    memory_bytes: int = 0
    backlog: int = 0
    under_way: int = 0
    retrying: int = 0
    publishes: int = 0
    publishes_refused: int = 0
    denied: int = 0
    attempts: tuple[str, ...] = ()
    next_start_s: float = 0.0
    contained_by: tuple[str, ...] = ()
    subscribed: tuple[str, ...] = ()
    tidied: str = ""
    cpu_percent_without_call: int = 0
    last_error: str = ""


class Figures:
    """The counters of one function; `took` remembers the last REMEMBERED calls."""

    def __init__(self, metrics: Metrics, function: str) -> None:
        def counter(name: str) -> Counter:
            return metrics.counter(f"function_{name}", function=function)

        self.calls = counter("calls")
        self.errors = counter("errors")
        self.timeouts = counter("timeouts")
        self.retries = counter("retries")
        self.dead_letters = counter("dead_letters")
        self.given_up = counter("messages_given_up")
        self.unhandled = counter("messages_unhandled")
        self.publishes = counter("publishes")
        self.publishes_refused = counter("publishes_refused")
        self.denied = counter("publishes_denied")
        self.answers_denied = counter("answers_denied")
        self.schedules_skipped = counter("schedules_skipped")
        self.lines = counter("lines_logged")
        self.lines_dropped = counter("lines_dropped")
        self._took = array("f")
        self._at = 0

        self._metrics, self._function = metrics, function

    def show(self, memory_bytes: Callable[[], int], restarts: Callable[[], int]) -> None:
        """Let the gateway's metrics hold the gauges too."""
        gauge, function = self._metrics.gauge, self._function
        gauge("function_memory_bytes", memory_bytes, function=function)
        gauge("function_restarts", restarts, function=function)
        gauge("function_call_ms_p50", lambda: self.percentile_ms(0.5) or 0.0, function=function)
        gauge("function_call_ms_p99", lambda: self.percentile_ms(0.99) or 0.0, function=function)

    def took(self, seconds: float) -> None:
        if len(self._took) < REMEMBERED:
            self._took.append(seconds)
        else:
            self._took[self._at] = seconds
            self._at = (self._at + 1) % REMEMBERED

    def percentile_ms(self, part: float) -> float | None:
        if not self._took:
            return None
        rows = sorted(self._took)
        return round(1000 * rows[min(int(part * len(rows)), len(rows) - 1)], 3)
