"""The last n units of each group: SLIDINGWINDOW. Each event gives the row of its own group at its time.

Invariants:
- An event is kept as a partial: the slots of its aggregates alone, never its payload.
- Events of a group stand in order of time, in two stacks: of `front`, each holds what all from it to the newest of
  them add up to; `back` has one total. So the oldest leaves without a subtraction, and a row costs two merges.
- An event ahead of the watermark waits in `_ahead` until the watermark has come to it.
- At most `events_max` partials are held. Beyond that the group's oldest goes early or, where it has none, the event
  is left out; both are counted as `events_max`.
- Each event is stored once, when it came, and once more if it was the newest of its group when the stacks turned;
  whether it waits, and its place in its group, follow from its time and its number.
"""

import heapq
from operator import itemgetter
from typing import Any

from edge.rules.aggregates import COLLECTED_MAX, merge
from edge.rules.holding import Holding
from edge.rules.journal import as_key
from edge.rules.plan import Window
from edge.rules.windows import NEVER, is_long


class _Group:
    """front: [number, time, all from here, itself], the oldest last; back: [number, time, itself]."""

    __slots__ = ("back", "buckets", "front", "total")

    def __init__(self) -> None:
        self.front: list[tuple[int, int, list[Any], list[Any]]] = []
        self.back: list[tuple[int, int, list[Any]]] = []
        self.total: list[Any] = []
        self.buckets: dict[int, dict[int, int]] = {}


class Sliding(Holding):
    """window.kind is `sliding`. An event is stored as [group, time, partial, whether the stacks turned after it]."""

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
        self._ahead: list[tuple[int, int, Any, list[Any]]] = []  # a heap: time, number, group, partial
        self._sweep_at = NEVER
        self._stored_marks = self._marks()

    def slide(self, t: int, key: Any, partial: list[Any], out: list[Any]) -> None:
        """One event that is not late."""
        if key not in self._held and is_long(key):
            self.count("key_too_long")
            return
        if self._sweep_at == NEVER:
            self._sweep_at = t + self._size
            self.close_at = min(self.close_at, self._sweep_at)
        if t <= self.watermark - self.lateness_ms:
            self._add(-1, t, key, partial, out)
            return
        if not self._has_room():
            return
        self.events += 1
        number = self._stored.add((key, t, partial, False))
        heapq.heappush(self._ahead, (t, number, key, partial))
        self.close_at = min(self.close_at, t)

    def close(self, until: int, out: list[Any]) -> None:
        """Give the rows of the events up to `until`, in order of time; forget what no row can need any more."""
        while self._ahead and self._ahead[0][0] <= until:
            t, number, key, partial = heapq.heappop(self._ahead)
            self.events -= 1
            self._add(number, t, key, partial, out)
        if until >= self._sweep_at:
            for key in [*self._held]:
                self._forget(self._held[key], key, until - self._size)
            self._sweep_at = until + self._size if self._held or self._ahead else NEVER
        self.close_at = min(self._ahead[0][0] if self._ahead else NEVER, self._sweep_at)

    def _add(self, number: int, t: int, key: Any, partial: list[Any], out: list[Any]) -> None:
        """number: of what waited; -1 for what just came."""
        group = self._held.get(key)
        if group is not None:
            self._forget(group, key, t - self._size, keep=True)
        room = True
        if self.events >= self._events_max or (self.is_full and number < 0):
            self.count("state_max" if self.is_full else "events_max")
            if group is None or not (group.front or group.back):
                room = False
            else:
                self._drop(group, key)
        elif group is None and len(self._held) >= self.keys_max:
            self.count("keys_max")
            room = False
        if not room:
            if group is not None:
                del self._held[key]
            if number >= 0:
                self._stored.remove(number)
            return
        if group is None:
            group = self._held[key] = _Group()
        self.events += 1
        if number < 0:
            number = self._stored.add((key, t, partial, False))
        self._push(group, number, t, partial)
        self._row(key, self._slots_of(group), t - self._size, t, out)

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

    def _forget(self, group: _Group, key: Any, limit: int, *, keep: bool = False) -> None:
        """What is not after `limit`. A group without events is forgotten too, unless it is to be kept."""
        while (oldest := group.front[-1] if group.front else group.back[0] if group.back else None) is not None:
            if oldest[1] > limit:
                return
            self._drop(group, key)
        if not keep:
            del self._held[key]

    def _drop(self, group: _Group, key: Any) -> None:
        """The group's oldest."""
        if not group.front:
            newest, t, own = group.back[-1]
            self._turn(group)
            if len(group.front) > 1:
                self._stored.change(newest, (key, t, own, True))
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

    def _ends(self) -> list[int]:
        """The times that events wait for: the next, and the last."""
        return [self._ahead[0][0], max(self._ahead, key=itemgetter(0))[0]] if self._ahead else []

    # Checkpoints

    def forget(self) -> None:
        super().forget()
        self._held.clear()
        self._ahead = []
        self._sweep_at = NEVER

    def _marks(self) -> list[int]:
        return [self.watermark, self._sweep_at]

    def _restore_marks(self, marks: list[int]) -> None:
        self.watermark, self._sweep_at = marks

    def _restored(self) -> None:
        come = self.watermark - self.lateness_ms
        for number, (t, key, own, turned) in sorted(self._take_restored(self._event), key=lambda one: one[1][0]):
            if t > come:
                self._ahead.append((t, number, key, own))  # in order, so a heap
                continue
            group = self._held.setdefault(key, _Group())
            self._push(group, number, t, own)
            if turned:
                self._turn(group)
        self.close_at = min(self._ahead[0][0] if self._ahead else NEVER, self._sweep_at)

    def _event(self, row: list[Any]) -> tuple[int, Any, list[Any], bool]:
        key, t, own, turned = row
        return int(t), as_key(key), self._slots(own), bool(turned)


_LOOSE = {"percentile", "collect"}
"""Kept by the event and by the group, not by each place in the stacks: their slots grow with the events."""
