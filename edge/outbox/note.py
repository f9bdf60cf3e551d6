"""What a thinning is about to take away, on disk before it does: so that it is counted when a kill comes between.

Invariant: the note is durable before the segment is replaced, and stays until the next; whether it still counts is for
the reader to find out (was the replacement done, is it in the ledger).
"""

import os

import msgspec

from edge.outbox.ledger import Ledger, Shed

NAME = "thinning"
Things = dict[str, list[Shed]]

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[bytes, Things]).decode


class Note:
    """folder: the stream's; empty for none."""

    def __init__(self, folder: str) -> None:
        self._path = os.path.join(folder, NAME) if folder else ""

    def write(self, token: bytes, ledger: Ledger) -> None:
        """Raises OSError."""
        if not self._path:
            return
        file = os.open(f"{self._path}.tmp", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(file, "wb") as opened:
            opened.write(_encode((token, ledger.things)))
            opened.flush()
            os.fdatasync(file)
        os.rename(f"{self._path}.tmp", self._path)
        folder = os.open(os.path.dirname(self._path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def read(self) -> tuple[bytes, Things]:
        """Nothing where there is none, or none that can be read."""
        if self._path:
            try:
                with open(self._path, "rb") as opened:
                    return _decode(opened.read())
            except (OSError, msgspec.DecodeError):
                pass
        return b"", {}
