"""What a function's workers use of the processor while no call is under way: told, as nothing ends it.

A thread, or a program, may work between calls as it likes; its weight holds it (README, "What holds it")."""

import logging
from typing import Final

from edge.functions.slot import Slot, State
from edge.logs import log_event
from edge.metrics import Metrics

LOOK_S: Final = 5.0
SHARE: Final = 0.1  # of one core: one that spins among others gets no more

_log = logging.getLogger(__name__)


class _Stretch:
    """at, cpu_s: at the last look. idle_s, used_s: since the last judgement. share: as it was judged last; 0: not
    busy."""

    __slots__ = ("at", "cpu_s", "idle_s", "share", "used_s")

    def __init__(self, now: float, cpu_s: float) -> None:
        self.at, self.cpu_s = now, cpu_s
        self.idle_s = self.used_s = self.share = 0.0


class Idling:
    """Of one function."""

    def __init__(self, function: str, metrics: Metrics) -> None:
        self._function = function
        self._counted = metrics.counter("function_busy_without_call", function=function)
        self._stretches: dict[Slot, _Stretch] = {}

    @property
    def share(self) -> float:
        """Of one core, of those that are busy now."""
        return sum(one.share for one in self._stretches.values())

    def look(self, slot: Slot, now: float) -> None:
        """Called about once a second. An event for each stretch."""
        if slot.child is None or slot.state is not State.READY:
            return
        cpu_s = slot.child.cpu_s
        stretch = self._stretches.get(slot)
        if stretch is None:
            self._stretches[slot] = _Stretch(now, cpu_s)
            return
        if not slot.in_flight and slot.idle_since <= stretch.at:
            stretch.idle_s += now - stretch.at
            stretch.used_s += cpu_s - stretch.cpu_s
        stretch.at, stretch.cpu_s = now, cpu_s
        if stretch.idle_s >= LOOK_S:
            self._judge(slot, stretch)

    def ended(self, slot: Slot) -> None:
        self._stretches.pop(slot, None)

    def _judge(self, slot: Slot, stretch: _Stretch) -> None:
        share = stretch.used_s / stretch.idle_s
        was_busy = stretch.share > 0
        stretch.share = share if share >= SHARE else 0.0
        stretch.idle_s = stretch.used_s = 0.0
        if stretch.share and not was_busy:
            self._counted.value += 1
            log_event(
                _log,
                "function_busy_without_call",
                level=logging.WARNING,
                function=self._function,
                pid=slot.child.pid if slot.child is not None else 0,
                cpu_percent=round(100 * share),
            )
