"""A stream on a real log: when it says taken, what it keeps, what it sheds, and how it goes on after an end."""

import asyncio
import json
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.messages import Origin, Outcome, Reading
from edge.outbox.clock import CLOCK, Clock
from edge.outbox.ledger import Shed
from edge.outbox.report import losses, rows
from tests.outbox.rig import Cloud, Rig, until


def test_taken_is_said_only_when_the_record_is_in_the_log(tmp_path: Path) -> None:
    async def run() -> None:
        rig = Rig(tmp_path, Cloud())
        rig.start()
        receipts = rig.readings([1, 2, 3])
        assert rig.source.outcomes == {}
        await rig.taken()
        assert rig.source.receipts(Outcome.TAKEN) == receipts
        assert rig.stream.log.next == 4
        rig.stop()

    asyncio.run(run())


def test_a_repeat_is_answered_and_not_stored_again_before_and_after_a_kill(tmp_path: Path) -> None:
    async def run() -> None:
        cloud = Cloud()
        rig = Rig(tmp_path, cloud)
        rig.start()
        rig.readings([1, 2, 3])
        rig.readings([2, 3, 4])
        await rig.taken()
        assert len(rig.source.receipts(Outcome.TAKEN)) == 6
        rig.readings([4])
        assert len(rig.source.receipts(Outcome.TAKEN)) == 7
        rig.kill()
        again = Rig(tmp_path, cloud)
        again.start()
        assert again.stream.marks.last("b1") == (1, 4)
        again.readings([3, 4])
        again.readings([5])
        again.readings([1], boot=2)
        again.readings([5])
        await again.taken()
        assert len(again.source.receipts(Outcome.TAKEN)) == 5
        await until(lambda: len(cloud.named()) == 6)
        assert [one.sequence for one in cloud.named()] == [1, 2, 3, 4, 5, 1]
        again.stop()

    asyncio.run(run())


def test_messages_without_a_reading_get_a_name_that_no_restart_gives_again(tmp_path: Path) -> None:
    async def run() -> None:
        cloud = Cloud()
        for _ in range(2):
            rig = Rig(tmp_path, cloud)
            rig.start()
            rig.messages([b"a"], qos=0)
            rig.messages([b"b"])
            await rig.taken()
            await until(lambda rig=rig: rig.uploader.backlog() == 0)  # type: ignore[misc]
            rig.kill()
        names = list(cloud.named())
        assert [(one.thing, one.sequence) for one in names] == [("g/s", 1), ("g/s", 2), ("g/s", 3), ("g/s", 4)]
        assert names[0].boot == names[1].boot < names[2].boot

    asyncio.run(run())


def test_reject_turns_away_from_the_first_that_finds_no_room_on(tmp_path: Path) -> None:
    async def run() -> None:
        rig = Rig(tmp_path, Cloud(None), window=1, bytes_max=2 << 20)
        rig.start()
        turned_away = 0
        for begin in range(1, 20_000, 50):
            rig.readings(range(begin, begin + 50), size=400)
            await rig.taken()
            turned_away = len(rig.source.receipts(Outcome.CONGESTED))
            if turned_away:
                break
        taken = rig.source.receipts(Outcome.TAKEN)
        assert taken == list(range(1, len(taken) + 1))
        assert len(taken) > 2000
        assert rig.stream.log.bytes_held <= 2 << 20
        rig.messages([b"x" * 400] * 50, qos=0)
        assert 40 < rig.stream.ledger.totals["full"] <= 50
        rig.stop()

    asyncio.run(run())


def test_drop_oldest_keeps_the_newest_within_the_bound_and_counts_every_one_dropped(tmp_path: Path) -> None:
    async def run() -> None:
        cloud = Cloud(None)
        rig = Rig(tmp_path, cloud, window=1, bytes_max=2 << 20, when_full="drop_oldest")
        rig.start()
        count = 10_000
        for begin in range(1, count, 50):
            rig.readings(range(begin, begin + 50), size=400)
            await rig.taken()
        await rig.taken()
        assert rig.source.receipts(Outcome.TAKEN) == list(range(1, count + 1))
        held = [row["seq"] for row in rows(rig.stream.log, "g/s", rig.stream.clock, 1, count)]
        shed = rig.stream.ledger.things["b1"]
        assert held == list(range(held[0], count + 1))
        assert [(entry.first, entry.last, entry.count, entry.reason) for entry in shed] == [
            (1, held[0] - 1, held[0] - 1, "dropped_oldest")
        ]
        assert rig.stream.log.bytes_held <= 2 << 20
        rig.stop()
        again = Rig(tmp_path, cloud, bytes_max=2 << 20)
        assert again.stream.ledger.totals == {"dropped_oldest": held[0] - 1}
        assert losses(again.stream.marks, again.stream.ledger)[0].marks == [(1, count)]
        again.stop()

    asyncio.run(run())


