"""What a log lost by damage, entered once in its stream's ledger."""

from edge.log import Damage, Log
from edge.outbox.ledger import DAMAGED, OTHERS, Ledger


class Damages:
    def __init__(self, log: Log, ledger: Ledger) -> None:
        self._log, self._ledger = log, ledger
        self._seen: Damage | None = None

    def count(self, since: int) -> bool:
        """Enter what was found damaged, but for what below `since` was exported before. Whether there was anything."""
        damages = self._log.damages
        found = False
        for damage in reversed(damages):
            if damage is self._seen:
                break
            first = max(damage.first, since)
            if first < damage.next and damage.reason != "tail":
                self._ledger.add_once(OTHERS, 0, first, damage.next - 1, DAMAGED)
                found = True
        self._seen = damages[-1] if damages else None
        return found
