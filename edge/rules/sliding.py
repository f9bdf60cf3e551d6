"""The last n units of each group: SLIDINGWINDOW. Each event gives the row of its own group at its time.

Invariants:
- An event is kept as a partial: the slots of its aggregates alone, never its payload.
- Events of a group stand in order of time, in two stacks: of `front`, each holds what all from it to the newest of
  them add up to; `back` has one total. So the oldest leaves without a subtraction, and a row costs two merges.
- An event ahead of the watermark waits in `_ahead` until the watermark has come to it; then it is due, and joins its
  group when its row is given. Events are given in order of time, equal ones in order of arrival.
- At most `events_max` partials are held by groups, and as many wait. Beyond that the group's oldest goes early or,
  where it has none, the event is left out; both are counted as `events_max`.
- What is too old for any row leaves before the next event joins a group: so whether it left sooner changes nothing.
- Each event is stored once, when it came, and once more if it was the newest of its group when the stacks turned;
  whether it waits, and its place in its group, follow from its time and its number.
"""

import heapq
from collections import deque
from collections.abc import Iterator
from operator import itemgetter
from typing import Any

from edge.rules.aggregates import COLLECTED_MAX, merge
from edge.rules.holding import Holding
from edge.rules.journal import as_key
from edge.rules.plan import Window
from edge.rules.windows import NEVER, is_long


class _Group:
    """front: [number, time, all from here, itself], the oldest last; back: [number, time, itself]."""

    __slots__ = ("back", "buckets", "front", "key", "total")

    def __init__(self, key: Any) -> None:
        self.key = key
        self.front: list[tuple[int, int, list[Any], list[Any]]] = []
        self.back: list[tuple[int, int, list[Any]]] = []
        self.total: list[Any] = []
        self.buckets: dict[int, dict[int, int]] = {}


_Waiting = tuple[int, int, Any, list[Any]]
"""Time, number, group, partial."""


