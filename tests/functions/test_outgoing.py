"""What a function says to the world, in a pool on virtual time."""

import asyncio
from pathlib import Path

from edge.functions import wire
from edge.functions.slot import ASKS_BURST, ASKS_PER_S, PUBLISHED_BYTES_BURST, PUBLISHED_BYTES_PER_S
from edge.functions.wire import Call, Done, Invoke, Publish, Reply, Shadow
from edge.messages import Outcome, Properties
from tests.functions.fakes import (
    FakeChild,
    FakeSpawn,
    Receiver,
    Rig,
    Said,
    lived,
    publishing,
)


def test_a_publish_beyond_the_grants_goes_nowhere_and_is_told(tmp_path: Path) -> None:
    said = {
        b"quiet": ("secret/x", 0), b"asked": ("secret/x", 5), b"invalid": ("out/#", 6), b"good": ("out/x", 7),
    }  # fmt: skip

    def script(child: FakeChild, call: Call) -> Said:
        topic, id_ = said[call.payload]
        return [Publish(id_, call.id, topic, b"p"), Done(call.id)]

    spawn, letters = FakeSpawn(script), Receiver()

    async def test(rig: Rig) -> None:
        rig.send(*said)
        await rig.done()
        assert [message.topic for message in rig.out.taken] == ["out/x"]
        found = {reply.id: (reply.ok, reply.error) for reply in spawn.replies if isinstance(reply, wire.Reply)}
        assert found == {5: (False, "denied"), 6: (False, "invalid_topic"), 7: (True, "")}
        assert spawn.payloads() == [b"quiet", b"quiet", b"asked", b"invalid", b"good"]
        assert rig.count("publishes_denied") == 4
        assert [message.payload.count(b"PublishDenied") for message in letters.taken] == [1]

    lived(test, tmp_path, spawn, letters=letters, max_attempts=2)


def test_a_refused_publish_is_told_to_who_asked_and_counted(tmp_path: Path) -> None:
    spawn = FakeSpawn(lambda child, call: [Publish(3, call.id, "out/x", b"p"), Done(call.id)])

    async def test(rig: Rig) -> None:
        rig.out.answers = Outcome.REFUSED
        rig.send(b"x")
        await rig.done()
        (reply,) = spawn.replies
        assert isinstance(reply, wire.Reply)
        assert (reply.ok, reply.error) == (False, "refused")
        assert rig.count("publishes_refused") == 1

    lived(test, tmp_path, spawn)


def test_publishes_stay_in_order_when_the_next_hop_is_congested(tmp_path: Path) -> None:
    spawn = FakeSpawn(publishing)

    async def test(rig: Rig) -> None:
        rig.out.answers = Outcome.CONGESTED
        rig.send(*[b"%d" % number for number in range(20)])
        await asyncio.sleep(2)
        rig.out.answers = Outcome.TAKEN
        await rig.done()
        assert [message.payload for message in rig.out.taken] == [b"%d" % number for number in range(20)]
        assert len(spawn.calls) == 20

    lived(test, tmp_path, spawn)


def test_a_request_is_answered_on_its_response_topic_where_that_is_granted(tmp_path: Path) -> None:
    spawn = FakeSpawn(lambda child, call: Done(call.id, b"answer"))

    async def test(rig: Rig) -> None:
        rig.send(b"1", properties=Properties(response_topic="out/me", correlation_data=b"7"))
        rig.send(b"2", properties=Properties(response_topic="elsewhere", correlation_data=b"8"))
        rig.send(b"3")
        await rig.done()
        (answer,) = rig.out.taken
        assert (answer.topic, answer.payload) == ("out/me", b"answer")
        assert answer.properties == Properties(correlation_data=b"7")
        assert [call.kind for call in spawn.calls] == ["request", "request", "message"]
        assert rig.count("answers_denied") == 1

    lived(test, tmp_path, spawn)


