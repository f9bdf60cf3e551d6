"""A fake board on a real pseudo-terminal, behind a path that stays the same while it is unplugged and plugged in."""

import asyncio
import contextlib
import os
import tty
from pathlib import Path

from tests.fakes.board import FakeBoard

TICK_S = 0.02


class PtyBoard:
    """Used within a running loop: `plug`, `unplug`; deaf: it reads nothing while set."""

    def __init__(self, fake: FakeBoard, path: Path) -> None:
        self.fake, self.path = fake, path
        self.deaf = False
        self.reads: list[bytes] = []
        self._master = -1
        self._unsent = b""
        self._timer: asyncio.TimerHandle | None = None

    def plug(self) -> None:
        self._master, slave = os.openpty()
        tty.setraw(slave)
        os.set_blocking(self._master, False)
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()
        self.path.symlink_to(os.ttyname(slave))
        os.close(slave)
        self._tick()

    def unplug(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._master >= 0:
            asyncio.get_running_loop().remove_reader(self._master)
            os.close(self._master)
            self._master = -1
            self.path.unlink()

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._master)
        if not self.deaf:
            loop.add_reader(self._master, self._read)  # added anew: an end nobody has open reads as hung up for ever
        self.fake.tick(loop.time())
        self._write()
        self._timer = loop.call_later(TICK_S, self._tick)

    def _read(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            data = os.read(self._master, 65536)
        except OSError:
            loop.remove_reader(self._master)
            return
        self.reads.append(data)
        self.fake.receive(data, loop.time())
        self._write()

    def _write(self) -> None:
        self._unsent += self.fake.output()
        if self._unsent:
            with contextlib.suppress(OSError):
                self._unsent = self._unsent[os.write(self._master, self._unsent) :]
