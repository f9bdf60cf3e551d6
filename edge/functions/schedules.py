"""When a function's schedules are due. Pure.

An interval counts from when the schedule was learned, and from each time it was due; what was missed is not made up.
Schedule 0 of a handler in Lambda's style comes from the gateway file (`every`), all others from the code's @every.
"""

from collections.abc import Iterable


class Schedules:
    """Of one function."""

    def __init__(self) -> None:
        self._every: dict[int, tuple[float, float]] = {}
        self._configured = False
        self._next: float | None = None

    def configure(self, every_s: float, now: float) -> None:
        """every_s: of the gateway file; 0 for none."""
        if every_s:
            self._configured = True
            self._learn([(0, every_s)], now)
        elif self._configured:
            self._configured = False
            self._learn([], now)

    def learn(self, schedules: Iterable[tuple[int, float]], now: float) -> None:
        """(id, interval_s) as the code says them. What is as before keeps its time."""
        if not self._configured:
            self._learn(schedules, now)

    def due(self, now: float) -> list[int]:
        found: list[int] = []
        if self._next is None or now < self._next:
            return found
        for id_, (interval, when) in self._every.items():
            if when <= now:
                found.append(id_)
                following = when + interval
                self._every[id_] = interval, following if following > now else now + interval
        self._look()
        return found

    def next_due(self) -> float | None:
        """Asked at every turn, it costs nothing."""
        return self._next

    def _look(self) -> None:
        self._next = min((when for _, when in self._every.values()), default=None)

    def _learn(self, schedules: Iterable[tuple[int, float]], now: float) -> None:
        old, self._every = self._every, {}
        for id_, interval in schedules:
            known = old.get(id_)
            same = known is not None and known[0] == interval
            self._every[id_] = known if known is not None and same else (interval, now + interval)
        self._look()
