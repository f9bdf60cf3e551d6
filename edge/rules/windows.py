"""Open windows of one rule, and what its filters remember.

Invariants:
- A window holds slots of running aggregates by group, never events.
- Results do not depend on how messages were cut into batches: time moves with each message.
- What left `state()` and was stored, given to `restore` of a fresh rule with the same plan, is the same rule: its rows
  and their order too. All that a rule remembers is a dictionary with a Journal, or stands in `meta`.
- A window that ends becomes due: `close` makes none of its rows, `give` makes them one by one.
"""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from edge.rules.aggregates import merge
from edge.rules.giving import Giving
from edge.rules.journal import Journal, pack, parts
from edge.rules.plan import Window

VALUE_BYTES_MAX = 4096
DEPTH_MAX = 64
NEVER = 2**62
START = -(2**62)
KEY_CHARACTERS_MAX = 1024


class Memory(Giving):
    """emit(key, slots, start, end) gives a row or None. layout: (aggregate, first slot).

    Due are (start, groups) of tumbling and hopping windows, (end, group, session) of sessions.
    """

    def __init__(
        self, window: Window | None, init: list[Any], layout: list[tuple[str, int]], lateness_ms: int, keys_max: int
    ) -> None:
        super().__init__()
        self.window = window
        self.kind = window.kind if window else ""
        self.init = init
        self.layout = layout
        self.lateness_ms = lateness_ms
        self.keys_max = keys_max
        self.emit: Callable[[Any, list[Any], int, int], Any] = lambda *_: None
        self.counts: dict[str, int] = {}
        self.watermark = START
        self.close_at = NEVER
        self._closed = START  # until when all that ended is due
        self.keys = 0
        self.is_full = False  # what would take more to store is left out, and counted as `state_max`
        self.open: dict[int, dict[Any, list[Any]]] = {}  # tumbling, hopping: start → group → slots
        self.groups: dict[Any, list[list[Any]]] = {}  # session, count: group → [start, last, slots, messages]…
        self.remembered: list[dict[Any, Any]] = []  # a table a filter
        self.changed_filters: list[dict[Any, None]] = []
        self._gone_filters: list[set[Any]] = []
        self._journals: dict[str, Journal] = {}
        self._group_changes = self._journal("k", self.groups).changed
        self._stored_marks = [START]
        self.last_start = START
        self.last_group: dict[Any, list[Any]] = {}
        self.by_topic: dict[str, list[Any]] = {}  # of last_group, where the topic says the group
        self.changed: dict[Any, None] = {}  # of the window that group_of gave last

    def count(self, reason: str) -> None:
        self.counts[reason] = self.counts.get(reason, 0) + 1

    def add_filter(self) -> None:
        """A table more to remember things in."""
        place = len(self.remembered)
        self.remembered.append({})
        journal = self._journal(f"f{place}", self.remembered[place])
        self.changed_filters.append(journal.changed)
        self._gone_filters.append(journal.gone)

    def _journal(self, name: str, rows: dict[Any, Any]) -> Journal:
        journal = self._journals[name] = Journal(name, rows, self._journals.get(name))
        return journal

    def kept(self, value: Any) -> Any:
        """A value as it may be held, the same before and after a restart: a number, a truth, a text or a JSON value of
        at most VALUE_BYTES_MAX and DEPTH_MAX. A longer one, or a whole number that is long for a key, is None, and
        counted."""
        kind = value.__class__
        if value is None or kind is bool or kind is float:
            return value
        if kind is int:
            if not is_long(value):
                return value
            self.count("value_too_long")
            return None
        if kind is str and len(value) <= VALUE_BYTES_MAX // 4:
            return value
        try:
            if len(pack(value)) <= VALUE_BYTES_MAX and _is_flat(value, DEPTH_MAX):
                return value
        except (OverflowError, ValueError, TypeError, RecursionError):
            pass
        self.count("value_too_long")
        return None

    # Windows

    def group_of(self, start: int) -> dict[Any, list[Any]]:
        """The groups of the window from `start`; made if need be. Whoever adds to one sets `changed[key]`."""
        group = self.open.get(start)
        if group is None:
            assert self.window is not None
            group = {}
            if self.keys >= self.keys_max or self.is_full:  # nothing will come into it
                self.changed = {}
                return group
            self.open[start] = group
            self._journal(f"w{start}", group)
            self.close_at = min(self.close_at, start + self.window.size)
        self.changed = self._journals[f"w{start}"].changed
        return group

    def new(self, group: dict[Any, list[Any]], key: Any) -> list[Any] | None:
        """Slots for a new group; None, and counted, when the rule holds keys_max already or the key is too long."""
        if is_long(key):
            self.count("key_too_long")
            return None
        if self.keys >= self.keys_max or self.is_full:
            self.count("state_max" if self.is_full else "keys_max")
            return None
        self.keys += 1
        slots = group[key] = self.init.copy()
        return slots

    def slots_for(self, t: int, key: Any) -> list[list[Any]]:
        """All slots that a message at `t` adds to; none when it is late, which is counted."""
        assert self.window is not None
        size, closed = self.window.size, self.watermark - self.lateness_ms
        if self.kind == "count":
            return self._count(t, key)
        if self.kind == "session":
            if t + size <= closed:
                self.count("late")
                return []
            return self._session(t, key, size, closed)
        step = self.window.step
        found = []
        start = t // step * step
        first = start
        while start > t - size:
            if start + size > closed:
                group = self.group_of(start)
                slots = group.get(key)
                if slots is None:
                    slots = self.new(group, key)
                if slots is not None:
                    self.changed[key] = None
                    found.append(slots)
            elif start == first:
                self.count("late")
                break
            start -= step
        return found

    def _count(self, t: int, key: Any) -> list[list[Any]]:
        held = self.groups.get(key)
        if held is None:
            fresh: dict[Any, list[Any]] = {}
            slots = self.new(fresh, key)
            if slots is None:
                return []
            held = self.groups[key] = [[t, t, slots, 0]]
        one = held[0]
        one[0], one[1] = min(one[0], t), max(one[1], t)
        one[3] += 1
        self._group_changes[key] = None
        return [one[2]]

    def full(self, key: Any, out: list[Any]) -> None:
        """After a message was added to a count window: emit it when it is full."""
        assert self.window is not None
        held = self.groups.get(key)
        if held is not None and held[0][3] >= self.window.size:
            start, last, slots, _ = held[0]
            del self.groups[key]
            self.keys -= 1
            self._group_changes[key] = None
            row = self.row(key, slots, start, last)
            if row is not None:
                out.append((None, row))

    def _session(self, t: int, key: Any, gap: int, closed: int) -> list[list[Any]]:
        held = self.groups.get(key, [])
        touching = [one for one in held if one[0] - gap < t < one[1] + gap and one[1] + gap > closed]
        if not touching:
            fresh: dict[Any, list[Any]] = {}
            slots = self.new(fresh, key)
            if slots is None:
                return []
            one: list[Any] = [t, t, slots, 0]
            self.groups[key] = [*held, one]
        else:
            one, *others = sorted(touching, key=lambda session: int(session[0]))
            for other in others:
                for name, at in self.layout:
                    merge(name, at, one[2], other[2])
                one[1] = max(one[1], other[1])
                held.remove(other)
                self.keys -= 1
            one[0], one[1] = min(one[0], t), max(one[1], t)
        self._group_changes[key] = None
        self.close_at = min(self.close_at, one[1] + gap)
        return [one[2]]

    def close(self, until: int) -> None:
        """All windows that end by `until` are due, the oldest first."""
        self.last_start = START
        if self.window is None or self.kind == "count":
            return
        size = self.window.size
        if self.kind == "session":
            done = []
            for key, held in self.groups.items():
                done += [(one[1] + size, key, one) for one in held if self._closed < one[1] + size <= until]
            self.due += sorted(done, key=lambda item: (item[0], repr(item[1])))
            self.due_weight += len(done)
            self.keys -= len(done)
        else:
            for start in sorted(start for start in self.open if start + size <= until):
                group = self.open.pop(start)
                self.keys -= len(group)
                self.due.append((start, group))
                self.due_weight += len(group)
        self._closed = max(self._closed, until)
        self.close_at = min(self._ends(), default=NEVER)

    def close_open(self, until: int) -> None:
        """All that ends by `until` is due, as an event after its end and lateness would have it."""
        end = min(until, max(self._ends(), default=START))
        if end > START:
            self.watermark = max(self.watermark, end + self.lateness_ms)
            self.close(end)

    def fall_back(self) -> bool:
        """Begin time anew, when all that is open was given: until then it is due, and the answer False."""
        self.close_open(NEVER)
        if self.due:
            return False
        self.watermark = self._closed = self.last_start = START
        return True

    def next_end(self) -> int:
        """When the first of what is open ends; NEVER where nothing is."""
        return min(self._ends(), default=NEVER)

    @property
    def is_behind(self) -> bool:
        """Whether so much is due that nothing more should come before some of it is given."""
        return self.due_weight > self.keys_max

    def row(self, key: Any, slots: list[Any], start: int, end: int) -> Any:
        """None where HAVING leaves it out, or it cannot be made, which is counted."""
        try:
            return self.emit(key, slots, start, end)
        except (ArithmeticError, TypeError, ValueError, RecursionError):
            self.count("error")
            return None

    def _rows_of(self, window: Any) -> Iterator[Any]:
        assert self.window is not None
        if self.kind == "session":
            end, key, one = window
            yield self.row(key, one[2], one[0], end)
        else:
            start, group = window
            end, row = start + self.window.size, self.row
            for key, slots in group.items():
                yield row(key, slots, start, end)

    def _gave(self, window: Any) -> None:
        if self.kind == "session":
            _, key, one = window
            self.groups[key].remove(one)
            if not self.groups[key]:
                del self.groups[key]
            self._group_changes[key] = None
            self.due_weight -= 1
        else:
            start, group = window
            self._journals[f"w{start}"].ended = True
            self.due_weight -= len(group)

    # Filters

    def remember(self, place: int, key: Any, value: Any) -> None:
        table = self.remembered[place]
        if key not in table and is_long(key):
            self.count("key_too_long")
            return
        changed = self.changed_filters[place]
        if key not in table and (len(table) >= self.keys_max or (self.is_full and table)):
            oldest = next(iter(table))
            del table[oldest]
            changed[oldest] = None
            self._gone_filters[place].add(oldest)
            self.count("state_max" if self.is_full else "keys_max")
        if key in changed and key not in table:  # it went, and takes its place at the end
            del changed[key]
        table[key] = value
        changed[key] = None

    def unseen(self, place: int, key: Any, t: int, ms: float) -> bool:
        """Whether nothing alike came within the last `ms`."""
        last = self.remembered[place].get(key)
        if last is not None and -ms < t - last < ms:
            return False
        self.remember(place, key, t)
        return True

    def every(self, place: int, key: Any, many: float) -> bool:
        """The first, and then each `many`th."""
        seen = self.remembered[place].get(key, 0)
        self.remember(place, key, (seen + 1) % int(many))
        return bool(seen == 0)

    # Checkpoints

    def state(self) -> dict[str, bytes]:
        """What changed since the last call, by entry; b'' for an entry that is gone."""
        delta: dict[str, bytes] = {}
        marks = self._marks()
        if marks != self._stored_marks:
            self._stored_marks = marks
            delta["meta"] = pack(marks)
        ended = []
        for journal in self._journals.values():
            if journal.changed or journal.ended:
                delta.update(journal.delta())
                if journal.ended:
                    ended.append(journal.name)
        for name in ended:
            del self._journals[name]
        self.last_start = START
        return delta

    @property
    def state_bytes(self) -> int:
        """About what is stored of it, as of the last `state`."""
        return sum([journal.state_bytes for journal in self._journals.values()])

    def forget(self) -> None:
        """All that it holds: `state` is to follow before anything else comes."""
        for journal in self._journals.values():
            journal.forget()
        for start in [*self.open, *(one[0] for one in self.due if self.kind in {"tumbling", "hopping"})]:
            self._journals[f"w{start}"].ended = True
        self.open.clear()
        self._forget_due()
        self.keys = 0
        self.last_start, self.close_at = START, NEVER

    def restore(self, entries: dict[str, bytes]) -> None:
        """Entries: each entry's last value. An entry that is not understood is counted and left out."""
        tables: dict[str, dict[int, bytes]] = {}
        for entry, raw in entries.items():
            try:
                name, number = parts(entry)
                if raw and name == "meta":
                    self._restore_marks([int(mark) for mark in msgspec.msgpack.decode(raw)])
                elif raw:
                    tables.setdefault(name, {})[number] = raw
            except (ValueError, TypeError, IndexError):
                self.count("checkpoint_rejected")
        for name, numbered in tables.items():
            try:
                self._restore_table(name, numbered)
            except (ValueError, TypeError, IndexError, KeyError):
                self.count("checkpoint_rejected")
        self._restored()
        if self.watermark > START:
            self._stored_marks = self._marks()

    def _marks(self) -> list[int]:
        """The times that are remembered beside the windows, and the place in what is due."""
        return [self.watermark, self.place] if self.place else [self.watermark]

    def _restore_marks(self, marks: list[int]) -> None:
        self.watermark, *place = marks
        self.place = place[0] if place else 0

    def _restored(self) -> None:
        """All entries are in: what follows from them."""
        self.close_at = min(self._ends(), default=NEVER)
        self.keys = sum(map(len, self.open.values())) + sum(map(len, self.groups.values()))
        self.close(self.watermark - self.lateness_ms)
        if not self.due:
            self.place = 0

    def _restore_table(self, name: str, numbered: dict[int, bytes]) -> None:
        if name[0] == "w":
            start = int(name[1:])
            journal = Journal(name, {})
            rows = journal.restore(numbered)
            journal.rows.update((key, self._slots(slots)) for key, slots in rows)
            self.open[start], self._journals[name] = journal.rows, journal
            return
        journal = self._journals[name]
        rows = journal.restore(numbered)
        if name == "k":
            rows = [(key, [[s, e, self._slots(slots), many] for s, e, slots, many in held]) for key, held in rows]
        journal.rows.update(rows)

    def _ends(self) -> list[int]:
        """When each open window of tumbling, hopping and session ends."""
        size = self.window.size if self.window else 0
        if self.kind == "session":
            return [one[1] + size for held in self.groups.values() for one in held if one[1] + size > self._closed]
        return [start + size for start in self.open]

    def _slots(self, slots: list[Any]) -> list[Any]:
        if len(slots) != len(self.init):
            raise ValueError("slots of another plan")
        return slots


def _is_flat(value: Any, depth: int) -> bool:
    if isinstance(value, dict):
        return depth > 0 and all(_is_flat(one, depth - 1) for one in value.values())
    return not isinstance(value, list) or (depth > 0 and all(_is_flat(one, depth - 1) for one in value))


def is_long(key: Any) -> bool:
    """Whether a key of scalars would take too much to keep by the thousand."""
    if isinstance(key, tuple):
        return any(map(is_long, key))
    if isinstance(key, int):
        return key.bit_length() > KEY_CHARACTERS_MAX
    return isinstance(key, str) and len(key) > KEY_CHARACTERS_MAX
