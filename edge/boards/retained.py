"""Retained messages, by target and topic (MQTT-SN 1.2, 6.12 by way of MQTT). In memory, bounded, pure.

Invariants:
- A message retained for one target is never given to a subscriber of another: the routes decide who may see it.
- At a bound the newcomer is not kept, and counted; what is kept stays. An empty payload forgets.
"""

from collections.abc import Iterable, Iterator

from edge.messages import Message, properties_bytes
from edge.metrics import Counter
from edge.topics import matches


class Retained:
    """dropped: counts what was not kept. A topic costs its own bytes and those of its payload
    and properties."""

    def __init__(self, messages_max: int, bytes_max: int, dropped: Counter) -> None:
        self._kept: dict[tuple[str, str], Message] = {}
        self._messages_max, self._bytes_max = messages_max, bytes_max
        self._bytes = 0
        self._dropped = dropped

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, target: str, message: Message) -> None:
        key = target, message.topic
        before = self._kept.pop(key, None)
        if before is not None:
            self._bytes -= _size(before)
        if not message.payload:
            return
        size = _size(message)
        if len(self._kept) >= self._messages_max or self._bytes + size > self._bytes_max:
            self._dropped.value += 1
            return
        self._bytes += size
        self._kept[key] = message

    def matching(self, targets: Iterable[str], topic_filter: str) -> Iterator[Message]:
        """Those kept for any of the targets that the filter takes; a topic kept for two comes once."""
        wanted = set(targets)
        seen: set[str] = set()
        for (target, topic), message in self._kept.items():
            if target in wanted and topic not in seen and matches(topic_filter, topic):
                seen.add(topic)
                yield message


def _size(message: Message) -> int:
    return len(message.topic) + len(message.payload) + properties_bytes(message.properties)
