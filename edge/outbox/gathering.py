"""What one commit brings: the messages that were taken for it, and who waits to hear of them."""

from edge.messages import Message, Origin, Outcome


class Gathering:
    """fresh: messages taken, whatever became of them; 0 while there is nothing to commit for anybody's sake."""

    __slots__ = ("_waiting", "bytes", "fresh", "messages")

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.bytes = 0
        self.fresh = 0
        self._waiting: list[tuple[Origin, list[int], Outcome]] = []

    def wait(self, origin: Origin, receipts: list[int], outcome: Outcome) -> None:
        """These are settled with `settle`."""
        waiting = self._waiting
        if waiting and waiting[-1][0] is origin and waiting[-1][2] is outcome:
            waiting[-1][1].extend(receipts)
        else:
            waiting.append((origin, receipts, outcome))

    def settle(self) -> None:
        for origin, receipts, outcome in self._waiting:
            origin.settled(receipts, outcome)
