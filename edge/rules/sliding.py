"""The last n units of each group: SLIDINGWINDOW. Each event gives the row of its own group at its time.

Invariants:
- An event is kept as a partial: the slots of its aggregates alone, never its payload.
- Events of a group stand in order of time, in two stacks: of `front`, each holds what all from it to the newest of
  them add up to; `back` has one total. So the oldest leaves without a subtraction, and a row costs two merges.
- An event ahead of the watermark waits until the watermark has come to it.
- At most `events_max` partials are held. Beyond that the group's oldest goes early or, where it has none, the event
  is left out; both are counted as `events_max`.
- What is stored are the partials, and where each group's `back` begins: stacks made of them again are the same to the
  last bit.
"""

import heapq
from typing import Any, NamedTuple

from edge.rules.aggregates import COLLECTED_MAX, merge
from edge.rules.journal import as_key
from edge.rules.plan import Window
from edge.rules.windows import NEVER, Memory, is_long


class _Event(NamedTuple):
    t: int
    key: Any
    partial: list[Any]


class _Group:
    """front: (number, all from here on), the oldest last. back: numbers. total: what they add up to."""

    __slots__ = ("back", "buckets", "front", "total")

    def __init__(self) -> None:
        self.front: list[tuple[int, list[Any]]] = []
        self.back: list[int] = []
        self.total: list[Any] = []
        self.buckets: dict[int, dict[int, int]] = {}

    def oldest(self) -> int:
        """Its number; -1 for none."""
        return self.front[-1][0] if self.front else self.back[0] if self.back else -1


