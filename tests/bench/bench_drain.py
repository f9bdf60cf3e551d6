"""How fast a backlog goes to the cloud when it is back: 100,000 records on disk, to a mosquitto over TLS.

The reference is mosquitto's own bridge, which has the same backlog in its memory. The gateway and the bridge have one
core each in turn, the cloud's broker and the counter the other. The clock runs from the cloud's return for the first
record, and from the first to the last for the rate. Backlogs are made by the log itself, as a gateway would have.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from edge.log import Log, LogOptions
from edge.outbox.outbox import segment_bytes
from edge.outbox.record import VERSION, encode
from edge.outbox.report import FOLDER
from edge_tools.mosquitto import Mosquitto
from edge_tools.pki import Credential, issue_client, issue_server, make_ca
from tests.bench.bench_relay import on_the_others_core
from tests.bench.figures import Context, Figure, NoFigure, check_all_arrived, figure, times
from tests.bench.relay.contenders import (
    BROKER_OPTIONS,
    OTHERS_CORE,
    WINDOW,
    BridgeRelay,
    Contender,
    ProcessRelay,
    edge_run,
    on_core,
)
from tests.bench.relay.raw import HOST, TOPIC, Counter, Publisher, numbers, packet_bytes, payload

DESCRIPTION = "a backlog of 100,000 records drained to mosquitto over TLS, beside its bridge draining from memory"
OURS, BATCHED, BRIDGE = "edgeloop", "batched", "mosquitto_bridge"
BYTES_MAX = 256 * 1024 * 1024
COMMIT_RECORDS = 100
PATIENCE_S = 20.0


class Drained(msgspec.Struct, frozen=True):
    """Records a second from the first on, and how long the first took."""

    per_s: float
    first_s: float


def run(context: Context) -> list[Figure]:
    authority = make_ca(context.workdir / "ca")
    server = issue_server(authority, context.workdir / "server", [HOST])
    client = issue_client(authority, context.workdir / "client", "relay")
    count = context.pick(100_000, 20_000)
    with (
        on_the_others_core(),
        Mosquitto(context.folder("cloud"), tls=server, options=BROKER_OPTIONS, prefix=on_core(OTHERS_CORE)) as cloud,
    ):
        turns: dict[str, Callable[[], Drained]] = {
            OURS: lambda: _ours(context, cloud, client, count, ""),
            BATCHED: lambda: _ours(context, cloud, client, count, 'format = "ndjson"\n'),
            BRIDGE: lambda: _bridge(context, cloud, client, count),
        }
        found = context.interleaved(turns)
    rates = {who: [one.per_s for one in runs] for who, runs in found.items()}
    single = {"message_by_message": rates[OURS], BRIDGE: rates[BRIDGE]}
    return [
        figure(
            "drain_msgs_per_s",
            rates[OURS],
            "msg/s",
            "higher",
            goal=times(0.9, BRIDGE),
            references={BRIDGE: rates[BRIDGE]},
        ),
        figure(
            "drain_batched_records_per_s",
            rates[BATCHED],
            "records/s",
            "higher",
            goal=times(3, "message_by_message"),
            references=single,
        ),
        figure(
            "first_record_s",
            [one.first_s for one in found[OURS]],
            "s",
            "lower",
            goal=1.0,
            references={BRIDGE: [one.first_s for one in found[BRIDGE]]},
        ),
    ]


def make_backlog(folder: Path, name: str, count: int) -> None:
    """A stream's log as a gateway that was cut off leaves it."""
    log = Log.open(str(folder / FOLDER / name), options=LogOptions(segment_bytes=segment_bytes(BYTES_MAX), sync=False))
    taken_ms = int(time.monotonic() * 1000)
    for begin in range(0, count, COMMIT_RECORDS):
        some = range(begin, min(begin + COMMIT_RECORDS, count))
        log.append([encode((VERSION, 1, taken_ms, TOPIC, payload(number), 1, None, None)) for number in some])
        log.commit()
    log.close()


def draining_gateway(cloud_port: int, credential: Credential, folder: Path, more: str) -> ProcessRelay:
    files = {"ca": credential.ca, "certificate": credential.certificate, "key": credential.key}
    tls = "".join(f"{name} = {json.dumps(str(path))}\n" for name, path in files.items())
    text = f"""
[gateway]
name = "relay"
data_dir = {json.dumps(str(folder))}

[cloud]
host = "{HOST}"
port = {cloud_port}
window = {WINDOW}
session_expiry_s = 0
backoff_s_min = 0.2
backoff_s_max = 0.5
{tls}

[[stream]]
name = "bench"
bytes_max = {BYTES_MAX}
{more}
"""
    return edge_run(text, folder, 0)


def _ours(context: Context, cloud: Mosquitto, credential: Credential, count: int, more: str) -> Drained:
    folder = context.folder("gateway")
    make_backlog(folder, "bench", count)
    relay = draining_gateway(cloud.tls_port, credential, folder, more)
    cloud.stop()
    relay.start()
    try:
        time.sleep(1.5)  # it finds nobody, and tries again for a while
        return _measure(cloud, count, "#" if more else "bench/#", batched=bool(more))
    finally:
        relay.stop()


def _measure(cloud: Mosquitto, count: int, topic: str, *, batched: bool) -> Drained:
    cloud.start()
    began = time.monotonic()
    counter = Counter(cloud.port, "counter", topic)
    counter.start()
    try:
        first = _first(counter)
        if batched:
            last, found = first, 0
            while found < count and time.monotonic() < last + PATIENCE_S:
                counter.receive(counter.bytes + 1, PATIENCE_S)
                found = counter.lines()
                last = time.monotonic()
            check_all_arrived("drained", count, found)
        else:
            last = counter.receive(count * packet_bytes(), PATIENCE_S)
            check_all_arrived("drained", count, len(set(numbers(counter.found()))))
        return Drained(count / (last - first), first - began)
    finally:
        counter.close()


def _first(counter: Counter) -> float:
    """When the first bytes came."""
    last = counter.receive(1, PATIENCE_S)
    if not counter.bytes:
        raise NoFigure("nothing came")
    return last


def _bridge(context: Context, cloud: Mosquitto, credential: Credential, count: int) -> Drained:
    relay: Contender = BridgeRelay(context.folder("bridge"), cloud, cloud.tls_port, credential)
    relay.start()
    try:
        publisher = Publisher(relay.local_port, "publisher")
        probe = Counter(cloud.port, "probe", "bench/#")
        publisher.publish([0])
        probe.receive(packet_bytes(), PATIENCE_S)
        probe.close()
        cloud.stop()
        publisher.publish(range(count))
        publisher.close()
        return _measure(cloud, count, "bench/#", batched=False)
    finally:
        relay.stop()
