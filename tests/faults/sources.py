"""The producers of the fault tests: fake boards on pseudo-terminals in a thread of their own, with their own book."""

import asyncio
from collections.abc import Iterable
from pathlib import Path

from tests.fakes.board import FakeBoard
from tests.fakes.pty_board import PtyBoard
from tests.faults.loop_thread import LoopThread
from tests.faults.oracle import Id, Produced, Shed, payload

TICK_S = 0.02
RING = 4096
WINDOW = 32


class _Board:
    def __init__(self, name: str, port: Path, ring: int, window: int, retry_s: float, seed: int) -> None:
        self.fake = FakeBoard(name, ring=ring, window=window, retry_s=retry_s, seed=seed)
        self.pty = PtyBoard(self.fake, port)
        self.name, self.port = name, port
        self.plugged = False
        self.made: list[Id] = []
        self.lost_with_power: set[Id] = set()
        self.due = 0.0

    def produce(self, bytes_min: int, *, numeric: bool) -> None:
        one = Id(self.name, self.fake.boot, self.fake.sequence + 1)
        assert self.fake.produce(payload(one, bytes_min, numeric=numeric)) == (one.boot, one.sequence)
        self.made.append(one)


class Boards:
    """names: board1, board2, …; the port of each is folder/NAME. Records are `payload_bytes` long at least; numeric:
    such that they can be averaged."""

    def __init__(
        self,
        folder: Path,
        count: int = 1,
        *,
        ring: int = RING,
        window: int = WINDOW,
        retry_s: float = 1.0,
        payload_bytes: int = 0,
        numeric: bool = False,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._boards = {
            name: _Board(name, folder / name, ring, window, retry_s, seed)
            for seed, name in enumerate((f"board{n + 1}" for n in range(count)), 1)
        }
        self._payload_bytes, self._numeric = payload_bytes, numeric
        self._rate = 0.0
        self._thread = LoopThread("boards")
        for board in self._boards.values():
            self._thread.call(self._plug, board)
        self._ticked = self._thread.loop.time()
        self._thread.call(self._tick)

    @property
    def names(self) -> list[str]:
        return list(self._boards)

    @property
    def ports(self) -> dict[str, Path]:
        return {name: board.port for name, board in self._boards.items()}

    def close(self) -> None:
        self._thread.call(self._end)
        self._thread.close()

    def produce(self, count: int) -> None:
        """So many records of every board, now."""
        self._thread.call(self._produce, count)

    def produce_these(self, name: str, payloads: Iterable[bytes]) -> None:
        """Readings that are no records of the book."""
        fake = self._boards[name].fake
        self._thread.call(lambda: [fake.produce(payload) for payload in payloads])

    def run_at(self, each_per_s: float) -> None:
        """From now on every board produces at this rate; 0 for none."""
        self._thread.call(setattr, self, "_rate", each_per_s)

    def unplug(self, name: str) -> None:
        self._thread.call(self._unplug, self._boards[name])

    def plug(self, name: str) -> None:
        self._thread.call(self._plug, self._boards[name])

    def reset(self, name: str) -> None:
        """Watchdog or reset line: its ring survives."""
        self._thread.call(self._restart, self._boards[name], False)

    def cut_power(self, name: str) -> None:
        """Its ring is gone, and counts as shed."""
        self._thread.call(self._restart, self._boards[name], True)

    def idle(self) -> bool:
        """No board holds anything."""
        return self._thread.call(lambda: all(board.fake.idle for board in self._boards.values()))

    def counters(self) -> dict[str, int]:
        def add() -> dict[str, int]:
            total: dict[str, int] = {}
            for board in self._boards.values():
                for name, value in board.fake.counters.items():
                    total[name] = total.get(name, 0) + value
            return total

        return self._thread.call(add)

    def book(self) -> Produced:
        return self._thread.call(self._book)

    def acknowledged(self) -> int:
        """How many so far."""
        return self.counters()["readings_acknowledged"]

    def shed(self) -> list[Shed]:
        """What boards gave up: `board_ring` was full, `board_power` was cut, `refused` by the gateway."""

        def collect() -> list[Shed]:
            found = []
            for board in self._boards.values():
                for boot, sequence in board.fake.shed:
                    one = Id(board.name, boot, sequence)
                    reason = "board_power" if one in board.lost_with_power else "board_ring"
                    found.append(Shed(board.name, boot, sequence, sequence, 1, reason))
                found += [Shed(board.name, boot, one, one, 1, "refused") for boot, one in board.fake.refused]
            return found

        return self._thread.call(collect)

    def _book(self) -> Produced:
        made: list[Id] = []
        held: set[Id] = set()
        given_up: set[Id] = set()
        for board in self._boards.values():
            made += board.made
            held |= self._ids(board, ((one.boot, one.sequence) for one in board.fake.ring if not one.acknowledged))
            given_up |= self._ids(board, board.fake.shed) | self._ids(board, board.fake.refused)
        return Produced(made, set(made) - held - given_up, held)

    @staticmethod
    def _ids(board: _Board, some: Iterable[tuple[int, int]]) -> set[Id]:
        return {Id(board.name, boot, sequence) for boot, sequence in some}

    def _produce(self, count: int) -> None:
        for board in self._boards.values():
            for _ in range(count):
                board.produce(self._payload_bytes, numeric=self._numeric)

    def _plug(self, board: _Board) -> None:
        if not board.plugged:
            board.plugged = True
            board.pty.plug()

    def _unplug(self, board: _Board) -> None:
        if board.plugged:
            board.plugged = False
            board.pty.unplug()

    def _restart(self, board: _Board, cold: bool) -> None:
        if cold:
            board.lost_with_power |= self._ids(
                board, ((one.boot, one.sequence) for one in board.fake.ring if not one.acknowledged)
            )
        board.fake.restart(asyncio.get_running_loop().time(), cold=cold)

    def _tick(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)
        now = asyncio.get_running_loop().time()
        elapsed_s, self._ticked = now - self._ticked, now
        for board in self._boards.values():
            board.due += self._rate * elapsed_s
            while board.due >= 1:
                board.due -= 1
                board.produce(self._payload_bytes, numeric=self._numeric)

    def _end(self) -> None:
        self._timer.cancel()
        for board in self._boards.values():
            self._unplug(board)
