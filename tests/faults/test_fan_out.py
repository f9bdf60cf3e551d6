"""Readings that go to more than one place: a stream that is full now and then, beside a rule or a stream with room."""

import time
from pathlib import Path

import pytest

from tests.faults.worlds import World

FULL_BYTES = 2 * 1024 * 1024
RULE = """
[[rule]]
name = "mean"
from = ["boards"]
topic = "agg"
sql = "SELECT count(*) AS n FROM 'dt/#' GROUP BY TUMBLINGWINDOW(ss, 2)"
"""
STREAM = """
[[stream]]
name = "copy"
from = ["boards"]
topics = ["dt/#"]
commit = "300 ms"
bytes_max = 500_000_000
export = ""
"""


@pytest.mark.parametrize("beside", [RULE, STREAM], ids=["a rule", "a stream"])
def test_a_stream_that_is_full_now_and_then_loses_nothing_beside(tmp_path: Path, beside: str) -> None:
    with World(tmp_path, boards=2, payload_bytes=1500, bytes_max=FULL_BYTES, more=beside, ring=200_000) as world:
        world.proxy.cut()
        world.gateway.start()
        world.boards.produce(1500)
        world.wait_counter("stream_messages_congested", 1)
        for _ in range(3):
            world.proxy.restore()
            time.sleep(2)  # the stream gets room, and is full again
            world.proxy.cut()
            world.boards.produce(400)
        world.drain().check()
