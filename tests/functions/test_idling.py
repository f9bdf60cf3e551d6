"""What is told of workers that are busy while no call is under way."""

from edge.functions.calls import Job
from edge.functions.idling import LOOK_S, Idling
from edge.functions.slot import Slot, State
from edge.messages import Message
from edge.metrics import Metrics


class Child:
    pid = 7
    cpu_s = 0.0


class World:
    def __init__(self) -> None:
        self.now, self.metrics = 100.0, Metrics()
        self.idling = Idling("f", self.metrics)
        self.slot = Slot(1, 1, self.now, timeout_s=10, start_timeout_s=60, is_program=True)
        self.child = Child()
        self.slot.child = self.child  # type: ignore[assignment]
        self.slot.state = State.READY

    def live(self, seconds: int, share: float) -> None:
        for _ in range(seconds):
            self.now += 1
            self.child.cpu_s += share
            self.idling.look(self.slot, self.now)

    @property
    def told(self) -> float:
        return self.metrics.counter("function_busy_without_call", function="f").value


def test_one_that_spins_without_a_call_is_told_once_a_stretch() -> None:
    world = World()
    world.live(int(4 * LOOK_S), 0.9)
    assert (world.told, round(world.idling.share, 2)) == (1, 0.9)
    world.live(int(2 * LOOK_S), 0.0)
    assert (world.told, world.idling.share) == (1, 0)
    world.live(int(2 * LOOK_S), 0.5)
    assert world.told == 2


def test_one_that_works_a_little_between_calls_is_not_told() -> None:
    world = World()
    world.live(60, 0.05)
    assert (world.told, world.idling.share) == (0, 0)


def test_what_a_call_costs_is_not_counted() -> None:
    world = World()
    for number in range(60):
        job = Job("t", Message("t", b""))
        world.slot.give(number, job, world.now)
        world.live(1, 1.0)
        world.slot.answered(number, world.now)
        world.live(1, 0.0)
    assert (world.told, world.idling.share) == (0, 0)


def test_one_that_has_ended_is_busy_no_more() -> None:
    world = World()
    world.live(20, 1.0)
    world.idling.ended(world.slot)
    assert world.idling.share == 0
