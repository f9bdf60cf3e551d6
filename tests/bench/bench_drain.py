<<<<<<< HEAD
"""How fast a backlog leaves when the broker is back: 100,000 readings to mosquitto over TLS.

Ours: a gateway that has them in a stream on disk, as boards' readings of 100 bytes; beside it mosquitto's bridge, which
has as many messages in memory. Each is started while the cloud's broker is away, and waits for it. Then the broker is
started. first_record_s: from the moment its start is asked for to the first message at a subscriber of it. The rates
run from there to the last one, so neither holds the wait for the connection. The relay has one core; the broker and
the subscriber have the other.

Both try to connect at intervals as one would choose for a broker near by: ours with backoff_s_max = 0.8 (the default,
60 s, spreads a fleet that comes back to one cloud; then the first record may take so long), the bridge with
restart_timeout 1, the least it takes.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
=======
"""How fast a backlog goes to the cloud when it is back: 100,000 records on disk, to a mosquitto over TLS.

The reference is mosquitto's own bridge, which has the same backlog in its memory. The gateway and the bridge have one
core each in turn, the cloud's broker and the counter the other. The clock runs from the cloud's return for the first
record, and from the first to the last for the rate. Backlogs are made by the log itself, as a gateway would have.
"""

import json
import time
from collections.abc import Callable
>>>>>>> outbox
from pathlib import Path

import msgspec

<<<<<<< HEAD
from edge.mqtt import packets as p
from edge_tools.mosquitto import Mosquitto
from edge_tools.pki import Credential, issue_client, issue_server, make_ca
from tests.bench.backlog import build_backlog, copy_backlog, stream_section
=======
from edge.log import Log, LogOptions
from edge.outbox.outbox import segment_bytes
from edge.outbox.record import VERSION, encode
from edge.outbox.report import FOLDER
from edge_tools.mosquitto import Mosquitto
from edge_tools.pki import Credential, issue_client, issue_server, make_ca
from tests.bench.bench_relay import on_the_others_core
>>>>>>> outbox
from tests.bench.figures import Context, Figure, NoFigure, check_all_arrived, figure, times
from tests.bench.relay.contenders import (
    BROKER_OPTIONS,
    OTHERS_CORE,
<<<<<<< HEAD
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
READY_S, FIRST_S, QUIET_S, AWAY_S = 10.0, 15.0, 0.5, 1.0


class Drained(msgspec.Struct, frozen=True):
    records_per_s: float
    first_record_s: float


class _Row(msgspec.Struct):
    payload: str


_rows = msgspec.json.Decoder(_Row).decode_lines
=======
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
>>>>>>> outbox


def run(context: Context) -> list[Figure]:
    authority = make_ca(context.workdir / "ca")
    server = issue_server(authority, context.workdir / "server", [HOST])
    client = issue_client(authority, context.workdir / "client", "relay")
<<<<<<< HEAD
    cloud = Mosquitto(context.folder("cloud"), tls=server, options=BROKER_OPTIONS, prefix=on_core(OTHERS_CORE))
    count = context.pick(100_000, 40_000)
    with on_the_others_core(), cloud:
        cloud.stop()  # from now on it has its ports
        made = context.folder("backlog")
        build_backlog(made, count)
        batched = ('format = "ndjson"', f'batch_topic = "{BATCH_TOPIC}"')
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
=======
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
>>>>>>> outbox
        figure(
            "drain_batched_records_per_s",
            rates[BATCHED],
            "records/s",
            "higher",
<<<<<<< HEAD
            goal=times(3, EACH),
            references={EACH: rates[EACH], **bridge_rates},
        ),
        figure("first_record_s", waits[EACH], "s", "lower", goal=1.0, references=bridge_waits),
    ]
=======
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
>>>>>>> outbox
