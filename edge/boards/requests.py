"""The requests a board has yet to answer: request id ↔ response topic and correlation data. Pure.

Invariants:
- At most REQUESTS_MAX wait at a time; one that is not answered within REQUEST_EXPIRES_S is forgotten and counted.
- An answer under an id that no request has is counted, never routed.
- A request that the board had acknowledged when it was reset is forgotten and counted; it is not done twice.
- The answer to one request is routed once: its repeats are answered as the first one was.
"""

from collections.abc import Collection

import msgspec

from edge.messages import Properties

REQUESTS_MAX = 64
REQUEST_EXPIRES_S = 60.0


class Request(msgspec.Struct):
    """receipt: of the answer on its way, 0 before; settled: the MQTT-SN return code that ended it."""

    response_topic: str
    correlation_data: bytes | None
    expires: float
    receipt: int = 0
    settled: int | None = None


class Requests:
    """Of one board. Ids run from 1 to 65,535 and around, past those still waiting."""

    __slots__ = ("_last", "_open", "expired", "lost")

    def __init__(self) -> None:
        self._open: dict[int, Request] = {}
        self._last = 0
        self.expired = self.lost = 0

    def open(self, properties: Properties, now: float) -> int | None:
        """A new request's id; None when too many wait."""
        self.expire(now)
        if len(self._open) >= REQUESTS_MAX and not self._forget_answered():
            return None
        while True:
            self._last = self._last % 0xFFFF + 1
            if self._last not in self._open:
                break
        topic = properties.response_topic or ""
        self._open[self._last] = Request(topic, properties.correlation_data, now + REQUEST_EXPIRES_S)
        return self._last

    def find(self, request_id: int, now: float) -> Request | None:
        self.expire(now)
        return self._open.get(request_id)

    def close(self, request_id: int) -> None:
        self._open.pop(request_id, None)

    def lose(self, under_way: Collection[int]) -> None:
        """The board was reset: what it had acknowledged and not answered is lost; it gets what is under way again."""
        for number, request in tuple(self._open.items()):
            if number not in under_way and not request.receipt:
                del self._open[number]
                self.lost += request.settled is None

    def deadline(self) -> float | None:
        """When the oldest expires."""
        return next((request.expires for request in self._open.values()), None)

    def _forget_answered(self) -> bool:
        for number, request in self._open.items():
            if request.settled is not None:
                del self._open[number]
                return True
        return False

    def expire(self, now: float) -> None:
        """Forget what waited too long."""
        while self._open:
            number, oldest = next(iter(self._open.items()))
            if oldest.expires > now:
                return
            del self._open[number]
            self.expired += not oldest.receipt and oldest.settled is None