def test_thin_keeps_the_averages_and_what_it_sheds_and_keeps_is_all_there_was(tmp_path: Path) -> None:
    async def run() -> None:
        cloud = Cloud(None)
        rig = Rig(tmp_path, cloud, window=1, bytes_max=2 << 20, when_full="thin")
        rig.start()
        count, sent = 0, 0
        dice = random.Random(1)
        while not rig.stream.ledger.totals:
            payloads = [json.dumps({"c": dice.random(), "d": dice.random()}).encode() for _ in range(100)]
            rig.messages(payloads)
            sent += 100
            await rig.taken()
            assert sent < 200_000
        await rig.taken()
        held = list(rows(rig.stream.log, "g/s", rig.stream.clock, 1, sent))
        thinned = [json.loads(row["payload"])["thinned"] for row in held if "thinned" in row["payload"]]
        count = sum(one["count"] for one in thinned)
        assert len({(row["thing"], row["boot"], row["seq"]) for row in held}) == len(held)
        assert thinned
        assert all(0 <= one["min"]["c"] <= one["max"]["c"] <= 1 for one in thinned)
        assert len(held) - len(thinned) + count == sent
        assert rig.stream.ledger.totals == {"thinned": count}
        rig.stop()

    asyncio.run(run())


def test_what_a_board_says_it_shed_is_reported_once_although_it_is_told_again(tmp_path: Path) -> None:
    async def run() -> None:
        rig = Rig(tmp_path, Cloud())
        rig.start()
        rig.readings([1, 2, 3])
        for _ in range(2):
            rig.stream.board_shed("b1", 1, 4, 9)
        rig.readings([10])
        await rig.taken()
        rig.kill()
        again = Rig(tmp_path, Cloud())
        again.stream.board_shed("b1", 1, 4, 9)
        [found] = losses(again.stream.marks, again.stream.ledger)
        assert (found.thing, found.marks) == ("b1", [(1, 10)])
        assert again.stream.ledger.things == {"b1": [Shed(1, 4, 9, 6, "shed_by_board")]}
        again.stop()

    asyncio.run(run())


def test_what_was_damaged_on_disk_is_in_the_loss_report_and_with_the_rest_is_all_there_was(tmp_path: Path) -> None:
    async def run() -> None:
        rig = Rig(tmp_path, Cloud(None), window=1)
        rig.start()
        for begin in range(1, 101, 10):
            rig.readings(range(begin, begin + 10), size=400)
            await rig.taken()
        rig.kill()
        segment = next(path for path in (tmp_path / "s").iterdir() if path.is_file())
        content = bytearray(segment.read_bytes())
        content[content.index(b"b1 1 45")] ^= 1
        segment.write_bytes(content)
        for _ in range(2):
            again = Rig(tmp_path, Cloud())
            again.start()
            await until(lambda again=again: again.uploader.backlog() == 0)  # type: ignore[misc]
            await again.taken()
            assert again.stream.ledger.things == {"*": [Shed(0, 41, 50, 10, "damaged")]}
            again.kill()
        assert again.stream.marks.things == {"b1": {1: 100}}

    asyncio.run(run())


def test_purge_gives_up_all_and_counts_it(tmp_path: Path) -> None:
    async def run() -> None:
        cloud = Cloud(None)
        rig = Rig(tmp_path, cloud)
        rig.start()
        rig.readings(range(1, 301))
        await rig.taken()
        assert rig.stream.purge() == 300
        await until(lambda: rig.stream.log.first == 301)
        assert rig.stream.ledger.totals == {"purged": 300}
        cloud.answer(Outcome.TAKEN)
        rig.readings([301])
        await until(lambda: len(cloud.open) == 1)
        rig.stop()

    asyncio.run(run())


