"""The last n units of each group: SLIDINGWINDOW. Each event gives the row of its own group at its time.

Invariants:
- An event is kept as a partial: the slots of its aggregates alone, never its payload.
- Events of a group stand in order of time, in two stacks: of `front`, each holds what all from it to the newest of
  them add up to; `back` has one total. So the oldest leaves without a subtraction, and a row costs two merges.
- An event ahead of the watermark waits in `_ahead` until the watermark has come to it.
- At most `events_max` partials are held. Beyond that the group's oldest goes early or, where it has none, the event
  is left out; both are counted as `events_max`.
- What `state()` writes for a group grows with what changed: partials are written in chunks that never move.
"""

import heapq
from typing import Any

import msgspec

from edge.rules.aggregates import COLLECTED_MAX, merge
from edge.rules.journal import as_key, pack
from edge.rules.plan import Window
from edge.rules.windows import NEVER, START, Memory

_CHUNK = 32


class _Group:
    """first: number of the oldest partial; turn: of the oldest in `back`. front: [time, all from here, itself], the
    oldest last; back: [time, itself]."""

    __slots__ = ("back", "buckets", "first", "front", "total", "turn")

    def __init__(self) -> None:
        self.front: list[tuple[int, list[Any], list[Any]]] = []
        self.back: list[tuple[int, list[Any]]] = []
        self.total: list[Any] = []
        self.first = self.turn = 0
        self.buckets: dict[int, dict[int, int]] = {}

    @property
    def end(self) -> int:
        return self.turn + len(self.back)

    def partial(self, number: int) -> tuple[int, list[Any]]:
        if number >= self.turn:
            return self.back[number - self.turn]
        at, _, own = self.front[self.first - number - 1]
        return at, own


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
        self.events = 0
        self._held: dict[Any, _Group] = {}
        self._ahead: list[tuple[int, int, Any, list[Any]]] = []  # a heap: time, number of arrival, group, partial
        self._arrivals = 0
        self._sweep_at = NEVER
        self._changed: dict[Any, set[int]] = {}  # group → its chunks that changed
        self._changed_ahead: dict[int, list[Any] | None] = {}

    def slide(self, t: int, key: Any, partial: list[Any], out: list[Any]) -> None:
        """One event that is not late."""
        if self._sweep_at == NEVER:
            self._sweep_at = t + self._size
            self.close_at = min(self.close_at, self._sweep_at)
        if t <= self.watermark - self.lateness_ms:
            self._add(t, key, partial, out)
            return
        if self.events >= self._events_max:
            self.count("events_max")
            return
        self.events += 1
        self._arrivals += 1
        heapq.heappush(self._ahead, (t, self._arrivals, key, partial))
        self._changed_ahead[self._arrivals] = [t, key, partial]
        self.close_at = min(self.close_at, t)

    def close(self, until: int, out: list[Any]) -> None:
        """Give the rows of the events up to `until`, in order of time; forget what no row can need any more."""
        while self._ahead and self._ahead[0][0] <= until:
            t, number, key, partial = heapq.heappop(self._ahead)
            self.events -= 1
            self._changed_ahead[number] = None
            self._add(t, key, partial, out)
        if until >= self._sweep_at:
            for key in [*self._held]:
                self._forget(self._held[key], key, until - self._size)
            self._sweep_at = until + self._size if self._held or self._ahead else NEVER
        self.close_at = min(self._ahead[0][0] if self._ahead else NEVER, self._sweep_at)

    def _add(self, t: int, key: Any, partial: list[Any], out: list[Any]) -> None:
        group = self._held.get(key)
        if group is not None:
            self._forget(group, key, t - self._size, keep=True)
        if self.events >= self._events_max:
            self.count("events_max")
            if group is None or group.first == group.end:
                return
            self._drop(group, key)
        if group is None:
            if len(self._held) >= self.keys_max:
                self.count("keys_max")
                return
            group = self._held[key] = _Group()
        self.events += 1
        self._changed.setdefault(key, set()).add(group.end // _CHUNK)
        self._push(group, t, partial)
        self._row(key, self._slots_of(group), t - self._size, t, out)

    def _push(self, group: _Group, t: int, partial: list[Any]) -> None:
        total = group.total
        if group.back:
            for name, at in self.layout:
                if name not in _LOOSE:
                    merge(name, at, total, partial)
        else:
            group.total = partial.copy()
        group.back.append((t, partial))
        for name, at in self.layout:
            if name == "percentile" and partial[at]:
                buckets = group.buckets.setdefault(at, {})
                for bucket in partial[at]:
                    buckets[bucket] = buckets.get(bucket, 0) + 1

    def _turn(self, group: _Group) -> None:
        """All of `back` into `front`."""
        later: list[Any] | None = None
        for t, own in reversed(group.back):
            whole = own.copy()
            if later is not None:
                for name, at in self.layout:
                    if name not in _LOOSE:
                        merge(name, at, whole, later)
            group.front.append((t, whole, own))
            later = whole
        group.turn += len(group.back)
        group.back = []
        group.total = []

    def _forget(self, group: _Group, key: Any, limit: int, *, keep: bool = False) -> None:
        """What is not after `limit`. A group without events is forgotten too, unless it is to be kept."""
        while group.first < group.end and (group.front[-1][0] if group.front else group.back[0][0]) <= limit:
            self._drop(group, key)
        if group.first == group.end and not keep:
            self._changed.setdefault(key, set()).add(group.first // _CHUNK)
            del self._held[key]

    def _drop(self, group: _Group, key: Any) -> None:
        """The group's oldest."""
        if not group.front:
            self._turn(group)
        _, _, own = group.front.pop()
        for at, buckets in group.buckets.items():
            for bucket in own[at] or ():
                buckets[bucket] -= 1
                if not buckets[bucket]:
                    del buckets[bucket]
        group.first += 1
        self.events -= 1
        changed = self._changed.setdefault(key, set())
        if group.first % _CHUNK == 0:
            changed.add(group.first // _CHUNK - 1)

    def _slots_of(self, group: _Group) -> list[Any]:
        if not group.front:
            slots = group.total.copy()
        else:
            slots = group.front[-1][1].copy()
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
        for own in [*(own for _, _, own in reversed(group.front)), *(own for _, own in group.back)]:
            if own[at]:
                if len(found) >= COLLECTED_MAX:
                    self.count("collected_max")
                    break
                found += own[at]
        return found

    def last_end(self) -> int:
        return max((t for t, *_ in self._ahead), default=START)

    # Checkpoints

    def state(self) -> dict[str, bytes]:
        delta = super().state()
        delta["meta"] = pack([self.watermark, self._arrivals, self._sweep_at])
        for key, chunks in self._changed.items():
            group, name = self._held.get(key), pack(key).hex()
            delta["k" + name] = b"" if group is None else pack([group.first, group.turn, group.end])
            for chunk in chunks:
                numbers = range(0)
                if group is not None:
                    numbers = range(max(group.first, chunk * _CHUNK), min(group.end, (chunk + 1) * _CHUNK))
                kept = [group.partial(number) for number in numbers] if group is not None else []
                delta[f"e{name}:{chunk}"] = pack([numbers.start, kept]) if kept else b""
        for number, waiting in self._changed_ahead.items():
            delta[f"a{number}"] = pack(waiting) if waiting is not None else b""
        self._changed.clear()
        self._changed_ahead.clear()
        return delta

    def restore(self, entries: dict[str, bytes]) -> None:
        kept: dict[str, dict[int, tuple[int, list[Any]]]] = {}
        groups: dict[str, list[int]] = {}
        others = {name: raw for name, raw in entries.items() if name[:1] not in {"k", "e", "a"} and name != "meta"}
        super().restore(others)
        for name, raw in entries.items():
            if not raw or name in others:
                continue
            try:
                value = msgspec.msgpack.decode(raw)
                if name == "meta":
                    self.watermark, self._arrivals, self._sweep_at = map(int, value)
                elif name[0] == "k":
                    groups[name[1:]] = [int(number) for number in value]
                elif name[0] == "e":
                    start, partials = value
                    for number, (t, own) in enumerate(partials, start):
                        kept.setdefault(name[1:].partition(":")[0], {})[number] = (t, self._slots(own))
                else:
                    t, key, own = value
                    heapq.heappush(self._ahead, (t, int(name[1:]), as_key(key), self._slots(own)))
            except (ValueError, TypeError, IndexError, KeyError):
                self.count("checkpoint_rejected")
        for name, numbers in groups.items():
            try:
                self._restore_group(as_key(msgspec.msgpack.decode(bytes.fromhex(name))), numbers, kept.get(name, {}))
            except (ValueError, TypeError, IndexError, KeyError):
                self.count("checkpoint_rejected")
        self.events = len(self._ahead) + sum(group.end - group.first for group in self._held.values())
        self.close_at = min(self._ahead[0][0] if self._ahead else NEVER, self._sweep_at)

    def _restore_group(self, key: Any, numbers: list[int], kept: dict[int, tuple[int, list[Any]]]) -> None:
        first, turn, end = numbers
        partials = [kept[number] for number in range(first, end)]
        group = _Group()
        group.first = group.turn = first
        for number, (t, own) in enumerate(partials, first):
            if number == turn:
                self._turn(group)
            self._push(group, t, own)
        if turn == end and turn > first:
            self._turn(group)
        if not first <= turn <= end:
            raise ValueError("numbers out of order")
        self._held[key] = group


_LOOSE = {"percentile", "collect"}
"""Kept by the event and by the group, not by each place in the stacks: their slots grow with the events."""
