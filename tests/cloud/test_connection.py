"""The contract of a Connection, held by every implementation: the codec's in both versions, the SDK's, the fake."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.cloud.connection import Connection, Payload
from edge.cloud.held import HeldFilters
from edge.errors import ConnectionFailed, InputRejected
from edge.messages import Message, Outcome, Properties
from edge_tools.pki import Credential
from tests.cloud.worlds import FakeWorld, Inbound, Ledger, MosquittoWorld, World, running, until


@pytest.fixture(params=["codec 5", "codec 3.1.1", "aws", "fake"])
def world(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    server_credential: Credential,
    thing_credential: Credential,
    observer_credential: Credential,
) -> Iterator[World]:
    made: World
    if request.param == "fake":
        made = FakeWorld()
    else:
        credentials = server_credential, thing_credential, observer_credential
        made = MosquittoWorld(request.param, tmp_path / "cloud", *credentials)
    yield made
    made.close()


def reading(number: int, qos: int = 1) -> Message:
    return Message("dt/gateway-1/temp", b"%d" % number, qos=qos, receipt=number if qos else 0)


def connected(connection: Connection) -> bool:
    return connection.state.connected


def test_what_is_published_arrives_in_order_and_is_settled_once(world: World) -> None:
    async def main() -> None:
        connection, ledger = world.connection(), Ledger()
        async with running(connection):
            await until(lambda: connected(connection))
            for start in range(1, 501, 50):
                connection.send([reading(number) for number in range(start, start + 50)], ledger)
            await until(lambda: len(ledger.outcomes) == 500)
            assert ledger.receipts(Outcome.TAKEN) == list(range(1, 501))
            await until(lambda: len(world.received) >= 500)
        assert world.received == [("dt/gateway-1/temp", b"%d" % number) for number in range(1, 501)]

    asyncio.run(main())


def test_quality_0_arrives_and_is_never_settled(world: World) -> None:
    async def main() -> None:
        connection, ledger = world.connection(), Ledger()
        async with running(connection):
            await until(lambda: connected(connection))
            connection.send([reading(number, qos=0) for number in range(20)], ledger)
            await until(lambda: len(world.received) >= 20)
        assert ledger.outcomes == {}

    asyncio.run(main())


def test_what_was_sent_before_the_connection_opens_waits_and_goes_first(world: World) -> None:
    async def main() -> None:
        connection, ledger = world.connection(), Ledger()
        connection.send([reading(number) for number in range(1, 301)], ledger)
        assert connection.state.queued_messages == 300
        async with running(connection):
            await until(lambda: connected(connection))
            connection.send([reading(301)], ledger)
            await until(lambda: len(world.received) >= 301)
            await until(lambda: len(ledger.outcomes) == 301)
            assert connection.state.queued_messages == connection.state.queued_bytes == 0
        assert [payload for _, payload in world.received] == [b"%d" % number for number in range(1, 302)]

    asyncio.run(main())


def test_what_is_taken_back_while_it_waits_is_neither_sent_nor_settled(world: World) -> None:
    async def main() -> None:
        connection, ledger, other = world.connection(), Ledger(), Ledger()
        connection.send([reading(0, qos=0), *map(reading, range(1, 7))], ledger)
        connection.send([reading(7)], other)
        assert connection.take_back(ledger, lambda receipt: receipt not in {2, 5}) == [1, 3, 4, 6]
        assert connection.state.queued_messages == 4
        async with running(connection):
            await until(lambda: len(ledger.outcomes) + len(other.outcomes) == 3)
            await until(lambda: len(world.received) >= 4)
        assert [payload for _, payload in world.received] == [b"0", b"2", b"5", b"7"]
        assert ledger.receipts(Outcome.TAKEN) == [2, 5]

    asyncio.run(main())


def test_a_full_queue_turns_quality_1_away_and_counts_quality_0(world: World) -> None:
    async def main() -> None:
        connection, ledger = world.connection(queue_messages_max=10), Ledger()
        connection.send([reading(number) for number in range(1, 15)], ledger)
        connection.send([reading(0, qos=0)], ledger)
        assert ledger.receipts(Outcome.CONGESTED) == [11, 12, 13, 14]
        counted = world.metrics.snapshot()
        assert counted['connection_messages_congested{connection="cloud"}'] == 4
        assert counted['connection_messages_dropped{connection="cloud",reason="queue_full"}'] == 1
        async with running(connection):
            await until(lambda: len(world.received) >= 10)
            await until(lambda: len(ledger.outcomes) == 14)
        assert ledger.receipts(Outcome.TAKEN) == list(range(1, 11))

    asyncio.run(main())


def test_what_still_waits_at_the_end_is_settled_congested(world: World) -> None:
    async def main() -> None:
        world.stop()
        connection, ledger = world.connection(), Ledger()
        async with running(connection):
            connection.send([reading(1), reading(2)], ledger)
            await asyncio.sleep(0.05)
        assert ledger.receipts(Outcome.CONGESTED) == [1, 2]
        assert not connected(connection)

    asyncio.run(main())


def test_a_publish_that_is_not_allowed_is_refused_and_the_next_one_arrives(world: World) -> None:
    async def main() -> None:
        connection, ledger = world.connection(), Ledger()
        async with running(connection):
            await until(lambda: connected(connection))
            connection.send([Message("dt/gateway-2/x", b"", qos=1, receipt=1), reading(2)], ledger)
            await until(lambda: len(ledger.outcomes) == 2)
            await until(lambda: connected(connection))  # mosquitto 2.0.11 hangs up on what it refuses
            await until(lambda: len(world.received) > 0)
        refused = ledger.receipts(Outcome.REFUSED)
        assert refused == ([1] if world.refuses else [])  # MQTT 3.1.1 has no word for it
        assert world.received == [("dt/gateway-1/temp", b"2")]

    asyncio.run(main())


def test_what_is_subscribed_to_comes_with_its_properties(world: World) -> None:
    async def main() -> None:
        connection, inbound = world.connection(), Inbound()
        connection.subscribe(["cmd/gateway-1/#"], inbound)
        async with running(connection):
            await connection.granted("cmd/gateway-1/#")
            properties = Properties(response_topic="r/1", correlation_data=b"\xff\0", user=(("a", "b"),))
            world.publish("cmd/gateway-1/ping", b"1", properties)
            await until(lambda: len(inbound.messages) == 1)
        message = inbound.messages[0]
        assert (message.topic, message.payload, message.qos) == ("cmd/gateway-1/ping", b"1", 1)
        if world.refuses:  # MQTT 5
            assert message.properties == properties

    asyncio.run(main())


def test_a_message_of_the_largest_size_comes_with_all_that_stands_beside_it_and_one_beyond_is_left_to_who_gets_it(
    world: World,
) -> None:
    async def main() -> None:
        connection, inbound = world.connection(), Inbound()
        connection.subscribe(["cmd/gateway-1/#"], inbound)
        async with running(connection):
            await connection.granted("cmd/gateway-1/#")
            topic = "cmd/gateway-1/" + "x" * 60_000
            for size in (131_072, 140_072):
                world.publish(topic, b"x" * size, Properties(response_topic="r/1", correlation_data=b"y" * 60_000))
            await until(lambda: len(inbound.messages) == 2)
        assert list(map(len, inbound.payloads)) == [131_072, 140_072]

    asyncio.run(main())


def test_each_receiver_gets_what_it_subscribed_to(world: World) -> None:
    async def main() -> None:
        connection, some, every = world.connection(), Inbound(), Inbound()
        connection.subscribe(["cmd/gateway-1/a"], some)
        connection.subscribe(["cmd/gateway-1/+"], every)
        async with running(connection):
            await connection.granted("cmd/gateway-1/a")
            await connection.granted("cmd/gateway-1/+")
            world.publish("cmd/gateway-1/a", b"both")
            world.publish("cmd/gateway-1/b", b"one")
            await until(lambda: len(every.messages) >= 2)
        assert set(some.payloads) == {b"both"}
        assert set(every.payloads) == {b"both", b"one"}

    asyncio.run(main())


@pytest.mark.parametrize("narrows", [True, False])
def test_while_filters_change_all_that_is_wanted_comes_and_the_rest_ends(
    world: World, tmp_path: Path, narrows: bool
) -> None:
    """At least once: while both filters stand, what both take may come for each."""

    async def main() -> None:
        held, inbound = HeldFilters(str(tmp_path / "held")), Inbound()
        connection = world.connection(held)
        filters = ["cmd/gateway-1/#", "cmd/gateway-1/a"]
        before, after = filters if narrows else reversed(filters)
        connection.subscribe([before], inbound)
        done = False

        def publish() -> int:
            number = 0
            while not done:
                world.publish("cmd/gateway-1/a", b"%d" % number)
                number += 1
            return number

        async with running(connection):
            await connection.granted(before)
            load = asyncio.create_task(asyncio.to_thread(publish))
            await until(lambda: len(inbound.messages) >= 20)
            connection.subscribe([after], inbound)
            connection.unsubscribe([before], inbound)
            await until(lambda: held.load() == [after])
            seen = len(inbound.messages)
            await until(lambda: len(inbound.messages) >= seen + 20)
            done = True
            total = await load
            world.publish("cmd/gateway-1/b", b"other")
            world.publish("cmd/gateway-1/a", b"%d" % total)
            await until(lambda: b"%d" % total in inbound.payloads)
            await until(lambda: narrows or b"other" in inbound.payloads)
        numbers = [int(one) for one in inbound.payloads if one != b"other"]
        assert list(dict.fromkeys(numbers)) == list(range(total + 1))
        assert numbers[-15:] == list(range(total + 1))[-15:]  # each once again
        assert inbound.payloads.count(b"other") == (0 if narrows else 1)

    asyncio.run(main())


def test_what_one_receiver_gives_up_the_other_still_gets(world: World) -> None:
    async def main() -> None:
        connection, one, other = world.connection(), Inbound(), Inbound()
        for receiver in (one, other):
            connection.subscribe(["cmd/gateway-1/x"], receiver)
        async with running(connection):
            await connection.granted("cmd/gateway-1/x")
            connection.unsubscribe(["cmd/gateway-1/x"], one)
            world.publish("cmd/gateway-1/x", b"1")
            await until(lambda: other.payloads == [b"1"])
        assert one.messages == []

    asyncio.run(main())


def test_what_the_session_kept_over_a_restart_and_nothing_wants_is_let_go(world: World, tmp_path: Path) -> None:
    async def main() -> None:
        held, inbound = HeldFilters(str(tmp_path / "held")), Inbound()
        first = world.connection(held)
        first.subscribe(["cmd/gateway-1/#", "jobs/gateway-1/+"], inbound)
        async with running(first):
            await first.granted("cmd/gateway-1/#")
            await first.granted("jobs/gateway-1/+")
        assert held.load() == ["cmd/gateway-1/#", "jobs/gateway-1/+"]
        world.publish("cmd/gateway-1/a", b"while away")
        second = world.connection(held)
        second.subscribe(["cmd/gateway-1/a"], inbound)
        async with running(second):
            await until(lambda: held.load() == ["cmd/gateway-1/a"])
            for topic in ("cmd/gateway-1/b", "jobs/gateway-1/x", "cmd/gateway-1/a"):
                world.publish(topic, topic.encode())
            await until(lambda: len(inbound.messages) >= 2)
        assert inbound.payloads == [b"while away", b"cmd/gateway-1/a"]
        assert 'connection_messages_unexpected{connection="cloud"}' not in {
            name for name, value in world.metrics.snapshot().items() if value
        }

    asyncio.run(main())


def test_a_message_that_is_not_settled_comes_again_and_a_settled_one_does_not(world: World) -> None:
    async def main() -> None:
        inbound = Inbound(lambda message: None if message.payload == b"open" else Outcome.TAKEN)
        first = world.connection()
        first.subscribe(["cmd/gateway-1/#"], inbound)
        async with running(first):
            await first.granted("cmd/gateway-1/#")
            world.publish("cmd/gateway-1/x", b"done")
            world.publish("cmd/gateway-1/x", b"open")
            await until(lambda: len(inbound.messages) == 2)
            await asyncio.sleep(0.1)
        again, second = Inbound(), world.connection()
        second.subscribe(["cmd/gateway-1/#"], again)
        async with running(second):
            world.publish("cmd/gateway-1/x", b"last")
            await until(lambda: b"last" in again.payloads)
        assert again.payloads == [b"open", b"last"]

    asyncio.run(main())


def test_a_receipt_of_a_lost_connection_acknowledges_nothing(world: World) -> None:
    async def main() -> None:
        inbound = Inbound(lambda message: None)
        connection = world.connection()
        connection.subscribe(["cmd/gateway-1/#"], inbound)
        async with running(connection):
            await connection.granted("cmd/gateway-1/#")
            world.publish("cmd/gateway-1/x", b"1")
            await until(lambda: len(inbound.messages) == 1)
            world.stop()
            await until(lambda: not connected(connection))
            world.start()
            await until(lambda: len(inbound.messages) == 2)
            inbound.origins[0].settled([inbound.messages[0].receipt], Outcome.TAKEN)
            await asyncio.sleep(0.1)
        again, second = Inbound(), world.connection()
        second.subscribe(["cmd/gateway-1/#"], again)
        async with running(second):
            await until(lambda: len(again.payloads) > 0)
        assert again.payloads == [b"1"]

    asyncio.run(main())


def test_a_congested_message_is_offered_again_until_it_is_taken(world: World) -> None:
    async def main() -> None:
        answers = [Outcome.CONGESTED, Outcome.CONGESTED, Outcome.TAKEN]
        inbound = Inbound(lambda message: answers.pop(0) if message.payload == b"1" else Outcome.TAKEN)
        connection = world.connection()
        connection.subscribe(["cmd/gateway-1/#"], inbound)
        async with running(connection):
            await connection.granted("cmd/gateway-1/#")
            world.publish("cmd/gateway-1/x", b"1")
            world.publish("cmd/gateway-1/y", b"2")
            await until(lambda: not answers and len(inbound.messages) == 4)
        assert inbound.payloads.count(b"1") == 3
        assert inbound.payloads.count(b"2") == 1
        assert world.metrics.snapshot()['connection_messages_offered_again{connection="cloud"}'] == 2

    asyncio.run(main())


def test_a_request_gets_its_answer(world: World) -> None:
    async def main() -> None:
        connection = world.connection()
        async with running(connection):
            async with asyncio.TaskGroup() as group:
                asked = [
                    group.create_task(connection.request("ask/gateway-1/x", payload_of(world, number)))
                    for number in range(20)
                ]
            answers = [task.result().payload for task in asked]
        assert answers == [b"answer to %d" % number for number in range(20)]

    asyncio.run(main())


def payload_of(world: World, number: int) -> Payload:
    """Under MQTT 3.1.1 the request itself says where the answer is to go."""
    if world.refuses:
        return b"%d" % number
    return lambda response_topic: f"{response_topic} {number}".encode()


def test_a_request_takes_the_answer_that_is_its_own_among_those_of_a_protocol(world: World) -> None:
    async def main() -> None:
        connection = world.connection()
        topics = ["jobs/gateway-1/accepted", "jobs/gateway-1/rejected"]
        async with running(connection), asyncio.TaskGroup() as group:
            task = group.create_task(
                connection.request(
                    "jobs/gateway-1/get", b"", answers=topics, is_answer=lambda message: message.payload == b"mine"
                )
            )
            for topic in topics:
                await connection.granted(topic)
            world.publish(topics[1], b"someone else's")
            world.publish(topics[0], b"mine")
        assert (task.result().topic, task.result().payload) == (topics[0], b"mine")

    asyncio.run(main())


def test_a_request_that_no_one_answers_says_so(world: World) -> None:
    async def main() -> None:
        connection = world.connection()
        async with running(connection):
            await until(lambda: connected(connection))
            with pytest.raises(ConnectionFailed, match="no answer to cmd/gateway-1/none within"):
                await connection.request("cmd/gateway-1/none", b"", answers=["x/gateway-1"], timeout_s=0.2)

    asyncio.run(main())


def test_a_filter_that_is_none_is_refused_at_once(world: World) -> None:
    with pytest.raises(InputRejected):
        world.connection().subscribe(["a/#/b"], Inbound())


def test_after_a_restart_of_the_broker_what_came_meanwhile_and_what_comes_arrive(world: World) -> None:
    async def main() -> None:
        connection, inbound = world.connection(), Inbound()
        connection.subscribe(["cmd/gateway-1/#"], inbound)
        async with running(connection):
            await connection.granted("cmd/gateway-1/#")
        world.publish("cmd/gateway-1/x", b"while away")
        world.stop()
        again = world.connection()
        again.subscribe(["cmd/gateway-1/#"], inbound)
        async with running(again):
            await until(lambda: again.state.failures > 0)
            assert again.state.cause in {"unreachable", "broker_closed"}
            world.start()
            await until(lambda: connected(again))
            assert again.state.session_present
            world.publish("cmd/gateway-1/x", b"after")
            await until(lambda: len(inbound.messages) >= 2)
        assert inbound.payloads == [b"while away", b"after"]

    asyncio.run(main())


@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_nothing_is_lost_and_all_is_settled_once_when_the_broker_goes_in_mid_flow(world: World, end: str) -> None:
    async def main() -> None:
        connection, ledger = world.connection(), Ledger()
        total = 2000
        gone_with_it: set[int] = set()
        async with running(connection):
            await until(lambda: connected(connection))
            for number in range(1, total + 1):
                connection.send([reading(number)], ledger)
                if number % 100 == 0:
                    await asyncio.sleep(0.01)
                if number == total // 2:
                    world.stop() if end == "stopped" else world.kill()
                    await until(lambda: not connected(connection))
                    if end == "killed":  # what it had acknowledged may die with its memory, and with it alone
                        gone_with_it.update(ledger.receipts(Outcome.TAKEN))
                    world.start()
            await until(lambda: len(ledger.outcomes) == total)
            assert len(ledger.receipts(Outcome.TAKEN)) == total
            wanted = {b"%d" % number for number in range(1, total + 1) if number not in gone_with_it}
            await until(lambda: wanted <= {payload for _, payload in world.received})

    asyncio.run(main())
