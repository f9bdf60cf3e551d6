"""The gateway file while the gateway runs: looked at, and what may change at once is changed.

Invariants:
- A change is taken whole between two turns of the loop, or not at all: a wrong file changes nothing, and is told until
  it is mended. A file is read when it has rested from one look to the next, so that a half-written one is none.
- What is not LIVE stays as it was at the start, and is told; what is LIVE is taken all the same if it fits to that.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from edge.config import Config, check_config, load_config
from edge.errors import ConfigError
from edge.logs import log_event
from edge.metrics import Metrics

LIVE: Final = ("routes", "rules", "functions")
LOOK_S: Final = 0.25

_log = logging.getLogger(__name__)

Signature = list[tuple[int, int, int] | None]
Prepare = Callable[[Config], Callable[[], None] | None]


class ReloadStatus(msgspec.Struct, frozen=True):
    """For `edge status`. applied: how often a changed file was taken; refused: why the file as it is now is not;
    restart_needed: fields that differ and are taken at the next start."""

    applied: int = 0
    refused: str = ""
    restart_needed: tuple[str, ...] = ()


class Reload:
    """config: what the gateway was started with.

    prepare: called in a thread with what shall be; returns what to do on the loop, which takes no time, or None where
    nothing differs. Either raises ConfigError. files: what else to look at.
    """

    def __init__(
        self,
        config: Config,
        metrics: Metrics,
        *,
        prepare: Prepare,
        files: Callable[[Config], Iterable[str]],
    ) -> None:
        self._config, self._prepare, self._files = config, prepare, files
        self._asked = asyncio.Event()
        self._taken: Signature = []  # so that what changed since the start began is found
        self._is_taking = False
        self._applied = metrics.counter("configuration_changes", outcome="applied")
        self._refused = metrics.counter("configuration_changes", outcome="refused")
        self.status = ReloadStatus()

    def look(self) -> None:
        """At once, and whether anything looks changed or not."""
        self._asked.set()

    @property
    def is_behind(self) -> bool:
        """Whether a file differs from what was taken last, or is being taken."""
        return self._is_taking or self._signature() != self._taken

    async def run(self) -> None:
        """Until cancelled."""
        seen: Signature = []
        while True:
            try:
                await asyncio.wait_for(self._asked.wait(), LOOK_S)
            except TimeoutError:
                asked = False
            else:
                asked = True
                self._asked.clear()
            before, seen = seen, self._signature()
            if asked or (seen != self._taken and seen == before):
                self._taken, self._is_taking = seen, True
                try:
                    await self._take()
                finally:
                    self._is_taking = False

    async def _take(self) -> None:
        try:
            config, fields, change = await asyncio.to_thread(self._read)
            if change is not None:
                change()
        except ConfigError as error:
            self._refuse(str(error))
            return
        except Exception as error:  # noqa: BLE001  whatever a file brings about, the gateway goes on as it is
            self._refuse(f"{type(error).__name__}: {error}")
            return
        if fields and fields != self.status.restart_needed:
            log_event(_log, "restart_needed", level=logging.WARNING, fields=", ".join(fields))
        if change is not None:
            self._applied.value += 1
            log_event(_log, "configuration_applied", file=config.file)
        self._config = config
        self.status = ReloadStatus(self._applied.value, "", fields)

    def _read(self) -> tuple[Config, tuple[str, ...], Callable[[], None] | None]:
        new = load_config(self._config.file)
        fields = differing(self._config, new)
        live = {name: getattr(new, name) for name in LIVE if name in Config.__struct_fields__}
        config = msgspec.structs.replace(self._config, **live)
        if fields:
            try:
                check_config(config)
            except ConfigError as error:
                problem = f"{error.problem}; it may need a restart for {', '.join(fields)}"
                raise ConfigError(error.file, error.field, problem, error.fix) from None
        return config, fields, self._prepare(config)

    def _refuse(self, problem: str) -> None:
        self._refused.value += 1
        log_event(_log, "configuration_refused", level=logging.WARNING, problem=problem)
        self.status = msgspec.structs.replace(self.status, refused=problem)

    def _signature(self) -> Signature:
        return [_signature(path) for path in (self._config.file, *self._files(self._config))]


def differing(old: Config, new: Config) -> tuple[str, ...]:
    """The fields that differ and are not live, as the file has them: `cloud.host`, `stream[2]`."""
    found = []
    names = {"boards": "board", "routes": "route", "streams": "stream", "rules_log": "rules"}
    for field in Config.__struct_fields__:
        before, after = getattr(old, field), getattr(new, field)
        name = names.get(field, field)
        if field in LIVE or before == after:
            continue
        if isinstance(before, tuple):
            rows = range(max(len(before), len(after)))
            found += [f"{name}[{at + 1}]" for at in rows if before[at : at + 1] != after[at : at + 1]]
        elif isinstance(before, msgspec.Struct) and isinstance(after, msgspec.Struct):
            parts = before.__struct_fields__
            found += [f"{name}.{part}" for part in parts if getattr(before, part) != getattr(after, part)]
        else:
            found.append(name)
    return tuple(found)


def _signature(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
