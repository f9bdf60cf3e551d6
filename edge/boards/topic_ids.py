"""The topic ids of one MQTT-SN client (MQTT-SN 1.2, 5.3.11, 6.5, 6.7). Pure.

Invariants:
- A normal id names one topic for the session's life; both directions share the one table.
- A gateway publishes under a normal id only after the client knows it: by its own REGISTER or SUBSCRIBE, or by a
  REGACK to the gateway's.
- The table is bounded in ids and in bytes; when it is full nothing is forgotten, the newcomer is refused.
"""

from collections.abc import Mapping

from edge.boards.mqttsn import short_topic, short_topic_id
from edge.boards.packets import NORMAL, PREDEFINED, SHORT
from edge.errors import InputRejected

TABLE_BYTES_MAX = 128 * 1024
_ID_MAX = 0xFFFE


class TopicIds:
    """names: normal id → topic, for the hot path to look into; predefined: id → topic, as configured."""

    __slots__ = ("_bytes", "_ids", "_known", "_max", "_next", "_predefined", "_predefined_ids", "names")

    def __init__(self, predefined: Mapping[int, str], topics_max: int) -> None:
        self.names: dict[int, str] = {}
        self._ids: dict[str, int] = {}
        self._known: set[int] = set()
        self._predefined = predefined
        self._predefined_ids = {topic: number for number, topic in predefined.items()}
        self._max = min(topics_max, _ID_MAX)
        self._next = 1
        self._bytes = 0

    def allot(self, topic: str) -> int | None:
        """The topic's normal id, a new one if need be; None when the table is full."""
        number = self._ids.get(topic)
        if number is None:
            size = len(topic.encode())
            if len(self.names) >= self._max or self._bytes + size > TABLE_BYTES_MAX:
                return None
            number, self._next = self._next, self._next + 1
            self._bytes += size
            self._ids[topic] = number
            self.names[number] = topic
        return number

    def learn(self, number: int) -> None:
        """The client knows this normal id now."""
        self._known.add(number)

    def unlearn(self, number: int) -> None:
        """The client says that it does not know this id: it must be registered again."""
        self._known.discard(number)

    def topic(self, topic_type: int, number: int) -> str | None:
        """What a PUBLISH, SUBSCRIBE or UNSUBSCRIBE names; None when no one said what it means."""
        if topic_type == NORMAL:
            return self.names.get(number)
        if topic_type == PREDEFINED:
            return self._predefined.get(number)
        try:
            return short_topic(number)
        except InputRejected:
            return None

    def reference(self, topic: str) -> tuple[int, int] | None:
        """(topic id type, id) under which the client understands a topic; None when it needs a REGISTER first."""
        number = self._ids.get(topic)
        if number is not None and number in self._known:
            return NORMAL, number
        number = self._predefined_ids.get(topic)
        if number is not None:
            return PREDEFINED, number
        if len(topic) == 2 and (short := short_topic_id(topic)) is not None:
            return SHORT, short
        return None
