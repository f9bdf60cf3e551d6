"""All streams of a gateway as `edge stream list` shows them."""

import asyncio
import random
from pathlib import Path

import msgspec
import pytest

from edge.config import parse_config
from edge.errors import ConfigError
from edge.messages import Message, Outcome
from edge.metrics import Metrics
from edge.outbox.outbox import Outbox
from tests.outbox.rig import Cloud, Source, until

FILE = """\
[gateway]
name = "g"
data_dir = "{}"
[cloud]
host = "c"
[[stream]]
name = "s"
from = ["boards"]
topics = ["dt/#"]
rate_messages_per_s = 200
"""


def test_a_status_tells_backlog_oldest_bytes_rates_and_how_long_the_drain_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.outbox.stream.TICK_S", 0.1)

    async def run() -> None:
        cloud = Cloud(None)
        shift_s = 0.0
        loop = asyncio.get_running_loop()
        outbox = Outbox(
            parse_config(FILE.format(tmp_path), "g.toml"),
            Metrics(),
            {"cloud": cloud},
            now=lambda: loop.time() + shift_s,
            unix_time=lambda: 1_700_000_000.0 + shift_s,
        )
        outbox.start()
        stream = outbox.streams["s"]
        stream.send([Message("dt/x", b"%d" % n, 1, False, n) for n in range(1, 1001)], Source())
        await until(lambda: stream.log.next == 1001)
        shift_s = 90.0
        held = outbox.status()[0]
        assert (held.backlog_records, held.bytes, held.shed) == (1000, stream.log.bytes_held, {})
        assert 90 <= (held.oldest_age_s or 0) < 120
        cloud.answers = Outcome.TAKEN
        cloud.answer(Outcome.TAKEN)
        await until(lambda: (outbox.status()[0].drain_s or 0) > 0)
        going = outbox.status()[0]
        shrinks_per_s = (going.drained_per_s or 0) - (going.records_per_s or 0)
        assert going.drain_s == pytest.approx(going.backlog_records / shrinks_per_s, rel=0.05, abs=0.2)
        await until(lambda: outbox.status()[0].backlog_records == 0)
        assert outbox.status()[0].drain_s == 0.0
        assert msgspec.json.decode(msgspec.json.encode(going))["drain_s"] == going.drain_s
        outbox.close()

    asyncio.run(run())


def test_what_a_stream_holds_is_only_too_much_where_the_file_says_less_than_before(tmp_path: Path) -> None:
    """Segments of what was written before may exceed a bound by something: that is nobody's to mend by hand."""

    def opened(bytes_max: int) -> Outbox:
        text = FILE.format(tmp_path) + f"bytes_max = {bytes_max}\n"
        return Outbox(parse_config(text, "g.toml"), Metrics(), {"cloud": Cloud(None)})

    async def fill(outbox: Outbox) -> int:
        outbox.start()
        stream = outbox.streams["s"]
        stream._bytes_max = 3 << 20
        stream._find_room()
        for number in range(1, 60):
            stream.send([Message("dt/x", random.Random(number).randbytes(40_000), 1, False, number)], Source())
            await until(lambda: not stream.is_busy)
        outbox.close()
        return stream.log.bytes_held

    async def run() -> None:
        assert await fill(opened(2 << 20)) > 2 << 20
        for _ in range(2):
            outbox = opened(2 << 20)
            outbox.start()
            outbox.close()
        outbox = opened(5 << 19)
        outbox.start()
        outbox.close()
        with pytest.raises(ConfigError, match="less than what stream 's' holds"):
            opened(2 << 20)
        opened(5 << 19).close()

    asyncio.run(run())
