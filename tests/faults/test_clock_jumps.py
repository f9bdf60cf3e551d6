"""The gateway's clock is wrong and jumps: nothing is lost, nothing overtakes."""

import shutil
from pathlib import Path

import pytest

from tests.faults.worlds import World, wait_for

FORWARDS, BACKWARDS = "+3650d", "-3650d"


@pytest.mark.parametrize("jumps", [(FORWARDS, BACKWARDS), (BACKWARDS, FORWARDS)], ids=["back", "forth"])
def test_a_clock_that_jumps_between_starts_neither_loses_nor_reorders(tmp_path: Path, jumps: tuple[str, str]) -> None:
    with World(tmp_path, boards=2) as world:
        world.proxy.cut()
        for jump in ("+0", *jumps):
            world.gateway.start(["faketime", "-f", jump])
            world.boards.produce(50)
            wait_for(world.boards.idle, f"the boards to be rid of all at {jump}")
            world.gateway.kill()
        verdict = world.drain().check()
        assert verdict.received == 300


def test_a_clock_that_jumps_while_it_runs_neither_loses_nor_reorders(tmp_path: Path) -> None:
    """A file tells faketime the offset, and is changed while the gateway runs; its monotonic clock goes on as it is."""
    offset = tmp_path / "offset"
    offset.write_text("+0")
    env = {"FAKETIME_TIMESTAMP_FILE": str(offset), "FAKETIME_NO_CACHE": "1", "DONT_FAKE_MONOTONIC": "1"}
    assert shutil.which("faketime"), "this test needs: apt-get install faketime"
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    with World(tmp_path, boards=2) as world:
        world.gateway.start(env={**env, "LD_PRELOAD": str(library)})
        world.boards.run_at(100)
        world.wait_counter("stream_records_in", 20)
        for number, jump in enumerate((FORWARDS, BACKWARDS, "-1h", "+2d", "+0"), 1):
            offset.write_text(jump)
            if number == 3:
                world.proxy.cut()
            world.wait_counter("stream_records_in", 20 + 40 * number)
        world.drain().check()
