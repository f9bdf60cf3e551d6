"""Messages for which a broker ends the connection: told, held back, given up; so that they stop nothing else.

A broker may answer a publish that its ACL denies by 0x87 and then hang up (mosquitto up to 2.0.11), or hang up without
a word (all that MQTT 3.1.1 allows: 3.3.5). Sent again and again, such a message would stop all behind it. Hence:
- A topic refused on a connection that the broker then ended is held: what goes there is REFUSED here for a while, and
  the topic is tried again after it, less and less often.
- A message that was the oldest unanswered one at SUSPECTED such ends in a row is told, and tried on careful
  connections: first nothing is published for HELD_S, then that message alone. If the broker stays for the first and
  leaves at the second TRIALS times running, the message is given up as REFUSED. An answer, or an end before the
  message was sent, acquits it. The second message given up on one topic has the topic held.
- A second one on another topic has its source held: a function, a rule, a board or client is REFUSED whatever it
  publishes here, as each further topic would cost everybody another such trial. Of what has no one source (what
  comes by a connection) that is held alone that begins as both topics do. Of what a stream sends no source is held,
  only topics: it was acknowledged, and where it is allowed it must arrive.
"""

import logging
from collections.abc import Callable, Sequence

from edge.errors import ConnectionFailed
from edge.logs import log_event
from edge.messages import Message, Origin, refuse
from edge.metrics import Counter, Metrics

SUSPECTED = 2
TRIALS = 3
HELD_S = 1.0
AT_ONCE_S = 5.0  # so long after a refusal the end of a connection is taken for its consequence
HOLD_S_MIN = 60.0
HOLD_S_MAX = 3600.0
TOPICS_MAX = 1000  # remembered at most, of each kind

_BY_THE_BROKER = frozenset({"broker_closed", "refused_not_authorized", "packet_too_large", "packet_refused"})
_BY_ACL = frozenset({0x80, 0x83, 0x87})  # unspecified, implementation specific, not authorized
_TOO_LARGE = 0x95
_REMEDY = "Allow this client to publish to it, or take it out of the routes."
_REMEDY_TOO_LARGE = "Raise the broker's limit on packets; batches are made smaller by themselves."

_log = logging.getLogger(__name__)


