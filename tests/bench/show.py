"""Figures for people: plain lines for a terminal, a table for the README."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from tests.bench.figures import Figure, Report


def number(value: float) -> str:
    """1234567.0 → `1,234,567`; 0.95123 → `0.951`."""
    if value == int(value):
        return f"{int(value):,}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def lines(report: Report) -> Iterable[str]:
    """A heading and a line a figure."""
    yield f"{report.bench}  (commit {report.commit}, {report.host})"
    width = max((len(figure.name) for figure in report.figures), default=0)
    for figure in report.figures:
        parts = [f"  {figure.name:<{width}}  {number(figure.value)} {figure.unit} ({_spread(figure)})"]
        if figure.goal is not None:
            parts.append(f"goal {_goal(figure)}: {'met' if figure.met else 'missed'}")
        parts += [f"{name} {number(value)}" for name, value in figure.references.items()]
        yield ", ".join(parts)


def table(reports: Sequence[Report]) -> Iterable[str]:
    """The README's table in Markdown, a row a figure; then where it was measured."""
    yield "| Bench | Figure | Value | Spread | Goal | References |"
    yield "|---|---|---|---|---|---|"
    for report in reports:
        for figure in report.figures:
            goal = "" if figure.goal is None else f"{_goal(figure)} ({'met' if figure.met else 'missed'})"
            references = ", ".join(f"`{name}` {number(value)}" for name, value in figure.references.items())
            value = f"{number(figure.value)} {figure.unit}"
            yield f"| `{report.bench}` | `{figure.name}` | {value} | {_spread(figure)} | {goal} | {references} |"
    places = {f"{report.host}, commit {report.commit}" for report in reports}
    yield ""
    yield f"Measured on {'; '.join(sorted(places))}."


def read(files: Iterable[Path]) -> list[Report]:
    """The reports in files of `--json` output, a line each. Raises msgspec.DecodeError, OSError."""
    decode = msgspec.json.Decoder(Report).decode
    return [decode(line) for file in files for line in file.read_bytes().splitlines() if line.strip()]


def _goal(figure: Figure) -> str:
    return f"{'≤' if figure.better == 'lower' else '≥'} {number(figure.goal or 0)}"


def _spread(figure: Figure) -> str:
    low, high = figure.spread
    return number(low) if low == high else f"{number(low)} … {number(high)}"
