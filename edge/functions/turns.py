"""When the next turn of a function's work is taken: soon after anything came, and when its next time has come."""

import asyncio
from collections.abc import Callable, Sequence


class Turns:
    """move: one turn, at this time. times: when something is due after it; None: not at all."""

    def __init__(
        self,
        move: Callable[[float], None],
        times: Callable[[], Sequence[float | None]],
        now: Callable[[], float],
    ) -> None:
        self._move, self._times, self._now = move, times, now
        self._is_due = self._is_over = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    def wake(self) -> None:
        """Take a turn soon."""
        if not self._is_due and not self._is_over:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._turn)

    def end(self) -> None:
        """There are no more."""
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()

    def _turn(self) -> None:
        self._is_due = False
        if self._is_over:
            return
        now = self._now()
        try:
            self._move(now)
        finally:
            self._set_timer(now)  # whatever goes wrong in one turn, there is another

    def _set_timer(self, now: float) -> None:
        when = max(min([time for time in self._times() if time is not None]), now + 0.001)
        if self._timer is not None:
            if self._timer_at <= when:
                return
            self._timer.cancel()
        self._timer_at = when
        self._timer = asyncio.get_running_loop().call_later(when - now, self._timed)

    def _timed(self) -> None:
        self._timer = None
        if not self._is_due:
            self._is_due = True
            self._turn()
