"""Boards, a function that relays their readings into a stream, a cloud: struck like the streams alone, by kills.py.

A repeated call publishes once more, under a name of its own: at least once is promised, and the order of what is new.
"""

import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from tests.faults.kills import DRAIN_S, KILL, Bursts, Kill
from tests.faults.oracle import Id
from tests.faults.waiting import comes_about, wait_until

_CODE = """\
from edge import on, publish

@on("dt/#")
def relay(message):
    publish("fn/" + message.topic, message.payload)
"""
_FUNCTION = """
[[function]]
name = "relay"
file = "relay.py"
from = ["boards"]
subscribe = ["dt/#"]
publish = ["fn/#"]
to = ["stream:readings"]
interval_s = 0.1
"""
_ALONE: dict[str, Any] = {"from": []}  # the stream takes what the function publishes, nothing else


class Judgement(NamedTuple):
    """lost: acknowledged to the board, and never came; order: whether what came first came in order; repeats: how many
    came once more."""

    lost: list[Id]
    in_order: bool
    repeats: int
    dead_letters: float


class FunctionRun(Bursts):
    """One with the function between the boards and the stream."""

    def __init__(self, folder: Path, records: int = 20, burst: int = 5) -> None:
        super().__init__(folder, records, burst, more=_FUNCTION, **_ALONE)
        (folder / "relay.py").write_text(_CODE)

    def drain(self) -> Judgement:
        """Without faults from here on, but for one that may still be in store."""

        def is_through() -> bool:
            if self.gateway.ended():
                self.gateway.start()
            return self.boards.idle() and self._came() >= set(self.boards.book().made)

        comes_about(is_through, DRAIN_S)
        counters = wait_until(self._counters, "the gateway's counters")
        if not self.gateway.ended_itself():  # struck while it stopped
            comes_about(is_through, DRAIN_S)
            self.gateway.counters()  # once it answers it is far enough to be told to stop
            self.gateway.stop()
        arrived = [one.made for one in self.cloud.arrivals() if one.made is not None]
        first = list(dict.fromkeys(arrived))
        book = self.boards.book()
        return Judgement(
            sorted(set(book.acknowledged) - set(first)),
            first == [one for one in book.made if one in set(first)],
            len(arrived) - len(first),
            counters.get('function_dead_letters{function="relay"}', 0),
        )

    def _counters(self) -> dict[str, float] | None:
        if self.gateway.ended():
            self.gateway.start()
        status = self.gateway.answer()
        return None if status is None else status["counters"]

    def _came(self) -> set[Id]:
        return {one.made for one in self.cloud.arrivals() if one.made is not None}


def function_calls_of(folder: Path) -> list[Kill]:
    """Every write-like call of a run without kills that touches the data folder, in order of time."""
    run = FunctionRun(folder)
    try:
        run.start_traced()
        run.live()
        found = run.drain()
        assert (found.lost, found.in_order, found.repeats) == ([], True, 0), found
    finally:
        run.close()
    return list(run.calls())


def strike_function(folder: Path, kill: Kill) -> tuple[str, Judgement]:
    """(the call that was struck, empty if the run came to its end before; the judgement)."""
    run = FunctionRun(folder)
    try:
        run.start_struck(kill, KILL)
        run.live()
        found = run.drain()
    finally:
        run.close()
    return run.struck(), found


def strike_functions(folder: Path, kills: Sequence[Kill], *, at_once: int = 2) -> list[tuple[str, Judgement]]:
    """Every one in a run of its own. Raises AssertionError naming the first that broke a promise."""

    def one(number: int) -> tuple[str, Judgement]:
        kill, place = kills[number], folder / f"kill{number}"
        where, found = strike_function(place, kill)
        assert not found.lost, f"killed at {kill} ({where}), see {place}: {found}"
        assert found.in_order, f"killed at {kill} ({where}), see {place}: {found}"
        assert not found.dead_letters, f"killed at {kill} ({where}), see {place}: {found}"
        shutil.rmtree(place)
        return where, found

    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(one, range(len(kills))))
