"""The thread in which a stream's commits wait for the disk: one hop there and one back for a whole commit.

Invariants: one piece of work at a time; its end is told on the loop's thread; what raises there ends nothing here.
"""

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue

Work = Callable[[], None]
Done = Callable[[OSError | None], None]


class Worker:
    """One thread, begun with the first piece of work."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._asked: SimpleQueue[tuple[Work, Done] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def submit(self, work: Work, done: Done) -> None:
        """Run work there; done(None or the OSError it raised) is called on this loop."""
        if self._thread is None:
            self._loop = asyncio.get_running_loop()
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        self._asked.put((work, done))

    def stop(self) -> None:
        """Returns when the work in hand is done; its end may not be told any more."""
        if self._thread is not None:
            self._asked.put(None)
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        assert self._loop is not None
        while (asked := self._asked.get()) is not None:
            work, done = asked
            failure: OSError | None = None
            try:
                work()
            except OSError as error:
                failure = error
            try:
                self._loop.call_soon_threadsafe(done, failure)
            except RuntimeError:
                return  # the loop is closed
