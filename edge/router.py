"""Who may send what to whom: the group's routes, default deny.

Invariants:
- A message goes only where a route from its source takes its topic; with none it is refused and counted. Of those ends
  one may refuse topics; that is counted as well, with its reason.
- Every QoS 1 or 2 message of a batch is settled exactly once towards its origin, however many targets it has.
- Messages of one source reach each target in the order in which they came.
"""

from collections.abc import Callable, Mapping, Sequence

from edge.config import SENDER, RouteSettings
from edge.messages import Message, Origin, Outcome, Target
from edge.metrics import Metrics
from edge.topics import covers, matches

_TOPICS_REMEMBERED_MAX = 4096

Tap = Callable[[str, Sequence[Message]], None]
Towards = Callable[[str, str], Target]
"""Source and sender → who takes what comes from them; the same object for the same."""
Refuses = Callable[[str, str], str]
"""Of a sender and a topic: a word for why a target does not take it; empty where it does."""


def comes_from(wanted: str, source: str) -> bool:
    """Whether what a route or a rule names in `from` takes in a source: `boards` does each `board:NAME`."""
    return wanted == source or (wanted == "boards" and source.startswith("board:"))


class _Way:
    """All the targets of one set of messages; one object a set, so that identity tells whether two are alike.

    deaf: of the others that routes name, why each does not take the topic."""

    __slots__ = ("deaf", "targets")

    def __init__(self, targets: tuple[Target, ...], deaf: tuple[str, ...]) -> None:
        self.targets, self.deaf = targets, deaf


