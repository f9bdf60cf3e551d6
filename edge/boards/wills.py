"""Wills on their way: the origin of those that clients left behind. Pure.

Invariants: a will that finds no room is offered again until it is taken or refused; how many wait is bounded, and one
more is dropped and counted.
"""

from collections.abc import Callable, Sequence
from typing import Final

from edge.boards.client import Will
from edge.messages import Message, Origin, Outcome
from edge.metrics import Counter

WILLS_MAX: Final = 64
WILL_AGAIN_S: Final = 1.0

Route = Callable[[str, str, Sequence[Message], Origin], None]


class Wills:
    """The origin of wills: one that finds no room is offered again. Also hears for what nobody waits for."""

    def __init__(self, route: Route, dropped: Counter) -> None:
        self._route, self._dropped = route, dropped
        self._waiting: dict[int, tuple[str, str, Message]] = {}
        self._again: list[int] = []
        self._receipt = 0
        self._now = 0.0
        self.due: float | None = None

    def add(self, source: str, client_id: str, will: Will) -> None:
        if len(self._waiting) >= WILLS_MAX:
            self._dropped.value += 1
            return
        self._receipt += 1
        message = Message(will.topic, will.payload, will.qos, will.retain, self._receipt)
        self._waiting[self._receipt] = source, client_id, message
        self._again.append(self._receipt)
        self.due = 0.0

    def tick(self, now: float) -> None:
        if self.due is None or now < self.due:
            return
        self._now = now
        again, self._again, self.due = self._again, [], None
        for receipt in again:
            source, client_id, message = self._waiting[receipt]
            if not message.qos:
                del self._waiting[receipt]
            self._route(source, client_id, (message,), self)

    def settled(self, receipts: Sequence[int], outcome: Outcome) -> None:
        for receipt in receipts:
            if receipt not in self._waiting:
                continue
            if outcome is Outcome.CONGESTED:
                self._again.append(receipt)
                if self.due is None:
                    self.due = self._now + WILL_AGAIN_S
            else:
                del self._waiting[receipt]
