"""One function's pool on virtual time: its inbox is real, its workers and the router are fakes."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge.functions import wire
from edge.functions.attempts import SHOWN_MAX
from edge.functions.invocation import Invocation
from edge.functions.publishes import HELD_MAX
from edge.functions.wire import Call, Done, FromWorker, Publish, Ready, Schedule, StartFailed, Tried
from edge.messages import Outcome, Properties
from tests.clock import run_virtual
from tests.functions.fakes import Crash, FakeChild, FakeSpawn, Receiver, Rig, failing

Said = list[FromWorker] | FromWorker | None


def lived(test: Callable[[Rig], Coroutine[Any, Any, None]], folder: Path, spawn: FakeSpawn, **options: Any) -> Rig:
    """Run a test with a rig, which is stopped at its end."""

    async def run() -> Rig:
        rig = Rig(folder, spawn, **options)
        await test(rig)
        await rig.stop()
        assert not spawn.running
        return rig

    return run_virtual(run())


def publishing(child: FakeChild, call: Call) -> Said:
    return [Publish(0, call.id, f"out/{call.topic}", call.payload), Done(call.id)]


def test_each_message_is_called_in_order_and_settled_when_it_is_stored(tmp_path: Path) -> None:
    spawn = FakeSpawn(publishing)
    payloads = [b"%d" % number for number in range(500)]

    async def test(rig: Rig) -> None:
        rig.send(*payloads)
        await rig.done()
        assert spawn.payloads() == payloads
        assert [message.payload for message in rig.out.taken] == payloads
        assert set(rig.source.outcomes.values()) == {Outcome.TAKEN}
        assert rig.count("calls") == rig.count("publishes") == 500

    lived(test, tmp_path, spawn)


def test_a_message_is_not_done_before_what_it_published_is_settled(tmp_path: Path) -> None:
    spawn = FakeSpawn(publishing)

    async def test(rig: Rig) -> None:
        rig.out.answers = None
        rig.send(b"1", b"2")
        await rig.until(lambda: len(rig.out.open) == 2)
        await asyncio.sleep(1)
        assert rig.inbox.backlog == 2
        rig.out.settle(Outcome.CONGESTED)
        await rig.until(lambda: len(rig.out.open) == 2)
        assert rig.inbox.backlog == 2
        rig.out.answers = Outcome.TAKEN
        rig.out.settle(Outcome.TAKEN)
        await rig.done()
        assert len(spawn.calls) == 2

    lived(test, tmp_path, spawn)


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


def test_code_that_does_not_load_is_tried_again_ever_more_seldom_and_its_messages_wait(tmp_path: Path) -> None:
    spawn = FakeSpawn()
    spawn.answer = lambda launch: StartFailed("ImportError", "no module")

    async def test(rig: Rig) -> None:
        rig.send(b"x")
        await asyncio.sleep(100)
        assert len(spawn.children) == 7  # after 0, 1, 3, 7, 15, 31, 63 s
        status = rig.pool.status()
        assert (status.state, status.last_error) == ("backing_off", "ImportError: no module")
        assert rig.inbox.backlog == 1
        spawn.answer = lambda launch: Ready(takes_all=True)
        await rig.done()
        assert spawn.payloads() == [b"x"]

    lived(test, tmp_path, spawn)


def test_a_worker_that_says_what_none_would_say_is_ended(tmp_path: Path) -> None:
    bad: list[FromWorker] = [Done(999), wire.Failed(999, "E")]
    spawn = FakeSpawn(lambda child, call: bad.pop() if bad else Done(call.id))

    async def test(rig: Rig) -> None:
        rig.send(b"x")
        await rig.done()
        assert len(spawn.children) == 3
        assert rig.pool.status().restarts == 2

    lived(test, tmp_path, spawn)


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


def test_who_asks_for_what_is_denied_without_end_is_not_heard_for_a_while(tmp_path: Path) -> None:
    topics = {b"granted": "out/x", b"denied": "secret/x"}

    def script(child: FakeChild, call: Call) -> Said:
        return [*(Publish(0, call.id, topics[call.payload], b"") for _ in range(5_000)), Done(call.id)]

    spawn = FakeSpawn(script)

    async def test(rig: Rig) -> None:
        rig.send(b"granted")
        await rig.done()
        assert spawn.children[0].rests == []
        rig.send(b"denied")
        await rig.done()
        assert spawn.children[0].rests

    lived(test, tmp_path, spawn, max_attempts=1)


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


def test_new_code_takes_over_when_it_is_ready_and_calls_under_way_finish_on_the_old(tmp_path: Path) -> None:
    open_: list[tuple[FakeChild, Call]] = []

    def script(child: FakeChild, call: Call) -> Said:
        if call.payload == b"slow":
            open_.append((child, call))
            return None
        return Done(call.id)

    spawn = FakeSpawn(script)

    async def test(rig: Rig) -> None:
        rig.send(b"slow", topic="a")
        await rig.until(lambda: bool(open_))
        rig.pool.change(rig.version(2))
        await rig.until(lambda: rig.pool.status().version == "v2")
        rig.send(b"new", topic="b")
        rig.send(b"next", topic="a")
        await asyncio.sleep(1)
        assert [child.pid for child in spawn.running] == [1, 2]
        assert [call.payload for call in spawn.children[1].calls] == [b"new"]
        open_[0][0].say(Done(open_[0][1].id))
        await rig.done()
        assert spawn.children[0].has_stopped
        assert [call.payload for call in spawn.children[1].calls] == [b"new", b"next"]

    lived(test, tmp_path, spawn)


def test_code_that_does_not_load_leaves_the_old_one_running(tmp_path: Path) -> None:
    spawn = FakeSpawn()
    spawn.answer = lambda launch: (
        Ready(takes_all=True) if len(spawn.children) == 1 else StartFailed("SyntaxError", "line 3")
    )

    async def test(rig: Rig) -> None:
        rig.send(b"1")
        await rig.done()
        rig.pool.change(rig.version(2))
        await asyncio.sleep(10)
        rig.send(b"2")
        await rig.done()
        status = rig.pool.status()
        assert (status.state, status.version, status.last_error) == ("ready", "v1", "SyntaxError: line 3")
        assert (len(spawn.children), len(spawn.running)) == (2, 1)

    lived(test, tmp_path, spawn)


def test_new_settings_go_with_a_new_worker(tmp_path: Path) -> None:
    spawn = FakeSpawn(lambda child, call: [Publish(0, call.id, "other/x", b""), Done(call.id)])

    async def test(rig: Rig) -> None:
        rig.send(b"1")
        await rig.done()
        assert not rig.out.taken
        rig.pool.change(rig.version(2, publish=("other/#",), workers=2))
        await rig.until(lambda: len(spawn.running) == 2)
        rig.send(b"2")
        await rig.done()
        assert len(rig.out.taken) == 1

    lived(test, tmp_path, spawn)


def test_workers_keep_their_grants_to_their_end_whatever_the_new_settings_say(tmp_path: Path) -> None:
    open_: list[tuple[FakeChild, Call]] = []

    def script(child: FakeChild, call: Call) -> Said:
        if call.payload == b"slow":
            open_.append((child, call))
            return None
        return [Publish(0, call.id, f"{child.launch.settings.publish[0][:-1]}x", call.payload), Done(call.id)]

    spawn = FakeSpawn(script)

    async def test(rig: Rig) -> None:
        rig.send(b"slow", topic="a")
        await rig.until(lambda: bool(open_))
        rig.pool.change(rig.version(2, publish=("other/#",), to=("function:g",)))
        await rig.until(lambda: rig.pool.status().version == "v2")
        ((old, call),) = open_
        old.say(
            wire.Shadow(1, call.id, "get"),
            Publish(0, call.id, "out/x", b"1"),
            Publish(2, call.id, "other/x", b"2"),
            Done(call.id),
        )
        rig.send(b"3")
        await rig.done()
        assert [(message.topic, message.payload) for message in rig.out.taken] == [("out/x", b"1"), ("other/x", b"3")]
        assert rig.count("publishes_denied") == 1
        assert rig.count("errors") == 0
        assert [grants.may_invoke("g") for grants in rig.askers] == [False]

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


def test_a_stop_lets_what_is_under_way_end_and_leaves_the_rest_in_the_inbox(tmp_path: Path) -> None:
    def script(child: FakeChild, call: Call) -> Said:
        asyncio.get_running_loop().call_later(2, child.say, Done(call.id))
        return None

    async def first() -> None:
        spawn = FakeSpawn(script)
        rig = Rig(tmp_path, spawn)
        rig.send(b"1", b"2", b"3")
        await rig.until(lambda: bool(spawn.calls))
        await rig.stop()
        assert spawn.payloads() == [b"1"]
        rig.send(b"late")
        assert rig.source.outcomes[4] is Outcome.CONGESTED

    async def second() -> None:
        spawn = FakeSpawn()
        rig = Rig(tmp_path, spawn)
        await rig.done()
        assert spawn.payloads() == [b"2", b"3"]
        await rig.stop()

    run_virtual(first())
    run_virtual(second())


def test_a_kill_between_any_two_calls_loses_nothing_and_repeats_little(tmp_path: Path) -> None:
    count = 40
    for after in range(0, count, 3):
        folder = tmp_path / str(after)
        seen: list[bytes] = []

        async def first(folder: Path, after: int, seen: list[bytes]) -> None:
            def script(child: FakeChild, call: Call) -> Said:
                if len(seen) >= after:
                    return None
                seen.append(call.payload)
                return publishing(child, call)

            rig = Rig(folder, FakeSpawn(script))
            rig.send(*[b"%d" % number for number in range(count)])
            await rig.until(lambda: len(seen) >= after and len(rig.source.outcomes) == count)
            await asyncio.sleep(1.5)
            rig.kill()

        async def second(folder: Path, seen: list[bytes]) -> None:
            spawn = FakeSpawn(publishing)
            rig = Rig(folder, spawn)
            await rig.done()
            seen += spawn.payloads()
            await rig.stop()

        run_virtual(first(folder, after, seen))
        run_virtual(second(folder, seen))
        assert seen == [b"%d" % number for number in range(count)]


def test_a_request_keeps_its_name_over_retries_and_restarts_and_shares_it_with_no_other(tmp_path: Path) -> None:
    names: dict[bytes, set[str]] = {}
    others: list[str] = []

    def script(child: FakeChild, call: Call) -> Said:
        assert [len(part) for part in call.request.split("-")] == [8, 4, 4, 4, 12]
        if call.kind != "message":
            others.append(call.request)
            return Done(call.id)
        names.setdefault(call.payload, set()).add(call.request)
        return failing(call)

    async def life(seconds: float, *payloads: bytes) -> None:
        rig = Rig(tmp_path, FakeSpawn(script), max_attempts=100, max_delay_s=2.0, every="1 s", handler="h")
        rig.send(*payloads, topic=f"t{len(others)}")
        rig.pool.invoke(Invocation("t", b"x", lambda one: None))
        await asyncio.sleep(seconds)
        rig.kill()

    run_virtual(life(5.5, b"1"))
    run_virtual(life(5.5, b"2"))
    assert [len(found) for found in names.values()] == [1, 1]
    found = [*others, *(one for some in names.values() for one in some)]
    assert len(others) >= 10
    assert len(set(found)) == len(found)


def test_attempts_and_what_is_done_above_a_failing_message_survive_a_kill(tmp_path: Path) -> None:
    letters = Receiver()

    async def first() -> None:
        spawn = FakeSpawn(lambda child, call: failing(call) if call.payload == b"bad" else Done(call.id))
        rig = Rig(tmp_path, spawn, letters=letters, interval_s=20.0)
        rig.send(b"bad", topic="a")
        rig.send(*[b"%d" % number for number in range(10)], topic="b")
        await asyncio.sleep(25)
        assert [call.attempt for call in spawn.calls if call.topic == "a"] == [1, 2]
        await asyncio.sleep(3)
        rig.kill()

    async def second() -> None:
        spawn = FakeSpawn(lambda child, call: failing(call))
        rig = Rig(tmp_path, spawn, letters=letters, interval_s=20.0)
        await rig.done()
        assert [(call.payload, call.attempt) for call in spawn.calls] == [(b"bad", 3)]
        assert len(letters.taken) == 1
        await rig.stop()

    run_virtual(first())
    run_virtual(second())


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


def random_bytes(seed: int, count: int) -> bytes:
    import random

    return random.Random(seed).randbytes(count)


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


def test_what_it_tried_beyond_its_grants_is_counted_shown_and_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def trying(child: FakeChild, call: Call) -> Said:
        return [
            *(Tried("files", f"open /secret/{number}") for number in range(100)),
            Tried("network", "connect to 10.0.0.1:22"),
            Done(call.id),
        ]

    async def test(rig: Rig) -> None:
        rig.send(b"1", b"2")
        await rig.done()
        metrics = rig.metrics.snapshot()
        assert metrics['function_attempts_denied{function="f",what="files"}'] == 200
        assert metrics['function_attempts_denied{function="f",what="network"}'] == 2
        assert "network: connect to 10.0.0.1:22" in rig.pool.status().attempts
        assert len(rig.pool.status().attempts) == SHOWN_MAX
        assert (rig.count("calls"), rig.count("errors")) == (2, 0)

    lived(test, tmp_path, FakeSpawn(trying))
    assert [record.getMessage() for record in caplog.records].count("function_attempt_denied") == 2


def test_a_limit_that_a_worker_reached_is_told_and_named_when_it_is_ended(tmp_path: Path) -> None:
    def hanging(child: FakeChild, call: Call) -> Said:
        child.reached["processes"] = "its limit of 16 processes"
        return None

    async def test(rig: Rig) -> None:
        rig.send(b"1")
        await rig.until(lambda: bool(rig.pool.status().attempts))
        assert rig.pool.status().attempts == ("processes: reached its limit of 16 processes",)
        await rig.done()
        assert rig.metrics.snapshot()['function_limits_reached{function="f",limit="processes"}'] == 1
        told = "TimeoutError: it did not answer within 10 s, and was ended; it had reached its limit of 16 processes"
        assert letters.taken
        assert told in letters.taken[0].payload.decode()
        assert rig.pool.status().last_error.endswith("it had reached its limit of 16 processes")

    letters = Receiver()
    lived(test, tmp_path, FakeSpawn(hanging), letters=letters, max_attempts=1)
