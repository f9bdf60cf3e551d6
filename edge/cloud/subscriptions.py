"""Which filters are wanted, which of them the broker granted in its present session, and which it is to let go."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence

from edge.topics import overlap

_FILTERS_MAX = 8  # in one packet: AWS IoT Core takes no more


class Subscriptions:
    """held: what the broker may hold from before; keep: told what it may hold now, whenever that changes.

    Invariants: a filter is granted only as long as the broker's session that granted it lasts; each filter that the
    broker may hold is wanted or leaving; one that leaves is let go only when every wanted filter that takes some of
    its topics is granted, so that at no time a wanted message comes by none.
    """

    def __init__(self, held: Iterable[str] = (), keep: Callable[[Iterable[str]], None] = lambda filters: None) -> None:
        self._granted: dict[str, bool] = {}
        self._leaving: dict[str, int] = dict.fromkeys(held, 0)
        """With the UNSUBSCRIBE that says so on this connection, 0 for none."""
        self._asked: dict[int, Sequence[str]] = {}
        self._waiters: dict[str, list[asyncio.Future[None]]] = {}
        self._keep, self._kept = keep, set(self._leaving)

    def add(self, filters: Iterable[str]) -> list[str]:
        """Want these; return those that were not wanted yet."""
        new = [topic_filter for topic_filter in dict.fromkeys(filters) if topic_filter not in self._granted]
        self._granted.update(dict.fromkeys(new, False))
        for topic_filter in new:
            self._leaving.pop(topic_filter, None)
        if new:
            self._tell()
        return new

    def drop(self, filters: Iterable[str]) -> None:
        """Want these no longer; what was never wanted is no error."""
        for topic_filter in filters:
            if self._granted.pop(topic_filter, None) is not None:
                self._leaving[topic_filter] = 0

    def missing(self, *, session_present: bool) -> list[str]:
        """A connection opened: what to subscribe to on it."""
        self._asked.clear()
        if session_present:
            self._leaving = dict.fromkeys(self._leaving, 0)
        else:
            self._granted = dict.fromkeys(self._granted, False)
            self._leaving.clear()
            self._tell()
        return [topic_filter for topic_filter, granted in self._granted.items() if not granted]

    def due(self) -> list[str]:
        """What the broker may let go now, and was not told to on this connection."""
        missing = [topic_filter for topic_filter, granted in self._granted.items() if not granted]
        return [
            topic_filter
            for topic_filter, packet_id in self._leaving.items()
            if not packet_id and not any(overlap(topic_filter, one) for one in missing)
        ]

    def asked(self, packet_id: int, filters: Sequence[str]) -> None:
        self._asked[packet_id] = filters

    def asked_to_let_go(self, packet_id: int, filters: Sequence[str]) -> None:
        self._asked[packet_id] = filters
        self._leaving.update(dict.fromkeys(filters, packet_id))

    def answered(self, packet_id: int, codes: Sequence[int]) -> list[tuple[str, int]]:
        """Return the refused ones, with the broker's reason code; they stay wanted, for the next connection."""
        refused: list[tuple[str, int]] = []
        for topic_filter, code in zip(self._asked.pop(packet_id, ()), codes, strict=False):
            if code >= 0x80:
                refused.append((topic_filter, code))
            else:
                self.grant(topic_filter)
        return refused

    def let_go(self, packet_id: int, codes: Sequence[int]) -> list[tuple[str, int]]:
        """codes: none under MQTT 3.1.1. Return the refused ones; they are to leave on the next connection."""
        refused: list[tuple[str, int]] = []
        filters = self._asked.pop(packet_id, ())
        for topic_filter, code in zip(filters, codes or [0] * len(filters), strict=False):
            if code >= 0x80:
                refused.append((topic_filter, code))
            elif self._leaving.get(topic_filter) == packet_id:  # else it is wanted again
                del self._leaving[topic_filter]
        self._tell()
        return refused

    def grant(self, topic_filter: str) -> None:
        if topic_filter not in self._granted:
            return  # it was dropped meanwhile
        self._granted[topic_filter] = True
        for waiter in self._waiters.pop(topic_filter, ()):
            if not waiter.done():
                waiter.set_result(None)

    async def granted(self, topic_filter: str) -> None:
        """Return as soon as the broker has granted it."""
        if not self._granted.get(topic_filter):
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.setdefault(topic_filter, []).append(waiter)
            await waiter

    def _tell(self) -> None:
        held = {*self._granted, *self._leaving}
        if held != self._kept:
            self._kept = held
            self._keep(sorted(held))


def packets(filters: Sequence[str]) -> Iterator[Sequence[str]]:
    """In portions that any broker takes in one SUBSCRIBE or UNSUBSCRIBE."""
    for start in range(0, len(filters), _FILTERS_MAX):
        yield filters[start : start + _FILTERS_MAX]
