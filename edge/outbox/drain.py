"""What several streams send over one connection: who goes first, and how much is under way.

Invariants: at most `window` messages of all streams together are under way; a stream of higher priority that has
something to send goes before one of lower; equals take turns. After anything was turned away the drain waits.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from edge.logs import log_event
from edge.messages import Limited, Outcome, Queueing, Target
from edge.outbox.uploader import Uploader

CHUNK: Final = 256
AGAIN_S_MIN: Final = 0.1
AGAIN_S_MAX: Final = 5.0

_log = logging.getLogger(__name__)


class Drain:
    """target: the connection. window: messages under way at once. now: the monotonic clock."""

    def __init__(self, target: Target, window: int, now: Callable[[], float]) -> None:
        self._target, self._window, self._now = target, window, now
        self._refill = min(CHUNK, max(window // 4, 1))
        self._uploaders: list[Uploader] = []
        self._pumping = self._again_due = self._stopped = False
        self._away: asyncio.TimerHandle | None = None
        self._later: asyncio.TimerHandle | None = None
        self._later_at = 0.0
        self._again_s = AGAIN_S_MIN

    def add(self, uploader: Uploader) -> None:
        self._uploaders.append(uploader)
        self._uploaders.sort(key=lambda one: -one.stream.settings.priority)
        uploader.moved = self._moved
        if isinstance(target := self._target, Limited):
            uploader.packet_bytes_max = lambda: target.packet_bytes_max
        if isinstance(queueing := self._target, Queueing):
            uploader.take_back = lambda unwanted: queueing.take_back(uploader, unwanted)
            uploader.stream.tail.stamped_anew = lambda: self._send_anew(uploader)
        uploader.stream.committed = self.pump

    def pump(self) -> None:
        """Send what there is room for."""
        if self._stopped:
            return
        if self._pumping:
            self._again_due = True
            return
        self._pumping = True
        try:
            self._again_due = True
            while self._again_due and self._away is None:
                self._again_due = False
                self._pump()
        finally:
            self._pumping = False

    def stop(self) -> None:
        self._stopped = True
        for timer in (self._away, self._later):
            if timer is not None:
                timer.cancel()

    def _pump(self) -> None:
        room = self._window - sum([one.under_way for one in self._uploaders])
        if room < self._refill:
            return  # enough is under way; a few at a time would cost as much as many
        now = self._now()
        ranks: dict[int, list[Uploader]] = {}
        for uploader in self._uploaders:
            ranks.setdefault(uploader.stream.settings.priority, []).append(uploader)
        for rank in ranks.values():
            while rank and room > 0:
                for uploader in tuple(rank):
                    sent = self._send(uploader, min(room, CHUNK), now)
                    room -= sent
                    if not sent:
                        rank.remove(uploader)
                    if room <= 0 or self._away is not None:
                        return

    def _send(self, uploader: Uploader, count: int, now: float) -> int:
        try:
            messages = uploader.next(count, now)
        except OSError as error:
            problem = error.strerror or str(error)
            log_event(_log, "stream_read_failed", level=logging.WARNING, stream=uploader.stream.name, problem=problem)
            self._wait()
            return 0
        if messages:
            self._target.send(messages, uploader)
        elif (wait := uploader.wait_s(now)) > 0:
            self._wake_at(now + wait)
        return len(messages)

    def _moved(self, outcome: Outcome) -> None:
        if outcome is Outcome.CONGESTED:
            self._wait()
        else:
            self._again_s = AGAIN_S_MIN
            self.pump()

    def _send_anew(self, uploader: Uploader) -> None:
        if not self._stopped:
            asyncio.get_running_loop().call_soon(uploader.send_anew)  # a commit may be in the making

    def _wake_at(self, when: float) -> None:
        if self._later is not None:
            if self._later_at <= when:
                return
            self._later.cancel()
        self._later_at = when
        self._later = asyncio.get_running_loop().call_later(max(when - self._now(), 0.001), self._wake)

    def _wake(self) -> None:
        self._later = None
        self.pump()

    def _wait(self) -> None:
        if self._away is None and not self._stopped:
            self._away = asyncio.get_running_loop().call_later(self._again_s, self._again)
            self._again_s = min(2 * self._again_s, AGAIN_S_MAX)

    def _again(self) -> None:
        self._away = None
        self.pump()
