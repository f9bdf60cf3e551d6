"""Calls that return, fail, come again or are buried, in a pool on virtual time."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from edge.functions import wire
from edge.functions.feed import INVOCATIONS_BYTES_MAX, INVOCATIONS_MAX
from edge.functions.invocation import Invocation
from edge.functions.wire import Call, Done, Publish, Ready, StartFailed
from edge.messages import Outcome
from tests.functions.fakes import (
    Crash,
    FakeChild,
    FakeSpawn,
    Receiver,
    Rig,
    Said,
    failing,
    lived,
    publishing,
    random_bytes,
)


def test_a_failed_call_comes_again_after_its_interval_and_meanwhile_only_its_topic_waits(tmp_path: Path) -> None:
    times: list[float] = []

    def script(child: FakeChild, call: Call) -> Said:
        if call.payload == b"bad" and call.attempt < 3:
            times.append(asyncio.get_running_loop().time())
            return failing(call)
        return Done(call.id)

    spawn = FakeSpawn(script)

    async def test(rig: Rig) -> None:
        rig.send(b"bad", b"after", topic="a")
        rig.send(b"other", topic="b")
        await rig.until(lambda: len(times) == 1)
        await asyncio.sleep(0.5)
        assert spawn.payloads() == [b"bad", b"other"]
        await rig.done()
        assert spawn.payloads() == [b"bad", b"other", b"bad", b"bad", b"after"]
        assert [call.attempt for call in spawn.calls if call.payload == b"bad"] == [1, 2, 3]
        assert times[1] - times[0] == pytest.approx(1.0, abs=0.1)
        assert rig.count("retries") == 2
        assert not rig.count("dead_letters")

    lived(test, tmp_path, spawn, interval_s=1.0, backoff_rate=2.0)


def test_a_poison_message_becomes_a_dead_letter_and_blocks_nobody(tmp_path: Path) -> None:
    spawn = FakeSpawn(lambda child, call: failing(call) if call.payload == b"\xff" else Done(call.id))
    letters = Receiver()

    async def test(rig: Rig) -> None:
        rig.reading(7, b"\xff")
        rig.send(b"after")
        await rig.done()
        (letter,) = letters.taken
        assert letter.topic == "dead-letter/f/t"
        told = msgspec.json.decode(letter.payload)
        assert told.pop("time_ms") > 0
        assert told == {
            "function": "f", "topic": "t", "payload_base64": "/w==", "error": "ValueError: no good", "attempts": 3,
            "thing": "b1", "boot": 1, "sequence": 7,
        }  # fmt: skip
        assert spawn.payloads() == [b"\xff"] * 3 + [b"after"]
        assert rig.count("dead_letters") == 1

    lived(test, tmp_path, spawn, letters=letters)


def test_a_full_dead_letter_stream_holds_the_message_until_there_is_room(tmp_path: Path) -> None:
    spawn = FakeSpawn(lambda child, call: failing(call) if call.payload == b"bad" else Done(call.id))
    letters = Receiver(Outcome.CONGESTED)

    async def test(rig: Rig) -> None:
        rig.send(b"bad", b"after")
        await asyncio.sleep(30)
        assert rig.inbox.backlog == 2  # the cursor stands below the first
        assert spawn.payloads() == [b"bad", b"after"]
        letters.answers = Outcome.TAKEN
        await rig.done()
        assert len(letters.taken) == 1

    lived(test, tmp_path, spawn, letters=letters, max_attempts=1)


def test_without_a_dead_letter_stream_and_beyond_its_bound_a_failure_is_counted_as_refused(tmp_path: Path) -> None:
    spawn = FakeSpawn(lambda child, call: failing(call))

    async def test(rig: Rig) -> None:
        rig.send(*[b"bad"] * 300)
        await asyncio.sleep(30)
        refused = rig.inbox.stream.ledger.totals.get("refused", 0)
        if rig.letters is None:
            assert refused == 300
        else:
            assert refused == 300 - 256

    lived(test, tmp_path / "a", spawn, max_attempts=1)
    lived(test, tmp_path / "b", spawn, max_attempts=1, letters=Receiver(Outcome.CONGESTED))


def test_a_crash_costs_the_call_under_way_an_attempt_and_the_others_nothing(tmp_path: Path) -> None:
    def script(child: FakeChild, call: Call) -> Said:
        if call.payload == b"poison":
            raise Crash
        return Done(call.id)

    spawn = FakeSpawn(script)
    letters = Receiver()

    async def test(rig: Rig) -> None:
        rig.send(b"poison", topic="a")
        for topic in "bcdef":
            rig.send(b"good", topic=topic)
        await rig.done()
        assert [call.attempt for call in spawn.calls if call.payload == b"poison"] == [1, 2, 3]
        assert [call.attempt for call in spawn.calls if call.payload == b"good"] == [1] * 5
        assert "SIGSEGV" in msgspec.json.decode(letters.taken[0].payload)["error"]

    lived(test, tmp_path, spawn, letters=letters)


def test_of_several_calls_in_a_worker_that_crashes_the_guilty_one_is_found_by_running_each_alone(
    tmp_path: Path,
) -> None:
    open_: dict[int, list[Call]] = {}

    def script(child: FakeChild, call: Call) -> Said:
        held = open_.setdefault(child.pid, [])
        held.append(call)
        if call.payload == b"poison":
            raise Crash
        if len(held) >= 5:
            done = [Done(one.id) for one in held]
            held.clear()
            return list(done)
        asyncio.get_running_loop().call_later(0.5, finish, child)
        return None

    def finish(child: FakeChild) -> None:
        held, open_[child.pid] = open_[child.pid], []
        child.say(*[Done(one.id) for one in held])

    spawn = FakeSpawn(script)
    spawn.answer = lambda launch: Ready(takes_all=True, concurrent=True)
    letters = Receiver()

    async def test(rig: Rig) -> None:
        for topic in "abc":
            rig.send(b"good", topic=topic)
        rig.send(b"poison", topic="d")
        await rig.done()
        assert len(letters.taken) == 1
        assert rig.count("dead_letters") == 1
        assert {call.attempt for call in spawn.calls if call.payload == b"good"} == {1}

    lived(test, tmp_path, spawn, letters=letters)


def test_a_call_beyond_its_deadline_ends_its_worker_and_comes_again(tmp_path: Path) -> None:
    spawn = FakeSpawn(lambda child, call: None if child.pid == 1 else Done(call.id))

    async def test(rig: Rig) -> None:
        rig.send(b"slow", topic="a")
        rig.send(b"behind", topic="b")
        await asyncio.sleep(1.9)
        assert len(spawn.running) == 1
        await rig.done()
        assert (rig.count("timeouts"), rig.count("errors")) == (1, 1)
        assert [(call.payload, call.attempt) for call in spawn.calls] == [
            (b"slow", 1), (b"behind", 1), (b"behind", 1), (b"slow", 2),
        ]  # fmt: skip

    lived(test, tmp_path, spawn, timeout_s=2.0)


@pytest.mark.parametrize("late", [False, True])
def test_a_refused_publish_fails_its_call_which_comes_again_before_what_came_after_it(
    tmp_path: Path, *, late: bool
) -> None:
    spawn, letters = FakeSpawn(publishing), Receiver()

    async def test(rig: Rig) -> None:
        rig.out.answers = None if late else Outcome.REFUSED
        rig.send(b"1")
        await rig.until(lambda: len(rig.out.open) == 1 if late else bool(rig.count("errors")))
        rig.out.settle(Outcome.REFUSED)
        rig.out.answers = Outcome.TAKEN
        rig.send(b"2")
        await rig.done()
        assert [message.payload for message in rig.out.taken] == [b"1", b"2"]
        assert [(call.payload, call.attempt) for call in spawn.calls] == [(b"1", 1), (b"1", 2), (b"2", 1)]
        status = rig.pool.status()
        assert (status.errors, status.retries, status.publishes_refused) == (1, 1, 1)
        assert status.last_error.startswith("PublishRefused: 'out/t'")
        rig.out.answers = Outcome.REFUSED
        rig.send(b"3")
        await rig.done()
        (letter,) = letters.taken
        assert b"PublishRefused" in letter.payload
        assert rig.count("publishes_refused") == 4

    lived(test, tmp_path, spawn, letters=letters, max_attempts=3)


def test_an_invocation_of_which_a_publish_was_refused_has_failed(tmp_path: Path) -> None:
    spawn = FakeSpawn(publishing)
    ended: list[Invocation] = []

    async def test(rig: Rig) -> None:
        rig.out.answers = Outcome.REFUSED
        rig.pool.invoke(Invocation("t", b"x", ended.append))
        await rig.until(lambda: len(ended) == 1)
        assert (ended[0].error, rig.count("errors")) == ("PublishRefused", 1)

    lived(test, tmp_path, spawn)


def test_a_publish_of_an_attempt_before_that_is_refused_does_not_fail_the_one_under_way(tmp_path: Path) -> None:
    def script(child: FakeChild, call: Call) -> Said:
        if call.attempt == 1:
            return [Publish(0, call.id, "out/x", b"p"), failing(call)]
        return Done(call.id)

    spawn = FakeSpawn(script)

    async def test(rig: Rig) -> None:
        rig.out.answers = None
        rig.send(b"x")
        await rig.until(lambda: len(spawn.calls) == 2)
        await asyncio.sleep(0.1)
        rig.out.settle(Outcome.REFUSED)
        await rig.done()
        assert len(spawn.calls) == 2

    lived(test, tmp_path, spawn)


def test_an_invocation_passes_the_inbox_and_tells_what_it_gave_published_and_printed(tmp_path: Path) -> None:
    def script(child: FakeChild, call: Call) -> Said:
        child.print(b"hello\n")
        if call.payload == b"bad":
            return failing(call)
        return [Publish(0, call.id, "out/x", b"p"), Done(call.id, b"result")]

    spawn = FakeSpawn(script)
    ended: list[Invocation] = []

    async def test(rig: Rig) -> None:
        rig.pool.invoke(Invocation("t", b"good", ended.append))
        rig.pool.invoke(Invocation("t", b"bad", ended.append))
        await rig.until(lambda: len(ended) == 2)
        good, bad = (one.row() for one in ended)
        assert (good["ok"], good["result"], good["logs"]) == (True, "result", ["hello"])
        assert good["publishes"] == [{"topic": "out/x", "payload": "p", "qos": 1}]
        assert (bad["ok"], bad["error"], bad["traceback"]) == (False, "ValueError", "Traceback")
        assert len(spawn.calls) == 2

    lived(test, tmp_path, spawn)


def test_when_the_inbox_is_nearly_full_what_waits_for_a_retry_is_given_up_so_that_others_go_on(
    tmp_path: Path,
) -> None:
    spawn = FakeSpawn(lambda child, call: failing(call) if call.topic == "a" else Done(call.id))
    letters = Receiver()

    async def test(rig: Rig) -> None:
        rig.send(b"bad", topic="a")
        await asyncio.sleep(0.1)
        for number in range(60):
            rig.send(number.to_bytes(2, "big") + random_bytes(number, 50_000), topic="b")
            await asyncio.sleep(0.3)
        assert len(letters.taken) == 1
        assert "crowded" in msgspec.json.decode(letters.taken[0].payload)["error"]
        await rig.done()
        assert set(rig.source.outcomes.values()) == {Outcome.TAKEN}

    lived(test, tmp_path, spawn, letters=letters, interval_s=3600.0, max_delay_s=3600.0)


def test_what_is_given_up_before_its_time_is_told_with_the_attempts_that_were_made(tmp_path: Path) -> None:
    spawn = FakeSpawn(lambda child, call: failing(call) if call.topic == "a" else Done(call.id))
    letters = Receiver()

    async def test(rig: Rig) -> None:
        rig.send(b"bad", topic="a")
        await rig.until(lambda: rig.count("retries") == 1)
        rig.pool._endings.give_up_waiting()
        await rig.done()
        assert msgspec.json.decode(letters.taken[0].payload)["attempts"] == 1

    lived(test, tmp_path, spawn, letters=letters, interval_s=3600.0, max_delay_s=3600.0)


def test_a_letter_that_waits_when_there_is_no_more_stream_for_it_is_counted_as_refused(tmp_path: Path) -> None:
    spawn = FakeSpawn(lambda child, call: failing(call))
    letters = Receiver(Outcome.CONGESTED)

    async def test(rig: Rig) -> None:
        rig.send(b"1", b"2")
        await asyncio.sleep(5)
        assert rig.inbox.backlog == 2
        rig.pool.letters(None)
        await rig.done()
        assert rig.inbox.stream.ledger.totals["refused"] == 2
        assert (rig.count("dead_letters"), rig.count("messages_given_up")) == (0, 2)

    lived(test, tmp_path, spawn, letters=letters, max_attempts=1)


@pytest.mark.parametrize("outcome", [Outcome.TAKEN, Outcome.REFUSED])
def test_what_is_buried_nowhere_is_counted_once_and_after_its_publishes_are_settled(
    tmp_path: Path, outcome: Outcome
) -> None:
    spawn = FakeSpawn(lambda child, call: [Publish(0, call.id, "out/x", b"p"), failing(call)])

    async def test(rig: Rig) -> None:
        rig.out.answers = None
        rig.send(b"1")
        await rig.until(lambda: bool(rig.out.open))
        await asyncio.sleep(1)
        assert rig.inbox.backlog == 1
        rig.out.settle(outcome)
        await rig.done()
        assert rig.inbox.stream.ledger.totals["refused"] == 1
        assert rig.count("messages_given_up") == 1

    lived(test, tmp_path, spawn, max_attempts=1)


def test_an_invocation_that_no_frame_can_carry_is_told_so_at_once(tmp_path: Path) -> None:
    ended: list[Invocation] = []

    async def test(rig: Rig) -> None:
        rig.pool.invoke(Invocation("t", bytes(wire.FRAME_BYTES_MAX), ended.append))
        await rig.until(lambda: bool(ended), 1.0)
        assert ended[0].error == "frame_too_large"
        assert str(wire.FRAME_BYTES_MAX) in ended[0].message

    lived(test, tmp_path, FakeSpawn())


def test_invocations_of_a_function_that_does_not_run_are_bounded_and_told_when_it_is_stopped(tmp_path: Path) -> None:
    spawn = FakeSpawn()
    spawn.answer = lambda launch: StartFailed("ImportError")
    ended: list[Invocation] = []

    async def test(rig: Rig) -> None:
        for _ in range(INVOCATIONS_MAX + 3):
            rig.pool.invoke(Invocation("t", b"x", ended.append))
        assert [one.error for one in ended] == ["congested"] * 3
        rig.pool.invoke(Invocation("t", bytes(100_000), ended.append))
        assert len(ended) == 4

    lived(test, tmp_path, spawn)
    assert [one.error for one in ended[4:]] == ["NotCalled"] * INVOCATIONS_MAX


def test_invocations_are_bounded_by_their_bytes_too(tmp_path: Path) -> None:
    spawn = FakeSpawn(lambda child, call: None)
    ended: list[Invocation] = []

    async def test(rig: Rig) -> None:
        for _ in range(10):
            rig.pool.invoke(Invocation("t", bytes(900_000), ended.append))
        assert 0 < 10 - len(ended) <= INVOCATIONS_BYTES_MAX // 900_000

    lived(test, tmp_path, spawn)
