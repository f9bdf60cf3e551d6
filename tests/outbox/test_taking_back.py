"""What a stream gives up does not go out any more, as far as it only waits for the connection."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from edge.cloud.codec import CodecConnection
from edge.config import ConnectionSettings
from edge.messages import Message, Outcome
from edge.metrics import Metrics
from tests.cloud.worlds import running
from tests.fakes.broker import FakeBroker
from tests.outbox.rig import Cloud, Rig, until


def connect(broker: FakeBroker) -> CodecConnection:
    settings = ConnectionSettings(
        host="cloud.test", client_id="g", tls=False, backoff_s_min=0.01, backoff_s_max=0.02, queue_messages_max=2000
    )
    return CodecConnection(settings, Metrics(), open_transport=broker.open_transport)


class Through(Cloud):
    """By this connection."""

    def __init__(self, connection: CodecConnection) -> None:
        super().__init__()
        self.send, self.take_back = connection.send, connection.take_back  # type: ignore[method-assign]


class Other:
    def settled(self, receipts: object, outcome: Outcome) -> None: ...


def numbers(rig: Rig) -> set[int]:
    """Of what is counted as shed."""
    return {number for entry in rig.stream.ledger.things["b1"] for number in range(entry.first, entry.last + 1)}


@pytest.mark.parametrize("form", ["message", "cbor"])
@pytest.mark.parametrize("how", ["purged", "expired", "dropped_oldest"])
def test_what_is_shed_while_it_waits_for_the_cloud_does_not_arrive(
    form: str, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.outbox.stream.TICK_S", 0.01)

    async def run() -> None:
        broker = FakeBroker()
        connection = connect(broker)
        more: dict[str, Any] = {"ttl_s": 300.0} if how == "expired" else {}
        if how == "dropped_oldest":
            more = {"bytes_max": 2 << 20, "when_full": "drop_oldest"}
        more |= {"format": form, "batch_records_max": 10, "batch_wait_s": 0.0}
        rig = Rig(tmp_path, Through(connection), window=1000, **more)
        rig.start()
        connection.send([Message("dt/other", b"other", 1, False, 1)], Other())
        size = 8000 if how == "dropped_oldest" else 0
        end = 401 if how == "dropped_oldest" else 201
        for first in range(101, end, 20):  # three digits, whatever follows them
            rig.readings(range(first, first + 20), size=size)
            await rig.taken()
        assert rig.uploader.under_way > 1
        if how == "purged":
            assert rig.stream.purge() == 100
        elif how == "expired":
            rig.shift_s += 600
        await until(lambda: rig.stream.ledger.totals.get(how, 0) >= (1 if size else 100))
        rig.readings(range(end, end + 10))
        await rig.taken()
        for _ in range(50):  # the slices of dropping, each a turn of the loop
            await asyncio.sleep(0)
        shed = numbers(rig)
        async with running(connection):
            await until(lambda: rig.uploader.backlog() == 0)
        rig.stop()
        arrived = {int(one) for one in re.findall(rb"b1 1 (\d{3})", b"".join(broker.published))}
        assert arrived.isdisjoint(shed)
        assert arrived | numbers(rig) == set(range(101, end + 10))
        assert list(rig.stream.ledger.totals) == [how]
        assert broker.published.count(b"other") == 1

    asyncio.run(run())
