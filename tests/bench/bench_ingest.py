"""Records a second from a broker's backlog into the databases: through `fleet ingest`, single messages and batches.

The session is made first, the backlog published while no one listens, then the ingester is started and timed until it
has stored all. Its start is part of the time. `database_alone`: the same records into the same store, without a broker.
"""

import time
from collections.abc import Callable

from edge_tools.fleet.records import Record
from edge_tools.fleet.store import Batch, Store, opener
from edge_tools.mosquitto import HOST, Mosquitto
from edge_tools.postgresql import Postgresql
from tests.bench.figures import Context, Figure, NoFigure, figure
from tests.fleet.ingesters import Ingester, Publisher
from tests.fleet.messages import ndjson

DESCRIPTION = "telemetry from a broker's backlog into SQLite and PostgreSQL by fleet ingest"

BATCH_ROWS = 500
Publish = Callable[[Publisher, str, int], None]
PAYLOAD = b'{"c":21.5000,"up_ms":12345}'


def run(context: Context) -> list[Figure]:
    count = context.pick(100_000, 10_000)
    samples: dict[str, list[float]] = {}
    alone: dict[str, list[float]] = {}
    context.workdir.chmod(0o755)  # PostgreSQL's user must be able to pass
    with (
        Mosquitto(context.workdir / "broker", persistent=True, options=["max_inflight_messages 0"]) as broker,
        Postgresql(context.workdir / "postgresql") as server,
    ):
        for turn in range(context.repeats):
            addresses = {
                "sqlite": f"sqlite:///{context.workdir / f'{turn}.db'}",
                "postgresql": server.create(f"turn{turn}"),
            }
            for name, address in addresses.items():
                ingester = Ingester(context.workdir, f"mqtt://{HOST}:{broker.port}", address, "bench")
                for kind, publish in (("single", _singles), ("batched", _batches)):
                    rate = _measure(ingester, broker, address, kind, count, publish)
                    samples.setdefault(f"{kind}_{name}_records_per_s", []).append(rate)
                    alone.setdefault(f"{kind}_{name}_records_per_s", []).append(_alone(address, f"{kind}-alone", count))
                    context.progress(f"  {name}, {kind}: {rate:,.0f} records a second")
    return [
        figure(name, values, "records/s", "higher", references={"database_alone": alone[name]})
        for name, values in samples.items()
    ]


def _measure(ingester: Ingester, broker: Mosquitto, address: str, thing: str, count: int, publish: Publish) -> float:
    ingester.start()
    ingester.stop()
    with Publisher(broker.port) as publisher:
        publish(publisher, thing, count)
        publisher.settle()
    begin = time.monotonic()
    ingester.start()
    store = opener(address)(False)
    try:
        while _stored(store, thing) < count:
            if time.monotonic() - begin > 120:
                raise NoFigure(f"{_stored(store, thing)} of {count} records were stored")
            time.sleep(0.05)
        return count / (time.monotonic() - begin)
    finally:
        store.close()
        ingester.stop()


def _alone(address: str, thing: str, count: int) -> float:
    store = opener(address)(True)
    try:
        begin = time.monotonic()
        for first in range(1, count + 1, 1000):
            seqs = range(first, min(first + 1000, count + 1))
            store.commit(Batch([Record(f"dt/{thing}/temp", PAYLOAD, 1, thing, 1, seq, 1) for seq in seqs]))
        return count / (time.monotonic() - begin)
    finally:
        store.close()


def _stored(store: Store, thing: str) -> int:
    return sum(one.count for one in store.losses(thing))


def _singles(publisher: Publisher, thing: str, count: int) -> None:
    for seq in range(1, count + 1):
        publisher.reading(thing, 1, seq)


def _batches(publisher: Publisher, thing: str, count: int) -> None:
    for first in range(1, count + 1, BATCH_ROWS):
        rows = [
            {"topic": f"dt/{thing}/temp", "thing": thing, "boot": 1, "seq": seq, "t": 1, "payload": PAYLOAD.decode()}
            for seq in range(first, min(first + BATCH_ROWS, count + 1))
        ]
        publisher.publish("batch/gw/s", ndjson(rows), content_type="application/x-ndjson")
