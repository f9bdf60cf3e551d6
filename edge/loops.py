"""Rules and functions that would feed themselves, by themselves or through others. Pure."""

from collections import deque
from collections.abc import Mapping, Sequence

import msgspec

from edge.topics import overlap


class Node(msgspec.Struct, frozen=True):
    """name: as a source, `rule:NAME` or `function:NAME`. hears, from these sources; says, to these targets: filters."""

    name: str
    sources: tuple[str, ...]
    hears: tuple[str, ...]
    says: tuple[str, ...]
    to: tuple[str, ...]


class Step(msgspec.Struct, frozen=True):
    """What `node` says by `said` comes to `other` by `heard`."""

    node: Node
    said: str
    heard: str
    other: Node


class Loop(msgspec.Struct, frozen=True):
    """The way round, by one step or more: the last comes back to where the first begins."""

    steps: tuple[Step, ...]

    def told(self) -> str:
        last = self.steps[-1]
        if len(self.steps) == 1:
            return f"{last.said!r} comes back to it by {last.heard!r}"
        way = ", ".join(f"{step.node.name} gives {step.said!r} to {step.other.name}" for step in self.steps)
        return f"{last.said!r} comes back to {last.other.name} by {last.heard!r}: {way}"


def find_loop(
    nodes: Sequence[Node], routes: Sequence[tuple[str, str, Sequence[str]]], exports: Mapping[str, str]
) -> Loop | None:
    """routes: (source, topic filter, targets). exports: `stream:NAME` to the connection it goes on by."""
    feeds: dict[str, list[Step]] = {}
    for node in nodes:
        found = feeds[node.name] = []
        for said in node.says:
            reached = {node.name, *node.to}
            for source, topic, to in routes:
                if source == node.name and overlap(topic, said):
                    reached.update(to)
            reached |= {exports[to] for to in reached if exports.get(to)}
            for other in nodes:
                heard = next((heard for heard in other.hears if overlap(said, heard)), None)
                if heard is not None and (reached & set(other.sources) or other.name in node.to):
                    found.append(Step(node, said, heard, other))
    for node in nodes:
        seen: set[str] = set()
        ways: deque[tuple[Step, ...]] = deque((step,) for step in feeds[node.name])
        while ways:
            way = ways.popleft()  # the shortest come first
            other = way[-1].other
            if other is node:
                return Loop(way)
            if other.name not in seen:
                seen.add(other.name)
                ways.extend((*way, step) for step in feeds[other.name])
    return None
