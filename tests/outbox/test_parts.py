"""The pure parts of the outbox, each beside what it promises."""

import gzip
import json

from hypothesis import given
from hypothesis import strategies as st

from edge.boards.link import ReadingFrame, encode_reading
from edge.boards.packets import Publish
from edge.boards.readings import Readings
from edge.boards.topic_ids import TopicIds
from edge.messages import Message, Properties, Reading
from edge.metrics import Metrics
from edge.outbox import formats
from edge.outbox.clock import Clock
from edge.outbox.cursor import Cursor
from edge.outbox.lanes import Sent
from edge.outbox.ledger import ENTRIES_MAX, Ledger
from edge.outbox.marks import GatewayMarks, Marks
from edge.outbox.rate import Bucket
from edge.outbox.record import VERSION, decode, encode, messages_of
from edge.outbox.tail import Tail
from edge.outbox.thin import AVERAGES, Thinner

SOME = Message("dt/x", b"\xff\x00", 1, False, 1, None, Reading("b1", 3, 7), 1_700_000_000_000)


def test_a_record_of_version_one_reads_the_same_for_ever() -> None:
    data = bytes.fromhex("98010507a464742f78c402ff0001c093a262310307")
    record = decode(data)
    assert record is not None
    assert encode((VERSION, 5, 7, "dt/x", b"\xff\x00", 1, None, ("b1", 3, 7))) == data
    assert (record.boot, record.taken_ms, record.topic, record.payload) == (5, 7, "dt/x", b"\xff\x00")
    assert record.reading == ("b1", 3, 7)
    assert decode(data[:-1]) is None
    assert decode(b"\x98\x02" + data[2:]) is None


@given(
    topic=st.text(min_size=1, max_size=20),
    payload=st.binary(max_size=50),
    retain=st.booleans(),
    reading=st.one_of(st.none(), st.tuples(st.text(max_size=5), st.integers(0, 2**32), st.integers(1, 2**32))),
    content_type=st.one_of(st.none(), st.text(max_size=5)),
)
def test_a_message_comes_back_from_its_record(
    topic: str, payload: bytes, retain: bool, reading: tuple[str, int, int] | None, content_type: str | None
) -> None:
    properties = Properties(content_type=content_type) if content_type is not None else None
    data = encode((VERSION, 5, 7, topic, payload, 1 | retain << 2, properties, reading))
    (message,), unknown = messages_of([(9, data)], "g/s", lambda boot, ms: boot * 1000 + ms)
    assert unknown == []
    assert message == Message(topic, payload, 1, retain, 9, properties, Reading(*(reading or ("g/s", 5, 9))), 5007)


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 60)), max_size=60))
def test_marks_let_nothing_pass_twice_and_survive_their_state(given_readings: list[tuple[int, int]]) -> None:
    marks = Marks({})
    highest: dict[int, int] = {}
    for boot, sequence in given_readings:
        assert marks.advance("b", boot, sequence) is (sequence > highest.get(boot, 0))
        highest[boot] = max(highest.get(boot, 0), sequence)
    assert Marks(dict(marks.changes())).things == marks.things


def test_a_sequence_far_below_the_mark_is_a_boot_number_used_again() -> None:
    marks = Marks({})
    assert marks.advance("b", 1, 300)
    assert marks.advance("b", 1, 1)
    assert marks.last("b") == (1, 1)


class Keeper:
    def __init__(self, *readings: tuple[int, int]) -> None:
        self.marks = Marks({})
        self.state: dict[str, bytes] = {}
        self.told: list[tuple[str, int, int, int]] = []
        for boot, sequence in readings:
            self.marks.advance("b", boot, sequence)

    def keep(self, key: str, value: bytes) -> None:
        self.state[key] = value

    def board_shed(self, thing: str, boot: int, first: int, last: int) -> None:
        self.told.append((thing, boot, first, last))


