"""Which of a function's handlers take a topic, and which run on a schedule: what `@on` and `@every` fill."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, Final

Run = Callable[..., Any]

_UNITS: Final = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_CACHED_TOPICS_MAX: Final = 10_000


class Handler:
    """A function of the user's. is_async: calling it gives an awaitable. takes_message: it wants one argument."""

    __slots__ = ("is_async", "name", "run", "takes_message")

    def __init__(self, run: Run) -> None:
        """Raises TypeError for what takes neither a message nor nothing."""
        self.run = run
        self.name = str(getattr(run, "__qualname__", type(run).__qualname__))
        self.is_async = is_async(run)
        self.takes_message = _takes(run, 1)
        if not self.takes_message and not _takes(run, 0):
            raise TypeError(f"a handler takes a message or nothing: {self.name}{_signature(run)}")


class Registry:
    """The handlers of one function, in the order of their definition."""

    def __init__(self) -> None:
        self.subscribed: list[tuple[str, Handler]] = []
        self.scheduled: list[tuple[float, Handler]] = []
        self._found: dict[str, tuple[Handler, ...]] = {}

    def on(self, topic_filter: str, run: Run) -> None:
        """Raises ValueError for what is no filter."""
        _check_filter(topic_filter)
        self.subscribed.append((topic_filter, Handler(run)))
        self._found.clear()

    def every(self, interval_s: float, run: Run) -> None:
        self.scheduled.append((interval_s, Handler(run)))

    def handlers(self) -> list[Handler]:
        """Each once."""
        by_run = {id(handler.run): handler for _, handler in self.subscribed}
        by_run.update((id(handler.run), handler) for _, handler in self.scheduled)
        return list(by_run.values())

    def taking(self, topic: str) -> tuple[Handler, ...]:
        """Those whose filters take the topic; one that has several such filters comes once."""
        found = self._found.get(topic)
        if found is None:
            by_run = {id(one.run): one for topic_filter, one in self.subscribed if matches(topic_filter, topic)}
            if len(self._found) >= _CACHED_TOPICS_MAX:
                self._found.clear()
            found = self._found[topic] = tuple(by_run.values())
        return found


def is_async(run: Run) -> bool:
    """Also what wraps such a one, and gives its coroutine."""
    return is_async_itself(run) or inspect.iscoroutinefunction(inspect.unwrap(run))


def is_async_itself(run: Run) -> bool:
    """Not what wraps such a one: it may run it to its end on a loop of its own."""
    while isinstance(run, functools.partial):
        run = run.func
    call = getattr(run, "__call__", None)  # noqa: B004 - an object whose class defines an async __call__
    return inspect.iscoroutinefunction(run) or inspect.iscoroutinefunction(call)


def interval_s(text: str | float) -> float:
    """Seconds of `10 s`, `500 ms`, `5 min`, `1 h`, `1 d`, or of a number of seconds. Raises ValueError."""
    if isinstance(text, str):
        number = text.rstrip("abcdefghijklmnopqrstuvwxyz")
        unit = text[len(number) :] or "s"
        try:
            value = float(number) * _UNITS[unit]
        except (ValueError, KeyError):
            raise ValueError(f"no interval: {text!r}; such as '10 s', '500 ms', '5 min', '1 h', '1 d'") from None
    else:
        value = float(text)
    if not 0.001 <= value <= 366 * 86400:
        raise ValueError(f"an interval is at least 1 ms and at most 366 days: {text!r}")
    return value


def matches(topic_filter: str, topic: str) -> bool:
    """As `edge.topics.matches`, which the worker does not load."""
    wanted, have = topic_filter.split("/"), topic.split("/")
    if topic.startswith("$") and wanted[0] in {"+", "#"}:
        return False
    for place, level in enumerate(wanted):
        if level == "#":
            return True
        if place >= len(have) or level not in {"+", have[place]}:
            return False
    return len(have) == len(wanted)


def check_topic(topic: str) -> None:
    """Raises ValueError for what may not be published to."""
    if not isinstance(topic, str) or not topic or "+" in topic or "#" in topic or "\0" in topic:
        raise ValueError(f"no topic to publish to: {topic!r:.100}")
    _check_text(topic)


def _check_text(text: str) -> None:
    if len(text.encode(errors="surrogatepass")) > 65_535 or any("\ud800" <= c <= "\udfff" for c in text):
        raise ValueError(f"a topic is at most 65,535 bytes of UTF-8: {text!r:.100}")


def _check_filter(topic_filter: str) -> None:
    if not isinstance(topic_filter, str) or not topic_filter or "\0" in topic_filter:
        raise ValueError(f"no topic filter: {topic_filter!r:.100}")
    _check_text(topic_filter)
    levels = topic_filter.split("/")
    for place, level in enumerate(levels):
        if ("#" in level and (level != "#" or place != len(levels) - 1)) or ("+" in level and level != "+"):
            raise ValueError(f"'+' fills a whole level, '#' the last: {topic_filter!r:.100}")


def _takes(run: Run, count: int) -> bool:
    try:
        inspect.signature(run).bind(*(None,) * count)
    except TypeError:
        return False
    except ValueError:  # a builtin that does not tell
        return count == 1
    return True


def _signature(run: Run) -> str:
    return str(inspect.signature(run))[:200]
