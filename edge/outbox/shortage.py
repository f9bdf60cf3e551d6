"""A disk that has no room: known, told once, and how far a stream is to shrink for it.

Invariants: a stream frees as much as its log keeps back for a full disk and no more, for others may take what is freed;
with what it keeps back in hand it goes on as always. That the disk has room again is told only after WELL_S without
shortage, however often it came and went.
"""

import logging
from collections.abc import Callable
from typing import Final

from edge.log import Log
from edge.logs import log_event

WELL_S: Final = 60.0

_log = logging.getLogger(__name__)


class Shortage:
    """disk_full: called when it is found; disk_well: now and then while there is none."""

    def __init__(self, name: str, log: Log, disk_full: Callable[[], None], disk_well: Callable[[], None]) -> None:
        self._name, self._log, self._disk_full, self._disk_well = name, log, disk_full, disk_well
        self._is_short = self.is_told = False
        self._at = float("-inf")
        self._shrink_to = 0

    @property
    def wants_less(self) -> bool:
        """The policy is to act for the disk's sake."""
        return self._is_short and self._log.bytes_live > self._shrink_to

    def look(self, now: float) -> None:
        """After a commit: whether the log still has what it keeps back."""
        before, self._is_short = self._is_short, self._log.is_short
        if not self._is_short:
            return
        if not before:
            self._shrink_to = self._log.bytes_live - self._log.bytes_kept
        self.found(now)

    def found(self, now: float) -> None:
        """Something found no room."""
        self._at = now
        self._disk_full()
        if not self.is_told:
            self.is_told = True
            remedy = "Make room on the disk: until then the policy acts as if the stream's bound were reached."
            log_event(_log, "stream_disk_full", level=logging.WARNING, stream=self._name, remedy=remedy)

    def tick(self, now: float, *, fails: bool) -> bool:
        """Now and then. fails: commits do. True: the disk has room, as far as is known."""
        if self._is_short:
            self._log.regain()
        if self._is_short or fails:
            return False
        if self.is_told and now - self._at > WELL_S:
            self.is_told = False
            log_event(_log, "stream_disk_has_room", stream=self._name)
        self._disk_well()
        return True
