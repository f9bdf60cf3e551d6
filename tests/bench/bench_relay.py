"""What it costs to carry a message: QoS 1, 100 bytes, from a local mosquitto to one that stands for the cloud.

The gateway's side has one core, the relay and the local broker on it (the bridge is both in one process); the cloud's
broker and the raw clients that drive all this have the other. CPU and memory are the relay's alone. For the throughput
everything waits in the local broker first; the clock and the CPU time run from the moment the relay (for the bridge:
the cloud) is let go until the last message has arrived. So no figure holds the work of taking the messages in.
"""

import time
from collections.abc import Callable

import msgspec

from edge_tools.mosquitto import Mosquitto
from edge_tools.pki import Credential, issue_client, issue_server, make_ca
from tests.bench.figures import Context, Figure, Goal, check_all_arrived, figure, times
from tests.bench.processes import cpu_s
from tests.bench.relay.contenders import BridgeRelay, Contender, gateway, gateway_with_boards, script
from tests.bench.relay.flow import QUIET_S, SETTLING_S, Flow, brokers, measure, on_the_others_core
from tests.bench.relay.ports import Port, serve
from tests.bench.relay.raw import HOST, Counter, numbers, packet_bytes

DESCRIPTION = "QoS 1 messages of 100 bytes relayed to a mosquitto, beside its own bridge, gmqtt and paho"
OURS = "edgeloop"
PORTS = 8
SLOWER = {"gmqtt": 2, "paho": 4}  # so many times fewer messages for the same time


class Frames(msgspec.Struct, frozen=True):
    """One run of one contender over TLS: ours from eight ports of frames, the references from a local broker."""

    msgs_per_s: float
    cpu_s_per_100k: float


def run(context: Context) -> list[Figure]:
    authority = make_ca(context.workdir / "ca")
    server = issue_server(authority, context.workdir / "server", [HOST])
    client = issue_client(authority, context.workdir / "client", "relay")
    with on_the_others_core(), brokers(context, server) as (local, cloud):
        plain = context.interleaved(_contenders(context, local, cloud))
        context.progress("  frames in, TLS out")
        secure = context.interleaved(
            {OURS: lambda: _measure_frames(context, cloud, client), **_tls_references(context, local, cloud, client)}
        )
    return [*_broker_figures(plain), *_frames_figures(secure)]


def _references(
    context: Context, local: Mosquitto, cloud: Mosquitto, credential: Credential | None
) -> dict[str, Callable[[], Contender]]:
    port = cloud.port if credential is None else cloud.tls_port
    return {
        "mosquitto_bridge": lambda: BridgeRelay(context.folder("bridge"), cloud, port, credential),
        "gmqtt": lambda: script("gmqtt", local, port, context.folder("gmqtt"), credential),
        "paho": lambda: script("paho", local, port, context.folder("paho"), credential),
    }


def _contenders(context: Context, local: Mosquitto, cloud: Mosquitto) -> dict[str, Callable[[], Flow]]:
    makers: dict[str, Callable[[], Contender]] = {
        OURS: lambda: gateway(local, cloud.port, context.folder("gateway")),
        **_references(context, local, cloud, None),
    }
    count, paced = context.pick(100_000, 15_000), context.pick(5_000, 1_200)

    def turn(name: str, make: Callable[[], Contender]) -> Callable[[], Flow]:
        return lambda: measure(make(), cloud, count // SLOWER.get(name, 1), paced)

    return {name: turn(name, make) for name, make in makers.items()}


def _tls_references(
    context: Context, local: Mosquitto, cloud: Mosquitto, credential: Credential
) -> dict[str, Callable[[], Frames]]:
    count = context.pick(100_000, 10_000)

    def turn(name: str, make: Callable[[], Contender]) -> Callable[[], Frames]:
        def measured() -> Frames:
            flow = measure(make(), cloud, count // SLOWER.get(name, 1), 0)
            return Frames(flow.msgs_per_s, flow.cpu_s_per_100k)

        return measured

    return {name: turn(name, make) for name, make in _references(context, local, cloud, credential).items()}


def _measure_frames(context: Context, cloud: Mosquitto, credential: Credential) -> Frames:
    """Ours. The boards' ends of the lines are on the others' core; the clock runs from their first reading on."""
    count = context.pick(100_000, 10_000) // PORTS
    ports = [Port(f"board{number}") for number in range(PORTS)]
    relay = gateway_with_boards(ports, cloud.tls_port, context.folder("gateway"), credential)
    counter = Counter(cloud.port, "counter", "bench/#")
    relay.start()
    try:
        for place, port in enumerate(ports):
            port.connect()
            port.load(range(place * count, (place + 1) * count))
        counter.start()
        before_s, began = cpu_s(relay.pid), time.monotonic()
        ended = serve(ports, counter, count * PORTS * packet_bytes(ports[0].topic), QUIET_S)
        time.sleep(SETTLING_S)
        spent_s = cpu_s(relay.pid) - before_s
        check_all_arrived("readings", count * PORTS, len(set(numbers(counter.found()))))
        return Frames(count * PORTS / (ended - began), spent_s * 100_000 / (count * PORTS))
    finally:
        relay.stop()
        counter.close()
        for port in ports:
            port.close()


def _broker_figures(results: dict[str, list[Flow]]) -> list[Figure]:
    def one(name: str, field: str, unit: str, goal: Goal | None, *, higher: bool = False) -> Figure:
        samples = {who: [getattr(flow, field) for flow in flows] for who, flows in results.items()}
        ours = samples.pop(OURS)
        return figure(name, ours, unit, "higher" if higher else "lower", goal=goal, references=samples)

    return [
        one("broker_msgs_per_s", "msgs_per_s", "msg/s", times(0.9, "mosquitto_bridge"), higher=True),
        one("broker_cpu_s_per_100k", "cpu_s_per_100k", "s", times(0.55, "gmqtt")),
        one("delay_ms_p50", "delay_ms_p50", "ms", None),
        one("delay_ms_p99", "delay_ms_p99", "ms", times(1.0, "gmqtt")),
        one("pss_mb", "pss_mb", "MB", 24.0),
    ]


def _frames_figures(results: dict[str, list[Frames]]) -> list[Figure]:
    rates = {who: [one.msgs_per_s for one in runs] for who, runs in results.items()}
    spent = {who: [one.cpu_s_per_100k for one in runs] for who, runs in results.items()}
    our_rates, our_spent = rates.pop(OURS), spent.pop(OURS)
    half, third = times(0.5, "mosquitto_bridge"), times(1 / 3, "paho")
    return [
        figure("frames_msgs_per_s", our_rates, "msg/s", "higher", goal=half, references=rates),
        figure("frames_cpu_s_per_100k", our_spent, "s", "lower", goal=third, references=spent),
    ]
