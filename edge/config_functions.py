"""`[[function]]` of the gateway file: its fields, what they say together, and the routes they make."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from edge.errors import ConfigError, InputRejected
from edge.topics import check_filter, check_heard

INBOX_BYTES_LEAST: Final = 2 * 1024 * 1024

_Variable = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")]
_SecretName = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,63}$")]
_Bytes = Annotated[int, Meta(ge=0, le=2**44)]
_Seconds = Annotated[float, Meta(gt=0, le=86_400)]

# What can hold a function, by the names that `edge function show` lists under `contained_by`.
LIMITS: Final = (
    *("memory", "processes", "file_size", "folder", "files_open", "cpu", "core_dumps"),
    *("network", "files", "user", "privileges", "end"),
)

_EVERY: Final = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0}


class FunctionSettings(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename={"sources": "from"}
):
    """One function: a Python file or folder, or a program (`exec`: it and its arguments), and what it may do.

    handler: `module.function` or `function` as for AWS Lambda; empty: the decorators of `from edge import on, every`.
    subscribe, publish: the topics it may get and publish, whoever sends them or takes them; default none. from: who
    sends it what it subscribes to, to: who gets what it publishes; routes may name others. invoke: the functions that
    it may call. every: a schedule for a handler.
    cpu_percent_max: 0 is none. user: the account it runs as when the gateway is root; empty: one of its own.
    interval_s, max_attempts, backoff_rate, max_delay_s: of retries. bytes_max, when_full: of its inbox.
    dead_letter: the stream for what failed to the last; empty: it is only counted. demand: what must hold it, with
    nothing left open, or it is not started.
    """

    name: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
    file: str = ""
    handler: Annotated[str, Meta(pattern=r"^([A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*)?$")] = ""
    exec: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ()
    publish: tuple[str, ...] = ()
    to: tuple[str, ...] = ()
    invoke: tuple[str, ...] = ()
    every: Annotated[str, Meta(pattern=r"^([0-9]{1,6} (ms|s|min|h))?$")] = ""
    workers: Annotated[int, Meta(ge=1, le=64)] = 1
    start: Literal["warm", "on_demand"] = "warm"
    idle_timeout_s: _Seconds = 60.0
    timeout_s: _Seconds = 10.0
    memory_bytes_max: Annotated[int, Meta(ge=8 * 1024 * 1024, le=2**44)] = 64 * 1024 * 1024
    processes_max: Annotated[int, Meta(ge=1, le=65_535)] = 16
    file_bytes_max: _Bytes = 16 * 1024 * 1024
    files_open_max: Annotated[int, Meta(ge=16, le=65_535)] = 64
    cpu_percent_max: Annotated[int, Meta(ge=0, le=6400)] = 0
    user: Annotated[str, Meta(pattern=r"^([a-z_][a-z0-9_-]{0,31})?$")] = ""
    network: bool = False
    demand: tuple[str, ...] = ()
    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    environment: dict[_Variable, str] = {}
    secrets: dict[_SecretName, str] = {}
    requirements: str = ""
    interval_s: Annotated[float, Meta(ge=0.01, le=86_400)] = 1.0
    max_attempts: Annotated[int, Meta(ge=1, le=100)] = 3
    backoff_rate: Annotated[float, Meta(ge=1, le=100)] = 2.0
    max_delay_s: _Seconds = 60.0
    bytes_max: Annotated[int, Meta(ge=INBOX_BYTES_LEAST, le=2**44)] = 8 * 1024 * 1024
    when_full: Literal["reject", "drop_oldest"] = "reject"
    dead_letter: Annotated[str, Meta(pattern=r"^([a-z0-9][a-z0-9_-]{0,63})?$")] = "dead-letter"

    @property
    def target(self) -> str:
        """How routes and `from` name it."""
        return f"function:{self.name}"

    @property
    def every_s(self) -> float:
        """0: no schedule."""
        if not self.every:
            return 0.0
        count, unit = self.every.split()
        return int(count) * _EVERY[unit]


def function_routes(functions: Sequence[FunctionSettings]) -> list[tuple[int, str, tuple[str, str, tuple[str, ...]]]]:
    """(place from 1, field, (source, topic, targets)) of every route that functions make."""
    found: list[tuple[int, str, tuple[str, str, tuple[str, ...]]]] = []
    for place, one in enumerate(functions, 1):
        found += [
            (place, "subscribe", (source, topic, (one.target,))) for source in one.sources for topic in one.subscribe
        ]
        if one.to:
            found += [(place, "publish", (one.target, topic, one.to)) for topic in one.publish]
    return found


def is_shadow(topic_filter: str) -> bool:
    """Of a device shadow: to grant it is to let a function ask for it, whether it publishes anything or not."""
    levels = topic_filter.split("/")
    return levels[:2] == ["$aws", "things"] and levels[3:4] == ["shadow"]


def with_absolute_paths(functions: Sequence[FunctionSettings], base: Path) -> tuple[FunctionSettings, ...]:
    """base: the gateway file's folder. The words of `exec` stay as they are (`edge.functions.words`)."""

    def absolute(one: FunctionSettings) -> FunctionSettings:
        changed: dict[str, Any] = {name: str(base / getattr(one, name)) for name in _PATHS if getattr(one, name)}
        for name in ("read", "write"):
            changed[name] = tuple(str(base / path) for path in getattr(one, name))
        changed["secrets"] = {name: str(base / path) for name, path in one.secrets.items()}
        return msgspec.structs.replace(one, **changed)

    return tuple(absolute(one) for one in functions)


