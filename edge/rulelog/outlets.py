"""The ways on of the rules' rows: one for each set of ends, so that an end that takes nothing holds up its own alone.

Invariants:
- A row belongs to one outlet for as long as the process lives; each outlet sends its rows in order of number, and what
  lies below the cursor of its outlet is settled for good.
- The log is freed up to the lowest cursor. Of a rule that is ahead of that its own cursor is kept under `ahead`, so
  that a restart repeats none of its rows, whatever outlets there are then.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from edge.messages import Message, Origin
from edge.metrics import Metrics
from edge.outbox.drain import Drain
from edge.outbox.lanes import Lanes, Sent
from edge.outbox.report import CURSOR
from edge.outbox.stream import Stream
from edge.outbox.uploader import Uploader

AHEAD: Final = "ahead"
OUTLETS_MAX: Final = 8  # each looks at every row; more ends than that share
WINDOW: Final = 1000
_SCANS_A_TURN: Final = 16

Route = Callable[[str, str, Sequence[Message], Origin], None]

_encode = msgspec.msgpack.Encoder().encode
_pack_cursor = msgspec.msgpack.Encoder().encode


def thing_of(gateway: str, rule: str) -> str:
    """What the rows of a rule are named by."""
    return f"{gateway}/rule/{rule}"


class Rows:
    """The drains' target: gives rows to the router, as messages of `rule:NAME`."""

    def __init__(self, route: Route) -> None:
        self._route = route
        self._sources: dict[str, str] = {}

    def send(self, messages: Sequence[Message], origin: Origin) -> None:
        batches: dict[str, list[Message]] = {}
        for message in messages:
            batches.setdefault(message.reading.thing if message.reading is not None else "", []).append(message)
        for thing, batch in batches.items():
            source = self._sources.get(thing)
            if source is None:
                source = self._sources[thing] = f"rule:{thing.partition('/rule/')[2]}"
            self._route(source, "", batch, origin)


class RowsSent(Sent, frozen=True, array_like=True):
    """of(thing): how far a rule's own outlet is."""

    of: Any

    def is_settled(self, number: int, thing: str = "") -> bool:
        return bool(number < self.of(thing))


class _Part:
    """The stream as one outlet sees it."""

    def __init__(self, stream: Stream, cursor: int) -> None:
        self.settings, self.name, self.own = stream.settings, stream.name, stream.own
        self.log, self.clock, self.tail, self.ledger = stream.log, stream.clock, stream.tail, stream.ledger
        self.refused, self.cursor_moved = stream.refused, stream.cursor_moved
        self.committed: Callable[[], None] = lambda: None
        self.state: Mapping[str, bytes] = {CURSOR: _pack_cursor((cursor, 0, 0))}
        self.given_up: Callable[[int], None] = lambda number: None

    def exported(self, sent: Callable[[], Sent], state: Callable[[], bytes], given_up: Callable[[int], None]) -> None:
        self.given_up = given_up


class Outlet(Uploader):
    """Of the rows that are `mine`."""

    def __init__(self, part: _Part, metrics: Metrics, mine: Callable[["Outlet", Message], bool], now: float) -> None:
        super().__init__(part, metrics, "", now)
        self.part = part
        self._mine = mine

    def next(self, count: int, now: float) -> Sequence[Message]:
        for _ in range(_SCANS_A_TURN):
            before = self.sent.position
            if messages := super().next(count, now):
                return messages
            if self.sent.position == before:
                break
        return ()

    def wait_s(self, now: float) -> float:
        """A moment, when others' rows are all that was found so far."""
        return 0.001 if self.has_more else 0.0

    @property
    def has_more(self) -> bool:
        return bool(self._lanes.turns(self.stream.log.next))

    def _fetch(self, position: int, count: int) -> tuple[Sequence[Message], int]:
        messages, after = super()._fetch(position, count)
        mine = self._mine
        return [message for message in messages if mine(self, message)], after


