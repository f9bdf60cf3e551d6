"""Keeps a function's folder within its bounds where no quota does: it is looked at while it stirs, and tidied when its
program has ended.

Invariants:
- What was in the folder when a program began is never taken away, nor what that was replaced by.
- After a program has ended the folder holds no more than it may, or no more than what was there before and has grown.
- A folder that is fuller than it may be is given no more room: its program is begun, as it may be the one that clears
  up, and ended when the folder grows. Beyond LEEWAY none is begun.
"""

import asyncio
import time
from collections.abc import Callable, Collection
from typing import Final

from edge.functions.sandbox import folder, tree
from edge.functions.sandbox.notify import Notify
from edge.functions.sandbox.pace import Pace
from edge.functions.sandbox.settings import Sandbox, SandboxError

LEEWAY: Final = 1.25
ROOM: Final = 1 / 8  # is made when it was full: one that has no room at all could only be ended again


class FolderFull(SandboxError):
    """There is more in its folder than it may be begun with."""

    code = "folder_full"


class FolderWatch:
    """Made by `begin`, in a thread."""

    def __init__(self, sandbox: Sandbox, before: folder.Before, size: folder.Size, notify: Notify) -> None:
        self._sandbox, self._before, self.notify = sandbox, before, notify
        self._bytes_max = max(sandbox.folder_bytes_max, size.bytes) if sandbox.folder_bytes_max else 0
        self._files_max = max(sandbox.folder_files_max, size.files) if sandbox.folder_files_max else 0
        self.size_bytes = size.bytes
        """At the last look."""
        self.pace = Pace(self._full(size), time.monotonic())

    def _full(self, size: folder.Size) -> float:
        by_bytes = size.bytes / self._bytes_max if self._bytes_max else 0.0
        return max(by_bytes, size.files / self._files_max if self._files_max else 0.0)

    async def look(self, pids: Callable[[], Collection[int]]) -> str:
        """What is beyond its bounds; empty when nothing is. pids: gives all that may hold files of it open."""
        began = time.monotonic()
        self.notify.drain()
        size, unlinked = await asyncio.to_thread(self._look, pids)
        now = time.monotonic()
        size = folder.Size(size.bytes + unlinked, size.files, size.apparent_bytes)
        self.size_bytes = size.bytes
        holes = 0 < self._bytes_max < size.apparent_bytes
        self.pace.looked(self._full(size), now, took_s=now - began, may_grow_unseen=holes or self.notify.fd < 0)
        return self._beyond(size)

    def _look(self, pids: Callable[[], Collection[int]]) -> tuple[folder.Size, int]:
        place = self._sandbox.folder
        return folder.size(place, self._files_max, self.notify.watch), tree.unlinked_bytes(place, pids())

    def _beyond(self, size: folder.Size) -> str:
        if 0 < self._bytes_max < size.bytes:
            return f"{size.bytes} bytes in its folder, of {self._sandbox.folder_bytes_max}"
        if 0 < self._files_max < size.files:
            return f"more than {self._sandbox.folder_files_max} files in its folder"
        return ""

    def end(self) -> str:
        """Its program has ended. Returns what is told of a folder that is beyond its bounds. In a thread."""
        self.notify.close()
        place, bytes_max, files_max = self._sandbox.folder, self._bytes_max, self._files_max
        size = folder.size(place, files_max)
        if not (beyond := self._beyond(size)):
            return ""
        room = 1 - ROOM
        taken, left = folder.take_away(place, self._before, int(bytes_max * room), int(files_max * room))
        return (
            f"{beyond}; the newest {taken.files} it made ({taken.bytes} bytes) were taken away, {left.bytes} are left"
        )


def begin(sandbox: Sandbox) -> FolderWatch | None:
    """Before its program. None: nothing is to be watched. Raises FolderFull."""
    if not sandbox.folder_bytes_max and not sandbox.folder_files_max:
        return None
    notify = Notify()
    before, size = folder.remember(sandbox.folder, int(sandbox.folder_files_max * LEEWAY), notify.watch)
    too_much = [
        f"{there} {what}, of {most}"
        for there, most, what in (
            (size.bytes, sandbox.folder_bytes_max, "bytes"),
            (size.files, sandbox.folder_files_max, "files"),
        )
        if 0 < most * LEEWAY < there
    ]
    if too_much:
        notify.close()
        raise FolderFull(f"its folder holds {' and '.join(too_much)}: remove what is not needed from {sandbox.folder}")
    return FolderWatch(sandbox, before, size, notify)