class Sliding(Holding):
    """window.kind is `sliding`. An event is stored as [group, time, partial, whether the stacks turned after it]. Due
    are events that wait no longer."""

    def __init__(
        self,
        window: Window | None,
        init: list[Any],
        layout: list[tuple[str, int]],
        lateness_ms: int,
        keys_max: int,
        *,
        events_max: int,
    ) -> None:
        super().__init__(window, init, layout, lateness_ms, keys_max, events_max=events_max)
        self._held: dict[Any, _Group] = {}
        self._ahead: list[_Waiting] = []  # a heap
        self._order: deque[tuple[int, Any]] = deque()  # of all held: time, group; some that went early too
        self._sweep_at = NEVER
        self._next = (NEVER, 0)  # restored: the time and number of the first that was due

    def slide(self, t: int, key: Any, partial: list[Any], out: list[Any]) -> None:
        """One event that is not late."""
        if key not in self._held and is_long(key):
            self.count("key_too_long")
            return
        if self._sweep_at == NEVER:
            self._sweep_at = t + self._size
            self.close_at = min(self.close_at, self._sweep_at)
        if t <= self.watermark - self.lateness_ms:
            if self.due:  # those come first, and are not later
                self.due.append((t, self._stored.add((key, t, partial, False)), key, partial))
            elif (row := self._add(-1, t, key, partial)) is not None:
                out.append((None, row))
            return
        if not self._has_room(len(self._ahead)):
            return
        number = self._stored.add((key, t, partial, False))
        heapq.heappush(self._ahead, (t, number, key, partial))
        self.close_at = min(self.close_at, t)

    def close(self, until: int) -> None:
        """The events up to `until` are due; forget what no row can need any more."""
        while self._ahead and self._ahead[0][0] <= until:
            self.due.append(heapq.heappop(self._ahead))
        if until >= self._sweep_at and not self.due:
            self._forget(until - self._size)
            self._sweep_at = until + self._size if self._held or self._ahead else NEVER
        self.close_at = min(self._ahead[0][0] if self._ahead else NEVER, self._sweep_at)

    def give(self) -> Iterator[Any]:
        while self.due:
            t, number, key, partial = self.due.popleft()
            yield self._add(number, t, key, partial)

    @property
    def is_behind(self) -> bool:
        return len(self.due) > self._events_max

    def _add(self, number: int, t: int, key: Any, partial: list[Any]) -> Any:
        """The event's row. number: of what waited; -1 for what just came."""
        self._forget(t - self._size)
        group = self._held.get(key)
        room = True
        if self.events >= self._events_max or (self.is_full and number < 0):
            self.count("state_max" if self.is_full else "events_max")
            if group is None:
                room = False
            else:
                self._drop(group)
        elif group is None and len(self._held) >= self.keys_max:
            self.count("keys_max")
            room = False
        if not room:
            if number >= 0:
                self._stored.remove(number)
            return None
        if group is None:
            group = self._held[key] = _Group(key)
        self.events += 1
        if number < 0:
            number = self._stored.add((key, t, partial, False))
        self._push(group, number, t, partial)
        self._order.append((t, key))
        if len(self._order) > 2 * self._events_max:  # most of them went early
            self._order = deque(sorted(self._times(), key=itemgetter(0)))
        return self.row(key, self._slots_of(group), t - self._size, t)

    def _times(self) -> Iterator[tuple[int, Any]]:
        for key, group in self._held.items():
            for _, t, _, _ in group.front:
                yield t, key
            for _, t, _ in group.back:
                yield t, key

    def _push(self, group: _Group, number: int, t: int, partial: list[Any]) -> None:
        total = group.total
        if group.back:
            for name, at in self.layout:
                if name not in _LOOSE:
                    merge(name, at, total, partial)
        else:
            group.total = partial.copy()
        group.back.append((number, t, partial))
        for name, at in self.layout:
            if name == "percentile" and partial[at]:
                buckets = group.buckets.setdefault(at, {})
                for bucket in partial[at]:
                    buckets[bucket] = buckets.get(bucket, 0) + 1

    def _turn(self, group: _Group) -> None:
        """All of `back` into `front`."""
        later: list[Any] | None = None
        for number, t, own in reversed(group.back):
            whole = own.copy()
            if later is not None:
                for name, at in self.layout:
                    if name not in _LOOSE:
                        merge(name, at, whole, later)
            group.front.append((number, t, whole, own))
            later = whole
        group.back = []
        group.total = []

    def _forget(self, limit: int) -> None:
        """What is not after `limit`, of all groups; groups without events too."""
        order = self._order
        while order and order[0][0] <= limit:
            _, key = order.popleft()
            group = self._held.get(key)
            if group is None:
                continue
            while (oldest := group.front[-1] if group.front else group.back[0] if group.back else None) is not None:
                if oldest[1] > limit:
                    break
                self._drop(group)
            else:
                del self._held[key]

    def _drop(self, group: _Group) -> None:
        """The group's oldest."""
        if not group.front:
            newest, t, own = group.back[-1]
            self._turn(group)
            if len(group.front) > 1:
                self._stored.change(newest, (group.key, t, own, True))
        number, _, _, own = group.front.pop()
        self._stored.remove(number)
        for at, buckets in group.buckets.items():
            for bucket in own[at] or ():
                buckets[bucket] -= 1
                if not buckets[bucket]:
                    del buckets[bucket]
        self.events -= 1

    def _slots_of(self, group: _Group) -> list[Any]:
        if not group.front:
            slots = group.total.copy()
        else:
            slots = group.front[-1][2].copy()
            if group.back:
                for name, at in self.layout:
                    if name not in _LOOSE:
                        merge(name, at, slots, group.total)
        for name, at in self.layout:
            if name == "percentile":
                slots[at] = group.buckets.get(at)
            elif name == "collect":
                slots[at] = self._collected(group, at)
        return slots

    def _collected(self, group: _Group, at: int) -> list[Any]:
        found: list[Any] = []
        for own in [*(own for *_, own in reversed(group.front)), *(own for *_, own in group.back)]:
            if own[at]:
                if len(found) >= COLLECTED_MAX:
                    self.count("collected_max")
                    break
                found += own[at]
        return found

    def fall_back(self) -> bool:
        if not super().fall_back():
            return False
        self._stored.forget()  # what was held would be of the future
        self._held.clear()
        self._order.clear()
        self.events = 0
        self._sweep_at = self.close_at = NEVER
        return True

    def _ends(self) -> list[int]:
        """The times that events wait for: the next, and the last."""
        return [self._ahead[0][0], max(self._ahead, key=itemgetter(0))[0]] if self._ahead else []

    # Checkpoints

    def forget(self) -> None:
        super().forget()
        self._held.clear()
        self._order.clear()
        self._ahead = []
        self._sweep_at = NEVER

    def _marks(self) -> list[int]:
        return [self.watermark, *self.due[0][:2]] if self.due else [self.watermark]

    def _restore_marks(self, marks: list[int]) -> None:
        self.watermark, *due = marks
        if due:
            self._next = due[0], due[1]

    def _restored(self) -> None:
        come = self.watermark - self.lateness_ms
        found = sorted(self._take_restored(self._event), key=lambda one: one[1][0])
        self.events = 0
        for number, (t, key, own, turned) in found:
            if t > come:
                self._ahead.append((t, number, key, own))  # in order, so a heap
            elif (t, number) >= self._next:
                self.due.append((t, number, key, own))
            else:
                group = self._held.get(key)
                if group is None:
                    group = self._held[key] = _Group(key)
                self._push(group, number, t, own)
                self._order.append((t, key))
                self.events += 1
                if turned:
                    self._turn(group)
        self._next = NEVER, 0
        self._sweep_at = self.watermark + self._size if found else NEVER
        self.close_at = min(self._ahead[0][0] if self._ahead else NEVER, self._sweep_at)

    def _event(self, row: list[Any]) -> tuple[int, Any, list[Any], bool]:
        key, t, own, turned = row
        return int(t), as_key(key), self._slots(own), bool(turned)


_LOOSE = {"percentile", "collect"}
"""Kept by the event and by the group, not by each place in the stacks: their slots grow with the events."""
