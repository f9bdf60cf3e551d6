"""Which readings a stream holds or held: so that each is stored once, after a restart too. Pure.

Invariants:
- A stream's mark of (thing, boot) is the highest sequence of it that the stream took. It is changed together with the
  records: `mark/THING` travels in the commit that holds them.
- A board's readings reach a stream in order of sequence within a boot, and after a congested one the next is that one
  again (edge/boards/readings.py). So what does not lie above the mark is a repeat: it is answered, and not stored.
- A gateway-wide mark says that all readings up to it are settled. It may be too low, never too high: too low costs a
  repeat that the streams recognise; too high would answer a reading that nobody holds.
- So of the streams that a board's routes lead to, the lowest mark counts, only if all know the same boot, and only if
  its routes lead nowhere else: a reading below the marks may have been under way to the cloud directly. In every case
  `settled/THING` counts: what the board's session said was settled, put into the state of those streams with whatever
  they commit next. The higher of both is right, as each is.
- A sequence far below the mark is no repeat but a boot number used again by a board whose counter was erased. Not so
  for a thing with a slash in its name, which is the gateway's own: its boots are never used again, and after a restart
  it repeats all that its cursor had not passed.
- Of THINGS_MAX things there are marks, with each commit fewer of those beyond: the one longest unheard goes. What is
  forgotten is a mark too low, never one too high.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Final, Protocol

import msgspec

MARK = "mark/"
SETTLED = "settled/"
BOOTS_MAX: Final = 4
THINGS_MAX: Final = 4096
REPEATS_REACH_BACK: Final = 255

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[tuple[int, int]]).decode


class Marks:
    """Of one stream, or of one of several in a log, each with a prefix: thing -> boot -> sequence, the boot used last
    at the end, and after a commit the things of it at the end. State values that do not decode are nothing: a repeat
    more, no loss."""

    def __init__(self, state: Mapping[str, bytes], prefix: str = MARK) -> None:
        self._prefix = prefix
        self.things: dict[str, dict[int, int]] = {}
        self.changed: dict[str, None] = {}
        self.reused = 0
        for key, value in state.items():
            if key.startswith(prefix):
                self.things[key.removeprefix(prefix)] = _boots(value)

    def advance(self, thing: str, boot: int, sequence: int) -> bool:
        """Take a reading. False: it is a repeat."""
        boots = self.things.get(thing)
        if boots is None:
            boots = self.things[thing] = {}
        last = boots.get(boot, 0)
        if sequence <= last:
            if sequence + REPEATS_REACH_BACK >= last or "/" in thing:
                return False
            self.reused += 1
        if boot not in boots and len(boots) >= BOOTS_MAX:
            del boots[next(iter(boots))]
        boots[boot] = sequence
        self.changed[thing] = None
        return True

    def changes(self) -> list[tuple[str, bytes | None]]:
        """What to put into the state with the records taken since."""
        things, prefix = self.things, self._prefix
        for thing in self.changed:
            things[thing] = things.pop(thing)
        gone = list(islice(things, max(min(len(things) - THINGS_MAX, 2 * len(self.changed)), 0)))
        for thing in gone:
            del things[thing]
            self.changed.pop(thing, None)
        changed: list[tuple[str, bytes | None]] = [
            (prefix + thing, _encode(list(things[thing].items()))) for thing in self.changed
        ]
        self.changed.clear()
        return changed + [(key + thing, None) for thing in gone for key in (prefix, SETTLED)]

    def sequence(self, thing: str, boot: int) -> int:
        """The last one taken of this boot, 0 for none."""
        return self.things.get(thing, {}).get(boot, 0)

    def last(self, thing: str) -> tuple[int, int] | None:
        """The boot that came last, and its sequence."""
        boots = self.things.get(thing)
        return next(reversed(boots.items())) if boots else None


class Keeper(Protocol):
    """A stream, as far as marks go."""

    marks: Marks

    @property
    def state(self) -> Mapping[str, bytes]: ...

    def keep(self, key: str, value: bytes) -> None:
        """Put this into the state with the next commit, whenever that is."""

    def board_shed(self, thing: str, boot: int, first: int, last: int) -> None:
        """The board itself gave these readings up."""


class GatewayMarks:
    """edge/boards/readings.py's seam on the streams.

    streams_of(thing): the streams that its routes lead to, and whether they lead nowhere else.
    """

    def __init__(self, streams_of: Callable[[str], tuple[Sequence[Keeper], bool]]) -> None:
        self._streams_of = streams_of
        self._settled: dict[str, tuple[int, int]] = {}
        self._keepers: dict[str, tuple[Sequence[Keeper], bool]] = {}

    def last(self, thing: str) -> tuple[int, int] | None:
        known = self._settled.get(thing)
        if known is None:
            known = self._read(thing)
            if known is not None:
                self._remember(thing, known)
        return known

    def _remember(self, thing: str, known: tuple[int, int]) -> None:
        settled = self._settled
        if thing not in settled and len(settled) >= THINGS_MAX:  # it can be read again
            del settled[next(iter(settled))]
        settled[thing] = known

    def store(self, thing: str, boot: int, sequence: int) -> None:
        self._remember(thing, (boot, sequence))
        keepers, alone = self._of(thing)
        if len(keepers) > 1 or not alone:
            value = _encode([(boot, sequence)])
            for stream in keepers:
                stream.keep(SETTLED + thing, value)

    def forget_keepers(self) -> None:
        """Streams came or went: ask anew whose a thing's readings are."""
        self._keepers.clear()

    def shed(self, thing: str, boot: int, first: int, last: int) -> int:
        keepers = self._of(thing)[0]
        for stream in keepers:
            stream.board_shed(thing, boot, first, last)
        # Readings come in order, so one that any stream took says that those before it came, or were counted.
        came = max([stream.marks.sequence(thing, boot) for stream in keepers], default=0)
        return max(last - max(first - 1, came), 0)

    def _of(self, thing: str) -> tuple[Sequence[Keeper], bool]:
        keepers = self._keepers.get(thing)
        if keepers is None:
            if len(self._keepers) >= THINGS_MAX:
                self._keepers.clear()
            keepers = self._keepers[thing] = self._streams_of(thing)
        return keepers

    def _read(self, thing: str) -> tuple[int, int] | None:
        streams, alone = self._of(thing)
        settled = _latest(_boots(stream.state.get(SETTLED + thing)) for stream in streams)
        marks = [stream.marks.last(thing) for stream in streams]
        lowest = None
        if alone and marks and None not in marks:
            found = [mark for mark in marks if mark is not None]
            if len({boot for boot, _ in found}) == 1:
                lowest = min(found)
        if settled is not None and lowest is not None and settled[0] == lowest[0]:
            return max(settled, lowest)
        return lowest or settled


def _latest(all_boots: Iterable[dict[int, int]]) -> tuple[int, int] | None:
    found = [pair for boots in all_boots for pair in boots.items()]
    return max(found, default=None)


def _boots(value: bytes | None) -> dict[int, int]:
    try:
        return dict(_decode(value)) if value else {}
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
