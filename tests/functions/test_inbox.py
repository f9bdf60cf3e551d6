"""A function's inbox: what is taken out of it, whatever its disk does."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from edge.functions.wire import StartFailed
from tests.clock import run_virtual
from tests.functions.fakes import FakeSpawn, Rig, lived, random_bytes


def test_what_was_read_before_the_disk_failed_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spawn = FakeSpawn()
    spawn.answer = lambda launch: StartFailed("ImportError")
    payloads = [b"%d " % number + random_bytes(number, 60_000) for number in range(12)]

    async def first() -> None:
        rig = Rig(tmp_path, spawn)
        rig.send(*payloads)
        await rig.until(lambda: len(rig.source.outcomes) == len(payloads))
        rig.kill()

    run_virtual(first())
    spawn = FakeSpawn()
    reads = 0

    async def second(rig: Rig) -> None:
        read = rig.inbox.stream.log.read

        def failing(*arguments: Any, **named: Any) -> Sequence[Any]:
            nonlocal reads
            reads += 1
            if reads % 2 == 0:
                raise OSError(5, "Input/output error")
            return read(*arguments, **named)

        monkeypatch.setattr(rig.inbox.stream.log, "read", failing)
        await rig.done()
        assert spawn.payloads() == payloads

    lived(second, tmp_path, spawn)
    assert reads > 3
