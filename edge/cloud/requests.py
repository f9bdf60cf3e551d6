"""Request and response over publish and subscribe (MQTT 5.0, 4.10), the same for every connection."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from edge.cloud.connection import Payload
from edge.cloud.inbox import Receive
from edge.errors import ConnectionFailed
from edge.messages import Message, Origin, Outcome, Properties


class Carrier(Protocol):
    """What a connection gives for it. granted: returns as soon as the broker granted the filter."""

    def send(self, messages: Sequence[Message], origin: Origin) -> None: ...
    def subscribe(self, filters: Sequence[str], receive: Receive) -> None: ...
    def unsubscribe(self, filters: Sequence[str], receive: Receive) -> None: ...
    def granted(self, topic_filter: str) -> Awaitable[None]: ...


class _Pending:
    __slots__ = ("future", "is_answer")

    def __init__(self, future: asyncio.Future[Message], is_answer: Callable[[Message], bool] | None) -> None:
        self.future, self.is_answer = future, is_answer


class Requests:
    """reply_topic: the stem of this client's response topics, such as `reply/gateway-1`; the subscription to what is
    below it is made at the first request and kept. properties: whether the protocol has them (MQTT 5)."""

    def __init__(self, carrier: Carrier, reply_topic: str, *, properties: bool) -> None:
        self._carrier, self._reply_topic, self._properties = carrier, reply_topic, properties
        self._pending: dict[str, dict[int, _Pending]] = {}  # by the topic where the answer comes
        self._number = 0

    async def request(
        self,
        topic: str,
        payload: Payload,
        *,
        answers: Sequence[str],
        is_answer: Callable[[Message], bool] | None,
        timeout_s: float,
    ) -> Message:
        self._number += 1
        number = self._number
        properties = None
        filters = answers
        if not answers:
            answers, filters = [f"{self._reply_topic}/{number}"], [f"{self._reply_topic}/+"]
            if self._properties:
                correlation = number.to_bytes(8, "big")
                properties = Properties(response_topic=answers[0], correlation_data=correlation)
                is_answer = is_answer or (lambda answer: _correlation(answer) == correlation)
        content = payload if isinstance(payload, bytes) else payload(answers[0])
        pending = _Pending(asyncio.get_running_loop().create_future(), is_answer)
        for place in answers:
            self._pending.setdefault(place, {})[number] = pending
        try:
            async with asyncio.timeout(timeout_s):
                self._carrier.subscribe(filters, self._receive)
                for topic_filter in filters:
                    await self._carrier.granted(topic_filter)
                message = Message(topic=topic, payload=content, qos=1, receipt=number, properties=properties)
                self._carrier.send([message], _Publication(pending.future, topic))
                return await pending.future
        except TimeoutError:
            problem = f"no answer to {topic} within {timeout_s:g} s"
            raise ConnectionFailed("no_answer", problem, "See that the other side is connected.") from None
        finally:
            for place in answers:
                self._pending[place].pop(number, None)
                if not self._pending[place]:
                    del self._pending[place]

    def forget(self, answers: Sequence[str]) -> None:
        """Let go of topics where answers came, but for those where one is awaited."""
        if idle := [place for place in answers if place not in self._pending]:
            self._carrier.unsubscribe(idle, self._receive)

    def _receive(self, messages: Sequence[Message], origin: Origin) -> None:
        for message in messages:
            for pending in list(self._pending.get(message.topic, {}).values()):
                if not pending.future.done() and (pending.is_answer is None or pending.is_answer(message)):
                    pending.future.set_result(message)
        receipts = [message.receipt for message in messages if message.qos]
        if receipts:
            origin.settled(receipts, Outcome.TAKEN)  # an answer that no one waits for any more included


class _Publication:
    """The origin of one request's publish: tells the waiting request when it will never be sent."""

    def __init__(self, future: asyncio.Future[Message], topic: str) -> None:
        self._future, self._topic = future, topic

    def settled(self, receipts: Sequence[int], outcome: Outcome) -> None:
        if outcome is Outcome.TAKEN or self._future.done():
            return
        if outcome is Outcome.CONGESTED:
            failed = ConnectionFailed("congested", f"the request to {self._topic} found no room", "Try again later.")
        else:
            remedy = "Allow this client to publish there."
            failed = ConnectionFailed("refused", f"the broker refused the request to {self._topic}", remedy)
        self._future.set_exception(failed)


def _correlation(message: Message) -> bytes | None:
    return message.properties.correlation_data if message.properties else None
