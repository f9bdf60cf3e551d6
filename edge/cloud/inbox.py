"""What came from the broker, on its way to those who subscribed, and the acknowledgements on their way back.

Invariants: each received QoS 1 or 2 message is acknowledged at most once, when all its receivers have settled it; a
CONGESTED one is kept and offered again, and later ones of the same topic wait behind it. How much is kept is bounded
by the receive maximum, as none of it is acknowledged. After `lost` no receipt from before acknowledges anything.
"""

from collections.abc import Callable, Sequence

from edge.cloud.backoff import Backoff
from edge.messages import Message, Origin, Outcome
from edge.metrics import Counter
from edge.topics import TopicTree

Receive = Callable[[Sequence[Message], Origin], None]
Acknowledge = Callable[[Sequence[int], Outcome], None]
Later = Callable[[float, Callable[[], None]], object]

AGAIN_S_MIN = 0.1
AGAIN_S_MAX = 5.0
_ROUTES_CACHED_MAX = 10_000


class Inbox:
    """acknowledge(receipts, TAKEN or REFUSED) answers the broker. later: as loop.call_later, to offer again.

    unexpected: counts messages no one subscribed to; offered_again: counts what was offered once more.
    """

    def __init__(
        self,
        acknowledge: Acknowledge,
        later: Later,
        random: Callable[[], float],
        *,
        unexpected: Counter,
        offered_again: Counter,
    ) -> None:
        self._acknowledge, self._later, self._random = acknowledge, later, random
        self._unexpected, self.offered_again = unexpected, offered_again
        self._tree: TopicTree[Receiver] = TopicTree()
        self._receivers: dict[Receive, Receiver] = {}
        self._routes: dict[str, tuple[Receiver, ...]] = {}
        self._shared: dict[int, _Shares] = {}

    @property
    def kept(self) -> int:
        """How many wait to be offered again."""
        return sum(receiver.kept for receiver in self._receivers.values())

    def subscribe(self, filters: Sequence[str], receive: Receive) -> None:
        receiver = self._receivers.get(receive)
        if receiver is None:
            backoff = Backoff(AGAIN_S_MIN, AGAIN_S_MAX, self._random)
            receiver = self._receivers[receive] = Receiver(self, receive, backoff, self._later)
        for topic_filter in filters:
            self._tree.add(topic_filter, receiver)
        self._routes.clear()

    def unsubscribe(self, filters: Sequence[str], receive: Receive) -> list[str]:
        """Return those that no receiver asks for now."""
        receiver = self._receivers.get(receive)
        if receiver is None:
            return []
        for topic_filter in filters:
            self._tree.remove(topic_filter, receiver)
        self._routes.clear()
        asked = {topic_filter for topic_filter, _ in self._tree}
        return [topic_filter for topic_filter in filters if topic_filter not in asked]

    def deliver(self, messages: Sequence[Message]) -> None:
        """Hand all of one read on, in order, in one batch for each receiver that has some of it."""
        if len(self._receivers) == 1:  # it gets even what it did not ask for, and says what is to become of it
            for receiver in self._receivers.values():
                receiver.offer(messages)
            return
        routes = self._routes
        batches: dict[Receiver, list[Message]] = {}
        for message in messages:
            receivers = routes.get(message.topic)
            if receivers is None:
                receivers = self._route(message.topic)
            if len(receivers) == 1:
                receiver = receivers[0]
                if receiver in batches:
                    batches[receiver].append(message)
                else:
                    batches[receiver] = [message]
            else:
                self._fan_out(message, receivers, batches)
        for receiver, batch in batches.items():
            receiver.offer(batch)

    def lost(self) -> None:
        """The transport is gone: from now on nothing received before is acknowledged."""
        self._shared.clear()
        for receiver in self._receivers.values():
            receiver.lost()

    def resumed(self) -> None:
        """The broker kept the session, so it sends again what is kept here."""
        for receiver in self._receivers.values():
            receiver.forget()

    def finish(self, receipts: Sequence[int], outcome: Outcome) -> None:
        """A receiver settled these for good."""
        if not self._shared:
            self._acknowledge(receipts, outcome)
            return
        taken: list[int] = []
        refused: list[int] = []
        for receipt in receipts:
            shares = self._shared.get(receipt)
            if shares is not None:
                shares.open -= 1
                shares.taken |= outcome is Outcome.TAKEN
                if shares.open:
                    continue
                del self._shared[receipt]
                (taken if shares.taken else refused).append(receipt)
            else:
                (taken if outcome is Outcome.TAKEN else refused).append(receipt)
        if taken:
            self._acknowledge(taken, Outcome.TAKEN)
        if refused:
            self._acknowledge(refused, Outcome.REFUSED)

    def _route(self, topic: str) -> tuple["Receiver", ...]:
        if len(self._routes) >= _ROUTES_CACHED_MAX:
            self._routes.clear()
        receivers = self._routes[topic] = tuple(self._tree.match(topic))
        return receivers

    def _fan_out(
        self, message: Message, receivers: tuple["Receiver", ...], batches: dict["Receiver", list[Message]]
    ) -> None:
        if not receivers:
            self._unexpected.value += 1
            if message.qos:
                self._acknowledge([message.receipt], Outcome.REFUSED)
            return
        if message.qos:
            self._shared[message.receipt] = _Shares(len(receivers))
        for receiver in receivers:
            batches.setdefault(receiver, []).append(message)


