"""A gateway with boards on simulated cables, and a router's stand-in that settles when told. Time moves in steps."""

import random
from collections.abc import Callable, Sequence

import msgspec

from edge.boards.board import Board
from edge.boards.gateway import Gateway
from edge.boards.readings import MarksInMemory
from edge.config import BoardSettings, MqttSnSettings
from edge.messages import Message, Origin, Outcome
from edge.metrics import Metrics
from tests.fakes.board import FakeBoard

STEP_S = 0.01


class Cable:
    """One direction of a line. Damage and delay by a seeded generator."""

    def __init__(self, *, loss: float = 0.0, flip: float = 0.0, delay_s: float = 0.0, chunk: int = 0, seed: int = 0):
        self.loss, self.flip, self.delay_s, self.chunk = loss, flip, delay_s, chunk
        self._rng = random.Random(seed)
        self._under_way: list[tuple[float, bytes]] = []

    def put(self, data: bytes, now: float) -> None:
        if self.loss or self.flip:
            damaged = bytearray()
            for byte in data:
                if self._rng.random() < self.loss:
                    continue
                damaged.append(byte ^ (1 << self._rng.randrange(8)) if self._rng.random() < self.flip else byte)
            data = bytes(damaged)
        if data:
            self._under_way.append((now + self.delay_s, data))

    def take(self, now: float) -> list[bytes]:
        """What has arrived, cut as the other end's reads cut it."""
        arrived = [data for due, data in self._under_way if due <= now]
        self._under_way = [one for one in self._under_way if one[0] > now]
        joined = b"".join(arrived)
        if not self.chunk:
            return [joined] if joined else []
        return [joined[at : at + self.chunk] for at in range(0, len(joined), self.chunk)]

    def cut(self) -> None:
        self._under_way.clear()


class Taken(msgspec.Struct):
    """One message as the router got it."""

    source: str
    sender: str
    message: Message


class Rig:
    """settle: what becomes of a batch: an outcome now, None to keep it until `settle_waiting`."""

    def __init__(
        self,
        *names: str,
        cable: Callable[[int], Cable] = lambda seed: Cable(),
        settle: Callable[[Message], Outcome | None] = lambda message: Outcome.TAKEN,
        settings: MqttSnSettings | None = None,
        boards: Sequence[BoardSettings] = (),
        fake: Callable[[str], FakeBoard] = FakeBoard,
    ) -> None:
        self.now = 100.0
        self.metrics, self.marks = Metrics(), MarksInMemory()
        self.settings = settings or MqttSnSettings(retry_s=2.0, retries=3)
        self.board_settings = boards or [BoardSettings(name=name, port=f"/dev/{name}") for name in names]
        self.settle = settle
        self.taken: list[Taken] = []
        self.batches = 0
        self.waiting: list[tuple[Origin, Message]] = []
        self.fakes = {one.name: fake(one.name) for one in self.board_settings}
        self.up = {name: cable(2 * n) for n, name in enumerate(self.fakes)}
        self.down = {name: cable(2 * n + 1) for n, name in enumerate(self.fakes)}
        self.start()

    def start(self) -> None:
        """A new gateway process: only the marks outlive the old one, as they will on disk."""
        self.metrics = Metrics()
        self.gateway = Gateway(self.settings, self.board_settings, self.route, self.metrics, lambda: self.now)
        self.boards = {
            one.name: Board(one, self.gateway, self.metrics, self.marks, unix_time_ms=lambda: 1_700_000_000_000)
            for one in self.board_settings
        }
        self.waiting.clear()
        for board in self.boards.values():
            board.opened(self.now)

    def route(self, source: str, sender: str, messages: Sequence[Message], origin: Origin) -> None:
        self.batches += 1
        ended: dict[Outcome, list[int]] = {}
        for message in messages:
            outcome = self.settle(message)
            if outcome is None:
                self.waiting.append((origin, message))
            elif message.qos:
                ended.setdefault(outcome, []).append(message.receipt)
            if outcome in {Outcome.TAKEN, None}:
                self.taken.append(Taken(source, sender, message))
        for outcome, receipts in ended.items():
            origin.settled(receipts, outcome)

    def settle_waiting(self, outcome: Outcome = Outcome.TAKEN, count: int | None = None) -> None:
        now, self.waiting = self.waiting[:count], self.waiting[len(self.waiting[:count]) :]
        for origin, message in now:
            if message.qos:
                origin.settled((message.receipt,), outcome)

    def step(self) -> None:
        self.now += STEP_S
        for name, fake in self.fakes.items():
            board = self.boards[name]
            fake.tick(self.now)
            self.up[name].put(fake.output(), self.now)
            for data in self.up[name].take(self.now):
                board.receive(data, self.now)
            board.tick(self.now)
            self.down[name].put(board.output(self.now), self.now)
            for data in self.down[name].take(self.now):
                fake.receive(data, self.now)

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / STEP_S)):
            self.step()

    def until(self, met: Callable[[], bool], seconds: float = 60.0) -> None:
        until = self.now + seconds
        while not met():
            assert self.now < until, f"not within {seconds} s; {self.metrics.snapshot()}"
            self.step()

    def readings(self, name: str) -> list[tuple[int, int]]:
        """(boot, sequence) of each reading handed on, in order, repeats included."""
        found = [one.message.reading for one in self.taken]
        return [(reading.boot, reading.sequence) for reading in found if reading and reading.thing == name]

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.counter(name, **labels).value

    def rejected(self, board: str, reason: str) -> float:
        return self.count("mqttsn_rejected", board=board, reason=reason)