class Outlets:
    """Of one log. route: the router's; ends_of(rule): where routes send its rows now; added: a drain more."""

    def __init__(
        self,
        stream: Stream,
        gateway: str,
        metrics: Metrics,
        *,
        route: Route,
        now: Callable[[], float],
        added: Callable[[Drain], None],
    ) -> None:
        self._stream, self._gateway, self._metrics = stream, gateway, metrics
        self._rows, self._now, self._added = Rows(route), now, added
        self._cursor = Lanes(stream.state.get(CURSOR), stream.log.first, live_first=False).sent.cursor
        self._starts = _decode(stream.state.get(AHEAD))
        self._stored = stream.state.get(AHEAD)
        self._of: dict[str, Outlet] = {}
        self._by_ends: dict[tuple[str, ...], Outlet] = {}
        self._outlets: list[Outlet] = []
        stream.exported(self._sent, self._state, self._give_up)
        stream.committed = self._committed

    def place(self, ends: Mapping[str, tuple[str, ...]]) -> None:
        """Give each rule an outlet; one that has one keeps it. ends: by rule, where its rows go."""
        since = self._lowest() if self._outlets else self._cursor
        groups: dict[tuple[str, ...], list[str]] = {}
        for rule, names in ends.items() or [("", ())]:
            thing = thing_of(self._gateway, rule)
            if thing not in self._of:
                known = names in self._by_ends or names in groups
                full = len(self._outlets) + len(groups) >= OUTLETS_MAX
                last = next(reversed(groups or self._by_ends), ())
                groups.setdefault(last if full and not known else names, []).append(thing)
        for names, things in groups.items():
            outlet = self._by_ends.get(names)
            if outlet is None:
                outlet = self._by_ends[names] = self._outlet(min(self._starts.get(one, since) for one in things))
            for thing in things:
                self._of[thing] = outlet
        self._metrics.gauge("stream_backlog_records", self.backlog, stream=self._stream.name)

    def backlog(self) -> int:
        return max((outlet.backlog() for outlet in self._outlets), default=0)

    def checkpoint(self) -> Iterable[tuple[str, bytes | None]]:
        """What to keep of rules that are ahead of the lowest cursor."""
        if len(self._outlets) < 2 and not self._starts:
            value = None
        else:
            lowest = self._lowest()
            ahead = {thing: cursor for thing, cursor in self._starts.items() if cursor > lowest}
            ahead |= {thing: self._cursor_of(thing) for thing in self._of if self._cursor_of(thing) > lowest}
            value = _encode(ahead) if ahead else None
            self._starts = {thing: cursor for thing, cursor in self._starts.items() if cursor > lowest}
        if value != self._stored:
            self._stored = value
            yield AHEAD, value

    def cursor_of(self, thing: str) -> int:
        """Below it all rows of this rule are settled."""
        return self._cursor_of(thing) if self._outlets else self._cursor

    def _outlet(self, cursor: int) -> Outlet:
        outlet = Outlet(_Part(self._stream, cursor), self._metrics, self._is_of, self._now())
        drain = Drain(self._rows, WINDOW, self._now)
        drain.add(outlet)
        self._outlets.append(outlet)
        self._added(drain)
        return outlet

    def _is_of(self, outlet: Outlet, message: Message) -> bool:
        thing = message.reading.thing if message.reading is not None else ""
        if self._of.get(thing, self._outlets[0]) is not outlet:
            return False
        return not self._starts or message.receipt >= self._starts.get(thing, 0)

    def _cursor_of(self, thing: str) -> int:
        outlet = self._of.get(thing, self._outlets[0])
        return max(outlet.sent.cursor, self._starts.get(thing, 0))

    def _lowest(self) -> int:
        return min(outlet.sent.cursor for outlet in self._outlets)

    def _sent(self) -> Sent:
        if not self._outlets:
            return Sent(self._cursor, self._cursor, 0, 0, 0)
        position = min(outlet.sent.position for outlet in self._outlets)
        return RowsSent(self._lowest(), position, 0, 0, 0, self._cursor_of)

    def _state(self) -> bytes:
        return _pack_cursor((self._lowest() if self._outlets else self._cursor, 0, 0))

    def _give_up(self, number: int) -> None:
        for outlet in self._outlets:
            outlet.part.given_up(number)

    def _committed(self) -> None:
        for outlet in self._outlets:
            outlet.part.committed()


def _decode(state: bytes | None) -> dict[str, int]:
    try:
        return msgspec.msgpack.decode(state, type=dict[str, int]) if state else {}
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
