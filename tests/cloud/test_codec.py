"""What only the codec's connection shows: hostile brokers, one write for many, back-pressure. Virtual time."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.cloud.codec import CodecConnection
from edge.cloud.link import GATHER_IN_FLIGHT, GATHER_S, GOODBYE_S
from edge.config import ConnectionSettings
from edge.messages import Message, Outcome
from edge.metrics import Metrics
from edge.mqtt import packets
from edge.mqtt.codes import CONNACK_311
from tests.clock import run_virtual
from tests.cloud.worlds import Inbound, Ledger, running
from tests.fakes.broker import FakeBroker


def make(broker: FakeBroker, metrics: Metrics | None = None, **settings: Any) -> CodecConnection:
    given = {"client_id": "gateway-1", "tls": False, "backoff_s_min": 1.0, "backoff_s_max": 60.0, **settings}
    return CodecConnection(
        ConnectionSettings(host="cloud.test", **given),
        metrics or Metrics(),
        random=lambda: 0.5,
        open_transport=broker.open_transport,
    )


def reading(number: int, size: int = 0) -> Message:
    return Message("dt/b1/temp", (b"%d" % number).ljust(size), qos=1, receipt=number)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(3600):
        while not true():
            await asyncio.sleep(0.01)


def test_many_messages_sent_in_one_turn_leave_in_one_write() -> None:
    async def main() -> None:
        broker, ledger = FakeBroker(), Ledger()
        connection = make(broker)
        async with running(connection):
            await until(lambda: connection.state.connected)
            broker.chunks = 0
            for number in range(1, 201):
                connection.send([reading(number)], ledger)
            await until(lambda: len(ledger.outcomes) == 200)
            assert broker.chunks == 1

    run_virtual(main())


def test_acknowledgements_of_one_read_leave_in_one_write() -> None:
    async def main() -> None:
        broker, inbound = FakeBroker(), Inbound()
        connection = make(broker)
        connection.subscribe(["cmd/#"], inbound)
        async with running(connection):
            await connection.granted("cmd/#")
            broker.chunks = 0
            session = broker.sessions["gateway-1"]
            assert session.client is not None
            session.client.say(*(packets.Publish("cmd/x", b"", 1, packet_id=number) for number in range(1, 101)))
            await until(lambda: len(broker.of(packets.Puback)) == 100)
            assert broker.chunks == 1

    run_virtual(main())


def test_answers_to_many_messages_under_way_gather_before_they_are_read_and_those_to_few_do_not() -> None:
    async def main() -> None:
        broker, ledger = FakeBroker(), Ledger()
        broker.hold_acks = True
        connection = make(broker)
        loop = asyncio.get_running_loop()

        async def answered() -> list[int]:
            """How many are settled after each answer, without any time passing."""
            client, settled, began = broker.clients[0], [], loop.time()
            for answer in client.held:
                client.say(answer)
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                settled.append(len(ledger.outcomes))
            client.held = []
            assert loop.time() == began
            return settled

        async with running(connection):
            await until(lambda: connection.state.connected)
            few, many = GATHER_IN_FLIGHT - 1, GATHER_IN_FLIGHT + 100
            connection.send([reading(number) for number in range(few)], ledger)
            await until(lambda: len(broker.published) == few)
            assert await answered() == list(range(1, few + 1))
            connection.send([reading(few + number) for number in range(many)], ledger)
            await until(lambda: len(broker.published) == few + many)
            assert await answered() == [few + 1] * many
            await asyncio.sleep(2 * GATHER_S)
            assert len(ledger.outcomes) == few + many

    run_virtual(main())


def test_a_broker_that_hangs_up_while_answers_gather_is_found_out_and_what_it_answered_counts() -> None:
    async def main() -> None:
        broker, ledger = FakeBroker(), Ledger()
        broker.hold_acks = True
        connection = make(broker)
        async with running(connection):
            await until(lambda: connection.state.connected)
            connection.send([reading(number) for number in range(500)], ledger)
            await until(lambda: len(broker.published) == 500)
            client = broker.clients[0]
            answers, client.held = client.held[:10], []
            for answer in answers:
                client.say(answer)
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            client.transport.close()
            broker.hold_acks = False
            await until(lambda: len(ledger.outcomes) == 500)
            assert len(broker.published) == 500 + 490

    run_virtual(main())


def test_a_refused_message_is_answered_not_authorized() -> None:
    async def main() -> None:
        broker, inbound = FakeBroker(), Inbound(lambda message: Outcome.REFUSED)
        connection = make(broker)
        connection.subscribe(["cmd/#"], inbound)
        async with running(connection):
            await connection.granted("cmd/#")
            broker.publish("cmd/x", b"")
            await until(lambda: len(broker.of(packets.Puback)) == 1)
            assert broker.of(packets.Puback)[0].code == 0x87

    run_virtual(main())


def test_chunks_of_one_byte_make_no_difference() -> None:
    async def main() -> None:
        broker, inbound, ledger = FakeBroker(), Inbound(), Ledger()
        broker.cut = 1
        connection = make(broker)
        connection.subscribe(["cmd/#"], inbound)
        async with running(connection):
            await connection.granted("cmd/#")
            connection.send([reading(number) for number in range(1, 51)], ledger)
            for number in range(50):
                broker.publish("cmd/x", b"%d" % number)
            await until(lambda: len(ledger.outcomes) == 50 and len(inbound.messages) == 50)
            assert inbound.payloads == [b"%d" % number for number in range(50)]

    run_virtual(main())


def test_no_more_is_in_flight_than_the_broker_takes_and_the_rest_waits_in_order() -> None:
    async def main() -> None:
        broker, ledger = FakeBroker(), Ledger()
        broker.receive_maximum, broker.hold_acks = 7, True
        connection = make(broker)
        async with running(connection):
            await until(lambda: connection.state.connected)
            connection.send([reading(number) for number in range(1, 31)], ledger)
            await asyncio.sleep(1)
            assert (len(broker.published), connection.state.in_flight, connection.state.queued_messages) == (7, 7, 23)
            broker.release()
            await until(lambda: len(ledger.outcomes) == 30)
            assert broker.published == [b"%d" % number for number in range(1, 31)]

    run_virtual(main())


def test_a_broker_that_stops_reading_makes_messages_queue_and_is_left_after_a_while() -> None:
    async def main() -> None:
        broker, ledger = FakeBroker(), Ledger()
        connection = make(broker, keepalive_s=30, window=60000)
        async with running(connection):
            await until(lambda: connection.state.connected)
            broker.reading = False
            for number in range(1, 2001):
                connection.send([reading(number, size=1000)], ledger)
                await asyncio.sleep(0)
            assert connection.state.queued_messages > 1000
            await until(lambda: not connection.state.connected)
            assert connection.state.cause == "keepalive_timeout"
            broker.reading = True
            await until(lambda: len(ledger.outcomes) == 2000)
            assert ledger.receipts(Outcome.TAKEN) == list(range(1, 2001))

    run_virtual(main())


def test_a_broker_that_sends_but_never_reads_is_left_too() -> None:
    async def main() -> None:
        broker, ledger = FakeBroker(), Ledger()
        connection = make(broker, keepalive_s=30, window=60000)
        async with running(connection):
            await until(lambda: connection.state.connected)
            broker.reading = False
            connection.send([reading(1)], ledger)
            await asyncio.sleep(1)
            connection.send([reading(number, size=1000) for number in range(2, 1001)], ledger)
            for _ in range(100):
                await asyncio.sleep(1)
                if not connection.state.connected:
                    break
                broker.say(packets.Pingresp())
            assert connection.state.cause == "keepalive_timeout"

    run_virtual(main())


def test_a_broker_that_answers_no_ping_is_left_and_found_again() -> None:
    async def main() -> None:
        broker = FakeBroker()
        broker.answer_pings = False
        connection = make(broker, keepalive_s=20)
        async with running(connection):
            await until(lambda: connection.state.connected)
            await until(lambda: connection.state.failures == 1)
            assert connection.state.cause == "keepalive_timeout"
            broker.answer_pings = True
            await until(lambda: connection.state.connected)
            opened = len(broker.opened_at)
            await asyncio.sleep(600)
            assert connection.state.connected
            assert len(broker.opened_at) == opened

    run_virtual(main())


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        (0x84, "protocol_version_refused"),
        (0x85, "client_id_refused"),
        (0x86, "bad_credentials"),
        (0x87, "refused_not_authorized"),
        (0x88, "server_unavailable"),
        (0x89, "server_busy"),
        (0x8A, "banned"),
        (0x97, "quota_exceeded"),
        (0x9D, "server_moved"),
        (0x9F, "connection_rate_exceeded"),
        (0x80, "connect_refused"),
    ],
)
def test_a_refused_connect_names_its_cause_and_is_tried_again(code: int, cause: str) -> None:
    assert cause_of(code, "5") == cause


@pytest.mark.parametrize("code", [1, 2, 3, 4, 5])
def test_a_connect_refused_under_3_1_1_names_the_same_causes(code: int) -> None:
    assert cause_of(code, "3.1.1") == cause_of(CONNACK_311[code], "5")


def cause_of(code: int, protocol: str) -> str:
    async def main() -> str:
        broker = FakeBroker()
        broker.connack = code
        connection = make(broker, protocol=protocol)
        async with running(connection):
            await until(lambda: connection.state.failures == 2)
            state = connection.state
            assert state.remedy
            broker.connack = 0
            await until(lambda: connection.state.connected)
        return state.cause

    return run_virtual(main())


@pytest.mark.parametrize(
    ("greeting", "cause"),
    [
        (b"\xff\xff\xff\xff\xff", "protocol_error"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "protocol_error"),
        (b"\x32\x05\x00\x01+\x00\x01", "protocol_error"),
        (packets.encode(packets.Disconnect(0x8E), 5), "session_taken_over"),
        (packets.encode(packets.Disconnect(0x8B), 5), "broker_closed"),
        (packets.encode(packets.Disconnect(0x98), 5), "administrative_action"),
    ],
)
def test_what_a_broker_says_wrong_ends_the_connection_and_it_is_opened_again(greeting: bytes, cause: str) -> None:
    async def main() -> None:
        broker = FakeBroker()
        broker.greeting = greeting
        connection = make(broker)
        async with running(connection):
            await until(lambda: connection.state.failures == 1)
            assert connection.state.cause == cause
            broker.greeting = b""
            await until(lambda: connection.state.connected)
            await asyncio.sleep(100)
            assert connection.state.connected

    run_virtual(main())


def test_a_broker_that_hangs_up_within_a_packet_has_closed() -> None:
    async def main() -> None:
        broker = FakeBroker()
        connection = make(broker)
        async with running(connection):
            await until(lambda: connection.state.connected)
            broker.say_bytes(b"\x32\x20\x00")
            broker.hang_up()
            await until(lambda: connection.state.failures == 1)
            assert connection.state.cause == "broker_closed"
            await until(lambda: connection.state.connected)

    run_virtual(main())


def test_a_port_that_takes_the_connection_and_says_nothing_is_unreachable() -> None:
    async def main() -> None:
        broker = FakeBroker()
        broker.connack = None
        connection = make(broker, connect_timeout_s=10)
        async with running(connection):
            await until(lambda: connection.state.failures == 1)
            assert connection.state.cause == "unreachable"

    run_virtual(main())


def test_tries_come_more_and_more_slowly_up_to_the_bound() -> None:
    async def main() -> None:
        broker = FakeBroker()
        broker.connack = 0x88
        connection = make(broker, backoff_s_min=1, backoff_s_max=20)
        async with running(connection):
            await until(lambda: len(broker.opened_at) == 10)
        pauses = [later - sooner for sooner, later in zip(broker.opened_at, broker.opened_at[1:], strict=False)]
        assert pauses[0] < 1.1
        assert pauses[:5] == sorted(pauses[:5])
        assert max(pauses) < 21

    run_virtual(main())


def test_one_line_is_logged_for_a_change_of_cause_and_not_for_each_try(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        broker = FakeBroker()
        broker.connack = 0x87
        connection = make(broker)
        async with running(connection):
            await until(lambda: connection.state.failures == 5)
            broker.connack = 0x88
            await until(lambda: connection.state.failures == 9)
            broker.connack = 0
            await until(lambda: connection.state.connected)

    with caplog.at_level(logging.INFO, "edge.cloud"):
        run_virtual(main())
    told = [(r.getMessage(), r.__dict__["fields"].get("cause")) for r in caplog.records]
    assert told == [
        ("connection_failed", "refused_not_authorized"),
        ("connection_failed", "server_unavailable"),
        ("connected", None),
        ("connection_closed", None),
    ]
    assert all(r.__dict__["fields"]["remedy"] for r in caplog.records if r.getMessage() == "connection_failed")


def test_a_client_taken_over_again_and_again_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        broker = FakeBroker()
        broker.greeting = packets.encode(packets.Disconnect(0x8E), 5)
        async with running(make(broker)):
            await until(lambda: len(broker.opened_at) == 10)

    with caplog.at_level(logging.INFO, "edge.cloud"):
        run_virtual(main())
    assert [r.getMessage() for r in caplog.records].count("connection_failed") == 1
    assert [r.getMessage() for r in caplog.records].count("connected") <= 2


def test_a_session_the_broker_lost_is_made_again_and_nothing_taken_is_missing() -> None:
    async def main() -> None:
        broker, inbound, ledger = FakeBroker(), Inbound(), Ledger()
        connection = make(broker)
        connection.subscribe(["cmd/#"], inbound)
        async with running(connection):
            await connection.granted("cmd/#")
            broker.hold_acks = True
            connection.send([reading(number) for number in range(1, 11)], ledger)
            await until(lambda: len(broker.published) == 10)
            broker.sessions.clear()
            broker.hold_acks = False
            broker.hang_up()
            await until(lambda: len(ledger.outcomes) == 10)
            assert not connection.state.session_present
            assert broker.published[10:] == [b"%d" % number for number in range(1, 11)]
            await until(lambda: bool(broker.sessions["gateway-1"].filters))
            broker.publish("cmd/x", b"after")
            await until(lambda: inbound.payloads == [b"after"])

    run_virtual(main())


def test_with_the_session_kept_nothing_is_subscribed_to_twice() -> None:
    async def main() -> None:
        broker = FakeBroker()
        connection = make(broker)
        connection.subscribe([f"cmd/{number}" for number in range(20)], Inbound())
        async with running(connection):
            await connection.granted("cmd/19")
            sizes = [len(packet.subscriptions) for packet in broker.of(packets.Subscribe)]
            assert sizes == [8, 8, 4]  # a broker may take eight at a time
            broker.hang_up()
            await until(lambda: connection.state.session_present)
            connection.subscribe(["cmd/new"], Inbound())
            await connection.granted("cmd/new")
            assert [len(packet.subscriptions) for packet in broker.of(packets.Subscribe)] == [8, 8, 4, 1]

    run_virtual(main())


def test_a_filter_is_let_go_when_its_successor_stands_and_not_before() -> None:
    async def main() -> None:
        broker = FakeBroker()
        connection, inbound = make(broker), Inbound()
        narrow = [f"cmd/{number}" for number in range(10)]
        connection.subscribe(["cmd/#"], inbound)
        async with running(connection):
            await connection.granted("cmd/#")
            broker.denied_filters = {"cmd/3"}
            connection.subscribe(narrow, inbound)
            connection.unsubscribe(["cmd/#"], inbound)
            await connection.granted("cmd/9")
            broker.publish("cmd/3", b"kept by the wide one")
            await until(lambda: len(inbound.messages) == 1)
            assert broker.of(packets.Unsubscribe) == []
            broker.denied_filters = set()
            broker.hang_up()
            await connection.granted("cmd/3")
            await until(lambda: len(broker.of(packets.Unsubscribe)) == 1)
            assert broker.of(packets.Unsubscribe)[0].filters == ("cmd/#",)
            connection.unsubscribe(narrow, inbound)
            await until(lambda: len(broker.of(packets.Unsubscribe)) == 3)
            sizes = [len(packet.filters) for packet in broker.of(packets.Unsubscribe)]
            assert sizes == [1, 8, 2]  # AWS IoT Core takes eight in one packet
            assert broker.sessions["gateway-1"].filters == {}

    run_virtual(main())


@pytest.mark.parametrize("keeps", [True, False])
def test_a_connection_lost_before_a_filter_was_let_go_asks_again_if_the_session_lasts(keeps: bool) -> None:
    async def main() -> None:
        broker = FakeBroker()
        connection, inbound = make(broker), Inbound()
        connection.subscribe(["cmd/a", "cmd/b"], inbound)
        async with running(connection):
            await connection.granted("cmd/b")
            broker.keeps_sessions = keeps
            broker.dropping = True
            connection.unsubscribe(["cmd/a"], inbound)
            await until(lambda: not connection.state.connected)
            broker.dropping = False
            await until(lambda: "cmd/a" not in broker.sessions["gateway-1"].filters and connection.state.connected)
            await connection.granted("cmd/b")
            assert len(broker.of(packets.Unsubscribe)) == (2 if keeps else 1)

    run_virtual(main())


def test_a_filter_that_the_broker_will_not_let_go_is_told_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        broker = FakeBroker()
        metrics = Metrics()
        connection, inbound = make(broker, metrics=metrics), Inbound()
        connection.subscribe(["cmd/a"], inbound)
        async with running(connection):
            await connection.granted("cmd/a")
            broker.denied_filters = {"cmd/a"}
            connection.unsubscribe(["cmd/a"], inbound)
            name = 'connection_unsubscriptions_refused{connection="cloud",reason="not_authorized"}'
            await until(lambda: metrics.snapshot().get(name) == 1)

    run_virtual(main())
    assert [record.message for record in caplog.records if "refused" in record.message] == ["unsubscription_refused"]


def test_later_messages_of_a_topic_wait_behind_a_congested_one_and_others_pass() -> None:
    async def main() -> None:
        broker = FakeBroker()
        room = False

        def answer(message: Message) -> Outcome:
            return Outcome.TAKEN if room or message.topic != "cmd/full" else Outcome.CONGESTED

        inbound = Inbound(answer)
        connection = make(broker)
        connection.subscribe(["cmd/#"], inbound)
        async with running(connection):
            await connection.granted("cmd/#")
            for topic, payload in (("cmd/full", b"1"), ("cmd/full", b"2"), ("cmd/other", b"3")):
                broker.publish(topic, payload)
            await until(lambda: b"3" in inbound.payloads)
            assert inbound.payloads == [b"1", b"3"]
            room = True
            await until(lambda: len(broker.of(packets.Puback)) == 3)
            assert inbound.payloads[-2:] == [b"1", b"2"]

    run_virtual(main())


def test_a_receiver_that_fails_costs_the_connection_and_not_the_gateway(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        broker = FakeBroker()
        failing = True

        def answer(message: Message) -> Outcome:
            if failing:
                raise ValueError("a bug")
            return Outcome.TAKEN

        inbound = Inbound(answer)
        connection = make(broker)
        connection.subscribe(["cmd/#"], inbound)
        async with running(connection):
            await connection.granted("cmd/#")
            broker.publish("cmd/x", b"1")
            await until(lambda: connection.state.failures == 1)
            assert connection.state.cause == "internal_error"
            failing = False
            await until(lambda: len(broker.of(packets.Puback)) == 1)

    run_virtual(main())
    assert "ValueError: a bug" in caplog.text


def test_ending_says_goodbye_and_keeps_the_session() -> None:
    async def main() -> None:
        broker = FakeBroker()
        connection = make(broker)
        async with running(connection):
            await until(lambda: connection.state.connected)
        assert [packet.code for packet in broker.of(packets.Disconnect)] == [0]
        assert not connection.state.connected

    run_virtual(main())


def test_ending_takes_no_longer_than_the_goodbye_when_the_broker_does_not_read() -> None:
    async def main() -> None:
        broker = FakeBroker()
        connection = make(broker)
        async with running(connection):
            await until(lambda: connection.state.connected)
            broker.reading = False
            connection.send([reading(1)], Ledger())
            await asyncio.sleep(0.1)
            start = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - start <= GOODBYE_S

    run_virtual(main())


def test_a_password_that_changed_is_used_at_the_next_connect(tmp_path: Path) -> None:
    async def main() -> None:
        broker = FakeBroker()
        file = tmp_path / "password"
        file.write_text("old\n")
        file.chmod(0o600)
        connection = make(broker, username="u", password_file=str(file))
        async with running(connection):
            await until(lambda: connection.state.connected)
            file.write_text("new\n")
            broker.hang_up()
            await until(lambda: len(broker.of(packets.Connect)) == 2)
        assert [packet.password for packet in broker.of(packets.Connect)] == [b"old", b"new"]

    run_virtual(main())


def test_a_broker_that_sends_beyond_the_receive_maximum_is_read_no_further_and_still_answers_pings() -> None:
    async def main() -> None:
        broker, inbound = FakeBroker(), Inbound(lambda message: None)
        connection = make(broker, window=10, keepalive_s=20)
        connection.subscribe(["cmd/#"], inbound)
        async with running(connection):
            await connection.granted("cmd/#")
            for number in range(150):
                broker.publish("cmd/x", (b"%d" % number).ljust(20_000))
            await asyncio.sleep(200)
            assert connection.state.connected
            assert 20 <= len(inbound.messages) < 100  # one read more for each ping
            while len(inbound.messages) < 150:
                start = len(inbound.messages)
                open_now = [message.receipt for message in inbound.messages]
                inbound.origins[0].settled(open_now, Outcome.TAKEN)
                await until(lambda start=start: len(inbound.messages) > start)  # type: ignore[misc]
            assert [int(payload) for payload in inbound.payloads] == list(range(150))

    run_virtual(main())
