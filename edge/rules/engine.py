"""Rules as a target of the router: batches in, rows out to a book that keeps them.

Invariants:
- A payload is decoded once, however many rules take its topic, whatever else each of them reads from; what cannot be
  decoded is counted and taken.
- A turn makes no more rows of windows that ended than a `Turn` has room for; the others come with the turns after it,
  each of which asks the book for room first.
- A batch is taken whole or turned away whole. What is taken, the marks of its sources, what rules remember of it and
  the rows they make change in one call; it is for the book to make all of it durable together, and then settle it.
- When the clock was put back, the rules that are ahead of it give what they have open before anything more is taken.
- A reading that was seen before is no message again: it changes nothing, and is settled with what it repeats.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Protocol

import msgspec

from edge.errors import InputRejected
from edge.logs import log_event
from edge.messages import Message, Origin, Outcome
from edge.metrics import Metrics
from edge.router import comes_from
from edge.rules.payloads import Decoder
from edge.rules.rejections import Rejections
from edge.rules.rule import Row, Rule
from edge.rules.template import Template
from edge.topics import TopicTree

PAYLOAD_BYTES_MAX = 131_072
ROWS_A_TURN: Final = 512
BYTES_A_TURN: Final = 256 * 1024
STEPS_A_TURN: Final = 4096
_TOPICS_REMEMBERED_MAX = 4096
_PORTS_MAX = 4096

_log = logging.getLogger(__name__)

KeptRow = tuple[str, str, bytes]
"""The thing that a rule is, topic, payload."""


class Book(Protocol):
    """Keeps rows until somebody took them."""

    def has_room(self) -> bool: ...

    def keep(self, rows: Sequence[KeptRow], origin: Origin, receipts: Sequence[int], messages: int) -> None:
        """rows: made of so many messages, of which the receipts are settled when all of it is durable."""

    def come_again(self) -> None:
        """Call `give` of its engines in a later turn of the loop."""


class Seen(Protocol):
    """Which readings came before."""

    def advance(self, thing: str, boot: int, sequence: int) -> bool:
        """False: it did."""


class Nobody:
    """The origin of what time alone brings about."""

    def settled(self, receipts: Sequence[int], outcome: Outcome) -> None:
        pass


NOBODY = Nobody()


class Turn:
    """What may still be given before others have their turn. One row more than that may come, of any size."""

    __slots__ = ("bytes", "rows", "steps")

    def __init__(self) -> None:
        self.rows, self.bytes, self.steps = ROWS_A_TURN, BYTES_A_TURN, STEPS_A_TURN

    @property
    def is_over(self) -> bool:
        return self.rows <= 0 or self.bytes <= 0 or self.steps <= 0


class Output:
    """One rule's rows as messages on a topic made of a template such as `agg/${board}`. thing: names its rows; sources:
    as its `from` has them."""

    def __init__(
        self, rule: Rule, thing: str, topic: str, metrics: Metrics, sources: Sequence[str] = ("boards",)
    ) -> None:
        self.rule, self.thing, self.sources = rule, thing, tuple(sources)
        self._template = Template(topic)
        self._metrics = metrics
        self.into = metrics.counter("rule_messages_in", rule=rule.name)
        self._out = metrics.counter("rule_rows_out", rule=rule.name)
        self._encode = msgspec.json.Encoder().encode

    def kept(self, rows: Iterable[Row]) -> list[KeptRow]:
        """What to keep of them; what makes no message is counted."""
        made: list[KeptRow] = []
        encode, thing, topic_of, fixed = self._encode, self.thing, self._template.topic, self._template.fixed
        for _, row in rows:
            try:
                payload = encode(row)
                if len(payload) > PAYLOAD_BYTES_MAX:
                    raise InputRejected("row_too_long")
                made.append((thing, fixed or topic_of(row), payload))
            except (InputRejected, ValueError, TypeError, RecursionError) as error:
                self._drop(error)
        self._out.value += len(made)
        return made

    def give(self, turn: Turn) -> list[KeptRow]:
        """Of windows that ended, as much as the turn has room for."""
        made: list[KeptRow] = []
        encode, thing, topic_of, fixed = self._encode, self.thing, self._template.topic, self._template.fixed
        rows, size, steps = turn.rows, turn.bytes, turn.steps
        for row in self.rule.give():
            steps -= 1
            if row is not None:
                rows -= 1
                try:
                    payload = encode(row)
                    size -= len(payload)
                    if len(payload) > PAYLOAD_BYTES_MAX:
                        raise InputRejected("row_too_long")
                    made.append((thing, fixed or topic_of(row), payload))
                except (InputRejected, ValueError, TypeError, RecursionError) as error:
                    self._drop(error)
            if rows <= 0 or size <= 0 or steps <= 0:
                break
        turn.rows, turn.bytes, turn.steps = rows, size, steps
        self._out.value += len(made)
        return made

    def _drop(self, error: Exception) -> None:
        reason = error.reason if isinstance(error, InputRejected) else "row_not_json"
        self._metrics.counter("rule_dropped", rule=self.rule.name, reason=reason).value += 1

    def count_rule(self) -> None:
        """Bring what the rule counted to the metrics."""
        for reason, many in self.rule.counts.items():
            self._metrics.counter("rule_dropped", rule=self.rule.name, reason=reason).value = many


class _Intake:
    """The outputs that read from one source, by topic."""

    def __init__(self, outputs: Sequence[Output]) -> None:
        self.outputs = tuple(outputs)
        self._tree: TopicTree[Output] = TopicTree()
        for output in outputs:
            for topic in output.rule.plan.topics:
                self._tree.add(topic, output)
        # Where all rules have one and the same filter, the router gives nothing that it does not take.
        self.is_one_way = len({topic for output in outputs for topic in output.rule.plan.topics}) == 1
        self.ways: dict[str, tuple[Output, ...]] = {}
        self._same: dict[tuple[Output, ...], tuple[Output, ...]] = {}

    def rules_for(self, topic: str) -> tuple[Output, ...]:
        way = self.ways.get(topic)
        if way is None:
            if len(self.ways) >= _TOPICS_REMEMBERED_MAX:
                self.ways.clear()
                self._same.clear()
            way = tuple(dict.fromkeys(self._tree.match(topic)))  # a join may take it twice
            way = self.ways[topic] = self._same.setdefault(way, way)
        return way


class Port:
    """Where one source's messages come in; a target of the router."""

    def __init__(self, engine: "Engine", intake: _Intake, client: str) -> None:
        self._engine, self._intake, self._client = engine, intake, client

    def send(self, messages: Sequence[Message], origin: Origin) -> None:
        self._engine.take(self._intake, self._client, messages, origin)


