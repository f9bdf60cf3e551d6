"""Messages with an expiry interval in a stream: they grow older there, and are never sent after their time."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from edge.messages import Message, Outcome, Properties
from tests.outbox.rig import Cloud, Rig, until


def hand_in(rig: Rig, expiries_s: Sequence[int | None], first: int = 1) -> None:
    """One batch; each is to be had for so long."""
    messages = [
        Message("dt/x", b"%d" % number, 1, False, number, None if expiry_s is None else Properties(expiry_s=expiry_s))
        for number, expiry_s in enumerate(expiries_s, first)
    ]
    rig.stream.send(messages, rig.source)


def test_what_waits_in_a_stream_grows_older_and_is_counted_as_expired_at_its_end(tmp_path: Path) -> None:
    async def run() -> None:
        cloud = Cloud(None)
        rig = Rig(tmp_path, cloud, window=1)
        rig.start()
        hand_in(rig, [None, 300, 3000, 300, None])
        await rig.taken()
        await until(lambda: len(cloud.open) == 1)
        rig.shift_s += 600
        cloud.answers = Outcome.TAKEN
        cloud.answer(Outcome.TAKEN)
        await until(lambda: rig.uploader.backlog() == 0)
        assert [message.payload for message in cloud.seen] == [b"1", b"3", b"5"]
        left = cloud.seen[1].properties
        assert left is not None
        assert left.expiry_s is not None
        assert 2000 < left.expiry_s <= 2400
        assert rig.stream.ledger.totals == {"expired": 2}
        assert [(one.first, one.last) for one in rig.stream.ledger.things["g/s"]] == [(2, 2), (4, 4)]
        rig.stop()

    asyncio.run(run())


def test_no_batch_holds_what_has_expired(tmp_path: Path) -> None:
    async def run() -> None:
        cloud = Cloud(None)
        rig = Rig(tmp_path, cloud, format="ndjson", batch_records_max=3, batch_wait_s=3600)
        rig.start()
        hand_in(rig, [300, None])
        await rig.taken()
        rig.shift_s += 600
        hand_in(rig, [None, None], first=3)
        await until(lambda: len(cloud.open) == 1)
        rows = [json.loads(line)["payload"] for line in cloud.seen[0].payload.splitlines()]
        assert rows == ["2", "3", "4"]
        cloud.answer(Outcome.TAKEN)
        assert rig.stream.ledger.totals == {"expired": 1}
        rig.stop()

    asyncio.run(run())


def test_what_expires_where_it_waits_for_the_connection_is_counted_once_and_holds_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        cloud = Cloud(None)
        rig = Rig(tmp_path, cloud)
        rig.start()
        hand_in(rig, [None, 300, 300])
        await until(lambda: len(cloud.open) == 3)
        rig.uploader.expired(cloud.seen[1:])
        assert rig.stream.ledger.totals == {}  # a kill now would have them read again
        rig.shift_s += 600
        del cloud.open[1:]
        cloud.answers = Outcome.TAKEN
        cloud.answer(Outcome.CONGESTED)  # all from the first on is read again
        await until(lambda: rig.uploader.backlog() == 0)
        assert [message.payload for message in cloud.seen] == [b"1", b"2", b"3", b"1"]
        assert rig.stream.ledger.totals == {"expired": 2}
        assert rig.uploader.failing == ""
        rig.stop()

    asyncio.run(run())


@pytest.mark.parametrize("answer", [Outcome.TAKEN, Outcome.CONGESTED])
@pytest.mark.parametrize("most", [50, 5000])
def test_a_backlog_that_has_expired_is_passed_over_with_little_of_it_in_memory(
    most: int, answer: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.outbox.expiry.WAITING_MAX", most)

    async def run() -> None:
        before = Rig(tmp_path, Cloud(None), window=1)
        before.start()
        hand_in(before, [None, *[300] * 2000, None])
        await before.taken()
        before.stop()
        cloud = Cloud(None)
        rig = Rig(tmp_path, cloud)
        rig.shift_s += 600
        rig.start()
        await until(lambda: len(cloud.open) == (1 if most == 50 else 2))
        assert rig.stream.ledger.totals == {}
        cloud.answers = Outcome.TAKEN
        cloud.answer(answer)
        await until(lambda: rig.uploader.backlog() == 0)
        assert list(dict.fromkeys(message.payload for message in cloud.seen)) == [b"1", b"2002"]
        assert rig.stream.ledger.totals == {"expired": 2000}
        rig.stop()

    asyncio.run(run())
