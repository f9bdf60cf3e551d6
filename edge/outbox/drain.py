"""What several streams send over one connection: who goes first, and how much is under way.

Invariants: at most `window` messages of all streams together are under way; a stream of higher priority that has
something to send goes before one of lower; equals take turns. After anything was turned away the drain waits.
"""

import asyncio
import logging
from typing import Final

from edge.logs import log_event
from edge.messages import Outcome, Target
from edge.outbox.uploader import Uploader

CHUNK: Final = 256
AGAIN_S_MIN: Final = 0.1
AGAIN_S_MAX: Final = 5.0

_log = logging.getLogger(__name__)


class Drain:
    """target: the connection. window: messages under way at once."""

    def __init__(self, target: Target, window: int) -> None:
        self._target, self._window = target, window
        self._uploaders: list[Uploader] = []
        self._pumping = False
        self._timer: asyncio.TimerHandle | None = None
        self._again_s = AGAIN_S_MIN

    def add(self, uploader: Uploader) -> None:
        self._uploaders.append(uploader)
        self._uploaders.sort(key=lambda one: -one.stream.settings.priority)
        uploader.moved = self._moved
        uploader.stream.committed = self.pump

    def pump(self) -> None:
        """Send what there is room for."""
        if self._pumping or self._timer is not None:
            return
        self._pumping = True
        try:
            self._pump()
        finally:
            self._pumping = False

    def stop(self) -> None:
        self._pumping = True  # what is settled from now on sends nothing more
        if self._timer is not None:
            self._timer.cancel()

    def _pump(self) -> None:
        room = self._window - sum([one.under_way for one in self._uploaders])
        for uploader in tuple(self._uploaders):
            while room > 0 and self._timer is None and uploader.is_waiting:
                try:
                    messages = uploader.next(min(room, CHUNK))
                except OSError as error:
                    log_event(
                        _log,
                        "stream_read_failed",
                        level=logging.WARNING,
                        stream=uploader.stream.name,
                        problem=error.strerror or str(error),
                    )
                    self._wait()
                    return
                if messages:
                    room -= len(messages)
                    self._target.send(messages, uploader)

    def _moved(self, outcome: Outcome) -> None:
        if outcome is Outcome.CONGESTED:
            self._wait()
        else:
            self._again_s = AGAIN_S_MIN
            self.pump()

    def _wait(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._again_s, self._again)
            self._again_s = min(2 * self._again_s, AGAIN_S_MAX)

    def _again(self) -> None:
        self._timer = None
        self.pump()