class Sliding(Memory):
    """window.kind is `sliding`."""

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
        super().__init__(window, init, layout, lateness_ms, keys_max)
        assert window is not None
        self._size = window.size
        self._events_max = events_max
        self._held: dict[Any, _Group] = {}
        self._ahead: list[tuple[int, int]] = []  # a heap: time, number
        self._events: dict[int, _Event] = {}  # those in groups, in the order in which they came there
        self._waiting: dict[int, _Event] = {}
        self._turns: dict[Any, int] = {}  # group → number of the first event that is in `back`, or will be
        self._facts = {"number": 0, "sweep_at": NEVER}
        self._events_changed = self._journal("s", self._events).changed
        self._waiting_changed = self._journal("a", self._waiting).changed
        self._turns_changed = self._journal("t", self._turns).changed
        self._facts_changed = self._journal("m", self._facts).changed

    @property
    def events(self) -> int:
        """How many are held."""
        return len(self._events) + len(self._waiting)

    def slide(self, t: int, key: Any, partial: list[Any], out: list[Any]) -> None:
        """One event that is not late."""
        if key not in self._held and is_long(key):
            self.count("key_too_long")
            return
        until = self.watermark - self.lateness_ms
        if until >= self._facts["sweep_at"] or self._facts["sweep_at"] == NEVER:
            self._sweep(until)
        if t <= until:
            self._add(_Event(t, key, partial), out)
        elif self.events >= self._events_max:
            self.count("events_max")
        else:
            number = self._number()
            heapq.heappush(self._ahead, (t, number))
            self._waiting[number] = _Event(t, key, partial)
            self._waiting_changed[number] = None
            self.close_at = min(self.close_at, t)

    def close(self, until: int, out: list[Any]) -> None:
        """Give the rows of the events up to `until`, in order of time."""
        while self._ahead and self._ahead[0][0] <= until:
            _, number = heapq.heappop(self._ahead)
            self._waiting_changed[number] = None
            self._add(self._waiting.pop(number), out)
        self.close_at = min(self._ends(), default=NEVER)

    def _ends(self) -> list[int]:
        """The times that events wait for: the next, and the last."""
        return [self._ahead[0][0], max(self._ahead)[0]] if self._ahead else []

    def _number(self) -> int:
        self._facts["number"] += 1
        self._facts_changed["number"] = None
        return self._facts["number"]

    def _sweep(self, until: int) -> None:
        """Forget, once a window's length, the groups that have nothing that a row could need."""
        for key in [*self._held]:
            self._forget(self._held[key], until - self._size)
            if self._held[key].oldest() < 0:
                del self._held[key]
                del self._turns[key]
                self._turns_changed[key] = None
        self._facts["sweep_at"] = until + self._size
        self._facts_changed["sweep_at"] = None

    def _add(self, event: _Event, out: list[Any]) -> None:
        t, key, _ = event
        group = self._held.get(key)
        if group is not None:
            self._forget(group, t - self._size)
        if self.events >= self._events_max:
            self.count("events_max")
            if group is None or group.oldest() < 0:
                return
            self._drop(group)
        if group is None:
            if len(self._held) >= self.keys_max:
                self.count("keys_max")
                return
            group = self._held[key] = _Group()
        number = self._number()
        if not group.back:
            self._turns[key] = number
            self._turns_changed[key] = None
        self._events[number] = event
        self._events_changed[number] = None
        self._push(group, number)
        self._row(key, self._slots_of(group), t - self._size, t, out)

    def _push(self, group: _Group, number: int) -> None:
        partial = self._events[number].partial
        if group.back:
            self._merge(group.total, partial)
        else:
            group.total = partial.copy()
        group.back.append(number)
        for name, at in self.layout:
            if name == "percentile" and partial[at]:
                buckets = group.buckets.setdefault(at, {})
                for bucket in partial[at]:
                    buckets[bucket] = buckets.get(bucket, 0) + 1

    def _merge(self, slots: list[Any], later: list[Any]) -> None:
        for name, at in self.layout:
            if name not in _LOOSE:
                merge(name, at, slots, later)

    def _turn(self, group: _Group) -> None:
        """All of `back` into the empty `front`."""
        later: list[Any] | None = None
        for number in reversed(group.back):
            whole = self._events[number].partial.copy()
            if later is not None:
                self._merge(whole, later)
            group.front.append((number, whole))
            later = whole
        group.back, group.total = [], []

    def _forget(self, group: _Group, limit: int) -> None:
        """What is not after `limit`."""
        while (number := group.oldest()) >= 0 and self._events[number].t <= limit:
            self._drop(group)

    def _drop(self, group: _Group) -> None:
        """The group's oldest."""
        if not group.front:
            key = self._events[group.back[0]].key
            self._turns[key] = group.back[-1] + 1
            self._turns_changed[key] = None
            self._turn(group)
        number, _ = group.front.pop()
        gone = self._events.pop(number)
        self._events_changed[number] = None
        for at, buckets in group.buckets.items():
            for bucket in gone.partial[at] or ():
                buckets[bucket] -= 1
                if not buckets[bucket]:
                    del buckets[bucket]

    def _slots_of(self, group: _Group) -> list[Any]:
        if not group.front:
            slots = group.total.copy()
        else:
            slots = group.front[-1][1].copy()
            if group.back:
                self._merge(slots, group.total)
        for name, at in self.layout:
            if name == "percentile":
                slots[at] = group.buckets.get(at)
            elif name == "collect":
                slots[at] = self._collected(group, at)
        return slots

    def _collected(self, group: _Group, at: int) -> list[Any]:
        found: list[Any] = []
        for number in [*(number for number, _ in reversed(group.front)), *group.back]:
            if own := self._events[number].partial[at]:
                if len(found) >= COLLECTED_MAX:
                    self.count("collected_max")
                    break
                found += own
        return found

    # Checkpoints

    def restore(self, entries: dict[str, bytes]) -> None:
        super().restore(entries)
        self._held.update((key, _Group()) for key in self._turns)
        for number, event in self._events.items():
            group = self._held.setdefault(event.key, _Group())
            turn = self._turns.setdefault(event.key, number)
            if number >= turn and group.back and group.back[0] < turn:
                self._turn(group)
            self._push(group, number)
        for key, group in self._held.items():
            if group.back and group.back[0] < self._turns[key]:
                self._turn(group)
        self._ahead = sorted((event.t, number) for number, event in self._waiting.items())
        self.close_at = min(self._ends(), default=NEVER)

    def _restore_table(self, name: str, numbered: dict[int, bytes]) -> None:
        if name not in {"s", "a", "t", "m"}:
            super()._restore_table(name, numbered)
            return
        journal = self._journals[name]
        rows = journal.restore(numbered)
        if name in {"s", "a"}:
            rows = [(int(number), _Event(int(t), as_key(key), self._slots(own))) for number, (t, key, own) in rows]
        else:
            rows = [(key, int(value)) for key, value in rows]
        journal.rows.update(rows)


_LOOSE = {"percentile", "collect"}
"""Kept by the event and by the group, not by each place in the stacks: their slots grow with the events."""
