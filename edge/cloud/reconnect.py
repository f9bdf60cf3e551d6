"""Connect, notice the end, tell why once, wait, and again: the loop that every connection runs in."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Never

import msgspec

from edge.cloud.backoff import Backoff
from edge.cloud.connection import ConnectionState
from edge.cloud.failures import classify
from edge.config import ConnectionSettings
from edge.errors import ConnectionFailed
from edge.logs import log_event
from edge.metrics import Metrics

_log = logging.getLogger(__name__)


class Reconnect:
    """once: opens one connection and serves it until it ends, by raising; it calls `opened` when CONNACK came.

    A failure is logged when its cause differs from the last one, and so is the recovery from it. A cause is forgotten
    when a connection outlasts the backoff, so that a broker that takes and drops us over and over fills no log.
    """

    def __init__(
        self,
        settings: ConnectionSettings,
        metrics: Metrics,
        name: str,
        random: Callable[[], float],
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings, self._metrics, self._name, self._wall_clock = settings, metrics, name, wall_clock
        self._backoff = Backoff(settings.backoff_s_min, settings.backoff_s_max, random)
        self._opens = metrics.counter("connection_opens", connection=name)
        self._opened_at: float | None = None
        self._logged_cause = ""
        self._logged_open = False
        self.state = ConnectionState(since_s=wall_clock())
        metrics.gauge("connection_up", lambda: float(self.state.connected), connection=name)

    async def run(self, once: Callable[[], Awaitable[None]], ended: Callable[[ConnectionFailed], None]) -> Never:
        """ended: told of the end of each connection that had opened."""
        while True:
            try:
                await once()
                failure = classify(None, self._settings, connected=self.state.connected)
            except Exception as error:  # noqa: BLE001  nothing from outside may end the gateway
                failure = classify(error, self._settings, connected=self.state.connected)
                if failure.cause == "internal_error":
                    _log.exception("connection_broke")
            delay_s = self._failed(failure, ended)
            await asyncio.sleep(delay_s)

    def opened(self, *, session_present: bool) -> None:
        self._opened_at = asyncio.get_running_loop().time()
        self._opens.value += 1
        self.state = msgspec.structs.replace(
            self.state,
            connected=True,
            since_s=self._wall_clock(),
            session_present=session_present,
            failures=0,
            backoff_s=0.0,
        )
        if not self._logged_open:
            self._logged_open = True
            self._event("connected", protocol=self._settings.protocol, session_present=session_present)

    def closed(self) -> None:
        """Ended on purpose."""
        if self.state.connected:
            self.state = msgspec.structs.replace(self.state, connected=False, since_s=self._wall_clock())
            self._event("connection_closed")

    def _failed(self, failure: ConnectionFailed, ended: Callable[[ConnectionFailed], None]) -> float:
        """Return the delay before the next try."""
        self._metrics.counter("connection_failures", connection=self._name, cause=failure.cause).value += 1
        had_opened = self._opened_at is not None
        if self._opened_at is not None:
            if self._backoff.lasted(asyncio.get_running_loop().time() - self._opened_at):
                self._logged_cause = ""
            self._opened_at = None
        delay_s = self._backoff.next_s()
        if failure.cause != self._logged_cause:
            self._logged_cause, self._logged_open = failure.cause, False
            self._event(
                "connection_failed",
                level=logging.WARNING,
                cause=failure.cause,
                problem=failure.problem,
                remedy=failure.remedy,
                next_try_s=round(delay_s, 1),
            )
        self.state = msgspec.structs.replace(
            self.state,
            connected=False,
            since_s=self._wall_clock() if self.state.connected else self.state.since_s,
            cause=failure.cause,
            problem=failure.problem,
            remedy=failure.remedy,
            failures=self.state.failures + 1,
            backoff_s=delay_s,
        )
        if had_opened:
            ended(failure)
        return delay_s

    def _event(self, event: str, *, level: int = logging.INFO, **fields: object) -> None:
        place = f"{self._settings.host}:{self._settings.port}"
        log_event(_log, event, level=level, connection=self._name, broker=place, **fields)
