"""What a bench hands back, and how repeats become a figure.

Ours and the references are measured in the same run, in turns, so that a slow minute of the machine meets both;
each number is the median of its repeats, and a goal that is a ratio is worked out from the references' medians.
"""

import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Literal, TypeVar

import msgspec

T = TypeVar("T")

Better = Literal["lower", "higher"]
Goal = float | Callable[[Mapping[str, float]], float]

REPEATS = 5
REPEATS_QUICK = 3


class NoFigure(Exception):
    """What was to be carried did not all arrive, or arrived wrong: there is nothing to report. Ends with exit 1."""


class Figure(msgspec.Struct, frozen=True):
    """One number of a bench. spread: lowest and highest repeat; references: the peer or the limit, same unit."""

    name: str
    value: float
    spread: tuple[float, float]
    unit: str
    better: Better
    goal: float | None = None
    references: dict[str, float] = {}

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None without a goal."""
        if self.goal is None:
            return None
        return self.value <= self.goal if self.better == "lower" else self.value >= self.goal


class Report(msgspec.Struct, frozen=True):
    """The one object a bench prints with `--json`."""

    bench: str
    commit: str
    host: str
    figures: list[Figure]


def figure(
    name: str,
    samples: Sequence[float],
    unit: str,
    better: Better,
    *,
    goal: Goal | None = None,
    references: Mapping[str, Sequence[float]] | None = None,
) -> Figure:
    """Make a figure of the repeats of ours and of each reference. goal: a number, or a function of the medians of
    the references such as `times(0.9, "mosquitto_bridge")`."""
    if not samples:
        raise NoFigure(f"{name}: nothing was measured")
    medians = {reference: tidy(median(values)) for reference, values in (references or {}).items()}
    wanted = goal(medians) if callable(goal) else goal
    return Figure(
        name=name,
        value=tidy(median(samples)),
        spread=(tidy(min(samples)), tidy(max(samples))),
        unit=unit,
        better=better,
        goal=None if wanted is None else tidy(wanted),
        references=medians,
    )


def times(factor: float, reference: str) -> Callable[[Mapping[str, float]], float]:
    """The goal `factor × the reference of this run`."""
    return lambda references: factor * references[reference]


def tidy(value: float) -> float:
    """Five significant digits: more than any repeat can tell; whole numbers stay whole."""
    if value == int(value) or abs(value) >= 100_000:
        return round(value)
    return float(f"{value:.5g}")


def check_all_arrived(what: str, sent: int, arrived: int) -> None:
    """Raise NoFigure unless every message arrived (count distinct ones: QoS 1 may repeat)."""
    if arrived != sent:
        raise NoFigure(f"{what}: {arrived:,} of {sent:,} arrived")


class Context:
    """What a bench is given. workdir: a folder of its own, removed afterwards; root: the checkout."""

    def __init__(self, root: Path, workdir: Path, *, quick: bool = False) -> None:
        self.root, self.workdir, self.quick = root, workdir, quick
        self.repeats = REPEATS_QUICK if quick else REPEATS
        self.notes: list[str] = []

    def pick(self, full: T, quick: T) -> T:
        """The size of the work: a quick bench ends within 50 seconds."""
        return quick if self.quick else full

    def progress(self, text: str) -> None:
        """A line for people, on stderr."""
        print(text, file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """What a reader of the figures must know of where they were measured: it stands beside the host."""
        self.progress(f"  {text}")
        if text not in self.notes:
            self.notes.append(text)

    def folder(self, name: str) -> Path:
        """A fresh folder under workdir."""
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.workdir))

    def interleaved(self, contenders: Mapping[str, Callable[[], T]]) -> dict[str, list[T]]:
        """Run each contender once, in turns, `repeats` times over; every second round backwards, so that none
        always follows the same one. Returns what each returned, in order of its repeats."""
        results: dict[str, list[T]] = {name: [] for name in contenders}
        order = list(contenders)
        for repeat in range(self.repeats):
            for name in order if repeat % 2 == 0 else reversed(order):
                self.progress(f"  {repeat + 1}/{self.repeats} {name}")
                results[name].append(contenders[name]())
        return results