class Router:
    """Built with its routes; targets are attached by name. Both may change between two batches."""

    def __init__(self, routes: Sequence[RouteSettings], metrics: Metrics) -> None:
        self._routes = tuple(routes)
        self._targets: dict[str, Target | None] = {}
        self._by_source: dict[str, Towards] = {}
        self._refuses: dict[str, Refuses] = {}
        self._ways: dict[tuple[tuple[str, ...], tuple[str, ...]], _Way] = {}
        self._known: dict[tuple[str, str], dict[str, _Way]] = {}
        self._remembered = 0
        self._metrics = metrics
        self._routed = metrics.counter("messages_routed")
        self._taps: list[Tap] = []

    def attach(self, name: str, target: Target, refuses: Refuses | None = None) -> None:
        """name: as routes write it in `to`: `cloud`, `broker`, `boards`, `board:NAME`, `udp`. refuses: what it never
        takes; asked once for each topic. None: it takes whatever routes give it."""
        self._targets[name] = target
        self._refuses.pop(name, None)
        if refuses is not None:
            self._refuses[name] = refuses
        self._forget()

    def attach_by_source(self, name: str, towards: Towards) -> None:
        """One that must know where a batch comes from."""
        self._targets[name] = None
        self._by_source[name] = towards
        self._forget()

    def detach(self, name: str) -> None:
        """Nothing more goes there; what is under way is settled as ever."""
        self._targets.pop(name, None)
        self._by_source.pop(name, None)
        self._forget()

    def change(self, routes: Sequence[RouteSettings]) -> None:
        """These are the routes from the next batch on."""
        self._routes = tuple(routes)
        self._forget()

    def _forget(self) -> None:
        self._ways.clear()
        self._known.clear()
        self._remembered = 0

    def tap(self, tap: Tap) -> Callable[[], None]:
        """Show each batch that is routed to `tap(source, messages)` too; returns what ends it."""
        self._taps.append(tap)
        return lambda: self._taps.remove(tap)

    def route(self, source: str, sender: str, messages: Sequence[Message], origin: Origin) -> None:
        """Pass a batch on.

        source: where it came from (`board:NAME`, `udp`, `cloud`, `broker`); sender: client id or ''.

        Costs one dictionary look-up a message while all of a batch go one way, as they mostly do.
        """
        if not messages:
            return
        self._routed.value += len(messages)
        for tap in tuple(self._taps):
            tap(source, messages)
        known = self._known.get((source, sender))
        if known is None:
            known = self._known[source, sender] = {}
        first: _Way | None = None
        alike = True
        for message in messages:
            way = known.get(message.topic)
            if way is None:
                way = self._decide(known, source, sender, message.topic)
            if way is not first:
                if first is None:
                    first = way
                else:
                    alike = False
        if alike and first is not None:
            self._send_alike(first, source, messages, origin)
        else:
            self._send_mixed([(message, known.get(message.topic)) for message in messages], source, sender, origin)

    def filters(self, source: str) -> list[str]:
        """The topic filters that routes from this source name: what to subscribe to there.

        Without those that another covers: a broker may send a message once for every filter that takes it."""
        named = list(dict.fromkeys(route.topic for route in self._routes if route.source == source))
        return [one for one in named if not any(covers(other, one) for other in named if other != one)]

    def explain(self, source: str, sender: str, topic: str) -> tuple[str, ...]:
        """The names of the targets that a message would reach."""
        return self._names(source, sender, topic)

    def named(self, source: str, sender: str, topic: str) -> tuple[str, ...]:
        """The names that routes give for a message, attached or not."""
        named: dict[str, None] = {}
        for route in self._routes:
            if not comes_from(route.source, source):
                continue
            if takes(route.topic, sender, topic):
                named.update(dict.fromkeys(route.to))
        if "boards" in named:
            named = {name: None for name in named if not name.startswith("board:")}
        return tuple(named)

    def _names(self, source: str, sender: str, topic: str) -> tuple[str, ...]:
        return self._attached(source, sender, topic)[0]

    def _attached(self, source: str, sender: str, topic: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """(those that take it, why each of the others does not)."""
        why = {
            name: refuses(sender, topic) if (refuses := self._refuses.get(name)) is not None else ""
            for name in self.named(source, sender, topic)
            if name in self._targets
        }
        return tuple(name for name in why if not why[name]), tuple(reason for reason in why.values() if reason)

    def _decide(self, known: dict[str, _Way], source: str, sender: str, topic: str) -> _Way:
        if self._remembered >= _TOPICS_REMEMBERED_MAX:
            for table in self._known.values():
                table.clear()
            for key in [key for key, table in self._known.items() if table is not known]:
                del self._known[key]
            self._ways.clear()
            self._remembered = 0
        way = known[topic] = self._way(source, sender, topic)
        self._remembered += 1
        return way

    def _way(self, source: str, sender: str, topic: str) -> _Way:
        names, deaf = self._attached(source, sender, topic)
        key = names
        if self._by_source and not self._by_source.keys().isdisjoint(names):
            key = (*names, "", source, sender)
        way = self._ways.get((key, deaf))
        if way is None:
            targets = tuple(self._target(name, source, sender) for name in names)
            way = self._ways[key, deaf] = _Way(targets, deaf)
        return way

    def _target(self, name: str, source: str, sender: str) -> Target:
        target = self._targets[name]
        return self._by_source[name](source, sender) if target is None else target

    def _send_alike(self, way: _Way, source: str, messages: Sequence[Message], origin: Origin) -> None:
        targets = way.targets
        for reason in way.deaf:
            self._count_refused(source, reason, len(messages))
        if len(targets) == 1:
            targets[0].send(messages, origin)
        elif targets:
            receipts = [message.receipt for message in messages if message.qos]
            shared = _Shared(origin, dict.fromkeys(receipts, len(targets)))
            for target in targets:
                target.send(messages, shared)
        else:
            self._refuse(source, messages, origin, counted=bool(way.deaf))

    def _send_mixed(
        self, batch: Sequence[tuple[Message, _Way | None]], source: str, sender: str, origin: Origin
    ) -> None:
        """One batch a target, each in the order of the whole."""
        batches: dict[Target, list[Message]] = {}
        votes: dict[int, int] = {}
        refused: dict[bool, list[Message]] = {}
        for message, decided in batch:
            way = decided or self._way(source, sender, message.topic)
            targets = way.targets
            for reason in way.deaf:
                self._count_refused(source, reason, 1)
            if not targets:
                refused.setdefault(bool(way.deaf), []).append(message)
                continue
            if message.qos:
                votes[message.receipt] = len(targets)
            for target in targets:
                batches.setdefault(target, []).append(message)
        one_each = all(count == 1 for count in votes.values())
        towards = origin if one_each else _Shared(origin, votes)
        for target, messages in batches.items():
            target.send(messages, towards)
        for counted, lost in refused.items():
            self._refuse(source, lost, origin, counted=counted)

    def _count_refused(self, source: str, reason: str, count: int) -> None:
        self._metrics.counter("messages_refused", source=source, reason=reason).value += count

    def _refuse(self, source: str, messages: Sequence[Message], origin: Origin, *, counted: bool) -> None:
        if not counted:
            self._count_refused(source, "no_route", len(messages))
        if receipts := [message.receipt for message in messages if message.qos]:
            origin.settled(receipts, Outcome.REFUSED)


class _Shared:
    """Stands as the origin towards several targets; settles when all have: taken if any took it, else refused.

    Congested is told at once, as by a single target: whatever the source sends next would else pass the target that is
    to see this one first, and then take this one for a repeat. What the others say of it later is ignored.

    votes: how many targets each receipt has.
    """

    __slots__ = ("_open", "origin")

    def __init__(self, origin: Origin, votes: Mapping[int, int]) -> None:
        self.origin = origin
        self._open = {receipt: count * _VOTE for receipt, count in votes.items()}  # and in it the heaviest so far

    def settled(self, receipts: Sequence[int], outcome: Outcome) -> None:
        weight, at_once = _WEIGHTS.index(outcome), outcome is Outcome.CONGESTED
        opened = self._open
        done: tuple[list[int], ...] = ([], [], [])
        for receipt in receipts:
            vote = opened.get(receipt)
            if vote is None:
                continue
            heaviest = vote % _VOTE
            if weight > heaviest:
                vote += weight - heaviest
            if at_once or vote < 2 * _VOTE:
                del opened[receipt]
                done[vote % _VOTE].append(receipt)
            else:
                opened[receipt] = vote - _VOTE
        for final, settled in zip(_WEIGHTS, done, strict=True):
            if settled:
                self.origin.settled(settled, final)


_WEIGHTS = (Outcome.REFUSED, Outcome.TAKEN, Outcome.CONGESTED)  # the lightest first
_VOTE = 4


def takes(topic_filter: str, sender: str, topic: str) -> bool:
    """topic_filter: with SENDER in it only for who has a name."""
    if SENDER in topic_filter:
        if not sender:
            return False
        topic_filter = topic_filter.replace(SENDER, sender)
    return matches(topic_filter, topic)
