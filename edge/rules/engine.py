"""Rules as a target of the router: batches in, rows out as messages of `rule:NAME`.

Invariants:
- A payload is decoded once, however many rules take its topic; what cannot be decoded is counted and taken.
- A message is settled TAKEN once every rule has seen it. Windows live in memory until their state is stored: until
  then a restart loses what is open.
- A row that no target has room for waits, at most ROWS_WAITING_MAX of them; then the oldest is dropped and counted.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from edge.errors import InputRejected
from edge.messages import Message, Origin, Outcome
from edge.metrics import Metrics
from edge.rules.payloads import Decoder
from edge.rules.rule import Row, Rule
from edge.topics import TopicTree, check_topic

ROWS_WAITING_MAX = 10_000
PAYLOAD_BYTES_MAX = 131_072
_TOPICS_REMEMBERED_MAX = 4096

Route = Callable[[str, str, Sequence[Message], Origin], None]


class Output:
    """Where one rule's rows go: messages on a topic made of a template such as `agg/${board}`."""

    def __init__(self, rule: Rule, topic: str, route: Route, metrics: Metrics) -> None:
        self.rule = rule
        self._parts = re.split(r"\$\{([^}]*)\}", topic)
        self._route = route
        self._source = f"rule:{rule.name}"
        self._metrics = metrics
        self.into = metrics.counter("rule_messages_in", rule=rule.name)
        self._out = metrics.counter("rule_rows_out", rule=rule.name)
        self._waiting: dict[int, Message] = {}  # under way, or to be offered again
        self._again: list[int] = []
        self._receipt = 0
        self._encode = msgspec.json.Encoder().encode

    def send(self, rows: Sequence[Row]) -> None:
        messages = []
        encode = self._encode
        fixed = self._parts[0] if len(self._parts) == 1 else ""
        for _, row in rows:
            try:
                topic = fixed or self._topic(row)
                payload = encode(row)
            except (InputRejected, ValueError, TypeError, RecursionError) as error:
                self._count(error.reason if isinstance(error, InputRejected) else "row_not_json")
                continue
            self._receipt += 1
            message = Message(topic, payload, qos=1, receipt=self._receipt)
            messages.append(message)
            self._waiting[self._receipt] = message
        while len(self._waiting) > ROWS_WAITING_MAX:
            del self._waiting[next(iter(self._waiting))]
            self._count("row_dropped_congested")
        if messages:
            self._out.value += len(messages)
            self._route(self._source, "", messages, self)

    def offer_again(self) -> None:
        """Offer what found no room before."""
        if self._again:
            receipts, self._again = sorted(self._again), []
            messages = [self._waiting[receipt] for receipt in receipts if receipt in self._waiting]
            self._route(self._source, "", messages, self)

    def settled(self, receipts: Sequence[int], outcome: Outcome) -> None:
        if outcome is Outcome.CONGESTED:
            self._again.extend(receipt for receipt in receipts if receipt in self._waiting)
            return
        for receipt in receipts:
            self._waiting.pop(receipt, None)
        if outcome is Outcome.REFUSED:
            self._count("row_refused", len(receipts))

    def _topic(self, row: Any) -> str:
        text = ""
        for at, part in enumerate(self._parts):
            if at % 2:
                value = row.get(part) if isinstance(row, dict) else None
                part = value if isinstance(value, str) else str(value) if value.__class__ in {int, bool} else ""
                if not part or "/" in part:
                    raise InputRejected("row_topic", f"${{{self._parts[at]}}} gives no level of a topic")
            text += part
        check_topic(text)
        return text

    def _count(self, reason: str, many: int = 1) -> None:
        self._metrics.counter("rule_dropped", rule=self.rule.name, reason=reason).value += many

    def count_rule(self) -> None:
        """Bring what the rule counted to the metrics."""
        for reason, many in self.rule.counts.items():
            self._metrics.counter("rule_dropped", rule=self.rule.name, reason=reason).value = many


class Engine:
    """All rules that share their sources and their form of payload. outputs: in the order of the file."""

    def __init__(
        self, outputs: Sequence[Output], decode: Decoder, metrics: Metrics, unix_time_ms: Callable[[], int]
    ) -> None:
        self._outputs = tuple(outputs)
        self._decode = decode
        self._metrics = metrics
        self._now = unix_time_ms
        self._tree: TopicTree[Output] = TopicTree()
        for output in outputs:
            for topic in output.rule.plan.topics:
                self._tree.add(topic, output)
        self._ways: dict[str, tuple[Output, ...]] = {}
        self._same: dict[tuple[Output, ...], tuple[Output, ...]] = {}

    def rules_for(self, topic: str) -> tuple[Output, ...]:
        way = self._ways.get(topic)
        if way is None:
            if len(self._ways) >= _TOPICS_REMEMBERED_MAX:
                self._ways.clear()
            way = tuple(dict.fromkeys(self._tree.match(topic)))  # a join may take it twice
            way = self._ways[topic] = self._same.setdefault(way, way)
        return way

    def send(self, messages: Sequence[Message], origin: Origin) -> None:
        kept, docs = self._decoded(messages)
        now = self._now()
        ways = self._ways
        first = self.rules_for(kept[0].topic) if kept else ()
        other = [message for message in kept if ways.get(message.topic) is not first]
        if all(self.rules_for(message.topic) is first for message in other):
            for output in first:
                self._run(output, kept, docs, now)
        else:
            batches: dict[Output, tuple[list[Message], list[Any]]] = {}
            for message, doc in zip(kept, docs, strict=True):
                for output in self.rules_for(message.topic):
                    held = batches.setdefault(output, ([], []))
                    held[0].append(message)
                    held[1].append(doc)
            for output in self._outputs:
                if output in batches:
                    self._run(output, *batches[output], now)
        if receipts := [message.receipt for message in messages if message.qos]:
            origin.settled(receipts, Outcome.TAKEN)

    def tick(self) -> None:
        """Called about once a second and when a window may end."""
        now = self._now()
        for output in self._outputs:
            output.offer_again()
            if rows := output.rule.tick(now):
                output.send(rows)
            output.count_rule()

    def _run(self, output: Output, messages: Sequence[Message], docs: Sequence[Any], now: int) -> None:
        output.into.value += len(messages)
        if rows := output.rule.run(messages, docs, now):
            output.send(rows)

    def _decoded(self, messages: Sequence[Message]) -> tuple[Sequence[Message], list[Any]]:
        decode = self._decode
        try:
            payloads = [message.payload for message in messages]
            if max(map(len, payloads), default=0) <= PAYLOAD_BYTES_MAX:
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

    def _count(self, reason: str) -> None:
        self._metrics.counter("rule_payloads_rejected", reason=reason).value += 1
