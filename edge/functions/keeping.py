"""Which routes stay while what runs of a function is as the gateway file was before. Pure.

It goes on publishing until a new version is ready, for good if that does not start. A route by which a function or a
rule would now feed itself, by itself or through others, is not kept.
"""

from collections.abc import Sequence

import msgspec

from edge.config import Config, RouteSettings
from edge.loops import Node
from edge.topics import covers, overlap


class Before(msgspec.Struct, frozen=True):
    """What a version of a function was given. target: `function:NAME`. publish: its filters; routes: of that."""

    target: str
    publish: tuple[str, ...]
    routes: tuple[RouteSettings, ...]


def kept_routes(config: Config, rules: Sequence[Node], before: Sequence[Before]) -> list[RouteSettings]:
    """config, rules: as the file is now. before: of all that runs."""
    there = set(config.all_routes)
    old = dict.fromkeys((one, route) for one in before for route in one.routes if route not in there)
    nodes = [*config.function_nodes, *rules]
    if _fits(config, nodes, list(old)):
        return list(dict.fromkeys(route for _, route in old))
    kept: list[tuple[Before, RouteSettings]] = []
    for each in old:
        if _fits(config, nodes, [*kept, each]):
            kept.append(each)
    return list(dict.fromkeys(route for _, route in kept))


def _fits(config: Config, nodes: Sequence[Node], old: Sequence[tuple[Before, RouteSettings]]) -> bool:
    """Whether nobody feeds itself with these routes beside those of the file."""
    if not old:
        return True
    said: dict[str, tuple[str, ...]] = {}
    for one, route in old:
        by_it = (route.topic if covers(topic, route.topic) else topic for topic in one.publish)
        said[one.target] = (*said.get(one.target, ()), *(topic for topic in by_it if overlap(topic, route.topic)))
    saying = [
        msgspec.structs.replace(node, says=tuple(dict.fromkeys((*node.says, *said.get(node.name, ())))))
        for node in nodes
    ]
    routes = (*config.routes, *(route for _, route in old))
    return msgspec.structs.replace(config, routes=routes).find_loop(saying) is None
