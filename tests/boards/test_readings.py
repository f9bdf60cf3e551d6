import itertools
import random
from collections.abc import Callable

import pytest

from edge.config import BoardSettings
from edge.messages import Message, Outcome
from tests.boards.rig import Cable, Rig
from tests.fakes.board import FakeBoard

CABLES: dict[str, Callable[[int], Cable]] = {
    "perfect": lambda seed: Cable(),
    "byte_by_byte": lambda seed: Cable(chunk=1),
    "lossy": lambda seed: Cable(loss=0.0008, flip=0.0008, seed=seed),
    "delayed": lambda seed: Cable(delay_s=0.12, chunk=7),
}


def first_seen(readings: list[tuple[int, int]]) -> list[tuple[int, int]]:
    return list(dict.fromkeys(readings))


@pytest.mark.parametrize("cable", CABLES)
@pytest.mark.parametrize("seed", range(3))
def test_every_reading_arrives_in_order_and_once(cable: str, seed: int) -> None:
    rig = Rig("b1", "b2", cable=lambda n: CABLES[cable](n + 10 * seed))
    for _ in range(100):
        for fake in rig.fakes.values():
            fake.produce()
            fake.produce()
        rig.run(0.1)
    rig.until(lambda: all(fake.idle for fake in rig.fakes.values()))
    for name in rig.fakes:
        assert rig.readings(name) == [(1, n) for n in range(1, 201)]
    assert {one.source for one in rig.taken} == {"board:b1", "board:b2"}
    assert {one.message.topic for one in rig.taken if one.sender == "b1"} == {"dt/b1/temp"}


@pytest.mark.parametrize("cable", CABLES)
def test_nothing_is_acknowledged_before_it_is_settled(cable: str) -> None:
    rig = Rig("b1", cable=CABLES[cable], settle=lambda message: None)
    fake = rig.fakes["b1"]
    for _ in range(40):
        fake.produce()
    rig.run(20)
    assert fake.counters["readings_acknowledged"] == 0
    assert rig.readings("b1") == [(1, n) for n in range(1, 17)], "a window, once, however often it was sent again"
    settled = 0
    while not fake.idle:
        settled += len(rig.waiting)
        rig.settle_waiting()
        rig.run(1)
        assert fake.counters["readings_acknowledged"] <= settled
    assert rig.readings("b1") == [(1, n) for n in range(1, 41)]


def test_one_read_of_many_readings_is_one_batch_and_one_answer() -> None:
    rig = Rig("b1")
    fake = rig.fakes["b1"]
    rig.until(lambda: fake.ready)
    for _ in range(16):
        fake.produce()
    fake.tick(rig.now)
    wakes: list[None] = []
    rig.boards["b1"].output(rig.now)
    rig.boards["b1"].wake = lambda: wakes.append(None)
    rig.batches = 0
    rig.boards["b1"].receive(fake.output(), rig.now)
    assert (rig.batches, len(wakes)) == (1, 1)
    fake.receive(rig.boards["b1"].output(rig.now), rig.now)
    assert fake.idle


@pytest.mark.parametrize("cable", CABLES)
def test_congestion_keeps_the_order_and_takes_nothing_twice(cable: str) -> None:
    turns = itertools.count()
    rig = Rig("b1", cable=CABLES[cable], settle=lambda m: Outcome.CONGESTED if next(turns) % 7 == 3 else Outcome.TAKEN)
    fake = rig.fakes["b1"]
    for _ in range(100):
        fake.produce()
    rig.until(lambda: fake.idle, 120)
    assert sorted(rig.readings("b1")) == [(1, n) for n in range(1, 101)]
    assert rig.count("readings_congested", board="b1") > 0


def test_after_congestion_what_was_under_way_is_not_routed_again() -> None:
    rig = Rig("b1", settle=lambda message: None)
    fake = rig.fakes["b1"]
    for _ in range(8):
        fake.produce()
    rig.until(lambda: len(rig.waiting) == 8)
    origin = rig.waiting[0][0]
    receipts = [message.receipt for _, message in rig.waiting]
    rig.waiting.clear()
    origin.settled(receipts[2:3], Outcome.CONGESTED)
    origin.settled(receipts[5:6], Outcome.TAKEN)
    rig.run(1)
    assert rig.readings("b1") == [(1, n) for n in [*range(1, 9), 3]]
    origin.settled(receipts[:2] + receipts[3:5] + receipts[6:], Outcome.TAKEN)
    rig.settle_waiting()
    rig.until(lambda: fake.idle)
    assert rig.readings("b1") == [(1, n) for n in [*range(1, 9), 3]]
    assert rig.marks.last("b1") == (1, 8)