class _Shares:
    """Of one message with several receivers: how many have yet to settle it, and whether any took it."""

    __slots__ = ("open", "taken")

    def __init__(self, count: int) -> None:
        self.open, self.taken = count, False


class Receiver:
    """One who subscribed. It is the Origin of what it is given."""

    def __init__(self, inbox: Inbox, receive: Receive, backoff: Backoff, later: Later) -> None:
        self._inbox, self._receive, self._backoff, self._later = inbox, receive, backoff, later
        self._pending: dict[int, Message] = {}
        self._kept: dict[str, list[Message]] = {}
        self._waiting = self._again_open = False

    @property
    def kept(self) -> int:
        return sum(map(len, self._kept.values()))

    def offer(self, messages: Sequence[Message]) -> None:
        if self._kept:
            messages = self._keep_behind(messages)
        pending = self._pending
        for message in messages:
            if message.qos:
                pending[message.receipt] = message
        if messages:
            self._receive(messages, self)

    def settled(self, receipts: Sequence[int], outcome: Outcome) -> None:
        """What is not open any more, or came over a connection that is lost, is passed over."""
        pop = self._pending.pop
        if outcome is Outcome.CONGESTED:
            for receipt in receipts:
                message = pop(receipt, None)
                if message is not None:
                    self._kept.setdefault(message.topic, []).append(message)
            self._wait()
            return
        done = [receipt for receipt in receipts if pop(receipt, None) is not None]
        if self._again_open and not self._pending and not self._kept:
            self._again_open = False
            self._backoff.reset()
        if done:
            self._inbox.finish(done, outcome)

    def lost(self) -> None:
        self._pending.clear()

    def forget(self) -> None:
        self._kept.clear()

    def _keep_behind(self, messages: Sequence[Message]) -> list[Message]:
        """Keep those whose topic has one waiting; return the others. QoS 0 waits for nothing."""
        passing: list[Message] = []
        for message in messages:
            waiting = self._kept.get(message.topic)
            if waiting is None or not message.qos:
                passing.append(message)
            else:
                waiting.append(message)
        return passing

    def _wait(self) -> None:
        if self._kept and not self._waiting:
            self._waiting = True
            self._later(self._backoff.next_s(), self._again)

    def _again(self) -> None:
        self._waiting, self._again_open = False, True
        messages = [message for waiting in self._kept.values() for message in waiting]
        self._kept.clear()
        self._inbox.offered_again.value += len(messages)
        self.offer(messages)
