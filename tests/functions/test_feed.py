"""What workers are given and when, in a pool on virtual time."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from edge.functions.crew import UNSENT_BYTES_MAX
from edge.functions.feed import SCHEDULED_BURST, SCHEDULED_PER_S
from edge.functions.publishes import HELD_MAX
from edge.functions.wire import HANDLERS_MAX, Begun, Call, Done, Publish, Ready, Schedule, StartFailed
from edge.messages import Outcome
from tests.functions.fakes import (
    FakeChild,
    FakeSpawn,
    Rig,
    Said,
    failing,
    lived,
    random_bytes,
)


def test_calls_of_one_topic_follow_each_other_and_others_go_side_by_side(tmp_path: Path) -> None:
    open_: list[tuple[FakeChild, Call]] = []
    spawn = FakeSpawn(lambda child, call: open_.append((child, call)))

    async def test(rig: Rig) -> None:
        await rig.until(lambda: len(spawn.running) == 3)
        for topic in "abcd":
            rig.send(b"1", b"2", topic=topic)
        await rig.until(lambda: len(open_) >= 3)
        await asyncio.sleep(1)
        assert {call.topic for _, call in open_} == set("abcd")
        assert {call.payload for _, call in open_} == {b"1"}
        assert {child.pid for child, _ in open_} == {1, 2, 3}
        while open_:
            child, call = open_.pop(0)
            child.say(Done(call.id))
            await asyncio.sleep(0.01)
        await rig.done()
        for topic in "abcd":
            assert [call.payload for call in spawn.calls if call.topic == topic] == [b"1", b"2"]

    lived(test, tmp_path, spawn, workers=3)


def test_a_deadline_counts_from_when_a_call_is_begun_not_from_when_it_was_given(tmp_path: Path) -> None:
    def script(child: FakeChild, call: Call) -> Said:
        loop = asyncio.get_running_loop()
        child.busy_until = max(getattr(child, "busy_until", 0.0), loop.time()) + 1.5  # type: ignore[attr-defined]
        loop.call_at(child.busy_until, child.say, Done(call.id))  # type: ignore[attr-defined]
        return None

    spawn = FakeSpawn(script)

    async def test(rig: Rig) -> None:
        for topic in "abcdef":
            rig.send(b"x", topic=topic)
        await rig.done()
        assert not rig.count("timeouts")
        assert len(spawn.children) == 1

    lived(test, tmp_path, spawn, timeout_s=2.0)


def test_sync_calls_of_a_concurrent_worker_wait_for_their_turn_and_miss_no_deadline(tmp_path: Path) -> None:
    queue: list[Call] = []

    def begin(child: FakeChild) -> None:
        child.say(Begun(queue[0].id))
        asyncio.get_running_loop().call_later(1.5, end, child)

    def end(child: FakeChild) -> None:
        child.say(Done(queue.pop(0).id))
        if queue:
            begin(child)

    def script(child: FakeChild, call: Call) -> Said:
        queue.append(call)
        if len(queue) == 1:
            begin(child)
        return None

    spawn = FakeSpawn(script)
    spawn.answer = lambda launch: Ready(takes_all=True, concurrent=True)

    async def test(rig: Rig) -> None:
        rig.send(b"first", topic="t")
        for number in range(20):
            rig.send(b"x", topic=f"{number}")
        await rig.done()
        assert not rig.count("errors")
        assert (len(spawn.children), len(spawn.calls)) == (1, 21)

    lived(test, tmp_path, spawn, timeout_s=2.0)


def test_a_concurrent_worker_that_says_a_call_began_twice_is_ended(tmp_path: Path) -> None:
    spawn = FakeSpawn(lambda child, call: [Begun(call.id), Begun(call.id)] if child.pid == 1 else Done(call.id))
    spawn.answer = lambda launch: Ready(takes_all=True, concurrent=True)

    async def test(rig: Rig) -> None:
        rig.send(b"x")
        await rig.done()
        assert len(spawn.children) == 2
        assert "had begun" in rig.pool.status().last_error

    lived(test, tmp_path, spawn)


def test_a_function_that_publishes_without_end_is_not_read_from_while_nobody_takes_it(tmp_path: Path) -> None:
    said = 0

    def speak(child: FakeChild, call: Call) -> None:
        """100 publishes with each read."""
        nonlocal said
        if not child.is_paused and said < 100 * HELD_MAX:
            child.say(*[Publish(0, call.id, "out/x", b"p")] * 100)
            said += 100
            asyncio.get_running_loop().call_later(0.001, speak, child, call)

    spawn = FakeSpawn(speak)

    async def test(rig: Rig) -> None:
        rig.out.answers = None
        rig.send(b"x")
        await rig.until(lambda: bool(spawn.running) and spawn.running[0].is_paused)
        (child,) = spawn.running
        await asyncio.sleep(1)
        assert len(rig.out.open) == said <= HELD_MAX + 100, "what was read before the pause, and no more"
        rig.out.answers = Outcome.TAKEN
        rig.out.settle(Outcome.TAKEN)
        await rig.until(lambda: not child.is_paused)
        child.say(Done(child.calls[0].id))
        await rig.done()
        assert len(rig.out.taken) == said

    lived(test, tmp_path, spawn)


def test_messages_that_the_code_has_no_handler_for_are_passed_over(tmp_path: Path) -> None:
    spawn = FakeSpawn()
    spawn.answer = lambda launch: Ready(filters=("a/+",))

    async def test(rig: Rig) -> None:
        rig.send(b"1", topic="a/x")
        rig.send(b"2", topic="b/x")
        await rig.done()
        assert spawn.payloads() == [b"1"]
        assert rig.count("messages_unhandled") == 1

    lived(test, tmp_path, spawn)


def test_schedules_run_at_their_interval_and_are_skipped_while_the_last_one_runs(tmp_path: Path) -> None:
    open_: list[tuple[FakeChild, Call]] = []

    def script(child: FakeChild, call: Call) -> Said:
        if call.schedule == 1:
            open_.append((child, call))
            return None
        return Done(call.id)

    spawn = FakeSpawn(script)
    spawn.answer = lambda launch: Ready(schedules=(Schedule(0, "often", 10.0), Schedule(1, "slow", 10.0)))

    async def test(rig: Rig) -> None:
        await asyncio.sleep(105)
        assert len([call for call in spawn.calls if call.schedule == 0]) == 10
        assert {call.kind for call in spawn.calls} == {"schedule"}
        assert len(open_) == 1
        assert rig.count("schedules_skipped") == 9
        open_[0][0].say(Done(open_[0][1].id))

    spawn.answer = lambda launch: Ready(
        schedules=(Schedule(0, "often", 10.0), Schedule(1, "slow", 10.0)), concurrent=True
    )
    lived(test, tmp_path, spawn, timeout_s=1000.0)


def test_schedules_beyond_the_share_of_a_function_are_skipped_in_turn_and_that_is_told(tmp_path: Path) -> None:
    spawn = FakeSpawn()
    spawn.answer = lambda launch: Ready(schedules=tuple(Schedule(n, "tick", 0.001) for n in range(HANDLERS_MAX)))

    async def test(rig: Rig) -> None:
        await asyncio.sleep(30)
        allowed = SCHEDULED_BURST + SCHEDULED_PER_S * 30
        assert 0.9 * allowed < len(spawn.calls) <= allowed + 1
        counts = Counter(call.schedule for call in spawn.calls)
        assert min(counts.values()) >= 3
        assert rig.count("schedules_skipped") > 0
        assert rig.pool.status().attempts == ("schedules: reached its share of 100 scheduled calls a second",)
        assert rig.metrics.counter("function_limits_reached", function="f", limit="schedules").value == 1

    lived(test, tmp_path, spawn)


def test_as_many_schedules_as_there_may_be_are_called_when_all_are_due_at_once(tmp_path: Path) -> None:
    spawn = FakeSpawn()
    spawn.answer = lambda launch: Ready(schedules=tuple(Schedule(n, "tick", 60.0) for n in range(HANDLERS_MAX)))

    async def test(rig: Rig) -> None:
        await asyncio.sleep(200)
        assert len(spawn.calls) == 3 * HANDLERS_MAX
        assert (rig.count("schedules_skipped"), rig.pool.status().attempts) == (0, ())

    lived(test, tmp_path, spawn)


def test_a_schedule_of_the_gateway_file_calls_the_handler_and_a_failure_waits_for_the_next_time(
    tmp_path: Path,
) -> None:
    spawn = FakeSpawn(lambda child, call: failing(call))

    async def test(rig: Rig) -> None:
        await asyncio.sleep(65)
        assert [call.kind for call in spawn.calls] == ["schedule"] * 6
        assert rig.count("errors") == 6
        assert not rig.count("retries")

    lived(test, tmp_path, spawn, handler="run", every="10 s")


def test_on_demand_a_worker_runs_only_while_there_is_something_to_do(tmp_path: Path) -> None:
    spawn = FakeSpawn()

    async def test(rig: Rig) -> None:
        await asyncio.sleep(20)
        assert (len(spawn.children), len(spawn.running)) == (1, 0)  # it was loaded once, to learn what it listens to
        assert rig.pool.status().state == "waiting"
        rig.send(b"1")
        await rig.done()
        assert len(spawn.running) == 1
        await asyncio.sleep(20)
        assert (len(spawn.children), len(spawn.running)) == (2, 0)
        assert spawn.children[-1].has_stopped

    lived(test, tmp_path, spawn, start="on_demand", idle_timeout_s=5.0)


def test_on_demand_there_are_no_more_workers_than_calls_need(tmp_path: Path) -> None:
    def script(child: FakeChild, call: Call) -> Said:
        asyncio.get_running_loop().call_later(3, child.say, Done(call.id))
        return None

    spawn = FakeSpawn(script)

    async def test(rig: Rig) -> None:
        await asyncio.sleep(20)
        for topic in "abcdefgh":
            rig.send(b"1", topic=topic)
        await asyncio.sleep(1)
        assert 1 < len(spawn.running) <= 3
        await rig.done()

    lived(test, tmp_path, spawn, start="on_demand", idle_timeout_s=5.0, workers=3)


@pytest.mark.parametrize("when_full", ["reject", "drop_oldest"])
def test_a_full_inbox_keeps_to_its_policy(tmp_path: Path, when_full: str) -> None:
    spawn = FakeSpawn()
    spawn.answer = lambda launch: StartFailed("ImportError")

    async def test(rig: Rig) -> None:
        for number in range(80):
            rig.send(number.to_bytes(2, "big") + random_bytes(number, 50_000))
            await asyncio.sleep(0.3)
        outcomes = list(rig.source.outcomes.values())
        spawn.answer = lambda launch: Ready(takes_all=True)
        await rig.done()
        got = [int.from_bytes(payload[:2], "big") for payload in spawn.payloads()]
        if when_full == "reject":
            taken = [number for number, outcome in enumerate(outcomes) if outcome is Outcome.TAKEN]
            assert got == taken
            assert Outcome.CONGESTED in outcomes
        else:
            assert set(outcomes) == {Outcome.TAKEN}
            assert got == list(range(80))[-len(got) :]
            assert rig.inbox.stream.ledger.totals["dropped_oldest"] == 80 - len(got)

    lived(test, tmp_path, spawn, when_full=when_full)


def test_a_long_backlog_of_one_topic_is_held_as_numbers_and_called_in_order(tmp_path: Path) -> None:
    spawn = FakeSpawn(lambda child, call: failing(call) if call.payload == b"bad" else Done(call.id))

    async def test(rig: Rig) -> None:
        rig.send(b"bad", topic="a")
        payloads = [b"%d " % number + bytes(2000) for number in range(800)]
        for payload in payloads:
            rig.send(payload, topic="a")
        rig.send(b"other", topic="b")
        await rig.until(lambda: b"other" in spawn.payloads())
        assert rig.pool._calls._held_bytes < 1_100_000
        await rig.done()
        assert [payload for payload in spawn.payloads() if payload not in {b"bad", b"other"}] == payloads

    lived(test, tmp_path, spawn)


def test_who_is_not_read_from_because_nothing_takes_what_it_publishes_misses_no_deadline(tmp_path: Path) -> None:
    def script(child: FakeChild, call: Call) -> Said:
        child.say(*[Publish(0, call.id, "out/x", call.payload)] * 600)
        asyncio.get_running_loop().call_later(0.5 * call.id, child.say, Done(call.id))
        return None

    spawn = FakeSpawn(script)

    async def test(rig: Rig) -> None:
        rig.out.answers = Outcome.CONGESTED
        rig.send(b"1", topic="a")
        rig.send(b"2", topic="b")
        await rig.until(lambda: bool(spawn.running) and spawn.running[0].is_paused)
        rig.pool.change(rig.version(2))
        await asyncio.sleep(300)
        assert (rig.count("timeouts"), rig.count("retries"), rig.pool.status().restarts) == (0, 0, 0)
        rig.out.answers = Outcome.TAKEN
        await rig.until(lambda: rig.pool.status().version == "v2")
        await rig.done()
        assert [(call.payload, call.attempt) for call in spawn.calls] == [(b"1", 1), (b"2", 1)]
        assert len(rig.out.taken) == 1200

    lived(test, tmp_path, spawn, timeout_s=10.0)


def test_a_worker_that_hangs_is_ended_however_often_it_was_not_read_from(tmp_path: Path) -> None:
    def script(child: FakeChild, call: Call) -> Said:
        return [Publish(0, call.id, "out/x", b"p")] * 1000 if call.attempt == 1 else Done(call.id)

    spawn = FakeSpawn(script)

    async def test(rig: Rig) -> None:
        rig.out.answers = Outcome.CONGESTED
        rig.send(b"1")
        await rig.until(lambda: bool(spawn.running) and spawn.running[0].is_paused)
        await asyncio.sleep(60)
        rig.out.answers = Outcome.TAKEN
        await rig.done()
        assert (rig.count("timeouts"), len(spawn.calls)) == (1, 2)

    lived(test, tmp_path, spawn, timeout_s=10.0)


def test_a_worker_that_asks_and_never_reads_the_answers_is_ended(tmp_path: Path) -> None:
    def script(child: FakeChild, call: Call) -> Said:
        if child.pid > 1:
            return Done(call.id)
        child.unsent = UNSENT_BYTES_MAX + 1
        return Publish(1, call.id, "denied", b"")

    spawn = FakeSpawn(script)

    async def test(rig: Rig) -> None:
        rig.send(b"1")
        await rig.until(lambda: rig.count("errors") == 1)
        assert rig.pool.status().last_error == "it does not read what it is told"
        await rig.done()
        assert len(spawn.children) == 2

    lived(test, tmp_path, spawn)