def test_the_lowest_mark_of_all_streams_counts_and_only_if_they_are_all_there_is() -> None:
    low, high, none = Keeper((1, 4)), Keeper((1, 9)), Keeper()
    assert GatewayMarks(lambda thing: ([low, high], True)).last("b") == (1, 4)
    assert GatewayMarks(lambda thing: ([low, high], False)).last("b") is None
    assert GatewayMarks(lambda thing: ([low, none], True)).last("b") is None
    first = GatewayMarks(lambda thing: ([low, high], True))
    first.store("b", 1, 8)
    assert first.last("b") == (1, 8)
    assert GatewayMarks(lambda thing: ([low, high], True)).last("b") == (1, 8)
    assert GatewayMarks(lambda thing: ([low, high], False)).last("b") == (1, 8)
    assert first.shed("b", 1, 5, 7) == 0
    assert low.told == high.told == [("b", 1, 5, 7)]
    assert first.shed("b", 1, 5, 12) == 3
    assert first.shed("b", 2, 5, 7) == 3


def test_what_a_stream_stored_is_not_counted_as_shed_by_the_board_when_a_kill_left_the_seed_too_low() -> None:
    """The board's route leads to a stream and past it: what its session settled is stored with the next commit only."""
    stream = Keeper((1, 7))
    marks = GatewayMarks(lambda thing: ([stream], False))
    marks.store("b", 1, 5)
    metrics = Metrics()
    readings = Readings(
        "b",
        "b",
        metrics,
        GatewayMarks(lambda thing: ([stream], False)),
        send=lambda frames: None,
        rewind=lambda rewind: None,
        reject=lambda why: None,
    )
    ids = TopicIds({}, 10)
    assert ids.allot("dt/b") == 1
    frame = encode_reading(ReadingFrame(1, 8, 0, Publish(1, b"8", 8, 1)))
    assert [one.reading for one in readings.take([frame], ids, 0.0)] == [Reading("b", 1, 8)]
    assert metrics.counter("readings_shed_by_board", board="b").value == 0
    frame = encode_reading(ReadingFrame(1, 11, 0, Publish(1, b"11", 11, 1)))
    assert [one.reading for one in readings.take([frame], ids, 0.0)] == [Reading("b", 1, 11)]
    assert metrics.counter("readings_shed_by_board", board="b").value == 2


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 3), st.sampled_from(["x", "y"])), max_size=400))
def test_the_ledger_counts_every_one_and_stays_bounded(shed: list[tuple[str, int, str]]) -> None:
    ledger = Ledger({})
    for place, (thing, boot, reason) in enumerate(shed):
        ledger.add(thing, boot, place + 1, reason)
    again = Ledger(dict(ledger.changes()))
    assert sum(again.totals.values()) == len(shed)
    assert all(len(entries) <= ENTRIES_MAX for entries in again.things.values())
    for reason in ("x", "y"):
        assert again.totals.get(reason, 0) == sum(1 for _, _, found in shed if found == reason)


@given(st.data())
def test_the_cursor_never_passes_what_is_not_settled(data: st.DataObject) -> None:
    cursor, settled, open_numbers, last = Cursor(1), set[int](), list[int](), 1
    for _ in range(data.draw(st.integers(0, 30))):
        match data.draw(st.sampled_from(["send", "settle", "away"])):
            case "send" if not cursor.is_held:
                count = data.draw(st.integers(1, 5))
                numbers = list(range(cursor.position, cursor.position + count))
                cursor.sent(numbers, cursor.position + count)
                open_numbers += numbers
            case "settle" | "away" as what if open_numbers:
                some = data.draw(st.lists(st.sampled_from(open_numbers), unique=True))
                open_numbers = [number for number in open_numbers if number not in some]
                if what == "settle":
                    settled.update(some)
                    cursor.settled(some)
                else:
                    cursor.turned_away(some)
        assert cursor.cursor >= last
        assert all(number in settled for number in range(1, cursor.cursor))
        assert cursor.under_way == len(open_numbers)
        last = cursor.cursor


