"""The seam between the gateway and a broker, the cloud or the local one. Jobs, shadows and the router know only this.

Three implementations are held to one contract test: `codec.py` (the default), `aws.py` (on awsiotsdk), and a fake.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from edge.cloud.inbox import Receive
from edge.messages import Message, Origin

SUBSCRIBE_QOS = 1
REQUEST_TIMEOUT_S = 10.0

Payload = bytes | Callable[[str], bytes]


class ConnectionState(msgspec.Struct, frozen=True, kw_only=True):
    """What `edge status` shows. since_s: Unix time of the last change. cause, problem, remedy: of the last failure,
    kept after recovery. backoff_s: until the next try, as of the last failure; 0 while connected."""

    connected: bool = False
    since_s: float = 0.0
    session_present: bool = False
    cause: str = ""
    problem: str = ""
    remedy: str = ""
    failures: int = 0
    backoff_s: float = 0.0
    queued_messages: int = 0
    queued_bytes: int = 0
    in_flight: int = 0


class Connection(Protocol):
    """A Target that stays connected for as long as `run` runs."""

    @property
    def state(self) -> ConnectionState: ...

    async def run(self) -> None:
        """Connect, and connect again with jittered backoff, for ever. Ends when cancelled: says goodbye to the broker,
        and settles what is still here as CONGESTED."""

    @property
    def packet_bytes_max(self) -> int | None:
        """The largest PUBLISH packet, as the broker of the last connection said it (MQTT 5); None: it said nothing."""

    def send(self, messages: Sequence[Message], origin: Origin) -> None:
        """Publish, or queue while there is no connection or no room in its window. QoS 1 and 2 are TAKEN when the
        broker acknowledged, CONGESTED when the queue is full, REFUSED when the broker never will take them; a Packer is
        told what is too large instead, and what may be."""

    def take_back(self, origin: Origin, unwanted: Callable[[int], bool]) -> list[int]:
        """As a Queueing. What is in flight is not taken back."""
        ...

    def subscribe(self, filters: Sequence[str], receive: Receive) -> None:
        """Receive what matches, at QoS 1, on every connection from now on. receive is given each batch and its origin,
        whose `settled` acknowledges to the broker; a CONGESTED message is kept and offered again. May be called at any
        time, more than once for one receive; a message that several receive is acknowledged when all settled it.
        Raises InputRejected for what is no filter."""

    def unsubscribe(self, filters: Sequence[str], receive: Receive) -> None:
        """These it receives no longer. The broker is told when all filters wanted by now that overlap them are granted,
        now or after a reconnect, so that nothing wanted is missed in between; what came by both comes once for each, as
        the broker has it."""

    async def granted(self, topic_filter: str) -> None:
        """Return as soon as the broker has granted this subscription, at once if it has."""

    async def request(
        self,
        topic: str,
        payload: Payload,
        *,
        answers: Sequence[str] = (),
        is_answer: Callable[[Message], bool] | None = None,
        timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> Message:
        """Publish a request and return the answer.

        Without answers it is MQTT 5's: a response topic and correlation data, unique to the request; under 3.1.1 a
        response topic unique to the request, which payload, then a function of that topic, must tell the other side.
        answers: topics where the answer may come, by the protocol spoken there (AWS IoT's /accepted and /rejected);
        is_answer tells it from answers to others. They stay subscribed to. Raises ConnectionFailed: `no_answer`,
        `congested`, `refused`."""
        ...

    def forget_answers(self, answers: Sequence[str]) -> None:
        """No more requests are answered there for now: the subscriptions are let go."""
