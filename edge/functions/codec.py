"""How the gateway and a function's process understand each other: frames with a worker, lines with a program. Pure."""

from typing import Protocol

from edge.functions.ndjson import Lines
from edge.functions.wire import FromWorker, ToWorker, frame, from_worker


class Codec(Protocol):
    """For one process."""

    def write(self, struct: ToWorker) -> bytes:
        """Raises InputRejected for what cannot be carried."""

    def feed(self, data: bytes) -> list[FromWorker]:
        """Raises InputRejected; then it is of no more use."""

    def take_text(self) -> bytes:
        """What it printed between, whole lines."""


class Frames:
    """With a worker."""

    def __init__(self) -> None:
        self.feed = from_worker().feed
        self.write = frame

    def take_text(self) -> bytes:
        return b""


def codec(*, is_program: bool) -> Codec:
    return Lines() if is_program else Frames()
