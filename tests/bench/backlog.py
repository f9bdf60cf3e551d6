"""A stream with a backlog, made by the gateway's own outbox without a gateway: boards' readings, nothing exported."""

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path

from edge.config import parse_config
from edge.messages import Message, Outcome, Reading
from edge.metrics import Metrics
from edge.outbox.outbox import Outbox
from edge.outbox.report import FOLDER
from tests.bench.figures import NoFigure
from tests.bench.relay.raw import payload

STREAM = "bench"
BOARDS = 8
BYTES_MAX = 4 * 1024**3
_BATCH = 400
_BOOT = 1
_FILE = f"""
[gateway]
name = "relay"
data_dir = "."

[[stream]]
name = "{STREAM}"
bytes_max = {BYTES_MAX}
commit = "never"
export = ""
"""


def build_backlog(folder: Path, count: int) -> None:
    """Store readings 1 … count, the boards in turn, in the streams of this data_dir."""
    folder.mkdir(parents=True, exist_ok=True)
    asyncio.run(_build(folder, count))


def copy_backlog(made: Path, folder: Path) -> None:
    """So that what one run drains is there for the next."""
    shutil.copytree(made / FOLDER, folder / FOLDER)


def stream_section(*lines: str) -> str:
    """Of the gateway that goes on with the backlog."""
    return "\n".join(["[[stream]]", f'name = "{STREAM}"', f"bytes_max = {BYTES_MAX}", *lines, ""])


class _Source:
    """Waits for each batch to be taken."""

    def __init__(self) -> None:
        self.taken = 0
        self.moved = asyncio.Event()
        self.failed: Outcome | None = None

    def settled(self, receipts: Sequence[int], outcome: Outcome) -> None:
        if outcome is not Outcome.TAKEN:
            self.failed = outcome
        self.taken += len(receipts)
        self.moved.set()


async def _build(folder: Path, count: int) -> None:
    outbox = Outbox(parse_config(_FILE, str(folder / "backlog.toml")), Metrics(), {})
    stream, source = outbox.streams[STREAM], _Source()
    try:
        for first in range(1, count + 1, _BATCH):
            numbers = range(first, min(first + _BATCH, count + 1))
            stream.send([_message(number) for number in numbers], source)
            while source.taken + 8 * _BATCH < numbers.stop - 1 and source.failed is None:
                await _wait(source)
        while source.taken < count and source.failed is None:
            await _wait(source)
    finally:
        outbox.close()
    if source.failed is not None:
        raise NoFigure(f"the backlog could not be built: a record was {source.failed.value}")


async def _wait(source: _Source) -> None:
    source.moved.clear()
    await asyncio.wait_for(source.moved.wait(), 20)


def _message(number: int) -> Message:
    board = f"board{number % BOARDS}"
    reading = Reading(board, _BOOT, (number - 1) // BOARDS + 1)
    return Message(f"bench/{board}", payload(number), 1, receipt=number, reading=reading)