def test_what_the_cloud_refuses_is_counted_by_name_and_does_not_hold_up_the_rest(tmp_path: Path) -> None:
    async def run() -> None:
        cloud = Cloud(None)
        rig = Rig(tmp_path, cloud)
        rig.start()
        rig.readings([1, 2, 3])
        await until(lambda: len(cloud.open) == 3)
        cloud.answer(Outcome.TAKEN, 1)
        cloud.answer(Outcome.REFUSED, 1)
        cloud.answer(Outcome.TAKEN)
        assert rig.uploader.backlog() == 0
        assert [(one.first, one.last, one.reason) for one in rig.stream.ledger.things["b1"]] == [(2, 2, "refused")]
        rig.stop()

    asyncio.run(run())


def test_a_payload_above_the_bound_is_refused_and_the_rest_of_its_batch_taken(tmp_path: Path) -> None:
    async def run() -> None:
        rig = Rig(tmp_path, Cloud())
        rig.start()
        receipts = rig.messages([b"a", b"x" * 131_073, b"y" * 131_072])
        await rig.taken()
        assert rig.source.receipts(Outcome.REFUSED) == receipts[1:2]
        assert rig.source.receipts(Outcome.TAKEN) == [receipts[0], receipts[2]]
        rig.stop()

    asyncio.run(run())


def test_after_congestion_it_goes_on_from_the_oldest_unsettled(tmp_path: Path) -> None:
    async def run() -> None:
        cloud = Cloud(None)
        rig = Rig(tmp_path, cloud)
        rig.start()
        rig.readings(range(1, 11))
        await until(lambda: len(cloud.open) == 10)
        cloud.answer(Outcome.TAKEN, 3)
        cloud.answer(Outcome.CONGESTED)
        cloud.answers = Outcome.TAKEN
        await until(lambda: rig.uploader.backlog() == 0)
        assert [one.reading.sequence for one in cloud.seen if one.reading] == [*range(1, 11), *range(4, 11)]
        rig.stop()

    asyncio.run(run())


def test_live_data_goes_ahead_of_a_backlog_and_none_is_left_out(tmp_path: Path) -> None:
    async def run() -> None:
        cloud = Cloud(None)
        rig = Rig(tmp_path, cloud, window=10)
        rig.start()
        rig.readings(range(1, 3001))
        await rig.taken()
        rig.kill()
        again = Rig(tmp_path, Cloud(None), window=10, live_first=True)
        again.start()
        again.readings([3001])
        await rig.taken()
        await until(lambda: again.stream.log.next == 3002)
        again.cloud.answer(Outcome.TAKEN, 5)
        await until(lambda: any(one.reading == Reading("b1", 1, 3001) for one in again.cloud.seen))
        assert len(again.cloud.seen) < 20
        while again.uploader.backlog():
            again.cloud.answer(Outcome.TAKEN)
            await asyncio.sleep(0)
        assert {one.sequence for one in again.cloud.named()} == set(range(1, 3002))
        again.stop()

    asyncio.run(run())


@pytest.mark.parametrize("form", ["ndjson", "cbor"])
def test_batches_hold_every_record_once_and_are_settled_as_one(tmp_path: Path, form: str) -> None:
    async def run() -> None:
        cloud = Cloud(None)
        rig = Rig(tmp_path, cloud, format=form, batch_records_max=100, batch_wait_s=0.05)
        rig.start()
        rig.readings(range(1, 251))
        await until(lambda: len(cloud.open) == 3)
        assert [one.receipt for one in cloud.seen] == [1, 101, 201]
        assert {one.topic for one in cloud.seen} == {"batch/g/s"}
        cloud.answer(Outcome.TAKEN)
        assert rig.uploader.backlog() == 0
        assert rig.metrics.snapshot()['stream_records_out{stream="s"}'] == 250
        rig.stop()

    asyncio.run(run())


