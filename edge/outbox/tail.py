"""The newest committed messages in memory, so that an export that keeps up neither reads nor decodes. Pure.

Invariants: what it holds is contiguous and ends with the newest committed record; bounded by messages and by bytes,
the oldest go first, as the log has them. What was stamped before the clock was set anew is not in it: whoever reads it
from the log stamps it by what the clock says then.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from edge.messages import Message, properties_bytes

MESSAGES_MAX: Final = 8192
BYTES_MAX: Final = 2 * 1024 * 1024
_OVERHEAD_BYTES: Final = 250


class Tail:
    """Filled commit by commit. first: the lowest number held; next: the one after the highest. stamped_anew: called
    when the clock was set, for who may take back what was stamped before."""

    def __init__(self) -> None:
        self.first = self.next = 0
        self.stamped_anew: Callable[[], None] = lambda: None
        self._stamped = 0  # below this number by the clock as it was
        self._chunks: deque[tuple[int, list[Message], int]] = deque()
        self._messages = self._bytes = 0

    def put(self, first: int, messages: list[Message]) -> None:
        """messages: numbered from `first` on without a gap."""
        if not messages or first < self._stamped:
            return
        size = sum([len(message.payload) for message in messages]) + _OVERHEAD_BYTES * len(messages)
        size += sum([properties_bytes(message.properties) for message in messages if message.properties is not None])
        if first != self.next:
            self.clear()
        self._chunks.append((first, messages, size))
        self.next = first + len(messages)
        self._messages += len(messages)
        self._bytes += size
        while self._messages > MESSAGES_MAX or self._bytes > BYTES_MAX:
            self._drop()
        self.first = self._chunks[0][0] if self._chunks else self.next

    def take(self, number: int, count: int) -> Sequence[Message]:
        """Messages from `number` on, at most count and of one commit; first <= number < next."""
        self.forget(number)
        for first, messages, _ in self._chunks:
            if number < first + len(messages):
                start = number - first
                if not start and count >= len(messages):
                    return messages
                return messages[start : start + count]
        return ()

    def forget(self, before: int) -> None:
        """Commits wholly below are no longer needed."""
        while self._chunks and self._chunks[0][0] + len(self._chunks[0][1]) <= before:
            self._drop()
        self.first = self._chunks[0][0] if self._chunks else self.next

    def stamp_anew(self, before: int) -> None:
        """The clock was set: what is numbered below, committed or not, is to be stamped by it."""
        self._stamped = before
        self.clear()
        self.first = self.next
        self.stamped_anew()

    def clear(self) -> None:
        self._chunks.clear()
        self._messages = self._bytes = 0

    def _drop(self) -> None:
        _, messages, size = self._chunks.popleft()
        self._messages -= len(messages)
        self._bytes -= size
