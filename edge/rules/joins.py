"""What a rule over two topics holds until its window ends: of each message the fields that the rule needs, by key.

Invariants:
- A message stands in one pane, however many windows overlap there; a pane goes with its last window.
- At most `events_max` messages are held for windows that are open, and a window looks at no more than `events_max`
  pairs; what is beyond is left out and counted as `events_max` and `pairs_max`. A window's pairs are made one at a
  time, when they are given: what they come to in bytes, twice what is held for each, never stands anywhere at once.
- What is held of a value is what `Memory.kept` makes of it.
- Rows come in order of the first topic's events, then of the second's; equal times in order of arrival.
- A window that ended looks at what came before its end alone, also where another that is open shares a pane with it:
  so it knows how many messages there had been, in the checkpoint too.
"""

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from edge.rules.holding import Holding
from edge.rules.journal import as_key
from edge.rules.plan import Window
from edge.rules.windows import NEVER, START, is_long

_LOOKED_A_STEP = 16

Pair = tuple[tuple[Any, ...], tuple[Any, ...]]
"""Two messages' values, the time first of each; all None where there is no second one."""


class _Held(NamedTuple):
    side: int
    t: int
    key: Any
    values: tuple[Any, ...]


class _Ended(NamedTuple):
    """A window that is due. came: only messages numbered below; over: its panes, gone: those that end with it."""

    start: int
    end: int
    came: int
    over: list[dict[int, _Held]]
    gone: list[dict[int, _Held]]
    weight: int


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
        self.pairs: Callable[[Iterable[Pair | None], int, int], Iterator[Any]] = lambda *_: iter(())
        self.on: Callable[[Any, Any], bool] | None = None
        self._panes: dict[int, dict[int, _Held]] = {}  # start → number of arrival → message
        self._endings: deque[tuple[int, int]] = deque()  # of what is due: until when, how many messages there had been
        self._since = START  # restored: nothing that ended by then is due

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
        if not self._has_room(self.events):
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

    def close(self, until: int) -> None:
        """All windows that end by `until` are due, the oldest first."""
        came = NEVER if self._size == self._step else self._stored.end
        many = len(self.due)
        self._end(until, came)
        if len(self.due) > many:
            if self._endings and self._endings[-1][1] == came:
                self._endings.pop()
            self._endings.append((until, came))

    def _end(self, until: int, came: int) -> None:
        order, at = sorted(self._panes), 0
        while at < len(order) and (end := self._next_end(order[at])) <= until:
            start = end - self._size
            over = [self._panes[pane] for pane in order[bisect_left(order, start, at) : bisect_left(order, end, at)]]
            gone = []
            self._closed = end
            while at < len(order) and order[at] // self._step * self._step <= start:
                gone.append(self._panes.pop(order[at]))
                self.events -= len(gone[-1])
                at += 1
            weight = sum(map(len, over))
            self.due.append(_Ended(start, end, came, over, gone, weight))
            self.due_weight += weight
        self._closed = max(self._closed, until)
        self.close_at = self._next_end(order[at]) if at < len(order) else NEVER

    @property
    def is_behind(self) -> bool:
        return self.due_weight > self._events_max

    def _rows_of(self, window: _Ended) -> Iterator[Any]:
        return self.pairs(self._found(window), window.start, window.end)

    def _gave(self, window: _Ended) -> None:
        for pane in window.gone:
            for number in pane:
                self._stored.remove(number)
        self.due_weight -= window.weight
        while self._endings and (not self.due or self._endings[0][0] < self.due[0].end):
            self._endings.popleft()

    def _found(self, window: _Ended) -> Iterator[Pair | None]:
        """Its pairs; None now and then, where it looked at many that are none."""
        first: list[_Held] = []
        second: dict[Any, list[_Held]] = {}
        members = [one for pane in window.over for number, one in pane.items() if number < window.came]
        for one in sorted(members, key=lambda held: held.t):
            if one.side == 0:
                first.append(one)
            else:
                second.setdefault(one.key, []).append(one)
        room, on, looked = self._events_max, self.on, 0
        for one in first:
            partners = second.get(one.key, ()) if one.key is not None else ()
            if len(partners) > room:
                self.counts["pairs_max"] = self.counts.get("pairs_max", 0) + len(partners) - room
            mine, paired = (one.t, *one.values), False
            for other in partners[:room]:
                theirs = (other.t, *other.values)
                if on is None or self._fits(mine, theirs):
                    paired = True
                    yield mine, theirs
                looked += 1
                if not looked % _LOOKED_A_STEP:
                    yield None
            if self._outer and not paired and len(partners) <= room:
                yield mine, self.nothing
            room -= min(room, len(partners))
            looked += 1
            if not looked % _LOOKED_A_STEP:
                yield None

    def _fits(self, one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
        try:
            return self.on is None or self.on(one, other)
        except (ArithmeticError, TypeError, ValueError, RecursionError):
            self.count("error")
            return False

    # Checkpoints

    def forget(self) -> None:
        self._forget_due()
        super().forget()
        self._endings.clear()
        self._panes.clear()

    def _marks(self) -> list[int]:
        if not self.due:
            return [self.watermark]
        endings = [number for ending in self._endings for number in ending]
        return [self.watermark, self.place, self.due[0].end - 1, *endings]

    def _restore_marks(self, marks: list[int]) -> None:
        self.watermark, *due = marks
        self._endings.clear()
        if due:
            self.place, self._since, *endings = due
            self._endings += zip(endings[::2], endings[1::2], strict=True)

    def _restored(self) -> None:
        for number, one in self._take_restored(_held):
            self._panes.setdefault(one.t // self._width * self._width, {})[number] = one
        self._closed = self._since if self._endings else self.watermark - self.lateness_ms
        for until, came in self._endings:
            if came < NEVER:
                self._stored.end = max(self._stored.end, came)
            self._end(until, came)
        if not self.due:
            self._endings.clear()
            self.place = 0
        self._closed = max(self._closed, self.watermark - self.lateness_ms)
        self.close_at = min(self._ends(), default=NEVER)


def _held(row: list[Any]) -> _Held:
    side, t, key, values = row
    return _Held(int(side), int(t), as_key(key), tuple(values))
