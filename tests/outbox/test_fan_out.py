"""One board's readings to two streams: what one of them turns away comes again to both, and neither misses any."""

import asyncio
from pathlib import Path

from edge.config import RouteSettings
from edge.messages import Message, Outcome, Reading
from edge.metrics import Metrics
from edge.router import Router
from tests.outbox.rig import Cloud, Rig, Source, until


def test_a_reading_turned_away_by_one_of_two_streams_is_stored_by_both_in_the_end(tmp_path: Path) -> None:
    async def run() -> None:
        small, slow = Rig(tmp_path / "small", Cloud()), Rig(tmp_path / "slow", Cloud(), commit="1 s")
        small.start()
        slow.start()
        router = Router([RouteSettings(source="boards", topic="dt/#", to=("stream:small", "stream:slow"))], Metrics())
        router.attach("stream:small", small.stream)
        router.attach("stream:slow", slow.stream)
        board = Source()

        def send(sequence: int, receipt: int) -> None:
            reading = Reading("b1", 1, sequence)
            router.route("board:b1", "b1", [Message("dt/b1", b"x", 1, receipt=receipt, reading=reading)], board)

        send(1, 1)
        room, small.stream._room = small.stream._room, 0
        send(2, 2)
        assert board.outcomes == {2: Outcome.CONGESTED}  # before the other has committed: what follows waits for it
        small.stream._room = room
        send(2, 3)
        send(3, 4)
        await until(lambda: len(board.outcomes) == 4)
        assert [board.outcomes[receipt] for receipt in (1, 3, 4)] == [Outcome.TAKEN] * 3
        for rig in (small, slow):
            await until(lambda rig=rig: len(rig.cloud.named()) == 3)  # type: ignore[misc]
            assert [reading.sequence for reading in rig.cloud.named()] == [1, 2, 3]

    asyncio.run(run())
