"""A stream's bounds and its say in the drain: age by each policy, commit sizes, rate in bytes, priority."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from edge.messages import Outcome
from edge.outbox.report import rows
from edge.outbox.thin import AVERAGES
from edge.outbox.uploader import MESSAGE_OVERHEAD_BYTES
from tests.outbox.rig import Cloud, Rig, until


@pytest.fixture(autouse=True)
def quick_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.outbox.stream.TICK_S", 0.02)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [({"age_max_s": 60, "when_full": "drop_oldest"}, "too_old"), ({"ttl_s": 60}, "expired")],
)
def test_what_is_older_than_its_bound_is_shed_and_counted_with_the_reason(
    tmp_path: Path, settings: dict[str, Any], reason: str
) -> None:
    async def run() -> None:
        rig = Rig(tmp_path, Cloud(None), window=1, **settings)
        rig.start()
        rig.readings([1, 2, 3])
        await rig.taken()
        rig.shift_s += 50
        rig.readings([4])
        await rig.taken()
        rig.shift_s += 20
        await until(lambda: rig.uploader.backlog() == 1)
        await until(lambda: bool(rig.stream.ledger.totals))
        assert rig.stream.ledger.totals == {reason: 3}
        shed = rig.stream.ledger.things["b1"]
        assert [(one.first, one.last, one.count, one.reason) for one in shed] == [(1, 3, 3, reason)]
        rig.stop()

    asyncio.run(run())


def test_a_source_is_turned_away_while_the_oldest_is_above_the_age_bound_where_the_policy_is_to_reject(
    tmp_path: Path,
) -> None:
    async def run() -> None:
        cloud = Cloud(None)
        rig = Rig(tmp_path, cloud, age_max_s=60, when_full="reject")
        rig.start()
        rig.readings([1])
        await rig.taken()
        rig.shift_s += 70
        await until(lambda: rig.stream._room <= 0)
        turned_away = rig.readings([2])
        assert rig.source.receipts(Outcome.CONGESTED) == turned_away
        cloud.answers = Outcome.TAKEN
        cloud.answer(Outcome.TAKEN)
        await until(lambda: rig.stream._room > 0)
        again = rig.readings([2])
        await rig.taken()
        assert again[0] in rig.source.receipts(Outcome.TAKEN)
        assert rig.stream.ledger.totals == {}
        rig.stop()

    asyncio.run(run())


def test_only_what_is_above_the_age_bound_is_thinned_where_the_policy_is_to_thin(tmp_path: Path) -> None:
    async def run() -> None:
        rig = Rig(tmp_path, Cloud(None), window=1, age_max_s=600, when_full="thin")
        rig.start()

        async def fill() -> int:
            begin = rig.stream.log.next
            segments = len(rig.stream.log.segments)
            while len(rig.stream.log.segments) < segments + 3:
                rig.messages([json.dumps({"c": n}).encode() + b" " * (n * 7919 % 5000) for n in range(200)])
                await rig.taken()
            return begin

        await fill()
        rig.shift_s += 550
        young = await fill()
        held = [segment.next for segment in rig.stream.log.segments if segment.first >= young]
        rig.shift_s += 100
        await until(lambda: bool(rig.stream.ledger.totals))
        await asyncio.sleep(1)  # some fifty looks at the age
        shed = [entry.last for entry in rig.stream.ledger.things["g/s"]]
        assert max(shed) < held[0]
        rig.stop()

    asyncio.run(run())


def test_what_was_thinned_is_counted_once_although_a_kill_comes_before_the_commit_that_tells_it(tmp_path: Path) -> None:
    async def run() -> None:
        rig = Rig(tmp_path, Cloud(None), window=1, bytes_max=2 << 20, when_full="thin")
        rig.start()
        sent, written = 0, asyncio.Event()
        rig.stream._end_thinning = written.set  # type: ignore[method-assign]
        while not written.is_set():
            rig.messages([json.dumps({"c": n}).encode() + b" " * (n * 7919 % 5000) for n in range(100)])
            sent = rig.stream.log.next - 1
            await asyncio.sleep(0.005)
        sent = rig.stream.log.next - 1
        rig.kill()
        for _ in range(2):
            again = Rig(tmp_path, Cloud(None), window=1, bytes_max=8 << 20)
            again.start()
            found = rows(again.stream.log, "g/s", again.stream.clock, 1, sent)
            held = sum(row["seq"] < AVERAGES for row in found)
            assert held < sent
            assert again.stream.ledger.totals == {"thinned": sent - held}
            again.stop()

    asyncio.run(run())


def test_a_commit_is_made_at_its_number_of_records_without_waiting_for_its_time(tmp_path: Path) -> None:
    async def run() -> None:
        rig = Rig(tmp_path, Cloud(), commit="900 s", commit_records_max=10)
        rig.start()
        rig.readings(range(1, 10))
        await asyncio.sleep(0.05)
        assert rig.source.outcomes == {}
        rig.readings([10])
        await rig.taken()
        assert len(rig.source.receipts(Outcome.TAKEN)) == 10
        rig.stop()

    asyncio.run(run())


@pytest.mark.parametrize("rate", ["messages", "bytes"])
def test_the_drain_keeps_to_its_rate(tmp_path: Path, rate: str) -> None:
    async def run() -> None:
        size = len(b"dt/x" + b"p" * 32) + MESSAGE_OVERHEAD_BYTES
        limit = {"rate_messages_per_s": 100} if rate == "messages" else {"rate_bytes_per_s": 100 * size}
        rig = Rig(tmp_path, Cloud(), **limit)
        rig.start()
        loop = asyncio.get_running_loop()
        begun = loop.time()
        rig.messages([b"p" * 32] * 300)
        while len(rig.cloud.seen) < 250:
            await asyncio.sleep(0.01)
            assert len(rig.cloud.seen) <= 102 + 100 * (loop.time() - begun)
        rig.stop()

    asyncio.run(run())


def test_the_backlog_of_a_higher_priority_goes_before_that_of_a_lower(tmp_path: Path) -> None:
    async def run() -> None:
        cloud = Cloud(None)
        low = Rig(tmp_path / "low", cloud, window=10, priority=0)
        high = Rig(tmp_path / "high", cloud, window=10, priority=5)
        high.drain.stop()
        for rig, thing in ((low, "low"), (high, "high")):
            rig.readings(range(1, 101), thing=thing)
            await rig.taken()
        cloud.seen.clear()
        low.drain.add(high.uploader)
        low.drain.pump()
        while low.uploader.backlog() or high.uploader.backlog():
            cloud.answer(Outcome.TAKEN)
            await asyncio.sleep(0)
        order = [one.reading.thing for one in cloud.seen if one.reading is not None]
        assert order.count("high") == 100
        assert set(order[:100]) <= {"high"}
        for rig in (low, high):
            rig.stop()

    asyncio.run(run())