@pytest.mark.parametrize("form", ["message", "ndjson"])
def test_what_was_taken_before_the_clock_was_set_is_sent_with_its_time(tmp_path: Path, form: str) -> None:
    async def run() -> None:
        cloud = Cloud(None)
        rig = Rig(tmp_path, cloud, window=1, format=form, batch_records_max=1)
        rig.unix_s = 5.0
        rig.start()
        rig.readings([1])
        await rig.taken()
        rig.readings([2, 3])
        await rig.taken()
        rig.unix_s = 1_700_000_000.0
        rig.readings([4])
        await rig.taken()
        assert stamps(cloud) == [0]  # what was handed on before
        cloud.answers = Outcome.TAKEN
        cloud.answer(Outcome.TAKEN)
        await until(lambda: rig.uploader.backlog() == 0)
        _, second, third, fourth = stamps(cloud)
        assert 1_699_999_990_000 < second == third <= fourth <= 1_700_000_000_000
        listed = [row["t"] for row in rows(rig.stream.log, "g/s", rig.stream.clock, 2, 4)]
        assert listed == [second, third, fourth]
        rig.stop()

    asyncio.run(run())


def test_a_clock_that_is_set_while_nothing_comes_stamps_what_is_held_and_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.outbox.stream.TICK_S", 0.01)
    monkeypatch.setattr("edge.outbox.stream.CURSOR_S", 0.01)

    async def run() -> None:
        cloud = Cloud(None)
        rig = Rig(tmp_path, cloud, window=1)
        rig.unix_s = 5.0
        rig.start()
        rig.readings([1, 2])
        await rig.taken()
        rig.unix_s = 1_700_000_000.0
        await until(
            lambda: CLOCK in rig.stream.state and Clock(rig.stream.state, 0, "").unix_ms(rig.stream.boot, 1) > 1
        )
        cloud.answer(Outcome.TAKEN)
        first, second = stamps(cloud)
        assert first == 0
        assert second > 1_699_999_990_000
        rig.kill()

    asyncio.run(run())


def test_a_clock_that_was_wrong_stamps_nothing_that_is_sent_after_it_was_put_right(tmp_path: Path) -> None:
    async def run() -> None:
        cloud = Cloud(None)
        rig = Rig(tmp_path, cloud, window=1)
        rig.unix_s = 1_690_000_000.0
        rig.start()
        rig.readings([1, 2])
        await rig.taken()
        rig.unix_s = 1_700_000_000.0
        rig.readings([3])
        await rig.taken()
        cloud.answers = Outcome.TAKEN
        cloud.answer(Outcome.TAKEN)
        await until(lambda: rig.uploader.backlog() == 0)
        first, second, third = stamps(cloud)
        assert first <= 1_690_000_000_000
        assert 1_699_999_990_000 < second <= third
        rig.stop()

    asyncio.run(run())


@pytest.mark.parametrize("form", ["message", "ndjson"])
def test_what_waits_at_the_connection_when_the_clock_is_set_is_taken_back_and_stamped(
    tmp_path: Path, form: str
) -> None:
    async def run() -> None:
        cloud = Waiting(None)
        rig = Rig(tmp_path, cloud, format=form, batch_records_max=1)
        rig.unix_s = 5.0
        rig.start()
        rig.readings([1, 2, 3, 4])
        await rig.taken()
        assert stamps(cloud) == [0, 0, 0, 0]
        cloud.on_the_wire = 1
        rig.unix_s = 1_700_000_000.0
        rig.readings([5])
        await rig.taken()
        await until(lambda: rig.uploader.under_way == 1)
        cloud.answers = Outcome.TAKEN
        cloud.answer(Outcome.TAKEN)
        await until(lambda: rig.uploader.backlog() == 0)
        assert [one.sequence for one in cloud.named()] == [1, 2, 3, 4, 5]
        assert len(cloud.seen) == 8
        assert all(stamp > 1_699_999_990_000 for stamp in stamps(cloud)[4:])
        assert rig.metrics.snapshot()['stream_records_out{stream="s"}'] == 5
        rig.stop()

    asyncio.run(run())


class Waiting(Cloud):
    """Sends only so many."""

    on_the_wire = 0

    def take_back(self, origin: Origin, unwanted: Callable[[int], bool]) -> list[int]:
        self.open, back = self.open[: self.on_the_wire], self.open[self.on_the_wire :]
        assert all(whose is origin and unwanted(receipt) for receipt, whose in back)
        return [receipt for receipt, _ in back]


