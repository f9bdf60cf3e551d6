"""One function's pool on virtual time: its inbox is real, its workers and the router are fakes."""

import asyncio
from pathlib import Path

import pytest

from edge.functions import wire
from edge.functions.attempts import SHOWN_MAX
from edge.functions.invocation import Invocation
from edge.functions.sandbox import NotHeld
from edge.functions.wire import Call, Done, FromWorker, Publish, Ready, StartFailed, Tried
from edge.messages import Outcome
from tests.clock import run_virtual
from tests.functions.fakes import (
    FakeChild,
    FakeSpawn,
    Receiver,
    Rig,
    Said,
    failing,
    lived,
    publishing,
)


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
        rig.pool.change(rig.version(2, publish=("other/#",), invoke=("g",)))
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


def test_a_function_of_which_the_demand_is_not_met_is_not_started_and_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spawn = FakeSpawn()
    spawn.failure = NotHeld("network (it may open sockets): run it elsewhere.")

    async def test(rig: Rig) -> None:
        rig.send(b"1")
        await asyncio.sleep(200)
        status = rig.pool.status()
        assert (status.state, status.restarts, status.last_error) == ("refused", 0, str(spawn.failure))
        assert rig.inbox.backlog == 1
        told = [record for record in caplog.records if record.getMessage() == "function_refused"]
        assert [record.__dict__["fields"]["problem"] for record in told] == [str(spawn.failure)]
        assert "function_worker_ended" not in caplog.messages
        spawn.failure = None
        await rig.done()
        assert rig.pool.status().state == "ready"
        assert spawn.payloads() == [b"1"]

    lived(test, tmp_path, spawn)


def test_a_change_of_which_the_demand_is_not_met_leaves_the_old_version_running(tmp_path: Path) -> None:
    spawn = FakeSpawn()

    async def test(rig: Rig) -> None:
        rig.send(b"1")
        await rig.done()
        spawn.failure = NotHeld("network (it may open sockets): run it elsewhere.")
        rig.pool.change(rig.version(2, demand=("network",)))
        await asyncio.sleep(10)
        status = rig.pool.status()
        assert (status.state, status.version, status.last_error) == ("ready", "v1", str(spawn.failure))

    lived(test, tmp_path, spawn)
