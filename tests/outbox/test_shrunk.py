"""A stream whose bytes_max is lowered below the segment that it writes to goes on, whatever its policy."""

import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace

from edge.config import STREAM_BYTES_LEAST, parse_config
from edge.errors import ConfigError
from edge.messages import Message, Outcome
from edge.metrics import Metrics
from edge.outbox.outbox import Outbox
from tests.outbox.rig import Cloud, Rig, Source, until

BEFORE_BYTES = 64 << 20
POLICIES = ("reject", "drop_oldest", "thin")
FILE = """\
[gateway]
name = "g"
data_dir = "{}"
[cloud]
host = "c"
[[stream]]
name = "s"
from = ["boards"]
topics = ["dt/#"]
when_full = "{}"
bytes_max = {}
"""


@pytest.fixture(autouse=True)
def quick_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.outbox.stream.TICK_S", 0.02)


async def stored(rig: Rig, first: int, count: int) -> None:
    """All of these readings, after the rig found room for them."""
    await until(lambda: rig.stream.has_room)
    receipts = rig.readings(range(first, first + count))
    await rig.taken()
    assert set(receipts) <= set(rig.source.receipts(Outcome.TAKEN))


@pytest.mark.parametrize("policy", POLICIES)
def test_a_drained_stream_takes_records_again_within_the_least_bound(tmp_path: Path, policy: str) -> None:
    async def run() -> None:
        for bytes_max in (BEFORE_BYTES, STREAM_BYTES_LEAST, STREAM_BYTES_LEAST):
            rig = Rig(tmp_path, Cloud(), bytes_max=bytes_max, when_full=policy)
            rig.start()
            await stored(rig, rig.stream.log.next, 50)
            await until(lambda rig=rig: rig.uploader.backlog() == 0)  # type: ignore[misc]
            assert rig.stream.log.bytes_held <= bytes_max
            rig.stop()
        assert len(rig.cloud.seen) == 50
        assert rig.stream.ledger.totals == {}

    asyncio.run(run())


@pytest.mark.parametrize("policy", POLICIES)
def test_a_backlog_in_a_segment_that_is_too_large_is_drained_or_makes_room_by_the_policy(
    tmp_path: Path, policy: str
) -> None:
    async def run() -> None:
        before = Rig(tmp_path, Cloud(None), bytes_max=BEFORE_BYTES, when_full=policy)
        before.start()
        await stored(before, 1, 300)
        before.stop()
        cloud = Cloud(None)
        rig = Rig(tmp_path, cloud, bytes_max=STREAM_BYTES_LEAST, when_full=policy)
        rig.start()
        if policy == "reject":
            turned_away = rig.readings([301])
            assert rig.source.receipts(Outcome.CONGESTED) == turned_away
            cloud.answers = Outcome.TAKEN
            cloud.answer(Outcome.TAKEN)
        await stored(rig, 301, 10)
        cloud.answers = Outcome.TAKEN
        cloud.answer(Outcome.TAKEN)
        await until(lambda: rig.uploader.backlog() == 0)
        shed = rig.stream.ledger.totals
        assert set(shed) == {"reject": set(), "drop_oldest": {"dropped_oldest"}, "thin": {"thinned"}}[policy]
        assert len(cloud.named()) >= 310 - sum(shed.values())
        await until(lambda: rig.stream.log.bytes_held <= STREAM_BYTES_LEAST)
        rig.stop()

    asyncio.run(run())


@pytest.mark.parametrize("policy", POLICIES)
def test_a_backlog_in_a_segment_that_is_too_large_is_given_up_when_it_is_discarded(tmp_path: Path, policy: str) -> None:
    async def run() -> None:
        def outbox(bytes_max: int, discard: tuple[str, ...] = ()) -> Outbox:
            file = FILE.format(tmp_path, policy, bytes_max)
            made = Outbox(
                parse_config(file, "g.toml"),
                Metrics(),
                {"cloud": Cloud(None)},
                discard=discard,
                now=asyncio.get_running_loop().time,
                unix_time=lambda: 1_700_000_000.0,
            )
            made.start()
            return made

        before, source = outbox(BEFORE_BYTES), Source()
        before.streams["s"].send([Message("dt/x", b"%d" % n, 1, False, n) for n in range(1, 301)], source)
        await until(lambda: len(source.outcomes) == 300)
        before.close()
        with pytest.raises(ConfigError, match="--discard s"):
            outbox(STREAM_BYTES_LEAST)
        after = outbox(STREAM_BYTES_LEAST, ("s",))
        stream, source = after.streams["s"], Source()
        assert stream.ledger.totals == {"discarded": 300}
        stream.send([Message("dt/x", b"new", 1, False, 1)], source)
        await until(lambda: bool(source.outcomes))
        assert source.receipts(Outcome.TAKEN) == [1]
        assert stream.log.bytes_held <= STREAM_BYTES_LEAST
        after.close()

    asyncio.run(run())


@pytest.mark.parametrize("policy", POLICIES)
def test_a_stream_that_shrinks_while_it_runs_keeps_to_the_bound_and_takes_records_on(
    tmp_path: Path, policy: str
) -> None:
    async def run() -> None:
        rig = Rig(tmp_path, Cloud(), bytes_max=BEFORE_BYTES, when_full=policy)
        rig.start()
        await stored(rig, 1, 50)
        await until(lambda: rig.uploader.backlog() == 0)
        rig.stream.change(replace(rig.settings, bytes_max=STREAM_BYTES_LEAST))
        await until(lambda: rig.stream.log.segments[-1].bytes < STREAM_BYTES_LEAST)
        for first in range(51, 2051, 50):
            await until(lambda: rig.stream.has_room)
            rig.readings(range(first, first + 50), size=2000)
            await rig.taken()
            assert rig.stream.log.bytes_held <= STREAM_BYTES_LEAST
        await until(lambda: rig.uploader.backlog() == 0)
        assert len(rig.source.receipts(Outcome.TAKEN)) == 2050
        assert rig.stream.ledger.totals == {}
        rig.stop()

    asyncio.run(run())
