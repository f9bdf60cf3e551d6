"""A broker that hangs up on a message: it is told, it ends, and it stops nothing else. Virtual time, and mosquitto."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from edge.cloud.aws import AwsConnection
from edge.cloud.codec import CodecConnection
from edge.cloud.connection import Connection
from edge.cloud.refusals import HOLD_S_MAX, HOLD_S_MIN, SUSPECTED, TOPICS_MAX, TRIALS, Refusals
from edge.config import ConnectionSettings
from edge.errors import ConnectionFailed
from edge.messages import Message, Outcome, Reading
from edge.metrics import Metrics
from edge_tools.mosquitto import Mosquitto
from edge_tools.pki import Credential
from tests.clock import run_virtual
from tests.cloud import worlds
from tests.cloud.test_tls import settings_of, tls_broker
from tests.cloud.worlds import Ledger, running
from tests.fakes.broker import FakeBroker

DENIED = "dt/denied"
CLOSED = ConnectionFailed("broker_closed", "the broker closed the connection", "See its log.")


def make(broker: FakeBroker, metrics: Metrics, **settings: Any) -> CodecConnection:
    given = {"client_id": "gateway-1", "tls": False, "backoff_s_min": 1.0, "backoff_s_max": 60.0, **settings}
    return CodecConnection(
        ConnectionSettings(host="cloud.test", **given),
        metrics,
        random=lambda: 0.5,
        open_transport=broker.open_transport,
    )


def fine(number: int) -> Message:
    return Message("dt/b1/temp", b"%d" % number, qos=1, receipt=number)


def denied(number: int) -> Message:
    return Message(DENIED, b"%d" % number, qos=1, receipt=number)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(36_000):
        while not true():
            await asyncio.sleep(0.01)


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, object]]:
    """What was told of topics."""
    return [
        (record.getMessage(), record.__dict__["fields"]["topic"])
        for record in caplog.records
        if record.name == "edge.cloud.refusals"
    ]


def test_a_route_to_a_denied_topic_costs_the_connection_once_and_starves_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        broker, ledger, metrics = FakeBroker(), Ledger(), Metrics()
        broker.denied.add(DENIED)
        connection = make(broker, metrics)
        async with running(connection):
            await until(lambda: connection.state.connected)
            for second in range(50):
                connection.send([denied(10 * second + 1), denied(10 * second + 2)], ledger)
                connection.send([fine(10 * second + 3), fine(10 * second + 4)], ledger)
                await asyncio.sleep(1)
            await until(lambda: len(ledger.outcomes) == 200)
            assert len(broker.opened_at) == 2
            assert ledger.receipts(Outcome.TAKEN) == [10 * s + n for s in range(50) for n in (3, 4)]
            assert len(ledger.receipts(Outcome.REFUSED)) == 100
            assert broker.published.count(b"1") == 1  # never again after its refusal
            counted = metrics.snapshot()
            held = counted['connection_messages_refused{connection="cloud",reason="broker_hangs_up"}']
            assert held + counted['connection_messages_refused{connection="cloud",reason="not_authorized"}'] == 100

    with caplog.at_level(logging.INFO, "edge.cloud"):
        run_virtual(main())
    assert lines(caplog) == [("publish_refused", DENIED), ("topic_held", DENIED)]


def test_a_topic_that_is_allowed_later_is_used_again_without_a_restart() -> None:
    async def main() -> None:
        broker, ledger = FakeBroker(), Ledger()
        broker.denied.add(DENIED)
        connection = make(broker, Metrics())
        async with running(connection):
            await until(lambda: connection.state.connected)
            connection.send([denied(1)], ledger)
            await until(lambda: connection.state.failures > 0)
            await until(lambda: connection.state.connected)
            broker.denied.clear()
            connection.send([denied(2)], ledger)
            assert ledger.receipts(Outcome.REFUSED) == [1, 2]
            await asyncio.sleep(HOLD_S_MIN)
            connection.send([denied(3)], ledger)
            await until(lambda: len(ledger.outcomes) == 3)
            assert ledger.receipts(Outcome.TAKEN) == [3]

    run_virtual(main())


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_message_that_the_broker_hangs_up_on_without_a_word_is_given_up_and_all_others_arrive(
    protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        broker, ledger, metrics = FakeBroker(), Ledger(), Metrics()
        broker.denied.add(DENIED)
        broker.denied_code = None
        connection = make(broker, metrics, protocol=protocol)
        async with running(connection):
            await until(lambda: connection.state.connected)
            connection.send([*map(fine, range(1, 50)), denied(50), *map(fine, range(51, 100))], ledger)
            await until(lambda: len(ledger.outcomes) == 99)
            assert ledger.receipts(Outcome.REFUSED) == [50]
            assert broker.published.count(b"50") == SUSPECTED + TRIALS
            await until(lambda: connection.state.connected)
            connection.send([fine(100)], ledger)
            await until(lambda: len(ledger.outcomes) == 100)

    with caplog.at_level(logging.INFO, "edge.cloud"):
        run_virtual(main())
    assert lines(caplog) == [("publish_suspected", DENIED), ("publish_given_up", DENIED)]


def test_many_messages_of_such_a_topic_cost_a_bounded_number_of_connections() -> None:
    async def main() -> None:
        broker, ledger = FakeBroker(), Ledger()
        broker.denied.add(DENIED)
        broker.denied_code = None
        connection = make(broker, Metrics())
        async with running(connection):
            await until(lambda: connection.state.connected)
            for number in range(1, 400, 2):
                connection.send([denied(number), fine(number + 1)], ledger)
            await until(lambda: len(ledger.outcomes) == 400)
            assert len(ledger.receipts(Outcome.REFUSED)) == len(ledger.receipts(Outcome.TAKEN)) == 200
            assert len(broker.opened_at) <= 2 * (SUSPECTED + TRIALS) + 1

    run_virtual(main())


class Beginning(set[str]):
    """Topics that begin so."""

    def __contains__(self, topic: object) -> bool:
        return isinstance(topic, str) and any(topic.startswith(begins) for begins in self)


class Named(Ledger):
    source = "function:f"


@pytest.mark.parametrize("ledger", [Named, Ledger])
def test_a_source_that_publishes_to_one_denied_topic_after_another_is_held_apart(
    ledger: type[Ledger], caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        broker, guilty, others = FakeBroker(), ledger(), Ledger()
        broker.denied = Beginning({"out/x"})
        broker.denied_code = None
        connection = make(broker, Metrics(), backoff_s_max=2.0)
        async with running(connection):
            await until(lambda: connection.state.connected)
            for number in range(1, 100):
                connection.send([Message(f"out/x/{number}", b"", qos=1, receipt=number)], guilty)
                connection.send([fine(number)], others)
                await asyncio.sleep(0.5)
            await until(lambda: len(others.outcomes) == len(guilty.outcomes) == 99)
            assert others.receipts(Outcome.TAKEN) == list(range(1, 100))
            assert len(guilty.receipts(Outcome.REFUSED)) == 99
            assert len(broker.opened_at) <= 2 * (SUSPECTED + TRIALS) + 1
            # Its hold ends, and it may try again.
            broker.denied.clear()
            await asyncio.sleep(HOLD_S_MIN)
            connection.send([Message("out/x/again", b"", qos=1, receipt=100)], guilty)
            await until(lambda: 100 in guilty.outcomes)
            assert guilty.outcomes[100] == [Outcome.TAKEN]

    with caplog.at_level(logging.INFO, "edge.cloud"):
        run_virtual(main())
    (held,) = [record.__dict__["fields"] for record in caplog.records if record.getMessage() == "source_held"]
    assert (held["source"], held["topics"]) == (("function:f", "#") if ledger is Named else ("", "out/x/#"))


def test_who_is_held_is_the_source_alone_as_far_as_it_is_known() -> None:
    now = 0.0
    refusals = Refusals("cloud", Metrics(), lambda: now)

    def given_up(message: Message, origin: Ledger) -> None:
        for _ in range(SUSPECTED + TRIALS):
            refusals.ended(CLOSED, message, origin)

    def of(thing: str, topic: str) -> Message:
        return Message(topic, b"", qos=1, receipt=1, reading=Reading(thing, 1, 1))

    stream, client = Ledger(), Named()
    for thing in ("b1", "g/readings", "g/rule/r"):
        given_up(of(thing, "a/b/1"), stream)
        given_up(of(thing, "a/c/2"), stream)
    assert [refusals.holds(of(thing, "z"), stream) for thing in ("b1", "b2", "g/readings", "g/rule/r")] == [
        True, False, False, True,
    ]  # fmt: skip
    assert refusals.holds(of("g/readings", "a/x"), stream)  # what has no one source: as the two began
    given_up(Message("p/1", b""), client)
    now = 2 * HOLD_S_MAX
    given_up(Message("q/1", b""), client)
    assert not refusals.holds(Message("p/2", b""), client)  # the one long after the other
    given_up(Message("p/1", b""), client)
    assert refusals.holds(Message("anything", b""), client)
    assert not refusals.holds(Message("anything", b""), stream)
    assert refusals.passing([Message("t", b"")], client) == []
    now += HOLD_S_MIN
    assert refusals.passing([Message("t", b"")], client) == [Message("t", b"")]


class FromStream(Ledger):
    patient = True


def test_of_what_a_stream_sends_only_the_denied_topics_are_held() -> None:
    async def main() -> None:
        broker, stream = FakeBroker(), FromStream()
        broker.denied = {"log/b1/a", "log/b1/b"}
        broker.denied_code = None
        connection = make(broker, Metrics(), backoff_s_max=2.0)
        topics = dict.fromkeys(range(1, 100), "dt/b1/temp")
        topics |= {number: f"log/b1/{'ab'[number // 10 % 2]}" for number in range(10, 100, 10)}
        async with running(connection):
            await until(lambda: connection.state.connected)
            for number, topic in topics.items():
                reading = Reading("b1", 1, number)
                connection.send([Message(topic, b"%d" % number, 1, False, number, None, reading)], stream)
                await asyncio.sleep(0.5)
            await until(lambda: len(stream.outcomes) == len(topics))
        denied = sorted(number for number, topic in topics.items() if topic != "dt/b1/temp")
        assert sorted(stream.receipts(Outcome.REFUSED)) == denied
        assert len(broker.opened_at) <= 4 * (SUSPECTED + TRIALS) + 1

    run_virtual(main())


def test_a_broker_that_drops_every_connection_makes_no_message_guilty() -> None:
    async def main() -> None:
        broker, ledger = FakeBroker(), Ledger()
        connection = make(broker, Metrics(), backoff_s_max=2.0)
        connection.subscribe(["cmd/#"], lambda messages, origin: None)
        async with running(connection):
            await connection.granted("cmd/#")
            broker.dropping = broker.hold_acks = True
            broker.keeps_sessions = False
            connection.send(list(map(fine, range(1, 10))), ledger)
            await until(lambda: len(broker.opened_at) == 40)
            assert ledger.outcomes == {}
            broker.dropping = broker.hold_acks = False
            await until(lambda: len(ledger.outcomes) == 9)
            assert ledger.receipts(Outcome.TAKEN) == list(range(1, 10))

    run_virtual(main())


def test_a_broker_that_goes_again_and_again_before_its_answer_makes_no_message_guilty() -> None:
    async def main() -> None:
        broker, ledger = FakeBroker(), Ledger()
        connection = make(broker, Metrics())
        async with running(connection):
            await until(lambda: connection.state.connected)
            broker.hold_acks = True
            connection.send(list(map(fine, range(1, 10))), ledger)
            for _ in range(SUSPECTED):
                await until(lambda: connection.state.connected and connection.state.failures == 0)
                await asyncio.sleep(0.5)
                broker.hang_up()
                await until(lambda: not connection.state.connected)
            broker.hold_acks = False
            await until(lambda: len(ledger.outcomes) == 9)
            assert ledger.receipts(Outcome.TAKEN) == list(range(1, 10))
            connection.send([fine(10)], ledger)
            await until(lambda: len(ledger.outcomes) == 10)

    run_virtual(main())


def test_on_a_careful_connection_nothing_else_is_lost() -> None:
    async def main() -> None:
        broker, ledger = FakeBroker(), Ledger()
        broker.denied.add(DENIED)
        broker.denied_code = None
        connection = make(broker, Metrics())
        async with running(connection):
            await until(lambda: connection.state.connected)
            connection.send([denied(1)], ledger)
            number = 1
            while len(ledger.receipts(Outcome.REFUSED)) == 0:
                number += 1
                connection.send([fine(number), Message("dt/b1/temp", b"zero %d" % number)], ledger)
                await asyncio.sleep(0.25)
            await until(lambda: len(ledger.outcomes) == number)
            assert ledger.receipts(Outcome.TAKEN) == list(range(2, number + 1))
            assert [payload for payload in dict.fromkeys(broker.published) if payload[:1] not in b"z1"] == [
                b"%d" % n for n in range(2, number + 1) if not str(n).startswith("1")
            ]

    run_virtual(main())


def test_a_hold_grows_while_the_topic_stays_denied_and_starts_over_after_a_long_peace() -> None:
    now = 0.0
    refusals = Refusals("cloud", Metrics(), lambda: now)
    lengths = []
    for _ in range(9):
        refusals.refused("t", 0x87, "not_authorized")
        refusals.ended(CLOSED, None)
        lengths.append(refusals.held["t"] - now)
        now = refusals.held["t"]
        assert refusals.passing([Message("t", b"")], Ledger())
    assert lengths == [60, 120, 240, 480, 960, 1920, HOLD_S_MAX, HOLD_S_MAX, HOLD_S_MAX]
    now += 3 * HOLD_S_MAX
    refusals.refused("t", 0x87, "not_authorized")
    refusals.ended(CLOSED, None)
    assert refusals.held["t"] == now + HOLD_S_MIN


def test_a_broker_that_refuses_and_stays_has_no_topic_held() -> None:
    refusals = Refusals("cloud", Metrics(), lambda: 0.0)
    refusals.refused("t", 0x87, "not_authorized")
    refusals.ended(ConnectionFailed("keepalive_timeout", "silence", "See."), fine(1))
    assert not refusals.held


def test_a_broker_that_goes_long_after_a_refusal_has_no_topic_held() -> None:
    now = 0.0
    refusals = Refusals("cloud", Metrics(), lambda: now)
    refusals.refused("t", 0x87, "not_authorized")
    now = 3600.0
    refusals.ended(CLOSED, None)
    assert not refusals.held


def test_what_is_remembered_is_bounded() -> None:
    refusals = Refusals("cloud", Metrics(), lambda: 0.0)
    for number in range(3 * TOPICS_MAX):
        refusals.refused(f"t/{number}", 0x87, "not_authorized")
        if number % 100 == 0:
            refusals.ended(CLOSED, None)
    assert len(refusals.held) <= TOPICS_MAX
    assert "t/2900" in refusals.held


def test_quality_0_to_a_held_topic_is_dropped_and_counted() -> None:
    metrics, ledger = Metrics(), Ledger()
    refusals = Refusals("cloud", metrics, lambda: 0.0)
    refusals.refused("t", 0x87, "not_authorized")
    refusals.ended(CLOSED, None)
    assert refusals.passing([Message("t", b""), Message("u", b"")], ledger) == [Message("u", b"")]
    assert ledger.outcomes == {}
    assert metrics.snapshot()['connection_messages_dropped{connection="cloud",reason="broker_hangs_up"}'] == 1


@pytest.mark.parametrize("implementation", ["codec", "aws"])
def test_a_real_mosquitto_that_denies_a_topic_is_lost_once_and_the_rest_arrives(
    implementation: str, cloud_broker: Mosquitto, thing_credential: Credential
) -> None:
    async def main() -> None:
        metrics, ledger = Metrics(), Ledger()
        settings = ConnectionSettings(
            host="localhost",
            port=cloud_broker.tls_port,
            client_id="gateway-1",
            ca=str(thing_credential.ca),
            certificate=str(thing_credential.certificate),
            key=str(thing_credential.key),
            backoff_s_min=0.02,
            backoff_s_max=0.2,
        )
        connection: Connection
        connection = (AwsConnection if implementation == "aws" else CodecConnection)(settings, metrics)
        async with running(connection):
            await worlds.until(lambda: connection.state.connected)
            for number in range(1, 300, 3):
                batch = [Message("dt/gateway-2/x", b"", qos=1, receipt=number)]
                batch += [Message("dt/gateway-1/x", b"", qos=1, receipt=number + more) for more in (1, 2)]
                connection.send(batch, ledger)
                await asyncio.sleep(0.002)
            await worlds.until(lambda: len(ledger.outcomes) == 300)
            assert ledger.receipts(Outcome.REFUSED) == list(range(1, 300, 3))
            assert len(ledger.receipts(Outcome.TAKEN)) == 200
            # Once, unless the broker's reset overtook its PUBACK: then again, but never without end.
            tries = cloud_broker.log_text().count("Denied PUBLISH")
            assert 1 <= tries <= 2 * (SUSPECTED + TRIALS)
            assert metrics.snapshot()['connection_opens{connection="cloud"}'] <= tries + 1

    asyncio.run(main())


@pytest.mark.parametrize("implementation", ["codec", "aws"])
def test_topics_that_a_broker_would_hang_up_on_for_their_length_never_reach_it(
    implementation: str, cloud_broker: Mosquitto, thing_credential: Credential, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        metrics, ledger = Metrics(), Ledger()
        settings = settings_of(thing_credential, port=cloud_broker.tls_port)
        connection: Connection
        connection = (AwsConnection if implementation == "aws" else CodecConnection)(settings, metrics)
        async with running(connection):
            await worlds.until(lambda: connection.state.connected)
            for number in range(1, 200, 2):
                deep = f"dt/gateway-1/{number}" + "/x" * 297
                batch = [Message(deep, b"", qos=1, receipt=number), Message(deep, b"")]
                connection.send([*batch, Message("dt/gateway-1/x", b"", qos=1, receipt=number + 1)], ledger)
                await asyncio.sleep(0)
            await worlds.until(lambda: len(ledger.outcomes) == 200)
            assert ledger.receipts(Outcome.REFUSED) == list(range(1, 200, 2))
            counted = metrics.snapshot()
            assert counted['connection_messages_refused{connection="cloud",reason="topic_levels"}'] == 100
            assert counted['connection_messages_dropped{connection="cloud",reason="topic_levels"}'] == 100
            assert counted['connection_opens{connection="cloud"}'] == 1

    with caplog.at_level(logging.INFO, "edge.cloud"):
        asyncio.run(main())
    (told,) = [record.__dict__["fields"] for record in caplog.records if record.getMessage() == "topic_refused"]
    assert told["problem"] == "300 levels, at most 128"


def test_the_sdks_connection_gives_up_what_the_broker_hangs_up_on_and_sends_the_rest(
    server_credential: Credential, thing_credential: Credential
) -> None:
    async def main() -> None:
        broker, ledger = FakeBroker(), Ledger()
        broker.denied.add(DENIED)
        broker.denied_code = None
        async with tls_broker(broker, server_credential) as port:
            connection = AwsConnection(settings_of(thing_credential, port=port), Metrics())
            async with running(connection):
                await worlds.until(lambda: connection.state.connected)
                connection.send([fine(1), denied(2), fine(3)], ledger)
                await worlds.until(lambda: len(ledger.outcomes) == 3)
                assert ledger.receipts(Outcome.REFUSED) == [2]
                assert broker.published.count(b"2") == SUSPECTED + TRIALS

    asyncio.run(main())
