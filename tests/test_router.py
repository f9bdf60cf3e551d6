from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.config import RouteSettings
from edge.messages import Message, Origin, Outcome
from edge.metrics import Metrics
from edge.router import Refuses, Router, takes


class Sink:
    """A target that remembers, and settles with a fixed outcome, at once or when told."""

    def __init__(self, outcome: Outcome | None = Outcome.TAKEN) -> None:
        self.outcome = outcome
        self.batches: list[tuple[list[Message], Origin]] = []

    def send(self, messages: Sequence[Message], origin: Origin) -> None:
        self.batches.append((list(messages), origin))
        if self.outcome is not None:
            self.settle(len(self.batches) - 1, self.outcome)

    def settle(self, number: int, outcome: Outcome) -> None:
        messages, origin = self.batches[number]
        origin.settled([message.receipt for message in messages if message.qos], outcome)

    @property
    def messages(self) -> list[Message]:
        return [message for batch, _ in self.batches for message in batch]


class Sender:
    def __init__(self) -> None:
        self.ended: dict[int, Outcome] = {}

    def settled(self, receipts: Sequence[int], outcome: Outcome) -> None:
        for receipt in receipts:
            assert receipt not in self.ended, "settled twice"
            self.ended[receipt] = outcome


def route(source: str, topic: str, *to: str) -> RouteSettings:
    return RouteSettings(source=source, topic=topic, to=to)


def subscribing(*filters: str) -> Refuses:
    """To these alone."""
    return lambda sender, topic: "" if any(takes(one, sender, topic) for one in filters) else "not_subscribed"


def test_without_a_route_a_message_is_refused_and_counted() -> None:
    metrics, sender = Metrics(), Sender()
    router = Router([route("boards", "dt/#", "cloud")], metrics)
    router.attach("cloud", Sink())
    router.route("board:b1", "b1", [Message("other", b"", 1, receipt=7), Message("other", b"")], sender)
    assert sender.ended == {7: Outcome.REFUSED}
    assert metrics.snapshot()['messages_refused{reason="no_route",source="board:b1"}'] == 2


def test_a_batch_on_one_way_stays_one_batch() -> None:
    sink, sender = Sink(), Sender()
    router = Router([route("boards", "dt/#", "cloud")], Metrics())
    router.attach("cloud", sink)
    router.route("board:b1", "b1", [Message(f"dt/{n}", b"", 1, receipt=n) for n in range(9)], sender)
    assert len(sink.batches) == 1
    assert sender.ended == dict.fromkeys(range(9), Outcome.TAKEN)


def test_the_sender_in_a_route_keeps_a_board_to_its_own_topics() -> None:
    sink, sender = Sink(), Sender()
    router = Router([route("boards", "dt/{board}/#", "cloud")], Metrics())
    router.attach("cloud", sink)
    for topic in ("dt/b1/temp", "dt/b2/temp"):
        router.route("board:b1", "b1", [Message(topic, b"")], sender)
        router.route("board:b1", "", [Message(topic, b"")], sender)
    assert [message.topic for message in sink.messages] == ["dt/b1/temp"]


def test_boards_stands_for_every_board_but_only_for_boards() -> None:
    sink, sender = Sink(), Sender()
    router = Router([route("boards", "#", "cloud")], Metrics())
    router.attach("cloud", sink)
    router.route("board:b1", "b1", [Message("a", b"")], sender)
    router.route("udp", "x", [Message("b", b"")], sender)
    router.route("broker", "", [Message("c", b"")], sender)
    assert [message.topic for message in sink.messages] == ["a"]


