"""What would feed itself: rules, functions, and streams that go out in batches, by themselves or through others. Pure.

A message goes the gateway's ways: by routes, and by rules that listen. What is given to a connection comes back from it
(a broker gives everybody what it was given), where the gateway listens to it. What a board is given ends there: what it
says is its own. `edge.config` looks after plain relays.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from edge.topics import meet, overlap

CONNECTIONS = ("cloud", "broker")


class Node(msgspec.Struct, frozen=True):
    """name: as routes know it: `rule:NAME`, `function:NAME`, `stream:NAME`.

    hears: which topics it takes; None: whatever it is given. sources: where from, beside routes that name it as a
    target. says: the topics of what comes of that; to: who gets it, beside routes from it. invokes: whom it calls,
    whatever the topic. letters: the stream of what it failed at.
    """

    name: str
    sources: tuple[str, ...]
    hears: tuple[str, ...] | None
    says: tuple[str, ...]
    to: tuple[str, ...]
    invokes: tuple[str, ...] = ()
    letters: str = ""


class Step(msgspec.Struct, frozen=True):
    """What `node` says by `said` comes to `other` by `heard`; said: empty where it invokes it."""

    node: Node
    said: str
    heard: str
    other: Node

    def told(self) -> str:
        return f"{self.node.name} {f'gives {self.said!r} to' if self.said else 'invokes'} {self.other.name}"


class Loop(msgspec.Struct, frozen=True):
    """The way round, by one step or more: the last comes back to where the first begins."""

    steps: tuple[Step, ...]

    def told(self) -> str:
        last = self.steps[-1]
        if len(self.steps) == 1:
            return f"{last.said!r} comes back to it by {last.heard!r}"
        way = ", ".join(step.told() for step in self.steps)
        if not last.said:
            return f"the call of {last.other.name} comes back to it: {way}"
        return f"{last.said!r} comes back to {last.other.name} by {last.heard!r}: {way}"


Routes = Sequence[tuple[str, str, Sequence[str]]]


def find_loop(nodes: Sequence[Node], routes: Routes, exports: Mapping[str, str]) -> Loop | None:
    """routes: (source, topic filter, targets). exports: `stream:NAME` to the connection that it goes on by, of streams
    that change no topic; those that do are nodes."""
    ways = _Ways(nodes, routes, exports)
    feeds = {node.name: list(ways.of(node)) for node in nodes}
    for node in nodes:
        seen: set[str] = set()
        found: deque[tuple[Step, ...]] = deque((step,) for step in feeds[node.name])
        while found:
            way = found.popleft()  # the shortest come first
            other = way[-1].other
            if other.name == node.name:
                return Loop(way)
            if other.name not in seen:
                seen.add(other.name)
                found.extend((*way, step) for step in feeds[other.name])
    return None


class _Ways:
    """Where what a node says gets to."""

    def __init__(self, nodes: Sequence[Node], routes: Routes, exports: Mapping[str, str]) -> None:
        self._nodes, self._exports = {node.name: node for node in nodes}, exports
        self._from: dict[str, list[tuple[str, Sequence[str]]]] = {}
        for source, topic, to in routes:
            self._from.setdefault(source, []).append((topic, to))

    def of(self, node: Node) -> Iterator[Step]:
        for name in node.invokes:
            if name in self._nodes:
                yield Step(node, "", "", self._nodes[name])
        for said in node.says:
            yield from self._steps(node, said, [node.name], node.to)
        if node.letters:
            for heard in node.hears or ():
                yield from self._steps(node, f"dead-letter/{node.name.partition(':')[2]}/{heard}", [], [node.letters])

    def _steps(self, node: Node, said: str, places: Iterable[str], to: Iterable[str]) -> Iterator[Step]:
        """places: sources from which it comes; to: targets that it is given to."""
        left = deque([*((place, said, True) for place in places), *((name, said, False) for name in to)])
        seen = set(left)
        while left:
            name, topics, is_source = left.popleft()
            if is_source:
                nodes = [other for other in self._nodes.values() if name in other.sources]
                ways = [(meet(topic, topics), targets) for topic, targets in self._from.get(name, ())]
                found = [(target, met, False) for met, targets in ways if met is not None for target in targets]
            else:
                nodes = [self._nodes[name]] if name in self._nodes else []
                end = self._exports.get(name, name)
                found = [(end, topics, True)] if end in CONNECTIONS else []
            for other in nodes:
                if (heard := _heard(other, topics)) is not None:
                    yield Step(node, said, heard, other)
            new = [one for one in dict.fromkeys(found) if one not in seen]
            seen.update(new)
            left.extend(new)


def _heard(node: Node, topics: str) -> str | None:
    if node.hears is None:
        return topics
    return next((heard for heard in node.hears if overlap(heard, topics)), None)
