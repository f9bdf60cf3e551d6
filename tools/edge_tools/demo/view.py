"""What the demo shows while it runs: a live table on a terminal, plain lines elsewhere. All of it goes to stderr."""

import sys
import time
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.table import Table

from edge_tools.demo.tally import Seen, Tally

_LINE_EVERY_S = 2.0
_HEADINGS = ("board", "sensor", "readings", "a second", "repeated", "answered", "round trip", "mean (rule)", "function")


class View(Protocol):
    """Use as a context; `update` is called a few times a second, under the judge's lock."""

    def say(self, text: str) -> None: ...
    def update(self, tally: Tally) -> None: ...
    def close(self) -> None: ...


class Lines:
    """A line an event, and a line a board every two seconds."""

    def __init__(self) -> None:
        self._began_s = self._last_s = time.monotonic()

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self._began_s:6.1f} s  {text}", file=sys.stderr, flush=True)

    def update(self, tally: Tally) -> None:
        now_s = time.monotonic()
        if now_s - self._last_s < _LINE_EVERY_S:
            return
        self._last_s = now_s
        for thing, seen in tally.boards.items():
            temperature = "no reading yet" if seen.temperature_c is None else f"{seen.temperature_c:.4f} °C"
            self.say(
                f"{thing}: {temperature}, {len(seen.readings)} readings at the cloud, "
                f"{seen.answered} of {seen.sent} commands answered{_more(seen)}"
            )

    def close(self) -> None:
        """Nothing is held."""


def _more(seen: Seen) -> str:
    """What the gateway's rule and function have made of the readings."""
    text, mean = "", seen.last_mean
    if mean is not None:
        text = f"; window {len(seen.means)} of the rule: mean of {mean.n} is {mean.c_avg:.4f} °C"
    if seen.results:
        text += f"; {len(seen.results)} results of the function, the last {list(seen.results.values())[-1]:.1f} °F"
    return text


class LiveTable:
    """Events scroll by above a table that stays."""

    def __init__(self, console: Console) -> None:
        self._began_s = time.monotonic()
        self._counts: dict[str, tuple[float, int]] = {}
        self._rates: dict[str, float] = {}
        self._live = Live(console=console, refresh_per_second=4, transient=False)
        self._live.start()

    def say(self, text: str) -> None:
        self._live.console.print(f"{time.monotonic() - self._began_s:6.1f} s  {text}", markup=False, highlight=False)

    def update(self, tally: Tally) -> None:
        self._live.update(self._table(tally))

    def close(self) -> None:
        self._live.stop()

    def _table(self, tally: Tally) -> Table:
        table = Table(title="what arrives at the cloud", title_justify="left")
        for heading in _HEADINGS:
            table.add_column(heading, justify="left" if heading == "board" else "right")
        for thing, seen in tally.boards.items():
            table.add_row(
                thing,
                "" if seen.temperature_c is None else f"{seen.temperature_c:.4f} °C",
                str(len(seen.readings)),
                f"{self._rate(thing, len(seen.readings)):.1f}",
                str(seen.repeated),
                f"{seen.answered} of {seen.sent}",
                "" if seen.round_trip_ms is None else f"{seen.round_trip_ms:.1f} ms",
                "" if (mean := seen.last_mean) is None else f"{len(seen.means)}: {mean.c_avg:.2f} °C",
                f"{len(seen.results)}: {list(seen.results.values())[-1]:.1f} °F" if seen.results else "",
            )
        return table

    def _rate(self, thing: str, count: int) -> float:
        """Readings a second over about the last two seconds."""
        now_s = time.monotonic()
        then_s, then = self._counts.setdefault(thing, (now_s, count))
        if now_s - then_s >= _LINE_EVERY_S:
            self._rates[thing] = (count - then) / (now_s - then_s)
            self._counts[thing] = (now_s, count)
        return self._rates.get(thing, 0.0)


def make_view() -> View:
    console = Console(stderr=True)
    return LiveTable(console) if console.is_terminal else Lines()