def test_who_asks_for_what_is_denied_without_end_is_not_heard_for_a_while(tmp_path: Path) -> None:
    said = {b"granted": ("out/x", 1_000), b"denied": ("secret/x", 5_000)}

    def script(child: FakeChild, call: Call) -> Said:
        topic, count = said[call.payload]
        return [*(Publish(0, call.id, topic, b"") for _ in range(count)), Done(call.id)]

    spawn = FakeSpawn(script)

    async def test(rig: Rig) -> None:
        rig.send(b"granted")
        await rig.done()
        assert spawn.children[0].rests == []
        rig.send(b"denied")
        await rig.done()
        assert spawn.children[0].rests

    lived(test, tmp_path, spawn, max_attempts=1)


def test_who_publishes_more_than_its_share_is_not_heard_for_a_while_and_that_is_told(tmp_path: Path) -> None:
    spawn = FakeSpawn()

    async def test(rig: Rig) -> None:
        await rig.until(lambda: bool(spawn.children))
        (child,) = spawn.children
        began = rig.now()
        for _ in range(300):
            child.say(Publish(0, 0, "out/x", bytes(60_000)))
            await asyncio.sleep(child.rests.pop() if child.rests else 0)
        allowed = PUBLISHED_BYTES_BURST + (rig.now() - began) * PUBLISHED_BYTES_PER_S
        assert sum(len(message.payload) for message in rig.out.taken) == 300 * 60_000 <= allowed + 60_000
        assert rig.pool.status().attempts == ("publishes: reached its share of 8388608 bytes a second",)

    lived(test, tmp_path, spawn)


def test_what_each_call_publishes_costs_its_bytes_alone(tmp_path: Path) -> None:
    spawn = FakeSpawn(publishing)

    async def test(rig: Rig) -> None:
        rig.send(*[b"%d" % number for number in range(5_000)])
        await rig.done()
        assert [child.rests for child in spawn.children] == [[]]

    lived(test, tmp_path, spawn)


def test_who_calls_other_functions_without_end_is_not_heard_for_a_while_and_that_is_told(tmp_path: Path) -> None:
    spawn = FakeSpawn()

    async def test(rig: Rig) -> None:
        await rig.until(lambda: bool(spawn.children))
        (child,) = spawn.children
        began = rig.now()
        for _ in range(100):
            child.say(*[Invoke(0, 0, "other", b"x")] * 10, *[Shadow(1, 0, "get")] * 10)
            await asyncio.sleep(child.rests.pop() if child.rests else 0)
        assert len(rig.askers) == 2_000 <= ASKS_BURST + (rig.now() - began) * ASKS_PER_S + 20
        shown = "invokes: reached its share of 500 calls of other functions and shadows a second"
        assert rig.pool.status().attempts == (shown,)
        assert rig.metrics.counter("function_limits_reached", function="f", limit="invokes").value == 1
        assert {reply.id for reply in spawn.replies if isinstance(reply, Reply)} == {1}, "who does not wait is not told"

    lived(test, tmp_path, spawn)


def test_what_each_call_asks_of_others_costs_nothing(tmp_path: Path) -> None:
    spawn = FakeSpawn(lambda child, call: [*[Invoke(0, call.id, "other", b"x")] * 4, Done(call.id)])

    async def test(rig: Rig) -> None:
        rig.send(*[b"%d" % number for number in range(1_000)])
        await rig.done()
        assert len(rig.askers) == 4_000
        assert [child.rests for child in spawn.children] == [[]]

    lived(test, tmp_path, spawn)


def test_small_messages_without_a_call_are_bounded_as_well(tmp_path: Path) -> None:
    spawn = FakeSpawn()

    async def test(rig: Rig) -> None:
        await rig.until(lambda: bool(spawn.children))
        (child,) = spawn.children
        child.say(*[Publish(0, 0, "out/x", b"p")] * 5_000)
        assert child.rests

    lived(test, tmp_path, spawn)
