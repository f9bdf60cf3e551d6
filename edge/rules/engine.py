"""Rules as a target of the router: batches in, rows out to a book that keeps them.

Invariants:
- A payload is decoded once, however many rules take its topic; what cannot be decoded is counted and taken.
- A batch is taken whole or turned away whole. What is taken, the marks of its sources, what rules remember of it and
  the rows they make change in one call; it is for the book to make all of it durable together, and then settle it.
- A reading that was seen before is no message again: it changes nothing, and is settled with what it repeats.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import msgspec

from edge.errors import InputRejected
from edge.messages import Message, Origin, Outcome
from edge.metrics import Metrics
from edge.rules.payloads import Decoder
from edge.rules.rule import Row, Rule
from edge.rules.template import Template
from edge.topics import TopicTree

PAYLOAD_BYTES_MAX = 131_072
_TOPICS_REMEMBERED_MAX = 4096

KeptRow = tuple[str, str, bytes]
"""The thing that a rule is, topic, payload."""


class Book(Protocol):
    """Keeps rows until somebody took them."""

    def has_room(self) -> bool: ...

    def keep(self, rows: Sequence[KeptRow], origin: Origin, receipts: Sequence[int], messages: int) -> None:
        """rows: made of so many messages, of which the receipts are settled when all of it is durable."""


class Seen(Protocol):
    """Which readings came before."""

    def advance(self, thing: str, boot: int, sequence: int) -> bool:
        """False: it did."""


class Nobody:
    """The origin of what time alone brings about."""

    def settled(self, receipts: Sequence[int], outcome: Outcome) -> None:
        pass


NOBODY = Nobody()


class Output:
    """One rule's rows as messages on a topic made of a template such as `agg/${board}`. thing: names its rows."""

    def __init__(self, rule: Rule, thing: str, topic: str, metrics: Metrics) -> None:
        self.rule, self.thing = rule, thing
        self._template = Template(topic)
        self._metrics = metrics
        self.into = metrics.counter("rule_messages_in", rule=rule.name)
        self._out = metrics.counter("rule_rows_out", rule=rule.name)
        self._encode = msgspec.json.Encoder().encode

    def kept(self, rows: Iterable[Row]) -> list[KeptRow]:
        """What to keep of them; what makes no message is counted."""
        made = []
        encode, thing, topic_of, fixed = self._encode, self.thing, self._template.topic, self._template.fixed
        for _, row in rows:
            try:
                payload = encode(row)
                if len(payload) > PAYLOAD_BYTES_MAX:
                    raise InputRejected("row_too_long")
                made.append((thing, fixed or topic_of(row), payload))
            except (InputRejected, ValueError, TypeError, RecursionError) as error:
                reason = error.reason if isinstance(error, InputRejected) else "row_not_json"
                self._metrics.counter("rule_dropped", rule=self.rule.name, reason=reason).value += 1
        self._out.value += len(made)
        return made

    def count_rule(self) -> None:
        """Bring what the rule counted to the metrics."""
        for reason, many in self.rule.counts.items():
            self._metrics.counter("rule_dropped", rule=self.rule.name, reason=reason).value = many


