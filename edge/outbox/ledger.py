"""What a stream shed, by thing, with its reason: kept in the stream's state, bounded. Pure.

Invariants: every record shed is counted in `totals` and in one entry. Entries are ranges of one thing, boot and reason;
beyond ENTRIES_MAX a thing's oldest two are put together (first to last, with the count), beyond THINGS_MAX things the
rest go under `*`. Damaged records have lost their names: they are under `*`, by the stream's own numbers. State values
that do not decode are nothing.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

SHED: Final = "shed/"
ENTRIES_MAX: Final = 64
THINGS_MAX: Final = 1024
OTHERS: Final = "*"
BY_BOARD: Final = "shed_by_board"
DAMAGED: Final = "damaged"
REASONS: Final = (
    DAMAGED,
    "discarded",
    "dropped_oldest",
    "expired",
    "full",
    "purged",
    "refused",
    BY_BOARD,
    "thinned",
    "too_large",
    "too_old",
)

_encode = msgspec.msgpack.Encoder().encode


class Shed(msgspec.Struct, array_like=True):
    """count of the readings first … last of one boot were shed."""

    boot: int
    first: int
    last: int
    count: int
    reason: str


_decode = msgspec.msgpack.Decoder(list[Shed]).decode


class Ledger:
    """Reads itself from a log's state; `changes` says what to put there."""

    def __init__(self, state: Mapping[str, bytes]) -> None:
        self.things: dict[str, list[Shed]] = {}
        self._changed: set[str] = set()
        for key, value in state.items():
            if key.startswith(SHED):
                try:
                    self.things[key.removeprefix(SHED)] = _decode(value)
                except (msgspec.DecodeError, UnicodeDecodeError):
                    continue

    def total(self, reason: str) -> int:
        return self.totals.get(reason, 0)

    @property
    def totals(self) -> dict[str, int]:
        """By reason."""
        found: dict[str, int] = {}
        for entries in self.things.values():
            for entry in entries:
                found[entry.reason] = found.get(entry.reason, 0) + entry.count
        return found

    @property
    def is_changed(self) -> bool:
        """There is something that no commit took along."""
        return bool(self._changed)

    def add(self, thing: str, boot: int, sequence: int, reason: str, count: int = 1) -> None:
        """count: of the readings that end with this sequence."""
        self.take(thing, Shed(boot, max(sequence - count + 1, 0), sequence, count, reason))

    def take(self, thing: str, entry: Shed) -> None:
        """Enter what another ledger counted."""
        if thing not in self.things and len(self.things) >= THINGS_MAX:
            thing, entry = OTHERS, Shed(0, 0, 0, entry.count, entry.reason)
        entries = self.things.setdefault(thing, [])
        self._changed.add(thing)
        last = entries[-1] if entries else None
        if (
            last is not None
            and (last.boot, last.reason) == (entry.boot, entry.reason)
            and (entry.first == last.last + 1 or entry.last == last.last == 0)
        ):
            last.last = max(entry.last, last.last)
            last.count += entry.count
            return
        entries.append(Shed(entry.boot, entry.first, entry.last, entry.count, entry.reason))
        if len(entries) > ENTRIES_MAX:
            _merge(entries)

    def add_once(self, thing: str, boot: int, first: int, last: int, reason: str) -> None:
        """What may be told again after a restart: nothing if an entry covers it."""
        for entry in self.things.get(thing, ()):
            if entry.reason == reason and entry.boot == boot and entry.first <= first and last <= entry.last:
                return
        self.add(thing, boot, last, reason, last - first + 1)

    def changes(self) -> list[tuple[str, bytes]]:
        """What to put into the state now."""
        changed = [(SHED + thing, _encode(self.things[thing])) for thing in self._changed]
        self._changed.clear()
        return changed


def _merge(entries: list[Shed]) -> None:
    """Put the oldest two of the same boot and reason together; the oldest two of the same reason if there are none."""
    for key in (lambda one: (one.boot, one.reason), lambda one: one.reason):
        seen: dict[object, Shed] = {}
        for place, entry in enumerate(entries):
            earlier = seen.setdefault(key(entry), entry)
            if earlier is not entry:
                if earlier.boot != entry.boot:
                    earlier.boot, earlier.first, earlier.last = entry.boot, 0, entry.last
                else:
                    earlier.first, earlier.last = min(earlier.first, entry.first), max(earlier.last, entry.last)
                earlier.count += entry.count
                del entries[place]
                return
