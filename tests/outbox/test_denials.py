"""A broker that refuses: one record that it never takes is given up, a backlog that it takes nothing of is not."""

import asyncio
import logging
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.messages import Outcome
from edge.outbox.denials import HOLD_S_MAX, TRIAL_MAX, Denials
from edge_tools.mosquitto import Mosquitto
from tests.outbox.rig import Cloud, Rig, until
from tests.outbox.test_process import CONFIG, stream
from tests.outbox.test_process import Cloud as Judge
from tests.processes import Client, running, wait_for_event
from tests.processes import until as wait


def test_what_is_refused_is_given_up_once_something_later_is_taken_and_not_before() -> None:
    denials = Denials()
    denials.refused([2, 3, 7])
    assert denials.taken(1) == []
    assert denials.taken(5) == [2, 3]
    assert denials.open == 1


def test_while_all_is_refused_it_is_tried_less_and_less_often_with_more_at_once_up_to_a_bound() -> None:
    denials, now, waits, trials = Denials(), 0.0, [], []
    for _ in range(12):
        denials.refused([1])
        assert denials.hold() == [1]
        waits.append(denials.wait_s(now))
        trials.append(denials.trial)
        now += waits[-1]
        assert denials.wait_s(now) == 0
    assert waits[:4] == [1, 2, 4, 8]
    assert trials[:4] == [2, 4, 8, 16]
    assert (waits[-1], trials[-1]) == (HOLD_S_MAX, TRIAL_MAX)
    denials.taken(1)
    assert not denials.holds


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=200), st.integers(1, 20))
def test_each_record_is_given_up_or_taken_once_and_given_up_only_below_one_that_was_taken(
    takes: list[bool], window: int
) -> None:
    """takes: whether the broker takes this record. All of a window are answered before the next is sent."""
    denials, position, taken, given_up = Denials(), 0, set[int](), set[int]()
    for _ in range(400):
        sent = list(range(position, min(position + window, len(takes))))
        for number in sent:
            if takes[number]:
                taken.add(number)
                fresh = denials.taken(number)
                assert not given_up & set(fresh)
                given_up |= set(fresh)
            else:
                denials.refused([number])
        again = denials.hold() if denials.open else []
        position = min(again, default=position + len(sent))
        if denials.holds:
            window = max(window, denials.trial)
    last = max(taken, default=-1)
    refused = {number for number, takes_it in enumerate(takes) if not takes_it}
    assert given_up <= {number for number in refused if number < last}
    assert taken.isdisjoint(given_up)


def test_a_backlog_of_which_nothing_is_taken_is_kept_and_goes_when_it_may(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        cloud = Cloud(Outcome.REFUSED)
        rig = Rig(tmp_path, cloud)
        rig.start()
        with caplog.at_level(logging.INFO):
            rig.readings(range(1, 301))
            await rig.taken()
            await until(lambda: bool(rig.uploader.failing))
            assert rig.uploader.backlog() == 300
            assert rig.stream.ledger.totals == {}
            cloud.answers = Outcome.TAKEN
            await until(lambda: rig.uploader.backlog() == 0)
        assert [reading.sequence for reading in rig.cloud.named()] == list(range(1, 301))
        assert rig.stream.ledger.totals == {}
        assert rig.uploader.failing == ""
        told = [record.getMessage() for record in caplog.records]
        assert sum("stream_held" in line for line in told) == 1
        assert any("stream_taken_again" in line for line in told)
        rig.stop()

    asyncio.run(run())


def test_what_comes_after_a_first_record_that_is_never_taken_is_not_held_up(tmp_path: Path) -> None:
    async def run() -> None:
        cloud = Cloud(None)
        rig = Rig(tmp_path, cloud)
        rig.start()
        rig.readings([1])
        await until(lambda: len(cloud.open) == 1)
        cloud.answer(Outcome.REFUSED)
        assert rig.uploader.backlog() == 1
        rig.readings([2, 3])
        await until(lambda: len(cloud.open) == 2)
        cloud.answer(Outcome.REFUSED, 1)
        cloud.answer(Outcome.TAKEN)
        await until(lambda: len(cloud.open) == 1)
        cloud.answer(Outcome.TAKEN)
        assert rig.uploader.backlog() == 0
        assert [(one.first, one.last, one.reason) for one in rig.stream.ledger.things["b1"]] == [(1, 1, "refused")]
        rig.stop()

    asyncio.run(run())


def test_a_cloud_that_denies_everything_empties_no_backlog(tmp_path: Path) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic read #\n")
    acl.chmod(0o600)
    with Mosquitto(tmp_path / "b", persistent=True) as broker:
        file = tmp_path / "gateway.toml"
        with Mosquitto(tmp_path / "c", persistent=True, options=[f"acl_file {acl}"]) as cloud:
            file.write_text(CONFIG.format(cloud=cloud.port, broker=broker.port))
            with running(file) as process:
                wait_for_event(process, "connected", times=2)
                broker.wait_log("Sending SUBACK to g")
                source = Client(broker.port)
                try:
                    source.publish("dt/x", *[b"%d" % number for number in range(300)])
                    held = wait_for_event(process, "stream_held")
                finally:
                    source.close()
                assert held["stream"] == "readings"
                shown = stream("show", "readings", file=file)
                assert (shown["backlog_records"], shown["shed"]) == (300, {})
                assert "refuses" in shown["failing"]
        with Mosquitto(tmp_path / "d", persistent=True) as cloud:
            file.write_text(CONFIG.format(cloud=cloud.port, broker=broker.port))
            judge = Judge(cloud.port)
            try:
                with running(file) as process:
                    wait_for_event(process, "connected", times=2)
                    assert wait_named(judge, 300) == [b"%d" % number for number in range(300)]
            finally:
                judge.close()


def wait_named(judge: Judge, count: int) -> list[bytes]:
    assert wait(lambda: len(judge.named()) >= count)
    return list(judge.named().values())