def test_all_boards_and_one_of_them_by_name_is_one_delivery() -> None:
    every, one, sender = Sink(), Sink(), Sender()
    router = Router([route("cloud", "cmd/#", "board:b1"), route("cloud", "#", "boards")], Metrics())
    router.attach("boards", every)
    router.attach("board:b1", one)
    router.route("cloud", "", [Message("cmd/b1", b"", 1, receipt=1)], sender)
    assert (len(every.messages), len(one.messages)) == (1, 0)
    assert sender.ended == {1: Outcome.TAKEN}


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        (Outcome.TAKEN, Outcome.TAKEN, Outcome.TAKEN),
        (Outcome.TAKEN, Outcome.REFUSED, Outcome.TAKEN),
        (Outcome.REFUSED, Outcome.CONGESTED, Outcome.CONGESTED),
        (Outcome.TAKEN, Outcome.CONGESTED, Outcome.CONGESTED),
        (Outcome.REFUSED, Outcome.REFUSED, Outcome.REFUSED),
    ],
)
def test_two_targets_settle_once_and_only_when_both_have(first: Outcome, second: Outcome, together: Outcome) -> None:
    cloud, broker, sender = Sink(None), Sink(None), Sender()
    router = Router([route("boards", "dt/#", "cloud", "broker")], Metrics())
    router.attach("cloud", cloud)
    router.attach("broker", broker)
    router.route("board:b1", "b1", [Message("dt/x", b"", 1, receipt=5)], sender)
    cloud.settle(0, first)
    assert sender.ended == {}
    broker.settle(0, second)
    assert sender.ended == {5: together}


def test_congestion_of_one_target_is_told_before_the_others_have_settled_and_only_once() -> None:
    cloud, broker, sender = Sink(None), Sink(None), Sender()
    router = Router([route("boards", "dt/#", "cloud", "broker")], Metrics())
    router.attach("cloud", cloud)
    router.attach("broker", broker)
    router.route("board:b1", "b1", [Message("dt/x", b"", 1, receipt=5)], sender)
    cloud.settle(0, Outcome.CONGESTED)
    assert sender.ended == {5: Outcome.CONGESTED}
    broker.settle(0, Outcome.TAKEN)
    assert sender.ended == {5: Outcome.CONGESTED}


def test_a_flood_of_topics_keeps_the_memory_of_decisions_bounded() -> None:
    sink, sender = Sink(), Sender()
    router = Router([route("boards", "dt/#", "cloud")], Metrics())
    router.attach("cloud", sink)
    for number in range(20_000):
        router.route("board:b1", "b1", [Message(f"dt/{number}", b""), Message(f"no/{number}", b"")], sender)
    assert len(sink.messages) == 20_000
    assert sum(len(table) for table in router._known.values()) <= 4096


def test_what_a_target_does_not_subscribe_to_is_refused_to_its_sender_and_counted_with_the_reason() -> None:
    sink, sender, metrics = Sink(), Sender(), Metrics()
    router = Router([route("boards", "dt/#", "function:f")], metrics)
    router.attach("function:f", sink, subscribing("dt/{board}/temp", "dt/all"))
    topics = ("dt/b1/temp", "dt/b1/hum", "dt/b2/temp", "dt/all", "log")
    router.route("board:b1", "b1", [Message(topic, b"", 1, receipt=n) for n, topic in enumerate(topics)], sender)
    router.route("board:b1", "b1", [Message("dt/b1/hum", b"", 1, receipt=9)], sender)
    assert [message.topic for message in sink.messages] == ["dt/b1/temp", "dt/all"]
    assert [n for n, outcome in sender.ended.items() if outcome is Outcome.REFUSED] == [1, 2, 4, 9]
    counted = metrics.snapshot()
    assert counted['messages_refused{reason="not_subscribed",source="board:b1"}'] == 3
    assert counted['messages_refused{reason="no_route",source="board:b1"}'] == 1
    assert router.explain("board:b1", "b1", "dt/b1/hum") == ()


def test_another_target_takes_what_one_does_not_subscribe_to() -> None:
    one, other, sender, metrics = Sink(), Sink(), Sender(), Metrics()
    router = Router([route("boards", "#", "function:f", "cloud")], metrics)
    router.attach("function:f", one, subscribing())
    router.attach("cloud", other)
    router.route("board:b1", "b1", [Message("a", b"", 1, receipt=1), Message("b", b"", 1, receipt=2)], sender)
    assert sender.ended == {1: Outcome.TAKEN, 2: Outcome.TAKEN}
    assert metrics.snapshot()['messages_refused{reason="not_subscribed",source="board:b1"}'] == 2
    router.attach("function:f", one, subscribing("a"))  # what it subscribes to has changed
    router.route("board:b1", "b1", [Message("a", b"", 1, receipt=3)], sender)
    assert [len(one.messages), len(other.messages)] == [1, 3]