def test_the_mark_never_passes_what_is_not_settled() -> None:
    rig = Rig("b1", settle=lambda message: None)
    fake = rig.fakes["b1"]
    for _ in range(5):
        fake.produce()
    rig.until(lambda: len(rig.waiting) == 5)
    origin = rig.waiting[0][0]
    receipts = [message.receipt for _, message in rig.waiting]
    origin.settled(receipts[1:3], Outcome.TAKEN)
    assert rig.marks.last("b1") is None
    origin.settled(receipts[:1], Outcome.TAKEN)
    assert rig.marks.last("b1") == (1, 3)
    origin.settled(receipts[3:], Outcome.TAKEN)
    assert rig.marks.last("b1") == (1, 5)


def test_a_refused_reading_is_told_so_every_time_and_never_offered_again() -> None:
    rig = Rig("b1", settle=lambda m: Outcome.REFUSED if m.reading and m.reading.sequence == 3 else Outcome.TAKEN)
    fake = rig.fakes["b1"]
    for _ in range(5):
        fake.produce()
    rig.until(lambda: fake.idle)
    assert fake.refused == [(1, 3)]
    assert rig.readings("b1") == [(1, 1), (1, 2), (1, 4), (1, 5)]


def test_a_board_whose_boot_counter_was_erased_is_heard_again() -> None:
    rig = Rig("b1", fake=lambda name: FakeBoard(name, ring=400))
    fake = rig.fakes["b1"]
    for _ in range(300):
        fake.produce()
    rig.until(lambda: fake.idle)
    new = rig.fakes["b1"] = FakeBoard("b1")
    for _ in range(30):
        new.produce()
    rig.until(lambda: new.ready and new.idle)
    assert rig.readings("b1") == [(1, n) for n in [*range(1, 301), *range(1, 31)]]
    assert rig.count("boot_numbers_reused", board="b1") == 1


def test_readings_shed_by_the_board_are_counted() -> None:
    rig = Rig("b1", settle=lambda message: None, fake=lambda name: FakeBoard(name, ring=8, window=4))
    fake = rig.fakes["b1"]
    fake.produce()
    rig.until(lambda: len(rig.waiting) == 1)
    rig.settle_waiting()
    rig.until(lambda: fake.idle)
    for _ in range(30):
        fake.produce()
    for _ in range(60):
        rig.run(0.5)
        rig.settle_waiting()
    assert fake.idle
    assert rig.count("readings_shed_by_board", board="b1") == len(fake.shed) == 22
    assert rig.readings("b1") == [(1, 1), *((1, n) for n in range(24, 32))]


@pytest.mark.parametrize("cable", CABLES)
@pytest.mark.parametrize("cold", [False, True])
def test_a_board_that_restarts_goes_on_in_order(cable: str, cold: bool) -> None:
    rig = Rig("b1", cable=CABLES[cable])
    fake = rig.fakes["b1"]
    produced: list[tuple[int, int]] = []
    for _ in range(6):
        for _ in range(15):
            produced.append(fake.produce())
            rig.run(0.03)
        fake.restart(rig.now, cold=cold)
    rig.until(lambda: fake.ready and fake.idle, 120)
    expected = [one for one in produced if one not in fake.shed]
    got = first_seen(rig.readings("b1"))
    assert [one for one in got if one not in fake.shed] == expected
    assert len(rig.readings("b1")) == len(got), "no repeat is handed on"


@pytest.mark.parametrize("cable", CABLES)
def test_a_gateway_that_restarts_gets_everything_in_order(cable: str) -> None:
    rig = Rig("b1", cable=CABLES[cable])
    fake = rig.fakes["b1"]
    produced: list[tuple[int, int]] = []
    for turn in range(5):
        if turn == 3:
            fake.restart(rig.now)
        for _ in range(20):
            produced.append(fake.produce())
            rig.run(0.02)
        rig.up["b1"].cut()
        rig.down["b1"].cut()
        rig.start()
    rig.until(lambda: fake.ready and fake.idle, 120)
    got = first_seen(rig.readings("b1"))
    assert got == produced
    assert fake.counters["readings_acknowledged"] == len(produced)


