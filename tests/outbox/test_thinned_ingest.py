"""What is thinned while it is under way is stored by `fleet ingest` without two payloads under one name."""

import asyncio
import json
from pathlib import Path

from edge.messages import Message, Outcome, Reading
from edge_tools.fleet.decode import Decoder
from edge_tools.fleet.records import AVERAGES, Record
from edge_tools.fleet.store import Batch, Query, Store, opener
from tests.outbox.rig import Cloud, Rig, until


def stored(store: Store, messages: list[Message]) -> None:
    decoder, records = Decoder(["batch/#"]), list[Record]()
    for one in messages:
        assert one.reading is not None
        user = [("thing", one.reading.thing), ("boot", str(one.reading.boot)), ("seq", str(one.reading.sequence))]
        records += decoder.decode(one.topic, one.payload, "", user, 1000).records
    store.commit(Batch(records))


def test_readings_that_arrived_before_they_were_averaged_clash_with_no_average(tmp_path: Path) -> None:
    async def run() -> None:
        cloud = Cloud(None)
        rig = Rig(tmp_path, cloud, window=100, bytes_max=2 << 20, when_full="thin")
        rig.start()
        sequence = 0

        def fill() -> None:
            nonlocal sequence
            names = range(sequence + 1, sequence + 101)
            rig.stream.send(
                [
                    Message("dt/b1", b'{"c":%d.%d}' % (n, n * 7919**4 % 10**12), 1, False, n, None, Reading("b1", 1, n))
                    for n in names
                ],
                rig.source,
            )
            sequence += 100

        fill()
        await until(lambda: len(cloud.open) == 100)
        rig.kill()  # they arrived, and nobody was told
        again = Rig(tmp_path, Cloud(Outcome.CONGESTED), window=1, bytes_max=2 << 20, when_full="thin")
        again.start()
        rig = again
        while not again.stream.ledger.totals:
            fill()
            await again.taken()
        again.kill()
        last = Rig(tmp_path, Cloud(), bytes_max=8 << 20)
        last.start()
        await until(lambda: last.uploader.backlog() == 0)
        last.stop()
        store = opener(f"sqlite:///{tmp_path}/fleet.sqlite")(True)
        stored(store, [*cloud.seen, *again.cloud.seen, *last.cloud.seen])
        assert store.counters() == {}
        found = list(store.query(Query()))
        averages = [one for one in found if (one.seq or 0) >= AVERAGES]
        counted = sum(json.loads(one.payload)["thinned"]["count"] for one in averages)
        assert averages
        arrived = {one.seq for one in found} & set(range(1, 101))
        assert arrived == set(range(1, 101))
        assert counted == last.stream.ledger.totals["thinned"]
        store.close()

    asyncio.run(run())
