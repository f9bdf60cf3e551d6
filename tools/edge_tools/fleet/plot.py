"""A thing's field over time, as a PNG. The only module that knows matplotlib."""

from array import array
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import matplotlib as mpl
import msgspec
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

from edge_tools.fleet.records import Record

POINTS_DRAWN_MAX = 4000
_UNITS = {"c": "°C", "pct": "%", "hpa": "hPa", "v": "V", "a": "A", "ms": "ms", "s": "s", "w": "W", "lx": "lx"}


class Series:
    """Times (Unix ms) and values; compact, so that a million are no matter."""

    def __init__(self) -> None:
        self.times, self.values = array("q"), array("d")
        self.skipped = 0


def read_series(records: Iterable[Record], field: str) -> Series:
    """field: names within the JSON payload, with dots between; "" for a payload that is the number itself."""
    series, path = Series(), field.split(".") if field else []
    for record in records:
        value = _number(record.payload, path)
        if value is None:
            series.skipped += 1
            continue
        series.times.append(record.received if record.t is None else record.t)
        series.values.append(value)
    return series


def _number(payload: bytes, path: list[str]) -> float | None:
    try:
        value = msgspec.json.decode(payload)
    except (ValueError, RecursionError):
        return None
    for name in path:
        if not isinstance(value, dict) or name not in value:
            return None
        value = value[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e300:
        return None
    return float(value)


def thin(series: Series, points_max: int = POINTS_DRAWN_MAX) -> tuple[list[int], list[float]]:
    """The least and the greatest of each stretch, in order: what an eye would see of all of them."""
    times, values = series.times, series.values
    if len(times) <= points_max:
        return list(times), list(values)
    step = -(-2 * len(times) // points_max)
    chosen: list[int] = []
    for begin in range(0, len(times), step):
        stretch = range(begin, min(begin + step, len(times)))
        ends = {min(stretch, key=values.__getitem__), max(stretch, key=values.__getitem__)}
        chosen += sorted(ends)
    return [times[place] for place in chosen], [values[place] for place in chosen]


def draw(series: Series, thing: str, field: str, output: Path) -> None:
    """output: a PNG, replaced when it exists. Raises OSError."""
    times, values = thin(series)
    moments = [datetime.fromtimestamp(time / 1000, UTC) for time in times]
    with mpl.rc_context({"font.family": "DejaVu Sans", "axes.formatter.useoffset": False}):
        figure = Figure(figsize=(10, 5), dpi=120, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        style = "o-" if len(times) <= 100 else "-"
        axes.plot(moments, values, style, linewidth=1.2, markersize=3.5, color="#1f6f8b")  # type: ignore[arg-type]
        locator = AutoDateLocator(minticks=4, maxticks=9)  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=UTC))  # type: ignore[no-untyped-call]
        axes.set_xlabel("time (UTC)")
        axes.set_ylabel(label_of(field))
        axes.set_title(f"{_plain(thing)}: {_plain(field) or 'value'}, {len(series.times):,} records", loc="left")
        axes.grid(visible=True, alpha=0.3)
        axes.margins(x=0.01)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        figure.savefig(output, format="png")


def label_of(field: str) -> str:
    """The field, with its unit where its last word is one, as in `c` or `pressure_hpa`."""
    if not field:
        return "value"
    last = field.rpartition(".")[2]
    unit = _UNITS.get(last.rpartition("_")[2].lower())
    return f"{_plain(field)} ({unit})" if unit else _plain(field)


def _plain(text: str) -> str:
    """No mathematics: a dollar sign stands for itself."""
    return "".join(character if character.isprintable() else "?" for character in text).replace("$", r"\$")
