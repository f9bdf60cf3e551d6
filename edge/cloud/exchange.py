"""What a connection to a broker has in hand, whatever client it runs on: what waits to go up, what came and who is to
have it, the filters wanted, the requests under way; and the counters of all of it, so that each client counts alike.

It knows no transport and no packet. A connection takes the parts it needs for each batch out of it once, at its start.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import msgspec

from edge.cloud.connection import REQUEST_TIMEOUT_S, ConnectionState, Payload
from edge.cloud.held import HeldFilters
from edge.cloud.inbox import Acknowledge, Inbox, Receive
from edge.cloud.queue import Queue
from edge.cloud.requests import Carrier, Requests
from edge.cloud.subscriptions import Subscriptions
from edge.config import ConnectionSettings
from edge.logs import log_event
from edge.messages import Message, Origin, Outcome
from edge.metrics import Metrics
from edge.topics import check_filter

_log = logging.getLogger(__name__)


class Exchange:
    """connection: sends and subscribes for the requests. acknowledge(receipts, outcome) answers the broker. in_flight:
    how many were sent and are not answered yet. reply_topic, held: as CodecConnection's. properties: whether the
    protocol has them (MQTT 5)."""

    def __init__(
        self,
        connection: Carrier,
        acknowledge: Acknowledge,
        in_flight: Callable[[], int],
        settings: ConnectionSettings,
        metrics: Metrics,
        *,
        name: str,
        reply_topic: str,
        properties: bool,
        random: Callable[[], float],
        held: HeldFilters | None = None,
    ) -> None:
        self._in_flight, self._metrics, self._name = in_flight, metrics, name
        self.queue = Queue(
            settings.queue_messages_max,
            settings.queue_bytes_max,
            dropped=metrics.counter("connection_messages_dropped", connection=name, reason="queue_full"),
            congested=metrics.counter("connection_messages_congested", connection=name),
            expired=metrics.counter("connection_messages_dropped", connection=name, reason="expired"),
            clock=loop_time,
        )
        self.inbox = Inbox(
            acknowledge,
            call_later,
            random,
            unexpected=metrics.counter("connection_messages_unexpected", connection=name),
            offered_again=metrics.counter("connection_messages_offered_again", connection=name),
        )
        self.subscriptions = Subscriptions() if held is None else Subscriptions(held.load(), held.save)
        self.requests = Requests(connection, reply_topic or f"reply/{settings.client_id}", properties=properties)
        self.received = metrics.counter("connection_messages_in", connection=name)
        self.sent = metrics.counter("connection_messages_out", connection=name)
        self.taken = metrics.counter("connection_messages_taken", connection=name)
        metrics.gauge("connection_queue_messages", lambda: self.queue.messages, connection=name)
        metrics.gauge("connection_queue_bytes", lambda: self.queue.bytes, connection=name)
        metrics.gauge("connection_in_flight", in_flight, connection=name)
        metrics.gauge("connection_inbox_kept", lambda: self.inbox.kept, connection=name)

    def state(self, connected: ConnectionState) -> ConnectionState:
        """With how much is in hand now."""
        return msgspec.structs.replace(
            connected,
            queued_messages=self.queue.messages,
            queued_bytes=self.queue.bytes,
            in_flight=self._in_flight(),
        )

    def subscribe(self, filters: Sequence[str], receive: Receive) -> list[str]:
        """Return those not wanted before, to ask the broker for. Raises InputRejected for what is no filter."""
        for topic_filter in filters:
            check_filter(topic_filter)
        self.inbox.subscribe(filters, receive)
        return self.subscriptions.add(filters)

    def unsubscribe(self, filters: Sequence[str], receive: Receive) -> None:
        """What nobody else wants is due to be let go at the broker."""
        self.subscriptions.drop(self.inbox.unsubscribe(filters, receive))

    def opened(self, *, session_present: bool) -> list[str]:
        """The broker let us in. Return the filters to ask it for."""
        if session_present:
            self.inbox.resumed()
        return self.subscriptions.missing(session_present=session_present)

    def answered(self, packet_id: int, codes: Sequence[int], name_of: Callable[[int], str]) -> None:
        """The broker's answer to a SUBSCRIBE. name_of: a reason code as logs and metrics have it."""
        refused = self.subscriptions.answered(packet_id, codes)
        self._tell_refused("subscription", refused, name_of, "Allow this client to subscribe to it.")

    def let_go(self, packet_id: int, codes: Sequence[int], name_of: Callable[[int], str]) -> None:
        """The broker's answer to an UNSUBSCRIBE."""
        refused = self.subscriptions.let_go(packet_id, codes)
        self._tell_refused("unsubscription", refused, name_of, "It is asked for again at the next connection.")

    def _tell_refused(
        self, what: str, refused: Sequence[tuple[str, int]], name_of: Callable[[int], str], remedy: str
    ) -> None:
        for topic_filter, code in refused:
            reason = name_of(code)
            self._metrics.counter(f"connection_{what}s_refused", connection=self._name, reason=reason).value += 1
            log_event(
                _log,
                f"{what}_refused",
                level=logging.WARNING,
                connection=self._name,
                filter=topic_filter,
                reason=reason,
                remedy=remedy,
            )

    def not_taken(self, count: int, outcome: Outcome, reason: str) -> None:
        """Count what the broker refused, or had no room for."""
        name = "refused" if outcome is Outcome.REFUSED else "congested"
        self._metrics.counter(f"connection_messages_{name}", connection=self._name, reason=reason).value += count

    def passed_over(self, topic: str, size: int) -> None:
        """A message came that is larger than asked for: it is acknowledged, counted and gone."""
        self._metrics.counter("connection_messages_too_large", connection=self._name).value += 1
        log_event(
            _log,
            "message_too_large",
            level=logging.WARNING,
            connection=self._name,
            topic=topic,
            bytes=size,
            remedy="Raise message_bytes_max, or let its source send less at once.",
        )