def stamps(cloud: Cloud) -> list[int]:
    """The times of what was sent; 0 where there is none."""
    return [
        json.loads(message.payload).get("t", 0) if message.topic.startswith("batch/") else message.time_ms
        for message in cloud.seen
    ]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("readings"), st.integers(1, 40)),
        st.tuples(st.just("repeat"), st.integers(1, 20)),
        st.tuples(st.just("messages"), st.integers(1, 20)),
        st.tuples(st.just("taken"), st.just(0)),
        st.tuples(st.just("answer"), st.integers(1, 60)),
        st.tuples(st.just("congested"), st.integers(1, 60)),
        st.tuples(st.just("kill"), st.just(0)),
        st.tuples(st.just("stop"), st.just(0)),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS, form=st.sampled_from(["message", "message", "live", "live ndjson"]))
def test_whatever_happens_what_was_taken_arrives_once_by_name_and_in_order(
    steps: list[tuple[str, int]], form: str
) -> None:
    """The model is a list: what was settled TAKEN, in order of handing in."""

    async def run(folder: Path) -> None:
        cloud = Cloud(None)
        live = form.startswith("live")
        more = {"format": "ndjson", "batch_records_max": 20, "batch_wait_s": 0.01} if form.endswith("ndjson") else {}
        promised: list[bytes] = []
        sequence, plain = 0, 0
        acknowledged = 0
        rig = Rig(folder, cloud, window=30, live_first=live, **more)
        rig.start()
        given: dict[int, bytes] = {}

        def promise() -> None:
            for receipt in rig.source.receipts(Outcome.TAKEN):
                promised.append(given.pop(receipt))
            rig.source.outcomes.clear()

        for step, count in steps:
            match step:
                case "readings" | "repeat":
                    first = sequence + 1 if step == "readings" else max(acknowledged - count, 0) + 1
                    numbers = range(first, max(sequence, first - 1) + 1 + (count if step == "readings" else 0))
                    sequence = max(sequence, numbers[-1] if numbers else 0)
                    for receipt, number in zip(rig.readings(numbers), numbers, strict=True):
                        given[receipt] = b"b1 1 %d" % number
                case "messages":
                    payloads = [b"m%d" % (plain + one) for one in range(count)]
                    plain += count
                    given.update(zip(rig.messages(payloads), payloads, strict=True))
                case "taken":
                    await rig.taken()
                case "answer":
                    cloud.answer(Outcome.TAKEN, count)
                case "congested":
                    cloud.answer(Outcome.CONGESTED, count)
                case "kill" | "stop":
                    if step == "stop":
                        rig.stop()
                    promise()
                    if step == "kill":
                        rig.kill()
                    # What the board was not told of it offers again, from the first of it on.
                    sequence = acknowledged = _last_promised(promised)
                    cloud.open.clear()
                    given.clear()
                    rig = Rig(folder, cloud, window=30, live_first=live, **more)
                    rig.start()
            promise()
            acknowledged = _last_promised(promised)
        await rig.taken()
        promise()
        cloud.answers = Outcome.TAKEN
        cloud.answer(Outcome.TAKEN)
        await until(lambda: rig.uploader.backlog() == 0)
        rig.stop()
        arrived = cloud.payloads()
        assert set(promised) <= set(arrived)
        assert len(set(arrived)) == len(arrived)
        if not live:
            ours = [int(one.split()[2]) for one in arrived if one.startswith(b"b1")]
            assert ours == sorted(ours)

    with tempfile.TemporaryDirectory() as folder, patch("edge.outbox.lanes.BACKLOG_LEAST", 30):
        asyncio.run(run(Path(folder)))


def _last_promised(promised: list[bytes]) -> int:
    return max((int(one.split()[2]) for one in promised if one.startswith(b"b1")), default=0)


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_what_comes_when_a_stream_is_closed_is_turned_away(tmp_path: Path, end: str) -> None:
    async def run() -> None:
        rig = Rig(tmp_path, Cloud())
        rig.start()
        rig.readings([1])
        await rig.taken()
        getattr(rig, end)()
        rig.readings([2])
        rig.messages([b"x"], qos=0)
        assert rig.source.receipts(Outcome.TAKEN) == [1]
        assert rig.source.receipts(Outcome.CONGESTED) == [2]
        assert not rig.stream.has_room
        rig.stream.cursor_moved()

    asyncio.run(run())
