"""A cloud in memory: `FakeCloud` stands for the broker, `FakeConnection` is a Connection to it.

It is built on the same exchange as the real ones, and held to the same contract test.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from edge.cloud.connection import ConnectionState
from edge.cloud.exchange import Exchange, OnExchange
from edge.cloud.held import HeldFilters
from edge.config import ConnectionSettings
from edge.messages import Message, Origin, Outcome
from edge.metrics import Metrics
from edge.topics import matches


class _Session:
    """What the cloud keeps of one client: filters, what is unacknowledged, what waits while it is away."""

    def __init__(self) -> None:
        self.filters: dict[str, None] = {}
        self.open: dict[int, Message] = {}
        self.waiting: deque[Message] = deque()
        self.connection: FakeConnection | None = None


class FakeCloud:
    """received: all that was published, in order. refuse: topics whose publishes are turned down. hold_acks: publishes
    stay unanswered until `release`. down/up: no connection lasts while it is down; sessions outlive that."""

    def __init__(self) -> None:
        self.received: list[Message] = []
        self.refuse: set[str] = set()
        self.hold_acks = False
        self.is_up = True
        self._changed: set[asyncio.Event] = set()
        self._held: list[Callable[[], None]] = []
        self._sessions: dict[str, _Session] = {}

    def publish(self, topic: str, payload: bytes, qos: int = 1, properties: object = None) -> None:
        """As some other client would."""
        self.route(Message(topic=topic, payload=payload, qos=qos, properties=properties))  # type: ignore[arg-type]

    def route(self, message: Message) -> None:
        self.received.append(message)
        for session in self._sessions.values():
            if any(matches(topic_filter, message.topic) for topic_filter in session.filters):
                copy = msgspec.structs.replace(message, qos=min(message.qos, 1), receipt=0, reading=None)
                if session.connection is not None:
                    session.connection.deliver(copy)
                elif copy.qos:
                    session.waiting.append(copy)

    def accept(self, number_messages: Sequence[Message], answer: Callable[[Sequence[Message]], None]) -> None:
        def act() -> None:
            for message in number_messages:
                if message.topic not in self.refuse:
                    self.route(message)
            answer(number_messages)

        if self.hold_acks:
            self._held.append(act)
        else:
            act()

    def release(self) -> None:
        self.hold_acks = False
        held, self._held = self._held, []
        for act in held:
            act()

    def down(self, *, lose_sessions: bool = False) -> None:
        self.is_up = False
        self._held.clear()
        for session in self._sessions.values():
            if session.connection is not None:
                session.connection.lose()
        if lose_sessions:
            self._sessions.clear()
        self._tell()

    def up(self) -> None:
        self.is_up = True
        self._tell()

    async def changed(self) -> None:
        """It went up or down."""
        event = asyncio.Event()
        self._changed.add(event)
        try:
            await event.wait()
        finally:
            self._changed.discard(event)

    def _tell(self) -> None:
        for event in self._changed:
            event.set()

    def open_session(self, client_id: str, connection: "FakeConnection") -> tuple[_Session, bool]:
        present = client_id in self._sessions
        session = self._sessions.setdefault(client_id, _Session())
        session.connection = connection
        return session, present


class FakeConnection(OnExchange):
    def __init__(
        self,
        cloud: FakeCloud,
        client_id: str = "gateway-1",
        *,
        metrics: Metrics | None = None,
        name: str = "cloud",
        held: HeldFilters | None = None,
        queue_messages_max: int = 10_000,
        queue_bytes_max: int = 4 * 1024 * 1024,
    ) -> None:
        self.metrics = metrics = metrics or Metrics()
        self._cloud, self._client_id = cloud, client_id
        settings = ConnectionSettings(
            host="fake",
            client_id=client_id,
            queue_messages_max=queue_messages_max,
            queue_bytes_max=queue_bytes_max,
        )
        self._exchange = Exchange(
            self,
            self._acknowledge,
            lambda: len(self._in_flight),
            settings,
            metrics,
            name=name,
            reply_topic="",
            properties=True,
            random=lambda: 0.5,
            held=held,
        )
        self._queue, self._inbox = self._exchange.queue, self._exchange.inbox
        self._in_flight: dict[int, tuple[Message, Origin]] = {}
        self._number = 0
        self._session: _Session | None = None
        self._state = ConnectionState()

    @property
    def state(self) -> ConnectionState:
        return self._exchange.state(self._state)

    async def run(self) -> None:
        try:
            while True:
                if self._cloud.is_up:
                    self._open()
                else:
                    self._state = ConnectionState(cause="unreachable", failures=self._state.failures + 1)
                await self._cloud.changed()
        finally:
            self.lose()
            self._queue.abandon()

    def send(self, messages: Sequence[Message], origin: Origin) -> None:
        self._queue.put(messages, origin)
        if self._session is not None:
            self._pump()

    def deliver(self, message: Message) -> None:
        assert self._session is not None
        if message.qos:
            self._number += 1
            message = msgspec.structs.replace(message, receipt=self._number)
            self._session.open[self._number] = message
        self._inbox.deliver([message])

    def lose(self) -> None:
        """The connection is gone; what is unanswered either way waits for the next one."""
        if self._session is None:
            return
        self._session.waiting.extendleft(reversed(self._session.open.values()))
        self._session.open.clear()
        self._session.connection = None
        self._session = None
        self._state = ConnectionState(cause="broker_closed", failures=1)
        self._inbox.lost()
        in_flight, self._in_flight = self._in_flight, {}
        self._queue.put_back([([message], origin) for message, origin in in_flight.values()])

    def _open(self) -> None:
        if self._session is not None:
            return
        self._session, present = self._cloud.open_session(self._client_id, self)
        self._state = ConnectionState(connected=True, session_present=present)
        self._ask(self._exchange.opened(session_present=present))
        while self._session.waiting:
            self.deliver(self._session.waiting.popleft())
        self._pump()

    def _ask(self, filters: Sequence[str]) -> None:
        if self._session is not None:
            for topic_filter in filters:
                self._session.filters[topic_filter] = None
                self._exchange.subscriptions.grant(topic_filter)
            self._let_go()

    def _let_go(self) -> None:
        if self._session is not None:
            for topic_filter in self._exchange.subscriptions.due():
                self._number += 1
                self._exchange.subscriptions.asked_to_let_go(self._number, [topic_filter])
                self._session.filters.pop(topic_filter, None)
                self._exchange.let_go(self._number, [0], str)

    def _pump(self) -> None:
        while self._queue and self._session is not None:
            messages, origin = self._queue.head(100)
            self._queue.advance(len(messages))
            for message in messages:
                self._number += 1
                number = self._number
                if message.qos:
                    self._in_flight[number] = (message, origin)
                self._cloud.accept([message], lambda _, number=number: self._answered(number))  # type: ignore[misc]

    def _answered(self, number: int) -> None:
        entry = self._in_flight.pop(number, None)
        if entry is not None:
            message, origin = entry
            refused = message.topic in self._cloud.refuse
            origin.settled([message.receipt], Outcome.REFUSED if refused else Outcome.TAKEN)

    def _acknowledge(self, receipts: Sequence[int], outcome: Outcome) -> None:
        if self._session is not None:
            for receipt in receipts:
                self._session.open.pop(receipt, None)