class OnExchange(ABC):
    """What every Connection does alike with what it has in hand. Both of a client's own do nothing while it has no
    connection: as it opens they are called for all that is due."""

    _exchange: Exchange

    @abstractmethod
    def _ask(self, filters: Sequence[str]) -> None:
        """Subscribe to these."""

    @abstractmethod
    def _let_go(self) -> None:
        """Give up at the broker what nothing wants any more and nothing needs until its successor stands."""

    def subscribe(self, filters: Sequence[str], receive: Receive) -> None:
        if new := self._exchange.subscribe(filters, receive):
            self._ask(new)

    def unsubscribe(self, filters: Sequence[str], receive: Receive) -> None:
        self._exchange.unsubscribe(filters, receive)
        self._let_go()

    def take_back(self, origin: Origin, unwanted: Callable[[int], bool]) -> list[int]:
        def is_one(message: Message, whose: Origin) -> bool:
            return whose is origin and message.qos > 0 and unwanted(message.receipt)

        return [message.receipt for messages, _ in self._exchange.queue.take_out(is_one) for message in messages]

    async def granted(self, topic_filter: str) -> None:
        await self._exchange.subscriptions.granted(topic_filter)

    async def request(
        self,
        topic: str,
        payload: Payload,
        *,
        answers: Sequence[str] = (),
        is_answer: Callable[[Message], bool] | None = None,
        timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> Message:
        return await self._exchange.requests.request(
            topic, payload, answers=answers, is_answer=is_answer, timeout_s=timeout_s
        )

    def forget_answers(self, answers: Sequence[str]) -> None:
        self._exchange.requests.forget(answers)


def loop_time() -> float:
    return asyncio.get_running_loop().time()


def call_later(delay_s: float, call: Callable[[], None]) -> object:
    return asyncio.get_running_loop().call_later(delay_s, call)
