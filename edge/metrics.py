"""Counters and gauges, read by `edge status`. Counting is an attribute addition; names and labels cost once."""

from collections.abc import Callable


class Counter:
    """Only ever rises while the process lives: `counter.value += n`."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0


class Metrics:
    """The registry of one gateway. A name with the same labels is the same counter."""

    def __init__(self) -> None:
        self._counters: dict[tuple[str, tuple[tuple[str, str], ...]], Counter] = {}
        self._gauges: dict[tuple[str, tuple[tuple[str, str], ...]], Callable[[], float]] = {}

    def counter(self, name: str, **labels: str) -> Counter:
        return self._counters.setdefault((name, tuple(sorted(labels.items()))), Counter())

    def gauge(self, name: str, read: Callable[[], float], **labels: str) -> None:
        """read is called whenever someone looks; it must not block."""
        self._gauges[name, tuple(sorted(labels.items()))] = read

    def snapshot(self) -> dict[str, float]:
        """All values by `name{label="value",…}`, as Prometheus writes them, in order of name."""
        rows: dict[str, float] = {_title(*key): counter.value for key, counter in self._counters.items()}
        rows.update((_title(*key), read()) for key, read in self._gauges.items())
        return dict(sorted(rows.items()))


def _title(name: str, labels: tuple[tuple[str, str], ...]) -> str:
    return name + ("{" + ",".join(f'{key}="{value}"' for key, value in labels) + "}" if labels else "")