def test_a_restart_of_both_in_one_moment_loses_nothing_acknowledged() -> None:
    rig = Rig("b1", settle=lambda message: None)
    fake = rig.fakes["b1"]
    produced = [fake.produce() for _ in range(20)]
    rig.until(lambda: len(rig.waiting) == 16)
    rig.settle_waiting(count=6)
    fake.restart(rig.now)
    rig.start()
    rig.settle = lambda message: Outcome.TAKEN
    rig.until(lambda: fake.ready and fake.idle)
    assert first_seen(rig.readings("b1")) == produced
    assert rig.readings("b1").count((1, 5)) == 1, "the mark told that it was settled"


def test_a_flood_of_readings_that_nobody_settles_stays_bounded() -> None:
    rig = Rig("b1", settle=lambda message: None)
    fake = rig.fakes["b1"]
    rig.until(lambda: fake.ready)
    fake._window = 200  # a board that does not keep to what was granted
    for _ in range(200):
        fake.produce()
    rig.run(5)
    assert len(rig.waiting) == 16
    assert rig.count("readings_congested", board="b1") > 0


def test_a_new_window_is_granted_and_kept() -> None:
    boards = [BoardSettings(name="b1", port="/dev/b1", window=4)]
    rig = Rig(boards=boards, settle=lambda message: None)
    for _ in range(10):
        rig.fakes["b1"].produce()
    rig.run(3)
    assert len(rig.waiting) == 4
    assert rig.boards["b1"].status().window == 4


def test_a_reading_under_an_unknown_topic_id_is_answered_so_and_comes_again() -> None:
    rig = Rig("b1")
    fake = rig.fakes["b1"]
    rig.until(lambda: fake.ready)
    fake._topic_id = 77
    fake.produce()
    rig.until(lambda: fake.idle)
    assert rig.readings("b1") == [(1, 1)]
    assert rig.rejected("b1", "topic_id_unknown") >= 1


@pytest.mark.parametrize("seed", range(16))
def test_whatever_happens_every_reading_is_handed_on_shed_or_refused(seed: int) -> None:
    """Loss, delay, congestion, refusals, late settlements in any order, restarts of board and gateway, unplugging."""
    rng = random.Random(seed)
    congestion, late, refusal = rng.choice((0, 0.02, 0.1)), rng.choice((0, 0.3, 1.0)), rng.choice((0, 0.02))
    loss, delay_s, chunk = rng.choice((0, 0.0005, 0.002)), rng.choice((0, 0.05, 0.2)), rng.choice((0, 1, 13))
    window, ring, clean = rng.choice((1, 4, 16, 64)), rng.choice((20, 400)), rng.random() < 0.5
    calm = False
    refused: set[tuple[int, int]] = set()

    def settle(message: Message) -> Outcome | None:
        draw = 1.0 if calm else rng.random()
        if draw < congestion:
            return Outcome.CONGESTED
        if draw < congestion + refusal:
            assert message.reading is not None
            refused.add((message.reading.boot, message.reading.sequence))
            return Outcome.REFUSED
        return None if draw < congestion + refusal + late else Outcome.TAKEN

    rig = Rig(
        "b1",
        cable=lambda n: Cable(loss=loss, flip=loss, delay_s=delay_s, chunk=chunk, seed=7 * seed + n),
        settle=settle,
        fake=lambda name: FakeBoard(name, ring=ring, window=window, clean=clean, seed=seed),
    )
    fake = rig.fakes["b1"]
    produced: list[tuple[int, int]] = []
    for _ in range(60):
        produced += [fake.produce() for _ in range(rng.randrange(6))]
        rig.run(rng.random() * 0.3)
        for one in rng.sample(rig.waiting, rng.randrange(len(rig.waiting) + 1)):
            rig.waiting.remove(one)
            one[0].settled((one[1].receipt,), Outcome.CONGESTED if rng.random() < congestion else Outcome.TAKEN)
        match rng.randrange(150):
            case 0 | 1 | 2:
                fake.restart(rig.now, cold=rng.random() < 0.3)
            case 3 | 4 | 5:
                rig.start()
            case 6 | 7 | 8:
                rig.boards["b1"].closed("unplugged")
                rig.run(0.3)
                rig.boards["b1"].opened(rig.now)
    calm = True
    while not (fake.ready and fake.idle):
        assert rig.now < 500
        rig.run(0.5)
        rig.settle_waiting()
    got = first_seen(rig.readings("b1"))
    assert set(produced) - set(got) - set(fake.shed) - refused == set()
    if not congestion and not late:
        assert got == sorted(got)
