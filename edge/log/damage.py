"""What was found damaged: counted, told, and a copy of it kept within a bound."""

import contextlib
import os
from collections import deque

import msgspec

from edge.log.files import Files
from edge.log.segment import QUARANTINE, segment_path
from edge.metrics import Metrics

_TOLD_MAX = 256
_KNOWN_MAX = 4096


class Damage(msgspec.Struct, frozen=True):
    """The records first … next are gone (none when equal: only state, or unknown). reason: bad_crc, missing, …"""

    segment: int
    first: int
    next: int
    reason: str


class Damages:
    """Counts every place once. read_only: nothing is copied or moved."""

    def __init__(
        self, folder: str, files: Files, metrics: Metrics, name: str, bytes_max: int, *, read_only: bool
    ) -> None:
        self._folder, self._files, self._bytes_max, self._read_only = folder, files, bytes_max, read_only
        self.batches = metrics.counter("log_batches_damaged", stream=name)
        self.records = metrics.counter("log_records_lost", stream=name)
        self.segments = metrics.counter("log_segments_damaged", stream=name)
        self.tails = metrics.counter("log_tails_cut", stream=name)
        self.told: deque[Damage] = deque(maxlen=_TOLD_MAX)
        self._known: dict[tuple[int, int], None] = {}

    def lost(self, damage: Damage, *, at: int = -1, body: bytes = b"", keep: int = 0) -> None:
        """A batch (or a stretch of them). body: its bytes as far as known, which stood at `at`. keep: records below are
        released, and no loss."""
        if self.found(damage, at=at, body=body):
            self.count(damage, keep)

    def found(self, damage: Damage, *, at: int = -1, body: bytes = b"") -> bool:
        """Whether it is new, and its records are to be counted."""
        place = (damage.segment, damage.first if at < 0 else -at)
        if place in self._known:
            return False
        if len(self._known) >= _KNOWN_MAX:
            del self._known[next(iter(self._known))]
        self._known[place] = None
        self.batches.value += 1
        if body:
            self._keep(f"{damage.segment:010d}-{at:08x}.batch", body)
        return True

    def count(self, damage: Damage, keep: int) -> None:
        first = min(max(damage.first, keep), damage.next)
        if first > damage.first:
            damage = msgspec.structs.replace(damage, first=first)
        self.records.value += damage.next - first
        self.told.append(damage)

    def cut(self, damage: Damage, at: int, body: bytes) -> None:
        """What may be a batch that never was finished."""
        self.tails.value += 1
        self.told.append(damage)
        self._keep(f"{damage.segment:010d}-{at:08x}.tail", body)

    def segment(self, damage: Damage) -> None:
        """A whole segment is missing or cannot be read: moved aside, if it is there."""
        self.segments.value += 1
        self.records.value += damage.next - damage.first
        self.told.append(damage)
        if self._read_only:
            return
        path = segment_path(self._folder, damage.segment)
        with contextlib.suppress(OSError):
            size = self._files.size(path)
            if size and self._room() >= size:
                self._files.rename(path, os.path.join(self._folder, QUARANTINE, os.path.basename(path)))

    def _keep(self, name: str, body: bytes) -> None:
        if self._read_only:
            return
        with contextlib.suppress(OSError):
            if self._room() >= len(body):
                file = self._files.open(os.path.join(self._folder, QUARANTINE, name), create=True)
                try:
                    file.pwrite(body, 0)
                finally:
                    file.close()

    def _room(self) -> int:
        folder = os.path.join(self._folder, QUARANTINE)
        self._files.makedir(folder)
        return self._bytes_max - sum(
            self._files.size(os.path.join(folder, name)) for name in self._files.listdir(folder)
        )
