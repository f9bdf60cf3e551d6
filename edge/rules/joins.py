"""What a rule over two topics holds until its window ends: of each message the fields that the rule needs, by key.

Invariants:
- A message stands in one pane, however many windows overlap there; a pane goes with its last window.
- At most `events_max` messages are held, and a window looks at no more than `events_max` pairs; what is beyond is left
  out and counted as `events_max` and `pairs_max`.
- What is held of a value is what `Memory.kept` makes of it.
- Rows come in order of the first topic's events, then of the second's; equal times in order of arrival.
"""

import math
from bisect import bisect_left
from collections.abc import Callable
from typing import Any, NamedTuple

from edge.rules.holding import Holding
from edge.rules.journal import as_key
from edge.rules.plan import Window
from edge.rules.windows import NEVER, START, is_long

Pair = tuple[tuple[Any, ...], tuple[Any, ...]]
"""Two messages' values, the time first of each; all None where there is no second one."""


class _Held(NamedTuple):
    side: int
    t: int
    key: Any
    values: tuple[Any, ...]


class Joining(Holding):
    """window.kind is `tumbling` or `hopping`. widths: how many values a message of each side has, its time among them;
    outer: whether the first topic's message without a partner gives a row. The code sets `pairs` and `on`."""

    def __init__(
        self,
        window: Window | None,
        init: list[Any],
        layout: list[tuple[str, int]],
        lateness_ms: int,
        keys_max: int,
        *,
        events_max: int,
        outer: bool,
    ) -> None:
        super().__init__(window, init, layout, lateness_ms, keys_max, events_max=events_max)
        assert window is not None
        self._step = window.step
        self._width = math.gcd(window.size, window.step)
        self._outer = outer
        self.nothing: tuple[Any, ...] = ()
        self.pairs: Callable[[list[Pair], int, int, list[Any]], None] = lambda *_: None
        self.on: Callable[[Any, Any], bool] | None = None
        self._panes: dict[int, dict[int, _Held]] = {}  # start → number of arrival → message
        self._closed = START

    def is_late(self, t: int) -> bool:
        """Whether no open window takes what happened at `t`; counted."""
        if t // self._step * self._step + self._size <= self.watermark - self.lateness_ms:
            self.count("late")
            return True
        return False

    def hold(self, side: int, t: int, key: Any, values: tuple[Any, ...]) -> None:
        """One message that is not late."""
        if is_long(key):
            self.count("key_too_long")
            return
        if not self._has_room():
            return
        self.events += 1
        self._closed = max(self._closed, self.watermark - self.lateness_ms)
        pane = t // self._width * self._width
        held = self._panes.get(pane)
        if held is None:
            held = self._panes[pane] = {}
            self.close_at = min(self.close_at, self._next_end(pane))
        one = _Held(side, t, key, values)
        held[self._stored.add(one)] = one

    def _next_end(self, pane: int) -> int:
        """Of the first window over the pane that is still open."""
        first = -(-(pane + self._width - self._size) // self._step) * self._step
        still = (self._closed - self._size) // self._step * self._step + self._step
        return max(first, still) + self._size

    def _ends(self) -> list[int]:
        """When the first window ends that is open, and when the last."""
        if not self._panes:
            return []
        return [self._next_end(min(self._panes)), max(self._panes) // self._step * self._step + self._size]

    def close(self, until: int, out: list[Any]) -> None:
        """Give the rows of all windows that end by `until`, the oldest first."""
        order, gone = sorted(self._panes), 0
        while gone < len(order) and (end := self._next_end(order[gone])) <= until:
            start = end - self._size
            over = order[bisect_left(order, start, gone) : bisect_left(order, end, gone)]
            self._window(start, end, [one for pane in over for one in self._panes[pane].values()], out)
            self._closed = end
            while gone < len(order) and order[gone] // self._step * self._step <= start:
                held = self._panes.pop(order[gone])
                self.events -= len(held)
                for number in held:
                    self._stored.remove(number)
                gone += 1
        self._closed = max(self._closed, until)
        self.close_at = self._next_end(order[gone]) if gone < len(order) else NEVER

    def _window(self, start: int, end: int, members: list[_Held], out: list[Any]) -> None:
        first: list[_Held] = []
        second: dict[Any, list[_Held]] = {}
        for one in sorted(members, key=lambda held: held.t):
            if one.side == 0:
                first.append(one)
            else:
                second.setdefault(one.key, []).append(one)
        found: list[Pair] = []
        room, on = self._events_max, self.on
        for one in first:
            partners = second.get(one.key, ()) if one.key is not None else ()
            if len(partners) > room:
                self.counts["pairs_max"] = self.counts.get("pairs_max", 0) + len(partners) - room
            looked = partners[:room]
            room -= len(looked)
            mine = (one.t, *one.values)
            theirs = [(other.t, *other.values) for other in looked]
            if on is not None:
                theirs = [other for other in theirs if self._fits(mine, other)]
            found += [(mine, other) for other in theirs]
            if self._outer and not theirs and len(looked) == len(partners):
                found.append((mine, self.nothing))
        self.pairs(found, start, end, out)

    def _fits(self, one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
        try:
            return self.on is None or self.on(one, other)
        except (ArithmeticError, TypeError, ValueError, RecursionError):
            self.count("error")
            return False

    # Checkpoints

    def forget(self) -> None:
        super().forget()
        self._panes.clear()

    def _restored(self) -> None:
        for number, one in self._take_restored(_held):
            self._panes.setdefault(one.t // self._width * self._width, {})[number] = one
        self._closed = self.watermark - self.lateness_ms
        self.close_at = min(self._ends(), default=NEVER)


def _held(row: list[Any]) -> _Held:
    side, t, key, values = row
    return _Held(int(side), int(t), as_key(key), tuple(values))
