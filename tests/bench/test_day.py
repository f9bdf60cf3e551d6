"""The recorded day of the bench `savings`."""

from itertools import pairwise

import msgspec

from edge.rules.recorded import read_lines
from tests.bench import day


def test_a_day_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    one = day.messages(1)
    assert one == day.messages(1)
    assert one != day.messages(2)


def test_a_day_is_full_in_order_and_readable() -> None:
    one = day.messages(1)
    sent = day.counts(one)
    assert sent.temperatures == day.BOARDS * day.DAY_S // day.TEMPERATURE_EVERY_S
    assert sent.humidities == day.BOARDS * day.DAY_S // day.HUMIDITY_EVERY_S
    assert sent.doors > 100
    assert all(before.time <= after.time for before, after in pairwise(one))
    assert list(read_lines(day.lines(one[:1000]))) == one[:1000]
    values = [msgspec.json.decode(m.payload or "")["c"] for m in one if m.topic == "dt/b1/temp"]
    assert 10 < min(values) < max(values) < 32
    assert max(values) - min(values) > 2


def test_boards_drop_out_and_send_what_they_kept() -> None:
    times = [m.time for m in day.messages(1) if m.topic == "dt/b1/temp"]
    gaps = [after - before for before, after in pairwise(times)]
    assert max(gaps) > 60
    assert sum(gap < 1 for gap in gaps) > 10
