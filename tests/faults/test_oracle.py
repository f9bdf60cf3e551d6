"""The oracle itself: sound books pass, and each kind of fault planted in them is found."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.outbox.record import VERSION, decode, encode
from edge.outbox.thin import Thinner
from tests.faults.oracle import Arrival, Books, Id, Produced, Shed, arrival, judge, payload


def ids(thing: str = "board1", count: int = 10, boot: int = 1) -> list[Id]:
    return [Id(thing, boot, sequence) for sequence in range(1, count + 1)]


def arrived(*made: Id) -> list[Arrival]:
    return [Arrival(one, one) for one in made]


def books() -> Books:
    """Sound ones, with all that is allowed: repeats, a gap that is accounted for, records held."""
    mine, other = ids(), ids("board2", 4)
    made = [*mine[:5], *other, *mine[5:]]
    produced = Produced(made, acknowledged=set(made[:-1]), held={mine[9]})
    arrivals = arrived(*mine[:3], *other[:2], *mine[1:3], *mine[5:9], *other)
    return Books(produced, arrivals, [Shed("board1", 1, 4, 5, 2, "drop_oldest")])


def test_sound_books_pass() -> None:
    verdict = judge(books()).check(shed=["drop_oldest"], held=True)
    assert (verdict.produced, verdict.received, verdict.repeats, verdict.held) == (14, 11, 4, 1)
    assert verdict.shed == {"drop_oldest": 2}


def lose_one(found: Books) -> None:
    found.arrivals = [one for one in found.arrivals if one.made != Id("board1", 1, 7)]


def lose_the_last_of_a_source(found: Books) -> None:
    found.arrivals = [one for one in found.arrivals if one.made != Id("board2", 1, 4)]


def lose_one_that_was_never_acknowledged(found: Books) -> None:
    found.produced.held.clear()


def forget_what_was_shed(found: Books) -> None:
    found.shed = []


def count_one_less_shed(found: Books) -> None:
    found.shed = [Shed("board1", 1, 4, 5, 1, "drop_oldest")]


def count_the_shed_of_another_boot(found: Books) -> None:
    found.shed = [Shed("board1", 2, 4, 5, 2, "drop_oldest")]


def shed_for_another_source(found: Books) -> None:
    found.shed = [Shed("board2", 1, 4, 5, 2, "drop_oldest")]


def count_more_than_were_made(found: Books) -> None:
    found.shed = [*found.shed, Shed("board2", 1, 4, 9, 5, "drop_oldest")]


def count_more_than_the_stretch_has(found: Books) -> None:
    found.shed = [Shed("board1", 1, 4, 5, 3, "drop_oldest")]


def show_one_twice(found: Books) -> None:
    found.arrivals = [*found.arrivals, Arrival(Id("board1", 1, 2), None)]


def rename_a_repeat(found: Books) -> None:
    found.arrivals = [*found.arrivals, Arrival(Id("board1", 1, 2), Id("board1", 2, 2))]


def let_the_receiver_show_one_twice(found: Books) -> None:
    shown = [one.made for one in found.arrivals]
    found.visible = shown


def swap_two(found: Books) -> None:
    swapped = list(found.arrivals)
    swapped[0], swapped[1] = swapped[1], swapped[0]
    found.arrivals = swapped


def send_an_old_one_late(found: Books) -> None:
    rest = [one for one in found.arrivals if one.made != Id("board1", 1, 1)]
    found.arrivals = [*rest, *arrived(Id("board1", 1, 1))]


def make_one_up(found: Books) -> None:
    found.arrivals = [*found.arrivals, *arrived(Id("board3", 1, 1))]


def alter_one(found: Books) -> None:
    found.arrivals = [*found.arrivals[:-1], Arrival(None, Id("board2", 1, 4))]


def never_come_to_rest(found: Books) -> None:
    found.drained = False


PLANTED: dict[Callable[[Books], None], str] = {
    lose_one: "lost_acknowledged: 1 (board1/1/7)",
    lose_the_last_of_a_source: "lost_acknowledged: 1 (board2/1/4)",
    lose_one_that_was_never_acknowledged: "lost: 1 (board1/1/10)",
    forget_what_was_shed: "lost_acknowledged: 2 (board1/1/4, board1/1/5)",
    count_one_less_shed: "lost_acknowledged: 1 (board1/1/5)",
    count_the_shed_of_another_boot: "lost_acknowledged: 2",
    shed_for_another_source: "lost_acknowledged: 2",
    count_more_than_were_made: "miscounted: 1",
    count_more_than_the_stretch_has: "miscounted: 2",
    show_one_twice: "repeats_visible: 1 (board1/1/2)",
    rename_a_repeat: "misnamed: 1 (board1/1/2)",
    let_the_receiver_show_one_twice: "repeats_visible: 4",
    swap_two: "out_of_order: 1 (board1/1/1)",
    send_an_old_one_late: "out_of_order: 1 (board1/1/1)",
    make_one_up: "invented: 1",
    alter_one: "invented: 1",
    never_come_to_rest: "not drained",
}


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: str(plant.__name__))
def test_a_planted_fault_is_found(plant: Callable[[Books], None]) -> None:
    found = books()
    plant(found)
    verdict = judge(found)
    assert PLANTED[plant] in "; ".join(verdict.faults)
    with pytest.raises(AssertionError):
        verdict.check(shed=["drop_oldest"], held=True)


def test_a_fault_is_named_alone() -> None:
    found = books()
    swap_two(found)
    assert judge(found).faults == ["out_of_order: 1 (board1/1/1)"]


def test_shedding_and_holding_pass_only_where_the_test_expects_them() -> None:
    with pytest.raises(AssertionError, match="shed although nothing should be"):
        judge(books()).check(held=True)
    with pytest.raises(AssertionError, match="still held"):
        judge(books()).check(shed=["drop_oldest"])


def test_a_record_received_and_yet_counted_as_shed_is_no_fault() -> None:
    """The acknowledgement of the cloud was lost, and then the room was needed."""
    found = books()
    found.shed = [*found.shed, Shed("board1", 1, 1, 3, 2, "drop_oldest")]
    judge(found).check(shed=["drop_oldest"], held=True)


@given(st.integers(1, 300), st.integers(0, 2**32 - 1), st.integers(1, 2**32 - 1), st.integers(0, 300), st.booleans())
def test_a_payload_tells_its_identity_and_every_altered_byte(
    number: int, boot: int, sequence: int, size: int, numeric: bool
) -> None:
    one = Id(f"board{number}", boot, sequence)
    data = payload(one, size, numeric=numeric)
    assert len(data) >= size
    assert arrival(data, one) == Arrival(one, one)
    at = number % len(data)
    assert arrival(data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :], one).made is None
    assert arrival(data[:-1], one).made is None
    assert arrival(b"", one).made is None


def thinned(first: int, last: int, boot: int = 1) -> Arrival:
    """The one average that a stream makes of these records of board1, as it arrives."""
    rows = []
    for number in range(first, last + 1):
        data = payload(Id("board1", boot, number), 100, numeric=True)
        rows.append((number, encode((VERSION, 1, 0, "dt/board1", data, 1, None, ("board1", boot, number)))))
    thinner = Thinner("gw/readings")
    thinner.feed(rows)
    thinner.finish()
    ((number, data),) = thinner.thin(rows)
    record = decode(data)
    assert record is not None
    assert record.reading is not None
    return arrival(record.payload, Id(*record.reading))


def books_with_an_average() -> Books:
    mine = ids()
    arrivals = [*arrived(*mine[:3]), thinned(3, 8), *arrived(*mine[8:]), thinned(3, 8)]
    return Books(Produced(mine, set(mine)), arrivals, [Shed("board1", 1, 3, 8, 6, "thinned")])


def test_an_average_stands_for_what_is_told_as_thinned_even_if_some_of_it_arrived_before() -> None:
    verdict = judge(books_with_an_average()).check(shed=["thinned"])
    assert (verdict.received, verdict.averages, verdict.averaged, verdict.repeats) == (5, 1, 6, 1)


def average_one_more_than_is_told(found: Books) -> None:
    found.arrivals = [*found.arrivals, thinned(8, 9)]


def average_one_twice(found: Books) -> None:
    found.arrivals = [*found.arrivals, thinned(5, 8), thinned(5, 9)]


def average_what_was_never_made(found: Books) -> None:
    found.arrivals = [*found.arrivals, thinned(9, 11)]


def alter_an_average(found: Books) -> None:
    data = b'{"board":1.0,"boot":1.0,"seq":5.5,"check":1.0,"thinned":{"count":6,"min":{"seq":3},"max":{"seq":8}}}'
    found.arrivals = [*found.arrivals, arrival(data, None)]


def show_an_average_late(found: Books) -> None:
    found.arrivals = [*found.arrivals[:3], *found.arrivals[4:]]


AVERAGES_PLANTED: dict[Callable[[Books], None], str] = {
    average_one_more_than_is_told: "and not told as thinned",
    average_one_twice: "is in the averages",
    average_what_was_never_made: "invented: 1",
    alter_an_average: "invented: 1",
    show_an_average_late: "out_of_order: 1",
}


@pytest.mark.parametrize("plant", AVERAGES_PLANTED, ids=lambda plant: str(plant.__name__))
def test_a_planted_fault_of_averages_is_found(plant: Callable[[Books], None]) -> None:
    found = books_with_an_average()
    plant(found)
    assert AVERAGES_PLANTED[plant] in "; ".join(judge(found).faults)
