"""Waiting for what must come about, with a bound: the liveness that the oracle judges.

The bounds are for a machine with ten times more to do than it can: they cost nothing where what is awaited comes.
"""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE_S = 240.0


def comes_about(condition: Callable[[], T | None], patience_s: float = PATIENCE_S) -> T | None:
    """The first true value of condition; None if there was none in time."""
    deadline_s = time.monotonic() + patience_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline_s:
            return None
        time.sleep(0.02)


def wait_until(condition: Callable[[], T | None], what: str, patience_s: float = PATIENCE_S) -> T:
    """The same, where the test cannot go on without: fails naming what did not come about."""
    value = comes_about(condition, patience_s)
    assert value is not None, f"{what}: not within {patience_s:.0f} s"
    return value
