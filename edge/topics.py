"""MQTT topic names and filters (MQTT 5.0, 4.7), pure."""

from collections.abc import Hashable, Iterator
from itertools import zip_longest
from typing import Generic, TypeVar

from edge.errors import InputRejected

TOPIC_BYTES_MAX = 65535

T = TypeVar("T", bound=Hashable)


def check_topic(topic: str) -> None:
    """Refuse what may not be published to: empty, too long, wildcards, NUL, surrogates. Raises InputRejected."""
    _check_text(topic)
    if "+" in topic or "#" in topic:
        raise InputRejected("topic_wildcard", f"a topic to publish to holds no wildcard: {topic[:80]!r}")


def check_filter(topic_filter: str) -> None:
    """Refuse what may not be subscribed to. Raises InputRejected."""
    _check_text(topic_filter)
    levels = topic_filter.split("/")
    for place, level in enumerate(levels):
        if "#" in level and (level != "#" or place != len(levels) - 1):
            raise InputRejected("filter_wildcard", f"'#' stands alone and last: {topic_filter[:80]!r}")
        if "+" in level and level != "+":
            raise InputRejected("filter_wildcard", f"'+' fills a whole level: {topic_filter[:80]!r}")


def check_heard(topic_filter: str) -> None:
    """`check_filter` for what a route, rule or function hears: messages are taken by their topics, which begin by no
    `$share/GROUP/` (MQTT 5.0, 4.8.2), so that such a filter would take none. Raises InputRejected."""
    check_filter(topic_filter)
    if topic_filter.startswith("$share/"):
        plain = topic_filter.split("/", 2)[-1]
        detail = f"a gateway shares no subscription with others, write {plain[:80]!r} instead of {topic_filter[:80]!r}"
        raise InputRejected("filter_shared", detail)


def _check_text(text: str) -> None:
    if not text:
        raise InputRejected("topic_empty", "a topic or filter has at least one character")
    if "\0" in text:
        raise InputRejected("topic_nul", f"NUL stands in {text[:80]!r}")
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise InputRejected("topic_utf8", str(error)) from None
    if size > TOPIC_BYTES_MAX:
        raise InputRejected("topic_too_long", f"{size} bytes, at most {TOPIC_BYTES_MAX}")


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a valid filter takes a valid topic. A leading wildcard never takes `$…` (4.7.2)."""
    if topic_filter == topic:
        return True
    wanted, have = topic_filter.split("/"), topic.split("/")
    if topic.startswith("$") and wanted[0] in {"+", "#"}:
        return False
    for place, level in enumerate(wanted):
        if level == "#":
            return True
        if place >= len(have) or (level != "+" and level != have[place]):
            return False
    return len(have) == len(wanted)


def overlap(one: str, other: str) -> bool:
    """Whether some topic is taken by both filters."""
    left, right = one.split("/"), other.split("/")
    if left[0] != right[0] and (one.startswith("$") or other.startswith("$")):
        return False
    for a, b in zip(left, right, strict=False):
        if "#" in {a, b}:
            return True
        if a != b and "+" not in {a, b}:
            return False
    longer = left if len(left) > len(right) else right
    return len(left) == len(right) or (longer[min(len(left), len(right))] == "#")


def meet(one: str, other: str) -> str | None:
    """The filter of the topics that both filters take; None where there are none."""
    if not overlap(one, other):
        return None
    left, right = one.split("/"), other.split("/")
    is_open = left[-1] == right[-1] == "#"
    left, right = ([level for level in levels if level != "#"] for levels in (left, right))
    met = [b if a == "+" else a for a, b in zip_longest(left, right, fillvalue="+")]
    return "/".join([*met, "#"] if is_open else met)


def covers(wide: str, narrow: str) -> bool:
    """Whether the first filter takes every topic that the second takes."""
    ours, theirs = wide.split("/"), narrow.split("/")
    if narrow.startswith("$") and ours[0] in {"+", "#"}:
        return False
    for place, level in enumerate(ours):
        if level == "#":
            return True
        if place >= len(theirs) or theirs[place] == "#" or (level != "+" and level != theirs[place]):
            return False
    return len(ours) == len(theirs)


class _Node(Generic[T]):
    __slots__ = ("children", "here")

    def __init__(self) -> None:
        self.children: dict[str, _Node[T]] = {}
        self.here: dict[T, None] = {}


class TopicTree(Generic[T]):
    """Filters to values; `match` costs by the topic's levels, not by the number of filters. Order is that of adding."""

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()

    def add(self, topic_filter: str, value: T) -> None:
        node = self._root
        for level in topic_filter.split("/"):
            node = node.children.setdefault(level, _Node())
        node.here[value] = None

    def remove(self, topic_filter: str, value: T) -> None:
        """Remove what is there; what is not there is no error."""
        path, node = [], self._root
        for level in topic_filter.split("/"):
            child = node.children.get(level)
            if child is None:
                return
            path.append((node, level))
            node = child
        node.here.pop(value, None)
        for parent, level in reversed(path):
            child = parent.children[level]
            if child.here or child.children:
                break
            del parent.children[level]

    def match(self, topic: str) -> list[T]:
        """All values whose filter takes the topic, each once."""
        levels = topic.split("/")
        found: dict[T, None] = {}
        self._collect(self._root, levels, 0, found, dollar=topic.startswith("$"))
        return list(found)

    def _collect(self, node: _Node[T], levels: list[str], depth: int, found: dict[T, None], *, dollar: bool) -> None:
        wild = not (dollar and depth == 0)
        if wild and (rest := node.children.get("#")):
            found.update(rest.here)
        if depth == len(levels):
            found.update(node.here)
            return
        if child := node.children.get(levels[depth]):
            self._collect(child, levels, depth + 1, found, dollar=dollar)
        if wild and (child := node.children.get("+")):
            self._collect(child, levels, depth + 1, found, dollar=dollar)

    def __iter__(self) -> Iterator[tuple[str, T]]:
        stack: list[tuple[str, _Node[T]]] = [("", self._root)]
        while stack:
            path, node = stack.pop()
            yield from ((path[1:], value) for value in node.here)
            stack.extend((f"{path}/{level}", child) for level, child in node.children.items())
