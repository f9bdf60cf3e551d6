"""Files without meaning, kept for their blocks: freed segments to be used again, and room kept back for a full disk.

Invariants: with `keeps_room` the last spare becomes a segment only when the disk has no room for a new one, and the
file `room` goes only so that a segment can be thinned. What was used of them is made again when the disk has room;
meanwhile the log is short. A crash leaves at worst one of a wrong size: it is deleted at the next start.
"""

import contextlib
import os
from typing import Final

from edge.log.files import Files
from edge.log.segment import spare_path

ROOM: Final = "room"
_THINNED_SHARE: Final = 4  # what is left of a segment after thinning is rarely more than that part of it
_MADE: Final = 0  # the number of a spare that never was a segment


def thinning_bytes(segment_bytes: int) -> int:
    """Kept back so that a segment can be thinned before the old one is gone."""
    return segment_bytes // _THINNED_SHARE


class Spares:
    """found: (path, size) of those in the folder; size: of a segment; most: how many are kept."""

    def __init__(
        self, folder: str, files: Files, found: list[tuple[str, int]], size: int, most: int, *, keeps_room: bool
    ) -> None:
        self._folder, self._files, self._size, self._most, self._keeps_room = folder, files, size, most, keeps_room
        self._paths = [path for path, bytes_ in found if bytes_ == size]
        for path, bytes_ in found:
            if bytes_ != size:
                self._delete(path)
        self._room_path = os.path.join(folder, ROOM)
        self._room = self._find_room()

    @property
    def bytes(self) -> int:
        """On disk."""
        return self._size * len(self._paths) + self._room

    @property
    def is_short(self) -> bool:
        """Something that should be kept back is not there."""
        return self._keeps_room and not (self._paths and self._room)

    def take(self) -> str | None:
        """To become a segment."""
        return self._paths.pop() if len(self._paths) > self._keeps_room else None

    def take_kept(self) -> str | None:
        """To become a segment although it was kept back: the disk is full."""
        return self._paths.pop() if self._paths else None

    def drop(self) -> None:
        """Give up one that is not kept back, for what takes less room."""
        if len(self._paths) > self._keeps_room:
            self._delete(self._paths.pop())

    def put(self, path: str, number: int, size: int) -> bool:
        """Keep a freed segment. False: it is to be deleted. Raises OSError."""
        if size != self._size or len(self._paths) >= self._most or (self.is_short and self._paths):
            return False
        spare = spare_path(self._folder, number)
        self._files.rename(path, spare)
        self._paths.append(spare)
        return True

    def give(self) -> bool:
        """The disk is full, and something is to be thinned: make room. False: there is none to be made."""
        if self._room:
            self._room = 0
            return self._delete(self._room_path)
        return bool(self._paths) and self._delete(self._paths.pop())

    def resize(self, size: int) -> None:
        """Segments have another size from now on."""
        while self._room or self._paths:
            self.give()
        self._size = size
        self.regain()

    def regain(self) -> None:
        """Make again what should be kept back, if the disk has room."""
        if self._keeps_room and not self._room and self._make(self._room_path, thinning_bytes(self._size)):
            self._room = thinning_bytes(self._size)
        if self._keeps_room and not self._paths and self._make(spare := spare_path(self._folder, _MADE), self._size):
            self._paths.append(spare)

    def _find_room(self) -> int:
        with contextlib.suppress(OSError):
            size = self._files.size(self._room_path)
            if size == thinning_bytes(self._size) and self._keeps_room:
                return size
            self._delete(self._room_path)
        return 0

    def _make(self, path: str, size: int) -> bool:
        try:
            file = self._files.open(path, write=True, create=True)
            try:
                file.allocate(size)
            finally:
                file.close()
        except OSError:
            self._delete(path)
            return False
        return True

    def _delete(self, path: str) -> bool:
        try:
            self._files.unlink(path)
        except OSError:
            return False
        return True