_PATHS = ("file", "requirements")


def check_functions(file: str, functions: Sequence[FunctionSettings]) -> None:
    """What each says by itself; where its names lead to is checked by edge.config. Raises ConfigError."""
    seen: set[str] = set()
    for place, one in enumerate(functions, 1):
        field = f"function[{place}]"
        if one.name in seen:
            raise ConfigError(file, f"{field}.name", f"{one.name!r} is another's", "Each has a name of its own.")
        seen.add(one.name)
        if bool(one.file) is bool(one.exec):
            problem = "stands beside exec" if one.file else "is missing"
            fix = "Name a Python file or folder in `file`, or a program and its arguments in `exec`; one of the two."
            raise ConfigError(file, f"{field}.file", problem, fix)
        for name in ("handler", "requirements"):
            if one.exec and getattr(one, name):
                raise ConfigError(file, f"{field}.{name}", "stands beside exec", "It is for Python files; remove it.")
        if one.exec and not one.exec[0]:
            raise ConfigError(file, f"{field}.exec", "names no program", "Write the program first, then its arguments.")
        if one.every and not one.handler and not one.exec:
            fix = "Name its handler, or write @every in the file instead."
            raise ConfigError(file, f"{field}.every", "stands without handler", fix)
        if one.every and not one.every_s:
            raise ConfigError(file, f"{field}.every", "is no time", 'Write such as "10 s".')
        for shown, given, missing, needed in (
            ("from", one.sources, "subscribe", one.subscribe),
            ("to", one.to, "publish", one.publish),
        ):
            if given and not needed:
                raise ConfigError(file, f"{field}.{missing}", f"is empty beside {shown}", "Fill it, or empty both.")
        for name in ("subscribe", "publish"):
            for topic in getattr(one, name):
                try:
                    if name == "subscribe":
                        check_heard(topic.replace("{board}", "board"))
                    else:
                        check_filter(topic)
                except InputRejected as error:
                    raise ConfigError(file, f"{field}.{name}", str(error), "Write an MQTT topic filter.") from None
        if one.target in (*one.sources, *one.to) or one.name in one.invoke:
            name = "from" if one.target in one.sources else "to" if one.target in one.to else "invoke"
            raise ConfigError(file, f"{field}.{name}", "names the function itself", "Remove it.")
        if one.max_delay_s < one.interval_s:
            raise ConfigError(file, f"{field}.max_delay_s", "is below interval_s", "Raise it.")
        for limit in one.demand:
            if limit not in LIMITS:
                fix = f"Known are {', '.join(LIMITS)}."
                raise ConfigError(file, f"{field}.demand", f"{limit!r} is nothing that could hold it", fix)
        for limit, (name, value) in _UNLIMITED.items():
            if limit in one.demand and getattr(one, name) == value:
                shown = f"holds {limit} beside {name} = {str(value).lower()}"
                raise ConfigError(file, f"{field}.demand", shown, f"Limit it by {name}, or do not demand it.")
        for name in one.environment:
            if re.match(r"EDGE_|LD_|PYTHON", name):
                fix = "Names that begin EDGE_, LD_ or PYTHON are not given; choose another."
                raise ConfigError(file, f"{field}.environment", f"holds {name}", fix)


_UNLIMITED: Final[dict[str, tuple[str, int]]] = {
    "network": ("network", True),
    "file_size": ("file_bytes_max", 0),
    "cpu": ("cpu_percent_max", 0),
}
