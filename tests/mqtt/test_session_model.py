"""The session against a model: whatever is lost between client and server, and wherever it is cut."""

import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from edge.messages import Message, Outcome
from edge.mqtt import packets as p
from edge.mqtt.codes import V5, V311
from edge.mqtt.events import Connected, Event, Options, Received, Settled
from edge.mqtt.reader import Parser
from edge.mqtt.session import Session
from tests.mqtt.server import FakeServer


class Producer:
    """An origin of messages, told how they ended."""

    def __init__(self, name: str) -> None:
        self.name = name

    def settled(self, receipts: Sequence[int], outcome: Outcome) -> None:
        raise AssertionError("the session tells by events")


class SessionModel(RuleBasedStateMachine):
    version = V5
    window = 5
    receive_maximum = 4

    def __init__(self) -> None:
        super().__init__()
        options = Options(
            client_id="model",
            version=self.version,
            clean_start=False,
            session_expiry_s=1000,
            window=self.window,
            receive_maximum=self.receive_maximum,
            receive_excess=0,
            keepalive_s=0,
        )
        self.session = Session(options)
        self.server = FakeServer(self.version, receive_maximum=3 if self.version == V5 else 65535, alias_maximum=2)
        self.quota = 3 if self.version == V5 else self.window
        self.origins = [Producer("one"), Producer("two")]
        self.refusals = False
        self.open = False
        self.up, self.down = b"", b""
        self.sent_ids: set[int] = set()
        self.watch = Parser(self.version)
        self.published: list[Message] = []
        self.owner: dict[int, Producer] = {}
        self.outcomes: dict[int, Outcome] = {}
        self.offered: list[Message] = []
        self.received: list[Message] = []
        self.to_acknowledge: list[int] = []
        self.stale: list[int] = []
        self.forgotten = False
        self.number = 0

    # What the two pipes hold

    def _flush(self) -> None:
        raw = self.session.output()
        self.up += raw
        for packet in self.watch.feed(raw):
            if isinstance(packet, p.Publish) and packet.qos:
                assert packet.packet_id not in self.sent_ids, "sent twice in one connection"
                self.sent_ids.add(packet.packet_id)
                assert len(self.sent_ids) <= self.quota, "more in flight than the server takes"

    def _tell(self, events: list[Event]) -> None:
        for event in events:
            match event:
                case Settled():
                    for receipt in event.receipts:
                        assert receipt not in self.outcomes, "settled twice"
                        assert event.origin is self.owner[receipt]
                        self.outcomes[receipt] = event.outcome
                case Received():
                    assert event.messages
                    self.received += event.messages
                    self.to_acknowledge += [message.receipt for message in event.messages if message.qos]
                case Connected():
                    pass
                case _:
                    raise AssertionError(event)

    def _up(self, size: int) -> None:
        piece, self.up = self.up[:size], self.up[size:]
        self.server.receive(piece)
        self.down += self.server.output()

    def _down(self, size: int) -> None:
        piece, self.down = self.down[:size], self.down[size:]
        for packet in self.back.feed(piece):
            match packet:
                case p.Puback(packet_id) | p.Pubcomp(packet_id):
                    self.sent_ids.discard(packet_id)
                case p.Pubrec(packet_id, code) if code >= 0x80:
                    self.sent_ids.discard(packet_id)
        self._tell(self.session.receive(piece, 1.0))
        self._flush()

    # What may happen

    @precondition(lambda self: not self.open)
    @rule()
    def connect(self) -> None:
        self.open = True
        self.watch, self.back = Parser(self.version), Parser(self.version)
        self.server.new_transport()
        self.session.connect(0.0)
        self._flush()

    @precondition(lambda self: self.open)
    @rule(forget=st.sampled_from([False, False, False, True]))
    def lose(self, forget: bool) -> None:
        self.open = False
        self.up = self.down = b""
        self.sent_ids.clear()
        self._tell(self.session.transport_lost())
        self.server.new_transport()
        self.stale += self.to_acknowledge
        self.to_acknowledge = []
        if forget:
            self.forgotten = True
            self.server.forget()

    @precondition(lambda self: self.up)
    @rule(size=st.integers(1, 60))
    def bytes_reach_the_server(self, size: int) -> None:
        self._up(size)

    @precondition(lambda self: self.down)
    @rule(size=st.integers(1, 60))
    def bytes_reach_the_client(self, size: int) -> None:
        self._down(size)

    @precondition(lambda self: self.open)
    @rule()
    def everything_arrives(self) -> None:
        while self.up or self.down:
            self._up(len(self.up))
            self._down(len(self.down))

    @rule(levels=st.lists(st.integers(0, 2), min_size=1, max_size=6), origin=st.integers(0, 1))
    def publish(self, levels: list[int], origin: int) -> None:
        batch = []
        for qos in levels:
            self.number += 1
            batch.append(Message(f"up/{self.number % 4}", b"%d" % self.number, qos, receipt=self.number))
        room = self.session.room()
        taken = self.session.publish(batch, self.origins[origin])
        if not self.session.connected:
            assert taken == 0
        elif taken < len(batch):
            assert batch[taken].qos
            assert self.session.room() == 0
        assert sum(1 for message in batch[:taken] if message.qos) <= room
        for message in batch[:taken]:
            if message.qos:
                self.published.append(message)
                self.owner[message.receipt] = self.origins[origin]
        self._tell(self.session.events())
        if self.open:
            self._flush()

    @precondition(lambda self: self.version == V5)
    @rule(codes=st.lists(st.sampled_from([0, 0x10, 0x87, 0x97]), max_size=3))
    def the_server_will_answer(self, codes: list[int]) -> None:
        self.server.codes.extend(codes)
        self.refusals = self.refusals or any(code >= 0x80 for code in codes)

    @rule(levels=st.lists(st.integers(0, 2), min_size=1, max_size=6))
    def the_server_publishes(self, levels: list[int]) -> None:
        batch = [Message("down", b"%d" % (self.number + place), qos) for place, qos in enumerate(levels)]
        self.number += len(levels)
        self.offered += [message for message in batch if message.qos]
        self.server.publish(*batch)
        if self.open:
            self.down += self.server.output()

    @precondition(lambda self: self.to_acknowledge)
    @rule(count=st.integers(1, 6), order=st.randoms(use_true_random=False), shuffle=st.booleans())
    def acknowledge(self, count: int, order: random.Random, shuffle: bool) -> None:
        if shuffle:
            order.shuffle(self.to_acknowledge)
        some, self.to_acknowledge = self.to_acknowledge[:count], self.to_acknowledge[count:]
        self.session.acknowledge(some)
        if self.open:
            self._flush()

    @precondition(lambda self: self.stale)
    @rule()
    def acknowledge_what_came_over_a_lost_connection(self) -> None:
        self.session.acknowledge(self.stale)
        self.stale = []
        if self.open:
            self._flush()

    # What always holds

    @invariant()
    def first_arrivals_of_each_level_are_in_order(self) -> None:
        # The server may have refused what the session was not told of yet.
        if self.refusals or {Outcome.CONGESTED, Outcome.REFUSED} & set(self.outcomes.values()):
            return
        for qos in (1, 2):
            there = list(dict.fromkeys(int(message.payload) for message in self.server.taken if message.qos == qos))
            sent = [int(message.payload) for message in self.published if message.qos == qos]
            assert there == sent[: len(there)]

    @invariant()
    def what_is_in_flight_is_what_is_not_settled(self) -> None:
        assert self.session.in_flight == len(self.published) - len(self.outcomes)

    def teardown(self) -> None:
        """Heal everything; then all has ended as it should."""
        if self.open:
            self.lose(forget=False)
        self.server.codes.clear()
        self.connect()
        self.session.acknowledge(self.stale)
        for _ in range(200):
            if not (self.up or self.down or self.to_acknowledge):
                break
            self.everything_arrives()
            self.session.acknowledge(self.to_acknowledge)
            self.to_acknowledge = []
            self._flush()
        assert {message.receipt for message in self.published} == self.outcomes.keys()
        assert self.session.in_flight == 0
        assert not self.server.sent
        assert not self.server.waiting
        there = Counter(int(message.payload) for message in self.server.taken)
        for message in self.published:
            times = there[int(message.payload)]
            if self.outcomes[message.receipt] is Outcome.TAKEN:
                assert times >= 1
                if message.qos == 2 and not self.forgotten:
                    assert times == 1
        if not self.forgotten:
            here = Counter(int(message.payload) for message in self.received if message.qos)
            for message in self.offered:
                assert here[int(message.payload)] >= 1
                if message.qos == 2:
                    assert here[int(message.payload)] == 1
            first = list(dict.fromkeys(int(m.payload) for m in self.received if m.qos == 1))
            assert first == [int(message.payload) for message in self.offered if message.qos == 1]


@pytest.mark.parametrize("version", [V5, V311], ids=["mqtt5", "mqtt311"])
def test_the_session_keeps_its_promises_whatever_is_lost(version: int) -> None:
    model = type("Model", (SessionModel,), {"version": version})
    quiet = settings(max_examples=150, stateful_step_count=40, deadline=None, print_blob=True)
    run_state_machine_as_test(model, settings=quiet)
