"""What it costs to carry a message when it is on disk before its source is told so.

The `relay` bench's way from a local mosquitto to the cloud's, with a stream between, beside mosquitto's bridge, which
keeps nothing. And the time a board waits for its PUBACK at 1,000 readings a second, beside one sync of this disk.
"""

import os
import selectors
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles

import msgspec

from edge_tools.pki import issue_server, make_ca
from tests.bench.bench_relay import Flow, brokers, measure, on_the_others_core
from tests.bench.figures import Context, Figure, NoFigure, figure, times
from tests.bench.relay.contenders import BridgeRelay, Contender, durable_gateway, durable_gateway_with_boards
from tests.bench.relay.ports import Port
from tests.bench.relay.raw import HOST

DESCRIPTION = "the relay bench with a durable stream: PUBACK after the commit"
OURS = "edgeloop"
INTERVAL_S = 0.001
ALLOWED_MS = 5.0
SYNCS = 200
SYNC_BYTES = 4096


class Wait(msgspec.Struct, frozen=True):
    """From a reading's writing to its PUBACK, and one sync of this disk, in ms."""

    p99: float
    sync: float


def run(context: Context) -> list[Figure]:
    authority = make_ca(context.workdir / "ca")
    server = issue_server(authority, context.workdir / "server", [HOST])
    count = context.pick(100_000, 15_000)
    with on_the_others_core(), brokers(context, server) as (local, cloud):
        makers: dict[str, Callable[[], Contender]] = {
            OURS: lambda: durable_gateway(local, cloud.port, context.folder("gateway")),
            "mosquitto_bridge": lambda: BridgeRelay(context.folder("bridge"), cloud, cloud.port, None),
        }
        flows = context.interleaved(
            {name: lambda make=make: measure(make(), cloud, count, 0) for name, make in makers.items()}
        )
        context.progress("  PUBACK of a board's readings")
        waits = context.interleaved({OURS: lambda: _wait(context, cloud.port, context.pick(5_000, 1_500))})[OURS]
    return [*_relay_figures(flows), _wait_figure(waits)]


def _relay_figures(flows: dict[str, list[Flow]]) -> list[Figure]:
    rates = {who: [flow.msgs_per_s for flow in runs] for who, runs in flows.items()}
    spent = {who: [flow.cpu_s_per_100k for flow in runs] for who, runs in flows.items()}
    ours, our_cpu = rates.pop(OURS), spent.pop(OURS)
    rate, cpu = times(0.9, "mosquitto_bridge"), times(1.7, "mosquitto_bridge")
    return [
        figure("broker_msgs_per_s", ours, "msg/s", "higher", goal=rate, references=rates),
        figure("broker_cpu_s_per_100k", our_cpu, "s", "lower", goal=cpu, references=spent),
    ]


def _wait_figure(waits: list[Wait]) -> Figure:
    syncs = {"sync_ms": [wait.sync for wait in waits]}
    p99 = [wait.p99 for wait in waits]
    goal: Callable[..., float] = lambda references: references["sync_ms"] + ALLOWED_MS  # noqa: E731
    return figure("puback_ms_p99", p99, "ms", "lower", goal=goal, references=syncs)


def _wait(context: Context, cloud_port: int, count: int) -> Wait:
    folder = context.folder("gateway")
    port = Port("board0")
    relay = durable_gateway_with_boards([port], cloud_port, folder)
    relay.start()
    try:
        port.connect()
        port.load(range(count))
        waited = _pace(port, count)
    finally:
        relay.stop()
        port.close()
    return Wait(quantiles(waited, n=100)[98], _sync_ms(folder))


def _pace(port: Port, count: int) -> list[float]:
    """One reading each interval; returns how long each waited for its PUBACK, in ms."""
    sent: list[float] = []
    waited: list[float] = []
    with selectors.DefaultSelector() as selector:
        selector.register(port, selectors.EVENT_READ)
        due = time.monotonic()
        while len(waited) < count:
            now = time.monotonic()
            if len(sent) < count and now >= due:
                port.send_one(len(sent))
                sent.append(now)
                due += INTERVAL_S
            if selector.select(max(due - time.monotonic(), 0) if len(sent) < count else 5.0):
                before = port.acknowledged
                port.receive()
                now = time.monotonic()
                waited += [1000 * (now - at) for at in sent[before : port.acknowledged]]
            elif len(sent) == count:
                raise NoFigure("the gateway acknowledges nothing")
    return waited


def _sync_ms(folder: Path) -> float:
    """The median of one small write and its fdatasync in a file that has its blocks."""
    fd = os.open(folder / "sync", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.pwrite(fd, bytes(SYNCS * SYNC_BYTES), 0)
        os.fsync(fd)
        took: list[float] = []
        for place in range(SYNCS):
            began = time.monotonic()
            os.pwrite(fd, b"x" * SYNC_BYTES, place * SYNC_BYTES)
            os.fdatasync(fd)
            took.append(1000 * (time.monotonic() - began))
        return median(took)
    finally:
        os.close(fd)
