"""One run of one contender of the relay bench: messages published to a local broker, counted at the cloud's."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import quantiles

import msgspec

from edge_tools.mosquitto import Mosquitto
from edge_tools.pki import Credential
from tests.bench.figures import Context, NoFigure, check_all_arrived
from tests.bench.processes import cpu_s, pss_mb
from tests.bench.relay.contenders import BROKER_OPTIONS, CORES, OTHERS_CORE, RELAY_CORE, Contender, on_core
from tests.bench.relay.raw import TOPIC, Counter, Publisher, check_in_order, numbers, pace, packet_bytes

READY_S = 20.0
QUIET_S = 10.0
SETTLING_S = 0.15


class Flow(msgspec.Struct, frozen=True):
    """One run of one contender."""

    msgs_per_s: float
    cpu_s_per_100k: float
    pss_mb: float
    delay_ms_p50: float
    delay_ms_p99: float


@contextmanager
def on_the_others_core() -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {CORES[OTHERS_CORE % len(CORES)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def brokers(context: Context, server: Credential | None) -> Iterator[tuple[Mosquitto, Mosquitto]]:
    with (
        Mosquitto(context.folder("local"), options=BROKER_OPTIONS, prefix=on_core(RELAY_CORE)) as local,
        Mosquitto(context.folder("cloud"), tls=server, options=BROKER_OPTIONS, prefix=on_core(OTHERS_CORE)) as cloud,
    ):
        yield local, cloud


def measure(relay: Contender, cloud: Mosquitto, count: int, paced: int) -> Flow:
    relay.start()
    counter = Counter(cloud.port, "counter", "bench/#")
    publisher: Publisher | None = None
    try:
        publisher = Publisher(relay.local_port, "publisher")
        wait_until_it_carries(publisher, counter)
        p50, p99 = _delay(relay, publisher, counter, paced) if paced else (0.0, 0.0)
        rate, cpu = _throughput(relay, publisher, counter, count)
        return Flow(rate, cpu * 100_000 / count, pss_mb(relay.pid), p50, p99)
    finally:
        relay.release()
        counter.close()
        if publisher is not None:
            publisher.close()
        relay.stop()


def wait_until_it_carries(publisher: Publisher, counter: Counter) -> None:
    end = time.monotonic() + READY_S
    counter.start()
    while not counter.bytes:
        if time.monotonic() > end:
            raise NoFigure("the relay carried nothing")
        publisher.publish([0])
        counter.receive(1, 0.1)
    counter.receive(1 << 40, 0.12)


def _throughput(relay: Contender, publisher: Publisher, counter: Counter, count: int) -> tuple[float, float]:
    """Messages a second, and the relay's CPU seconds for all of them."""
    counter.start()
    relay.hold()
    publisher.publish(range(1, count + 1))
    before_s = cpu_s(relay.pid)
    began = time.monotonic()
    relay.release()
    ended = counter.receive(count * packet_bytes(), QUIET_S)
    time.sleep(SETTLING_S)  # what was carried is still to be acknowledged to the local broker
    spent_s = cpu_s(relay.pid) - before_s
    found = numbers(counter.found())
    check_all_arrived("relayed", count, len(set(found)))
    check_in_order("relayed", found)
    return count / (ended - began), spent_s


def _delay(relay: Contender, publisher: Publisher, counter: Counter, count: int) -> tuple[float, float]:
    """Median and 99th percentile of what the relay adds, in ms, at 1,000 messages a second: the time from a message's
    arrival at a subscriber of the local broker to its arrival at one of the cloud."""
    direct = Counter(relay.local_port, "direct", TOPIC)
    try:
        here, there = pace(publisher, [direct, counter], count, 0.001)
    finally:
        direct.close()
    check_all_arrived("paced", count, len(there))
    added = [(there[number] - here[number]) / 1e6 for number in there]
    cuts = quantiles(added, n=100)
    return cuts[49], cuts[98]