class Engine:
    """All rules that share their sources and their form of payload. outputs: in the order of the file. touched: the
    outputs whose rules may remember something else since whoever stores it emptied it."""

    def __init__(
        self,
        outputs: Sequence[Output],
        decode: Decoder,
        *,
        book: Book,
        seen: Seen,
        metrics: Metrics,
        unix_time_ms: Callable[[], int],
    ) -> None:
        self.outputs = tuple(outputs)
        self.touched: dict[Output, None] = {}
        self._decode, self._book, self._seen = decode, book, seen
        self._metrics = metrics
        self._now = unix_time_ms
        self._tree: TopicTree[Output] = TopicTree()
        for output in outputs:
            for topic in output.rule.plan.topics:
                self._tree.add(topic, output)
        filters = {topic for output in outputs for topic in output.rule.plan.topics}
        self._one_way = len(filters) == 1
        self._ways: dict[str, tuple[Output, ...]] = {}
        self._same: dict[tuple[Output, ...], tuple[Output, ...]] = {}
        self._repeated = metrics.counter("rule_messages_repeated")
        self._congested = metrics.counter("rule_messages_congested")

    def rules_for(self, topic: str) -> tuple[Output, ...]:
        way = self._ways.get(topic)
        if way is None:
            if len(self._ways) >= _TOPICS_REMEMBERED_MAX:
                self._ways.clear()
                self._same.clear()
            way = tuple(dict.fromkeys(self._tree.match(topic)))  # a join may take it twice
            way = self._ways[topic] = self._same.setdefault(way, way)
        return way

    def send(self, messages: Sequence[Message], origin: Origin) -> None:
        receipts = [message.receipt for message in messages if message.qos]
        if not self._book.has_room():
            self._congested.value += len(receipts)
            if len(receipts) < len(messages):
                self._count_dropped(len(messages) - len(receipts))
            if receipts:
                origin.settled(receipts, Outcome.CONGESTED)
            return
        advance = self._seen.advance
        fresh = messages
        if [message.reading for message in messages].count(None) < len(messages):
            fresh = [
                message
                for message in messages
                if (reading := message.reading) is None or advance(reading.thing, reading.boot, reading.sequence)
            ]
        self._repeated.value += len(messages) - len(fresh)
        self._book.keep(self._rows_of(fresh) if fresh else (), origin, receipts, len(fresh))

    def tick(self) -> None:
        """Called some times a second: closes the windows whose time has come."""
        if not self._book.has_room():
            return
        now = self._now()
        rows: list[KeptRow] = []
        closed = 0
        for output in self.outputs:
            if output.rule.due(now):
                rows += output.kept(output.rule.tick(now))
                self.touched[output] = None
                closed += 1
            output.count_rule()
        if closed:
            self._book.keep(rows, NOBODY, (), closed)

    def _rows_of(self, messages: Sequence[Message]) -> list[KeptRow]:
        kept, docs = self._decoded(messages)
        now = self._now()
        ways = self._ways
        rows: list[KeptRow] = []
        first = self.rules_for(kept[0].topic) if kept else ()
        # Where all rules have one and the same filter, the router gives nothing that it does not take.
        other = [] if self._one_way else [message for message in kept if ways.get(message.topic) is not first]
        if all(self.rules_for(message.topic) is first for message in other):
            for output in first:
                self._run(output, kept, docs, now, rows)
            return rows
        batches: dict[Output, tuple[list[Message], list[Any]]] = {}
        for message, doc in zip(kept, docs, strict=True):
            for output in self.rules_for(message.topic):
                held = batches.setdefault(output, ([], []))
                held[0].append(message)
                held[1].append(doc)
        for output in self.outputs:
            if output in batches:
                self._run(output, *batches[output], now, rows)
        return rows

    def _run(
        self, output: Output, messages: Sequence[Message], docs: Sequence[Any], now: int, rows: list[KeptRow]
    ) -> None:
        output.into.value += len(messages)
        output.rule.heard_ms = now
        self.touched[output] = None
        if made := output.rule.run(messages, docs, now):
            rows += output.kept(made)

    def _decoded(self, messages: Sequence[Message]) -> tuple[Sequence[Message], list[Any]]:
        decode = self._decode
        try:
            payloads = [message.payload for message in messages]
            if sum(map(len, payloads)) <= PAYLOAD_BYTES_MAX or max(map(len, payloads)) <= PAYLOAD_BYTES_MAX:
                return messages, list(map(decode, payloads))
        except (ValueError, RecursionError, InputRejected):
            pass  # one of them is bad: find which
        kept, docs = [], []
        for message in messages:
            try:
                if len(message.payload) > PAYLOAD_BYTES_MAX:
                    raise InputRejected("payload_too_long")
                docs.append(decode(message.payload))
                kept.append(message)
            except InputRejected as error:
                self._count(error.reason)
            except RecursionError:
                self._count("payload_too_deep")
            except ValueError:
                self._count("payload_not_json")
        return kept, docs

    def _count_dropped(self, many: int) -> None:
        self._metrics.counter("rule_messages_dropped", reason="full").value += many

    def _count(self, reason: str) -> None:
        self._metrics.counter("rule_payloads_rejected", reason=reason).value += 1
