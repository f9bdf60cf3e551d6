"""What it costs to store a message before it is acknowledged, and send it on: the `relay` bench with a durable stream.

Throughput and CPU as in `relay`: a local mosquitto holds QoS 1 messages of 100 bytes, the gateway takes them into a
stream with `commit = "every message"` on this disk, acknowledges each to the local broker only after the commit that
holds it, and sends it on to the broker that stands for the cloud. mosquitto's bridge beside it keeps nothing.
puback_ms: eight boards on serial lines (ptys) send a reading each in turn, 1,000 a second in all, to the same kind of
stream; from a reading's first byte on the line to the board's having read the gateway's PUBACK. All the while the
stream is sent on. The reference is one fdatasync of 4 KiB over allocated blocks of the same disk, in the same turn.
"""

import os
import time
from statistics import median, quantiles

import msgspec

from edge_tools.mosquitto import Mosquitto
from edge_tools.pki import issue_server, make_ca
from tests.bench.figures import Context, Figure, NoFigure, check_all_arrived, figure, times
from tests.bench.relay.contenders import BridgeRelay, gateway, gateway_with_boards
from tests.bench.relay.flow import QUIET_S, Flow, brokers, measure, on_the_others_core
from tests.bench.relay.ports import Port, pace_readings
from tests.bench.relay.raw import HOST, Counter, check_in_order, numbers, packet_bytes

DESCRIPTION = "the relay bench with a durable stream, PUBACK after the commit, beside mosquitto's bridge"
OURS, BRIDGE = "edgeloop", "mosquitto_bridge"
PORTS = 8
READINGS_PER_S = 1000
SYNCS, SYNC_BYTES = 200, 4096
SLACK_MS = 5


class Answers(msgspec.Struct, frozen=True):
    """How long readings took to be acknowledged, and one sync."""

    ms_p50: float
    ms_p99: float
    sync_ms: float
    sync_ms_p99: float


def run(context: Context) -> list[Figure]:
    server = issue_server(make_ca(context.workdir / "ca"), context.workdir / "server", [HOST])
    count = context.pick(100_000, 20_000)
    with on_the_others_core(), brokers(context, server) as (local, cloud):
        flows = context.interleaved(
            {
                OURS: lambda: measure(
                    gateway(local, cloud.port, context.folder("gateway"), durable=True), cloud, count, 0
                ),
                BRIDGE: lambda: measure(
                    BridgeRelay(context.folder("bridge"), cloud, cloud.port, None), cloud, count, 0
                ),
            }
        )
        context.progress("  readings acknowledged")
        answers = context.interleaved({OURS: lambda: _measure_answers(context, cloud)})[OURS]
    return [*_flow_figures(flows), *_answer_figures(answers)]


def _measure_answers(context: Context, cloud: Mosquitto) -> Answers:
    count = context.pick(10_000, 2_400) // PORTS
    ports = [Port(f"board{number}") for number in range(PORTS)]
    relay = gateway_with_boards(ports, cloud.port, context.folder("gateway"), None, durable=True)
    counter = Counter(cloud.port, "counter", "bench/#")
    syncs = _syncs_ms(context)
    relay.start()
    try:
        for place, port in enumerate(ports):
            port.connect()
            port.load(range(place * count, (place + 1) * count))
        counter.start()
        delays = pace_readings(ports, 1 / READINGS_PER_S, QUIET_S)
        counter.receive(count * PORTS * packet_bytes(ports[0].topic), QUIET_S)
        found = counter.found()
    finally:
        relay.stop()
        counter.close()
        for port in ports:
            port.close()
    for port in ports:
        arrived = numbers([one for one in found if one.topic == port.topic])
        check_all_arrived(f"readings of {port.name}", count, len(set(arrived)))
        check_in_order(f"readings of {port.name}", arrived)
    cuts = quantiles(delays, n=100)
    return Answers(cuts[49], cuts[98], median(syncs), quantiles(syncs, n=100)[98])


def _syncs_ms(context: Context) -> list[float]:
    """How long one takes: the plainest durable write there is."""
    taken = []
    file = os.open(context.folder("sync") / "file", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    try:
        os.posix_fallocate(file, 0, (SYNCS + 1) * SYNC_BYTES)
        os.fsync(file)
        for place in range(SYNCS):
            data = os.urandom(SYNC_BYTES)
            began = time.perf_counter()
            os.pwrite(file, data, place * SYNC_BYTES)
            os.fdatasync(file)
            taken.append((time.perf_counter() - began) * 1000)
    except OSError as error:
        raise NoFigure(f"the disk: {error.strerror}") from None
    finally:
        os.close(file)
    return taken


def _flow_figures(flows: dict[str, list[Flow]]) -> list[Figure]:
    rates = {who: [one.msgs_per_s for one in runs] for who, runs in flows.items()}
    spent = {who: [one.cpu_s_per_100k for one in runs] for who, runs in flows.items()}
    our_rates, our_spent = rates.pop(OURS), spent.pop(OURS)
    return [
        figure("broker_msgs_per_s", our_rates, "msg/s", "higher", goal=times(0.9, BRIDGE), references=rates),
        figure("broker_cpu_s_per_100k", our_spent, "s", "lower", goal=times(1.7, BRIDGE), references=spent),
    ]


def _answer_figures(answers: list[Answers]) -> list[Figure]:
    syncs = {"sync_ms": [one.sync_ms for one in answers], "sync_ms_p99": [one.sync_ms_p99 for one in answers]}
    half, last = [one.ms_p50 for one in answers], [one.ms_p99 for one in answers]
    return [
        figure("puback_ms_p50", half, "ms", "lower", references=syncs),
        figure("puback_ms_p99", last, "ms", "lower", goal=lambda of: of["sync_ms"] + SLACK_MS, references=syncs),
    ]