class Refusals:
    """Of one connection to a broker. clock: as the event loop's time."""

    def __init__(self, name: str, metrics: Metrics, clock: Callable[[], float]) -> None:
        self._name, self._metrics, self._clock = name, metrics, clock
        self.held: dict[str, float] = {}  # topic -> until when
        self.held_sources: dict[object, tuple[str, float]] = {}  # source -> how its topics begin, until when
        self._holds: dict[object, tuple[float, float]] = {}  # topic or source -> when its last hold ends, its length
        self._told: set[str] = set()
        self._here: dict[str, float] = {}  # refused on this connection -> when last
        self._suspect: Message | None = None
        self._ends = 0
        self._given_up: dict[object, tuple[str, float]] = {}  # source -> the last such topic, when

    @property
    def careful(self) -> bool:
        """The next connection is to publish nothing for HELD_S, then the oldest message alone until it is answered."""
        return self._ends >= SUSPECTED

    def refused(self, topic: str, code: int, reason: str) -> None:
        """The broker refused a message in so many words. One line for each topic."""
        if code in _BY_ACL:
            self._here.pop(topic, None)
            if len(self._here) >= TOPICS_MAX:
                del self._here[next(iter(self._here))]
            self._here[topic] = self._clock()
        if topic not in self._told:
            if len(self._told) >= TOPICS_MAX:
                self._told.clear()
            self._told.add(topic)
            remedy = _REMEDY_TOO_LARGE if code == _TOO_LARGE else _REMEDY
            self._event("publish_refused", topic, reason=reason, remedy=remedy)

    def answered(self) -> None:
        """The message under trial was answered: it is not to blame."""
        self._suspect, self._ends = None, 0

    def ended(self, failure: ConnectionFailed, oldest: Message | None, origin: Origin | None = None) -> bool:
        """A connection that had opened is over; oldest, origin: the first message sent on it that nobody answered. Tell
        whether that one is given up: the caller settles it REFUSED, and all that is held too."""
        since = self._clock() - AT_ONCE_S
        here, self._here = [topic for topic, at in self._here.items() if at >= since], {}
        if failure.cause not in _BY_THE_BROKER:
            return False
        if here:
            self.answered()
            for topic in here:
                self._hold(topic)
            return False
        if oldest is None or oldest is not self._suspect:
            self._suspect, self._ends = oldest, 0 if oldest is None else 1
            return False
        self._ends += 1
        if self._ends < SUSPECTED + TRIALS:
            if self._ends == SUSPECTED:
                problem = "the broker ended the connection each time that this message was its oldest without an answer"
                self._event("publish_suspected", oldest.topic, problem=problem, remedy=_REMEDY)
            return False
        self.answered()
        problem = "the broker ends the connection when it gets this message, and only then"
        self._event("publish_given_up", oldest.topic, problem=problem, payload_bytes=len(oldest.payload))
        self._blame(oldest, origin)
        return True

    @property
    def is_holding(self) -> bool:
        return bool(self.held or self.held_sources)

    def holds(self, message: Message, origin: Origin | None) -> bool:
        if message.topic in self.held:
            return True
        if not self.held_sources:
            return False
        source, _ = source_of(message, origin)
        begins, until = self.held_sources.get(source, ("", 0.0))
        return until > 0 and message.topic.startswith(begins)

    def passing(self, messages: Sequence[Message], origin: Origin) -> Sequence[Message]:
        """Without those held back, which are settled. Asked only while anything is held."""
        now = self._clock()
        for topic in [topic for topic, until in self.held.items() if until <= now]:
            del self.held[topic]
        for source in [source for source, (_, until) in self.held_sources.items() if until <= now]:
            del self.held_sources[source]
        kept = [message for message in messages if self.holds(message, origin)]
        if not kept:
            return messages
        self.settle(kept, origin)
        return [message for message in messages if not self.holds(message, origin)]

    def settle(self, messages: Sequence[Message], origin: Origin, *, too_large: bool | None = False) -> None:
        """They are never sent: REFUSED, those of QoS 0 dropped; all are counted. too_large: as of `refuse`."""
        receipts = [message.receipt for message in messages if message.qos]
        self._count("refused").value += len(receipts)
        self._count("dropped").value += len(messages) - len(receipts)
        if receipts:
            refuse(origin, receipts, too_large=too_large)

    def _count(self, what: str) -> Counter:
        return self._metrics.counter(f"connection_messages_{what}", connection=self._name, reason="broker_hangs_up")

    def _blame(self, message: Message, origin: Origin | None) -> None:
        """It was given up."""
        now, topic = self._clock(), message.topic
        source, is_one = source_of(message, origin)
        before, at = self._given_up.pop(source, ("", 0.0))
        if len(self._given_up) >= TOPICS_MAX:
            del self._given_up[next(iter(self._given_up))]
        self._given_up[source] = topic, now
        if before == topic:
            self._hold(topic)
        elif before and now < at + HOLD_S_MAX and (is_one or _alike(before, topic)):
            self._hold_source(source, "" if is_one else _alike(before, topic), topic)

    def _length_s(self, held: object) -> float:
        """Of a hold that begins now: longer each time, until there was a long peace."""
        now = self._clock()
        ended, length_s = self._holds.pop(held, (0.0, 0.0))
        length_s = min(2 * length_s, HOLD_S_MAX) if length_s and now < ended + 2 * length_s else HOLD_S_MIN
        if len(self._holds) >= TOPICS_MAX:
            del self._holds[next(iter(self._holds))]
        self._holds[held] = (now + length_s, length_s)
        return length_s

    def _hold_source(self, source: object, begins: str, topic: str) -> None:
        length_s = self._length_s(("source", source))
        if len(self.held_sources) >= TOPICS_MAX:
            del self.held_sources[next(iter(self.held_sources))]
        self.held_sources[source] = (begins, self._clock() + length_s)
        problem = "the broker ends the connection for messages of this source to one topic after another"
        named = source if isinstance(source, str) else ""
        self._event(
            "source_held", topic, source=named, topics=f"{begins}#", problem=problem, held_s=length_s, remedy=_REMEDY
        )

    def _hold(self, topic: str) -> None:
        length_s = self._length_s(topic)
        if len(self.held) >= TOPICS_MAX:
            del self.held[next(iter(self.held))]
        self.held[topic] = self._clock() + length_s
        problem = "the broker ends the connection for a message to this topic"
        self._event("topic_held", topic, problem=problem, held_s=length_s, remedy=_REMEDY)

    def _event(self, event: str, topic: str, **fields: object) -> None:
        shown = topic[:200].encode(errors="backslashreplace").decode()
        log_event(_log, event, level=logging.WARNING, connection=self._name, topic=shown, **fields)


def source_of(message: Message, origin: Origin | None) -> tuple[object, bool]:
    """Who a message is from, and whether that is one source: a board or client by the name of its reading, a rule by
    that of its row, a function or client by its origin's `source`. Of what a stream sends each topic is one by itself:
    such an origin is `patient`."""
    origin = getattr(origin, "origin", origin)  # it shares the message among several targets
    if getattr(origin, "patient", False):
        return (origin, message.topic), True
    if message.reading is not None:
        thing = message.reading.thing
        return thing, "/" not in thing or "/rule/" in thing
    source: str = getattr(origin, "source", "")
    return source or origin, bool(source)


def _alike(one: str, other: str) -> str:
    """The levels that two topics begin with alike, with the slash behind them."""
    levels = []
    for left, right in zip(one.split("/")[:-1], other.split("/")[:-1], strict=False):
        if left != right:
            break
        levels.append(f"{left}/")
    return "".join(levels)