class Engine:
    """All rules that share their form of payload. outputs: in the order of the file. touched: the outputs whose rules
    may remember something else since whoever stores it emptied it."""

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
        self._intakes: dict[str, _Intake] = {}
        self._ports: dict[tuple[str, str], Port] = {}
        self._giving: dict[Output, None] = {one: None for one in outputs if one.rule.is_giving}
        self._latest = max([one.rule.watermark for one in outputs], default=0)  # no rule is ahead of a clock beyond it
        self._falling: set[Output] = set()
        self._rejections = Rejections(metrics)
        self._repeated = metrics.counter("rule_messages_repeated")
        self._congested = metrics.counter("rule_messages_congested")

    def port(self, source: str, sender: str = "") -> Port:
        """For what comes from there. sender: the client's id, or empty."""
        port = self._ports.get((source, sender))
        if port is None:
            intake = self._intakes.get(source)
            if intake is None:
                reads = [one for one in self.outputs if any(comes_from(wanted, source) for wanted in one.sources)]
                intake = self._intakes[source] = _Intake(reads)
            if len(self._ports) >= _PORTS_MAX:
                self._ports.clear()
            port = self._ports[source, sender] = Port(self, intake, sender or source)
        return port

    def take(self, intake: _Intake, client: str, messages: Sequence[Message], origin: Origin) -> None:
        """A batch from one source. client: for people."""
        receipts = [message.receipt for message in messages if message.qos]
        now = self._now()
        if (
            not self._book.has_room()
            or (self._giving and any(one.rule.is_behind for one in self._giving))
            or (now < self._latest and not self._is_right(now))
        ):
            self._congested.value += len(receipts)
            if len(receipts) < len(messages):
                self._count_dropped(len(messages) - len(receipts))
            if receipts:
                origin.settled(receipts, Outcome.CONGESTED)
            return
        self._latest = max(self._latest, now)
        advance = self._seen.advance
        fresh = messages
        if [message.reading for message in messages].count(None) < len(messages):
            fresh = [
                message
                for message in messages
                if (reading := message.reading) is None or advance(reading.thing, reading.boot, reading.sequence)
            ]
        self._repeated.value += len(messages) - len(fresh)
        rows = self._rows_of(intake, client, fresh, now) if fresh else []
        if self._giving and fresh:
            self._give(rows)
        self._book.keep(rows, origin, receipts, len(fresh))
        if self._giving:
            self._book.come_again()

    def tick(self) -> None:
        """Called some times a second: ends the windows whose time has come."""
        for output in self.outputs:
            output.count_rule()
        if not self._book.has_room():
            return
        now, ended = self._now(), False
        if now < self._latest:
            self._is_right(now)
        else:
            self._latest = now
        for output in self.outputs:
            if output.rule.due(now) and not output.rule.is_behind:
                output.rule.pass_time(now)
                self._touch(output)
                ended = True
        if ended or self._giving:
            self._go_on()

    @property
    def is_giving(self) -> bool:
        """Whether a turn more would bring something."""
        return bool(self._giving)

    def give(self) -> None:
        """Go on with windows that ended: as much as a turn may bring, if the book has room."""
        if self._giving and self._book.has_room():
            self._go_on()

    def _is_right(self, now: int) -> bool:
        """Whether no rule is ahead of the clock any more, which was put back. Those that are give what they have open,
        as much as a turn may bring."""
        ahead = [output for output in self.outputs if output.rule.is_ahead(now)]
        if not ahead:
            self._latest = max([now, *(output.rule.watermark for output in self.outputs)])
            return True
        for output in ahead:
            if output not in self._falling:
                self._falling.add(output)
                self._tell_set_back(output.rule, now)
            output.rule.fall_back()
            self._touch(output)
        rows: list[KeptRow] = []
        self._give(rows)
        self._falling = {output for output in ahead if not output.rule.fall_back()}
        self._book.keep(rows, NOBODY, (), 1)
        if self._giving:
            self._book.come_again()
        return not self._falling

    def _tell_set_back(self, rule: Rule, now: int) -> None:
        self._metrics.counter("rule_clock_set_back", rule=rule.name).value += 1
        log_event(
            _log,
            "rule_clock_set_back",
            level=logging.WARNING,
            rule=rule.name,
            set_back_ms=rule.watermark - now,
        )

    def _go_on(self) -> None:
        rows: list[KeptRow] = []
        self._give(rows)
        self._book.keep(rows, NOBODY, (), 1)
        if self._giving:
            self._book.come_again()

    def _give(self, rows: list[KeptRow]) -> None:
        turn = Turn()
        for output in [*self._giving]:
            self.touched[output] = None
            rows += output.give(turn)
            if not output.rule.is_giving:
                del self._giving[output]
            if turn.is_over:
                break

    def _touch(self, output: Output) -> None:
        self.touched[output] = None
        if output.rule.is_giving:
            self._giving[output] = None

    def _rows_of(self, intake: _Intake, client: str, messages: Sequence[Message], now: int) -> list[KeptRow]:
        kept, docs = self._decoded(intake, client, messages)
        ways, rules_for = intake.ways, intake.rules_for
        rows: list[KeptRow] = []
        first = rules_for(kept[0].topic) if kept else ()
        other = [] if intake.is_one_way else [message for message in kept if ways.get(message.topic) is not first]
        if all(rules_for(message.topic) is first for message in other):
            for output in first:
                self._run(output, kept, docs, now, rows)
            return rows
        batches: dict[Output, tuple[list[Message], list[Any]]] = {}
        for message, doc in zip(kept, docs, strict=True):
            for output in rules_for(message.topic):
                held = batches.setdefault(output, ([], []))
                held[0].append(message)
                held[1].append(doc)
        for output in intake.outputs:
            if output in batches:
                self._run(output, *batches[output], now, rows)
        return rows

    def _run(
        self, output: Output, messages: Sequence[Message], docs: Sequence[Any], now: int, rows: list[KeptRow]
    ) -> None:
        output.into.value += len(messages)
        output.rule.heard_ms = now
        if made := output.rule.take(messages, docs, now):
            rows += output.kept(made)
        self._touch(output)

    def _decoded(
        self, intake: _Intake, client: str, messages: Sequence[Message]
    ) -> tuple[Sequence[Message], list[Any]]:
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
                self._reject(intake, client, message, error.reason)
            except RecursionError:
                self._reject(intake, client, message, "payload_too_deep")
            except ValueError:
                self._reject(intake, client, message, "payload_not_json")
        return kept, docs

    def _reject(self, intake: _Intake, client: str, message: Message, reason: str) -> None:
        rules = sorted(output.rule.name for output in intake.rules_for(message.topic))
        named = message.reading.thing if message.reading is not None else client
        self._rejections.count(rules, message, named, reason, self._now())

    def _count_dropped(self, many: int) -> None:
        self._metrics.counter("rule_messages_dropped", reason="full").value += many
