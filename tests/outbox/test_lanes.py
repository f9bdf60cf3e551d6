"""The lanes of a stream that sends what is new ahead of a backlog."""

import asyncio
from pathlib import Path
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.messages import Outcome
from edge.outbox.lanes import Lanes
from edge.outbox.record import VERSION, encode
from edge.outbox.thin import Thinner
from tests.outbox.rig import Cloud, Rig, until


@settings(deadline=None)
@given(st.data())
def test_each_lane_sends_in_order_and_what_the_cursors_say_is_settled_is(data: st.DataObject) -> None:
    """Records come, go out by whichever lane has its turn, and end; now and then the gateway starts again."""
    settled, under_way, next_number = set[int](), list[int](), data.draw(st.integers(1, 40))
    with patch("edge.outbox.lanes.BACKLOG_LEAST", 10):
        lanes = Lanes(None, 1, live_first=True)
        for _ in range(data.draw(st.integers(0, 40))):
            match data.draw(st.sampled_from(["come", "send", "send", "settle", "away", "restart"])):
                case "come":
                    next_number += data.draw(st.integers(1, 20))
                case "send" if turns := lanes.turns(next_number):
                    lane, end = data.draw(st.sampled_from(list(turns)))
                    numbers = list(range(lane.position, min(lane.position + data.draw(st.integers(1, 9)), end)))
                    assert not set(numbers) & set(under_way)
                    assert all(lanes.of(number) is lane for number in numbers)
                    lane.sent(numbers, numbers[-1] + 1)
                    under_way += numbers
                case "settle" | "away" as what if under_way:
                    some = data.draw(st.lists(st.sampled_from(under_way), unique=True))
                    under_way = [number for number in under_way if number not in some]
                    if what == "settle":
                        settled.update(some)
                        lanes.settled(some)
                    else:
                        lanes.turned_away(some)
                case "restart":
                    lanes = Lanes(lanes.state(), 1, live_first=True)
                    under_way = []
            sent = lanes.sent
            assert lanes.under_way == len(under_way)
            assert not any(sent.is_untouched(number) for number in under_way)
            assert all(number in settled for number in range(1, next_number) if sent.is_settled(number))
        while under_way or lanes.turns(next_number):
            lanes.settled(under_way)
            settled.update(under_way)
            under_way = []
            for lane, end in lanes.turns(next_number)[:1]:
                under_way = list(range(lane.position, end))
                lane.sent(under_way, end)
    assert settled == set(range(1, next_number))


def test_what_came_after_a_backlog_is_thinned_where_the_live_lane_has_not_sent_it() -> None:
    lanes = Lanes(None, 1, live_first=True)
    assert lanes.turns(2001) == ((lanes.backlog, 2001),)
    lanes.backlog.sent([1, 2], 3)
    (live, _), _ = lanes.turns(2041)
    live.sent([2001, 2002, 2003], 2004)
    lanes.settled([2001])
    sent = lanes.sent
    assert [number for number in range(1, 5) if sent.is_untouched(number)] == [3, 4]
    assert [number for number in range(1999, 2007) if sent.is_untouched(number)] == [1999, 2000, 2004, 2005, 2006]
    thinner = Thinner("g/s", sent)
    thinner.feed([_record(number) for number in range(2001, 2041)])
    thinner.finish()
    shed = [sequence for _, _, sequence in thinner.shed]
    assert shed[:9] == list(range(2005, 2014))
    assert 2001 not in shed  # it has arrived


async def _with_backlog(folder: Path) -> tuple[Rig, Cloud]:
    """Begun on 3,000 records, live ones first, in batches of 100 that wait for long."""
    before = Rig(folder, Cloud(None), window=1)
    before.start()
    before.readings(range(1, 3001))
    await before.taken()
    before.kill()
    cloud = Cloud(None)
    rig = Rig(folder, cloud, live_first=True, format="ndjson", batch_records_max=100, batch_wait_s=1000.0)
    rig.start()
    return rig, cloud


def test_a_backlog_goes_on_in_batches_while_the_live_one_waits_for_more(tmp_path: Path) -> None:
    async def run() -> None:
        rig, cloud = await _with_backlog(tmp_path)
        rig.readings([3001, 3002])
        await rig.taken()
        while cloud.open:
            cloud.answer(Outcome.TAKEN)
        assert [one.sequence for one in cloud.named()] == list(range(1, 3001))
        assert rig.uploader.backlog() == 2
        assert len(cloud.seen) == 30
        rig.shift_s += 1000
        rig.drain.pump()
        cloud.answer(Outcome.TAKEN)
        assert [one.sequence for one in cloud.named()] == list(range(1, 3003))
        assert rig.uploader.backlog() == 0
        rig.stop()

    asyncio.run(run())


def test_a_live_batch_that_is_full_goes_before_what_is_left_of_the_backlog(tmp_path: Path) -> None:
    async def run() -> None:
        rig, cloud = await _with_backlog(tmp_path)
        rig.readings(range(3001, 3101))
        await rig.taken()
        await until(lambda: rig.stream.log.next == 3101)
        cloud.answer(Outcome.TAKEN)
        assert [one.receipt for one in cloud.seen][:10] == [*range(1, 800, 100), 3001, 801]
        rig.stop()

    asyncio.run(run())


def _record(number: int) -> tuple[int, bytes]:
    return number, encode((VERSION, 1, 0, "t", b"text", 1, None, ("b", 1, number)))
