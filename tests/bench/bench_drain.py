"""How fast a backlog leaves when the broker is back: 100,000 readings to mosquitto over TLS.

Ours: a gateway that has them in a stream on disk, as boards' readings of 100 bytes; beside it mosquitto's bridge, which
has as many messages in memory. Each is started while the cloud's broker is away, and waits for it. Then the broker is
started. first_record_s: from the moment its start is asked for to the first message at a subscriber of it. The rates
run from there to the last one, so neither holds the wait for the connection. The relay has one core; the broker and
the subscriber have the other.

Both try to connect at intervals as one would choose for a broker near by: ours with backoff_s_max = 0.8 (the default,
5 s, spreads a fleet that comes back to one cloud; then the first record may take so long), the bridge with
restart_timeout 1, the least it takes.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from edge.mqtt import packets as p
from edge_tools.mosquitto import Mosquitto
from edge_tools.pki import Credential, issue_client, issue_server, make_ca
from tests.bench.backlog import build_backlog, copy_backlog, stream_section
from tests.bench.figures import Context, Figure, NoFigure, check_all_arrived, figure, times
from tests.bench.relay.contenders import (
    BROKER_OPTIONS,
    OTHERS_CORE,
    BridgeRelay,
    Contender,
    gateway_of,
    on_core,
)
from tests.bench.relay.flow import on_the_others_core
from tests.bench.relay.raw import HOST, Counter, Publisher, check_in_order, number_in, numbers

DESCRIPTION = "a backlog of 100,000 readings sent to mosquitto over TLS, beside its own bridge"
BRIDGE, EACH, BATCHED = "mosquitto_bridge", "message_by_message", "batched"
NEAR = "backoff_s_min = 0.2\nbackoff_s_max = 0.8"
BATCH_TOPIC = "bench/batch"
READY_S, FIRST_S, QUIET_S, AWAY_S = 10.0, 15.0, 2.0, 1.0  # a last batch waits 1 s for more


class Drained(msgspec.Struct, frozen=True):
    records_per_s: float
    first_record_s: float


class _Row(msgspec.Struct):
    payload: str


_rows = msgspec.json.Decoder(_Row).decode_lines


def run(context: Context) -> list[Figure]:
    authority = make_ca(context.workdir / "ca")
    server = issue_server(authority, context.workdir / "server", [HOST])
    client = issue_client(authority, context.workdir / "client", "relay")
    cloud = Mosquitto(context.folder("cloud"), tls=server, options=BROKER_OPTIONS, prefix=on_core(OTHERS_CORE))
    count = context.pick(100_000, 40_000)
    with on_the_others_core(), cloud:
        cloud.stop()  # from now on it has its ports
        made = context.folder("backlog")
        build_backlog(made, count)
        batched = ('format = "ndjson"', "batch_wait_s = 0.05", f'batch_topic = "{BATCH_TOPIC}"')
        results = context.interleaved(
            {
                EACH: _ours(context, cloud, client, made, count, ()),
                BATCHED: _ours(context, cloud, client, made, count, batched),
                BRIDGE: lambda: _bridge(context, cloud, client, count),
            }
        )
    return _figures(results)


def _ours(
    context: Context, cloud: Mosquitto, client: Credential, made: Path, count: int, lines: Sequence[str]
) -> Callable[[], Drained]:
    def measured() -> Drained:
        folder = context.folder("gateway")
        copy_backlog(made, folder)
        relay = gateway_of(cloud.tls_port, client, folder, stream_section(*lines), cloud=NEAR)
        with _running(relay):
            _wait_for(folder / "control.sock")
            return _drain(relay, cloud, count)

    return measured


def _bridge(context: Context, cloud: Mosquitto, client: Credential, count: int) -> Drained:
    relay = BridgeRelay(context.folder("bridge"), cloud, cloud.tls_port, client, options=["restart_timeout 1"])
    with _running(relay):
        publisher = Publisher(relay.local_port, "publisher")
        try:
            publisher.publish(range(1, count + 1))
        finally:
            publisher.close()
        return _drain(relay, cloud, count)


@contextmanager
def _running(relay: Contender) -> Iterator[None]:
    relay.start()
    try:
        yield
    finally:
        relay.stop()


def _drain(relay: Contender, cloud: Mosquitto, count: int) -> Drained:
    """The broker comes back. The relay is held for the moment that the subscriber needs to be there first."""
    time.sleep(AWAY_S)
    counter: Counter | None = None
    try:
        os.kill(relay.pid, signal.SIGSTOP)
        began = time.monotonic()
        cloud.start()
        counter = Counter(cloud.port, "counter", "bench/#")
        os.kill(relay.pid, signal.SIGCONT)
        first = counter.receive(1, FIRST_S)
        first_bytes = counter.bytes
        if not first_bytes:
            raise NoFigure("nothing arrived after the broker's return")
        last = counter.receive(1 << 40, QUIET_S)
        found = [number for one in counter.found() for number in _numbers_in(one)]
        check_all_arrived("drained", count, len(set(found)))
        check_in_order("drained", found)
        share = 1 - first_bytes / counter.bytes
        return Drained(count * share / (last - first), first - began)
    finally:
        os.kill(relay.pid, signal.SIGCONT)
        if counter is not None:
            counter.close()
        cloud.stop()


def _numbers_in(publish: p.Publish) -> list[int]:
    if publish.topic != BATCH_TOPIC:
        return numbers([publish])
    return [number_in(row.payload.encode()) for row in _rows(publish.payload)]


def _wait_for(path: Path) -> None:
    end = time.monotonic() + READY_S
    while not path.exists():
        if time.monotonic() > end:
            raise NoFigure("the gateway does not start")
        time.sleep(0.01)


def _figures(results: dict[str, list[Drained]]) -> list[Figure]:
    rates = {who: [one.records_per_s for one in runs] for who, runs in results.items()}
    waits = {who: [one.first_record_s for one in runs] for who, runs in results.items()}
    bridge_rates, bridge_waits = {BRIDGE: rates[BRIDGE]}, {BRIDGE: waits[BRIDGE]}
    return [
        figure("drain_msgs_per_s", rates[EACH], "msg/s", "higher", goal=times(0.9, BRIDGE), references=bridge_rates),
        figure(
            "drain_batched_records_per_s",
            rates[BATCHED],
            "records/s",
            "higher",
            goal=times(3, EACH),
            references={EACH: rates[EACH], **bridge_rates},
        ),
        figure("first_record_s", waits[EACH], "s", "lower", goal=1.0, references=bridge_waits),
    ]
