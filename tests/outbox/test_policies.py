"""A board, the real gateway, a stream that is full and a cloud that is away: each policy accounts for every reading."""

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edge.outbox.thin import AVERAGES
from tests.faults.gateways import ROOT
from tests.faults.worlds import World, wait_for

FULL_BYTES = 2 * 1024 * 1024
READINGS = 4000


def numeric(count: int) -> list[bytes]:
    """Readings of 60 numbers, which compress badly."""
    dice = random.Random(7)
    return [
        json.dumps({f"v{place}": dice.randrange(10**12, 10**13) for place in range(60)}).encode() for _ in range(count)
    ]


def exported(world: World) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "edge.cli", "stream", "export", "readings", "--config", str(world.gateway.file)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True, timeout=240)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("policy", "reasons"), [("reject", set()), ("drop_oldest", {"dropped_oldest"}), ("thin", {"thinned"})]
)
def test_every_reading_is_held_or_counted_with_the_policys_reason_after_a_kill_too(
    tmp_path: Path, policy: str, reasons: set[str]
) -> None:
    with World(tmp_path, ring=2 * READINGS, bytes_max=FULL_BYTES, when_full=policy) as world:
        world.proxy.cut()
        world.gateway.start()
        world.boards.produce_these("board1", numeric(READINGS))
        if policy == "reject":
            world.wait_counter("stream_messages_congested")
        else:
            wait_for(lambda: world.boards.acknowledged() == READINGS, "the board to be rid of all")
        world.gateway.kill()
        rows, shed = exported(world), world.gateway.shed()
        acknowledged = world.boards.acknowledged()
        assert acknowledged == READINGS or policy == "reject"
        held = [row["seq"] for row in rows if row["seq"] < AVERAGES]
        gone = [sequence for one in shed for sequence in range(one.first, one.last + 1)]
        assert {one.reason for one in shed} == reasons
        assert sum(one.count for one in shed) == len(gone)
        assert len(rows) == len({(row["thing"], row["boot"], row["seq"]) for row in rows})
        accounted = sorted([*held, *gone])
        assert accounted == list(range(1, len(accounted) + 1))
        assert acknowledged <= len(accounted) <= READINGS
        averaged = [json.loads(row["payload"])["thinned"]["count"] for row in rows if row["seq"] >= AVERAGES]
        assert sum(averaged) == len(gone) * (policy == "thin")
