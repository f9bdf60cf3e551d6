"""Records whose message expiry interval ran out before they could go (MQTT 5.0, 3.3.2.3.3): never sent. Pure.

Invariant: each is counted once, when the cursor is past it, so that the commit that gives it up tells it, however often
it was read and wherever its time ran out: in the log, or where it waited for the connection.
"""

from collections.abc import Callable, Sequence
from typing import Final

from edge.messages import Message, Reading, aged, may_expire
from edge.outbox.lanes import Sent
from edge.outbox.record import decode

WAITING_MAX: Final = 4096


class Expired:
    """Those that the cursor is not past yet. is_full: no more are to be looked for until it moved."""

    def __init__(self) -> None:
        self._readings: dict[int, Reading] = {}

    @property
    def is_full(self) -> bool:
        return len(self._readings) >= WAITING_MAX

    def add(self, messages: Sequence[Message]) -> None:
        self._readings.update({one.receipt: one.reading for one in messages if one.reading is not None})

    def passed(self, sent: Sent) -> list[Reading]:
        """Those to count now."""
        if not self._readings:
            return []
        return [self._readings.pop(number) for number in tuple(self._readings) if sent.is_settled(number)]

    def forget(self, before: int) -> None:
        """Who gave up all below counted these too."""
        self._readings = {number: reading for number, reading in self._readings.items() if number >= before}


def living(
    messages: Sequence[Message], rows: Sequence[tuple[int, bytes]], age_ms: Callable[[int, int], int]
) -> tuple[Sequence[Message], list[Message]]:
    """(those that may still go, their interval lowered by the time they were held; those that ran out).

    rows: the records that they are from. age_ms(boot, taken_ms): how old one is, or how old at least.
    """
    if not may_expire(messages):
        return messages, []
    records = dict(rows)
    found: list[Message] = []
    ended: list[Message] = []
    for message in messages:
        properties = message.properties
        if properties is None or properties.expiry_s is None or (record := decode(records[message.receipt])) is None:
            found.append(message)
            continue
        held_ms = age_ms(record.boot, record.taken_ms)
        if held_ms >= properties.expiry_s * 1000:
            ended.append(message)
        else:
            found.append(aged(message, held_ms // 1000))
    return found, ended
