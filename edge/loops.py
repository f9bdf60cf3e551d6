"""Rules and functions that would feed themselves, by themselves or through others. Pure."""

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


class Loop(msgspec.Struct, frozen=True):
    """What `node` says by `said` comes back to it by `heard`."""

    node: Node
    said: str
    heard: str


def find_loop(
    nodes: Sequence[Node], routes: Sequence[tuple[str, str, Sequence[str]]], exports: Mapping[str, str]
) -> Loop | None:
    """routes: (source, topic filter, targets). exports: `stream:NAME` to the connection it goes on by."""
    feeds: dict[str, list[tuple[str, str, Node]]] = {}
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
                    found.append((said, heard, other))
    for node in nodes:
        seen: set[str] = set()
        stack = [(said, heard, other) for said, heard, other in feeds[node.name]]
        while stack:
            said, heard, other = stack.pop()
            if other is node:
                return Loop(node, said, heard)
            if other.name not in seen:
                seen.add(other.name)
                stack += feeds[other.name]
    return None