def test_a_tap_sees_what_is_routed_until_it_ends() -> None:
    seen: list[str] = []
    router = Router([], Metrics())
    end = router.tap(lambda source, messages: seen.extend(f"{source} {m.topic}" for m in messages))
    router.route("cloud", "", [Message("a", b"")], Sender())
    end()
    router.route("cloud", "", [Message("b", b"")], Sender())
    assert seen == ["cloud a"]


@given(
    routes=st.lists(
        st.builds(
            RouteSettings,
            source=st.sampled_from(["boards", "board:b1", "cloud"]),
            topic=st.sampled_from(["#", "a/#", "+/b", "a/b", "{board}/+"]),
            to=st.lists(st.sampled_from(["x", "y", "z"]), min_size=1, max_size=3, unique=True).map(tuple),
        ),
        max_size=4,
    ),
    topics=st.lists(st.sampled_from(["a/b", "a/c", "b1/b", "q", "$sys/b"]), max_size=12),
    source=st.sampled_from([("board:b1", "b1"), ("board:b2", "b2"), ("cloud", "")]),
)
def test_every_message_goes_where_a_route_says_in_order_and_ends_once(
    routes: list[RouteSettings], topics: list[str], source: tuple[str, str]
) -> None:
    sinks, sender = {name: Sink() for name in "xyz"}, Sender()
    router = Router(routes, Metrics())
    for name, sink in sinks.items():
        router.attach(name, sink)
    router.route(*source, [Message(topic, b"", 1, receipt=n) for n, topic in enumerate(topics)], sender)
    assert set(sender.ended) == set(range(len(topics)))
    for name, sink in sinks.items():
        wanted = [n for n, topic in enumerate(topics) if name in router.explain(*source, topic)]
        assert [m.receipt for m in sink.messages] == wanted


def test_what_to_subscribe_to_leaves_out_what_another_filter_covers() -> None:
    routes = [route("broker", topic, "cloud") for topic in ("dt/+", "cmd/x", "dt/#", "dt/+", "+/x", "$SYS/#")]
    assert Router([*routes, route("cloud", "#", "broker")], Metrics()).filters("broker") == [
        "dt/#",
        "+/x",
        "$SYS/#",
    ]


def test_a_target_that_must_know_where_a_batch_comes_from_is_one_for_each_source_and_sender() -> None:
    sinks: dict[tuple[str, str], Sink] = {}
    sender, metrics = Sender(), Metrics()
    router = Router([route("boards", "#", "rules", "cloud"), route("board:b1", "x", "rules")], metrics)
    router.attach("cloud", Sink())
    router.attach_by_source("rules", lambda source, who: sinks.setdefault((source, who), Sink()))
    router.route("board:b1", "b1", [Message("x", b"1", 1, receipt=1), Message("y", b"2", 1, receipt=2)], sender)
    router.route("board:b2", "b2", [Message("x", b"3", 1, receipt=3)], sender)
    router.route("board:b1", "other", [Message("x", b"4", 1, receipt=4)], sender)
    assert {place: [one.payload for one in sink.messages] for place, sink in sinks.items()} == {
        ("board:b1", "b1"): [b"1", b"2"], ("board:b2", "b2"): [b"3"], ("board:b1", "other"): [b"4"],
    }  # fmt: skip
    router.detach("rules")
    router.route("board:b1", "b1", [Message("x", b"5", 1, receipt=5)], sender)
    assert len(sinks["board:b1", "b1"].messages) == 2
    assert sender.ended == dict.fromkeys(range(1, 6), Outcome.TAKEN)