@given(st.lists(st.tuples(st.text(max_size=5), st.text(max_size=300)), min_size=1, max_size=20), st.booleans())
def test_every_row_of_a_json_batch_says_its_record(given_rows: list[tuple[str, str]], packed: bool) -> None:
    messages = [
        Message(topic, payload.encode(), 1, False, place, None, Reading("g/s", 2**31, place + 1), 5)
        for place, (topic, payload) in enumerate(given_rows)
    ]
    data, properties = formats.build([formats.row(message, "ndjson") for message in messages], "ndjson", gzip=packed)
    assert properties.content_type == "application/x-ndjson"
    assert (properties.user == (("encoding", "gzip"),)) is packed
    lines = (gzip.decompress(data) if packed else data).split(b"\n")
    assert lines.pop() == b""
    assert [json.loads(line) for line in lines] == [
        {"topic": topic, "thing": "g/s", "boot": 2**31, "seq": place + 1, "t": 5, "payload": payload}
        for place, (topic, payload) in enumerate(given_rows)
    ]


def test_a_row_of_cbor_is_the_map_that_the_standard_says() -> None:
    data, properties = formats.build([formats.row(SOME, "cbor")], "cbor", gzip=False)
    assert properties.content_type == "application/cbor-seq"
    assert data == bytes.fromhex(
        "a6 65746f706963 6464742f78 657468696e67 626231 64626f6f74 03 63736571 07"
        " 6174 1b0000018bcfe56800 677061796c6f6164 42ff00"
    )


def test_a_row_of_json_says_bytes_that_are_no_text_in_base64() -> None:
    data, _ = formats.build([formats.row(SOME, "ndjson")], "ndjson", gzip=True)
    row = json.loads(gzip.decompress(data))
    assert row == {
        "topic": "dt/x",
        "thing": "b1",
        "boot": 3,
        "seq": 7,
        "t": 1_700_000_000_000,
        "payload_base64": "/wA=",
    }


@given(st.lists(st.tuples(st.floats(0, 2), st.floats(1, 30)), max_size=50))
def test_no_stretch_of_time_lets_more_go_than_the_rate_and_one_burst(steps: list[tuple[float, float]]) -> None:
    bucket, now, spent = Bucket(10.0, 0.0), 0.0, 0.0
    for wait, units in steps:
        now += wait
        if bucket.wait_s(units, now) == 0:
            bucket.spend(units)
            spent += units
    assert spent <= 10 * (now + 1) + 30


def test_the_tail_gives_what_was_put_and_forgets_the_oldest_first() -> None:
    tail = Tail()
    for first in range(1, 20_001, 100):
        tail.put(first, [Message("t", b"", 1, False, first + place) for place in range(100)])
    assert tail.next == 20_001
    assert tail.next - tail.first <= 8192
    assert [one.receipt for one in tail.take(19_950, 30)] == list(range(19_950, 19_980))
    assert tail.first == 19_901


def test_what_was_stamped_before_the_clock_was_set_leaves_the_tail_and_does_not_come_back() -> None:
    tail = Tail()
    tail.put(1, [Message("t", b"", 1, False, number) for number in (1, 2)])
    tail.stamp_anew(5)
    assert tail.first == tail.next
    tail.put(3, [Message("t", b"", 1, False, number) for number in (3, 4)])
    assert tail.take(3, 2) == ()
    tail.put(5, [Message("t", b"", 1, False, 5)])
    assert (tail.first, tail.next) == (5, 6)


