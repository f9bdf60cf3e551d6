"""A window's memory of single events, each held until it is too old: what sliding windows and joins share."""

from collections.abc import Callable
from typing import Any, TypeVar

from edge.rules.journal import EVENTS, Events
from edge.rules.plan import Window
from edge.rules.windows import Memory

T = TypeVar("T")


class Holding(Memory):
    """events: how many are held for windows that are open, at most events_max."""

    def __init__(
        self,
        window: Window | None,
        init: list[Any],
        layout: list[tuple[str, int]],
        lateness_ms: int,
        keys_max: int,
        *,
        events_max: int,
    ) -> None:
        super().__init__(window, init, layout, lateness_ms, keys_max)
        assert window is not None
        self._size = window.size
        self._events_max = events_max
        self.events = 0
        self._stored = Events(self._journals)
        self._restored_rows: list[tuple[int, list[Any]]] = []

    def _has_room(self, many: int) -> bool:
        """For one event more than so many; counted if not."""
        if many < self._events_max and not self.is_full:
            return True
        self.count("state_max" if self.is_full else "events_max")
        return False

    def forget(self) -> None:
        super().forget()
        self._stored.forget()
        self.events = 0

    def _restore_table(self, name: str, numbered: dict[int, bytes]) -> None:
        if name.startswith(EVENTS):
            self._restored_rows += self._stored.restore(name, numbered)
        else:
            super()._restore_table(name, numbered)

    def _take_restored(self, read: Callable[[list[Any]], T]) -> list[tuple[int, T]]:
        """With their numbers, in that order. What read does not understand (ValueError, TypeError) is counted and
        left out."""
        found = []
        for number, row in sorted(self._restored_rows, key=lambda one: one[0]):
            try:
                found.append((number, read(row)))
            except (ValueError, TypeError):
                self.count("checkpoint_rejected")
                self._stored.remove(number)
        self._restored_rows = []
        self.events = len(found)
        return found
