"""The filters that a broker may hold for this client, in a file: a session outlives the process, and MQTT has no packet
that asks a broker what it holds.

Invariant: what the broker was asked for and was not seen to let go is in the file before the broker hears of it. The
file is not synced: what a power cut takes of it costs a filter that stays at the broker, never a message.
"""

import contextlib
import logging
import os
from collections.abc import Iterable

import msgspec

from edge.errors import InputRejected
from edge.logs import log_event
from edge.topics import check_filter

_log = logging.getLogger(__name__)


class HeldFilters:
    """path: of the file; its folder is there, and this process alone writes in it."""

    def __init__(self, path: str) -> None:
        self._path = path

    def load(self) -> list[str]:
        """Nothing where there is no file, or one that is damaged: that one is put aside."""
        try:
            with open(self._path, "rb") as file:
                found = msgspec.json.decode(file.read(), type=list[str])
            for topic_filter in found:
                check_filter(topic_filter)
        except FileNotFoundError:
            return []
        except (OSError, ValueError, InputRejected) as error:
            self._tell("subscriptions_unreadable", error)
            with contextlib.suppress(OSError):
                os.replace(self._path, f"{self._path}.damaged")
            return []
        return found

    def save(self, filters: Iterable[str]) -> None:
        """A disk that takes nothing is told, and keeps no one from subscribing."""
        partial = f"{self._path}.partial"
        try:
            with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
                file.write(msgspec.json.encode(list(filters)))
            os.replace(partial, self._path)
        except OSError as error:
            self._tell("subscriptions_not_kept", error)

    def _tell(self, event: str, error: Exception) -> None:
        log_event(_log, event, level=logging.WARNING, file=self._path, problem=str(error))