def test_a_clock_that_is_set_later_dates_what_came_before_it_in_the_same_system_boot() -> None:
    early = Clock({}, 1, "system")
    early.learn(100.0, 50.0)
    assert early.unix_ms(1, 50_000) == 0
    later = Clock(dict(early.changes()), 2, "system")
    later.learn(1_700_000_100.0, 60.0)
    assert later.unix_ms(1, 50_000) == 1_700_000_090_000
    assert later.age_ms(1, 50_000, 60_000) == 10_000
    other = Clock(dict(later.changes()), 3, "another system boot")
    other.learn(1_700_000_200.0, 5.0)
    assert other.unix_ms(1, 50_000) == 1_700_000_090_000
    assert other.age_ms(1, 50_000, 5_000) == 110_000


def test_what_came_before_the_system_was_up_is_at_least_as_old_as_that_if_no_clock_was_set() -> None:
    """So that an age limit acts on it in the end, and never too early."""
    never_set = Clock({}, 1, "system")
    never_set.learn(100.0, 50.0)
    later = Clock(dict(never_set.changes()), 2, "another system boot")
    assert later.age_ms(1, 900_000, 5_000) == 5_000
    later.learn(1_700_000_200.0, 5.0)
    assert later.age_ms(1, 900_000, 5_000) == 5_000
    set_back = Clock(dict(later.changes()), 3, "a third")
    set_back.learn(1_650_000_000.0, 60.0)
    assert set_back.age_ms(2, 5_000, 60_000) == 60_000
    forgotten = 77
    assert set_back.age_ms(forgotten, 50_000, 60_000) == 10_000


@given(
    st.lists(st.tuples(st.integers(0, 200), st.sampled_from([b"1", b"2.5", b'{"c":3}', b"text", b"[1]"])), max_size=80)
)
def test_thinning_loses_no_record_that_it_does_not_tell(given_rows: list[tuple[int, bytes]]) -> None:
    rows = [
        (place + 1, encode((VERSION, 1, second * 1000, "t", payload, 1, None, ("b", 1, place + 1))))
        for place, (second, payload) in enumerate(given_rows)
    ]
    thinner = Thinner("g/s")
    thinner.feed(rows)
    thinner.finish()
    kept = list(thinner.thin(rows))
    numbers = [number for number, _ in kept]
    assert numbers == sorted(numbers)
    names = {record.reading for _, data in kept if (record := decode(data)) is not None and record.reading is not None}
    readings = {name for name in names if name[2] < AVERAGES}
    assert readings | set(thinner.shed) == {("b", 1, number) for number, _ in rows}
    assert len(readings) + len(thinner.shed) == len(rows)
    assert len(names) == len(kept)
    again = Thinner("g/s")
    again.feed(kept)
    again.finish()
    assert not {name for name in again.shed if name[2] >= AVERAGES}


def record_of(number: int, payload: bytes, second: int) -> tuple[int, bytes]:
    return number, encode((VERSION, 1, second * 1000, "t", payload, 1, None, ("b", 1, number)))


def test_an_average_has_a_name_that_no_reading_has_and_is_not_averaged_again() -> None:
    rows = [record_of(number, b'{"c":%d}' % number, number) for number in range(1, 4)]
    for _ in range(2):
        thinner = Thinner("g/s")
        thinner.feed(rows)
        thinner.finish()
        rows = [*thinner.thin(rows), record_of(4, b'{"c":10}', 3)]
    found = decode(rows[0][1])
    assert found is not None
    assert (rows[0][0], found.reading) == (3, ("b", 1, AVERAGES + 3))
    assert json.loads(found.payload) == {"c": 2.0, "thinned": {"count": 3, "min": {"c": 1}, "max": {"c": 3}}}


def test_what_is_under_way_is_not_thinned() -> None:
    rows = [record_of(number, b"text", 0) for number in range(1, 10)]
    thinner = Thinner("g/s", Sent(3, 6, 0, 0, 0))
    thinner.feed(rows)
    thinner.finish()
    assert [number for number, _ in thinner.thin(rows)] == [3, 4, 5, 6, 9]
    assert thinner.shed == [("b", 1, number) for number in (7, 8)]
