"""What a function may publish, and whom it may call. Pure."""

from collections.abc import Sequence
from typing import Final

from edge.errors import InputRejected
from edge.topic_bounds import GENERAL
from edge.topics import check_topic, matches

PAYLOAD_BYTES_MAX: Final = 128 * 1024
TOPICS_REMEMBERED_MAX: Final = 4096


class Denial(Exception):
    """reason: a word of `wire.Reply.error`."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason, self.detail = reason, detail
        super().__init__(detail)


class Grants:
    """What one version of a function may. filters: its `publish`; invoke: the functions that it may call."""

    def __init__(self, filters: Sequence[str], invoke: Sequence[str] = ()) -> None:
        self._filters, self._invoke = filters, invoke
        self._known: dict[str, bool] = {}

    def check(self, topic: str, payload: bytes) -> None:
        """Raises Denial: `invalid_topic`, `denied`, `too_large`."""
        allowed = self._known.get(topic)
        if allowed is None:
            try:
                check_topic(topic)
            except InputRejected as error:
                raise Denial("invalid_topic", str(error)[:200]) from None
            if (wrong := GENERAL.wrong(topic)) is not None:
                raise Denial("invalid_topic", f"{topic[:200]!r} has {wrong[1]}")
            if len(self._known) >= TOPICS_REMEMBERED_MAX:
                self._known.clear()
            allowed = self._known[topic] = any(matches(one, topic) for one in self._filters)
        if not allowed:
            raise Denial("denied", f"{topic[:200]!r} is not in the function's `publish`")
        if len(payload) > PAYLOAD_BYTES_MAX:
            raise Denial("too_large", f"{len(payload)} bytes, at most {PAYLOAD_BYTES_MAX}")

    def may_publish(self, topic: str) -> None:
        """Raises Denial."""
        self.check(topic, b"")

    def may_invoke(self, function: str) -> bool:
        return function in self._invoke


class Handled:
    """Which topics the code has a handler for. filters: None for all."""

    def __init__(self, filters: Sequence[str] | None) -> None:
        self.filters = filters
        self._known: dict[str, bool] = {}

    def __contains__(self, topic: str) -> bool:
        if self.filters is None:
            return True
        known = self._known.get(topic)
        if known is None:
            if len(self._known) >= TOPICS_REMEMBERED_MAX:
                self._known.clear()
            known = self._known[topic] = any(matches(one, topic) for one in self.filters)
        return known
