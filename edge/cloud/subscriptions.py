"""Which filters are wanted, and which of them the broker granted in its present session."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence

_SUBSCRIBE_FILTERS_MAX = 8  # in one packet: AWS IoT Core takes no more


class Subscriptions:
    """Invariant: a filter is granted only as long as the broker's session that granted it lasts."""

    def __init__(self) -> None:
        self._granted: dict[str, bool] = {}
        self._asked: dict[int, Sequence[str]] = {}
        self._waiters: dict[str, list[asyncio.Future[None]]] = {}

    def add(self, filters: Iterable[str]) -> list[str]:
        """Want these; return those that were not wanted yet."""
        new = [topic_filter for topic_filter in dict.fromkeys(filters) if topic_filter not in self._granted]
        self._granted.update(dict.fromkeys(new, False))
        return new

    def missing(self, *, session_present: bool) -> list[str]:
        """A connection opened: what to subscribe to on it."""
        self._asked.clear()
        if not session_present:
            self._granted = dict.fromkeys(self._granted, False)
        return [topic_filter for topic_filter, granted in self._granted.items() if not granted]

    def asked(self, packet_id: int, filters: Sequence[str]) -> None:
        self._asked[packet_id] = filters

    def answered(self, packet_id: int, codes: Sequence[int]) -> list[tuple[str, int]]:
        """Return the refused ones, with the broker's reason code; they stay wanted, for the next connection."""
        refused: list[tuple[str, int]] = []
        for topic_filter, code in zip(self._asked.pop(packet_id, ()), codes, strict=False):
            if code >= 0x80:
                refused.append((topic_filter, code))
            else:
                self.grant(topic_filter)
        return refused

    def grant(self, topic_filter: str) -> None:
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


def packets(filters: Sequence[str]) -> Iterator[Sequence[str]]:
    """In portions that any broker takes in one SUBSCRIBE."""
    for start in range(0, len(filters), _SUBSCRIBE_FILTERS_MAX):
        yield filters[start : start + _SUBSCRIBE_FILTERS_MAX]
