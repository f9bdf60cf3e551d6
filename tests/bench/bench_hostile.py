"""What the hostile functions beside it add to the relay's delay: QoS 1, 100 bytes, 1,000 messages a second.

The gateway has one core, and all its functions have the same. Each attacks once a second: a fork bomb, a memory hog, a
disk filler, an endless loop, endless output, floods of large messages that are granted, of calls of another function
and of schedules, … (tests/functions/hostile);
the one that exits at import is a crash loop, started again as often as its backoff lets it. Each figure is of the
gateway that relays; `alone` is the same gateway without functions, in the same run."""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import quantiles

import msgspec

from edge_tools.mosquitto import Mosquitto
from edge_tools.pki import issue_server, make_ca
from tests.bench.figures import Context, Figure, NoFigure, check_all_arrived, figure, times
from tests.bench.relay.contenders import ROOT, ProcessRelay, gateway_of
from tests.bench.relay.flow import brokers, on_the_others_core, wait_until_it_carries
from tests.bench.relay.raw import HOST, TOPIC, Counter, Publisher, pace
from tests.functions.hostile import handled

DESCRIPTION = "the relay's delay with all the hostile functions beside it, and without"
HOSTILE = ROOT / "tests" / "functions" / "hostile"
NAMES = sorted(path.stem for path in HOSTILE.glob("[a-z]*.py"))
NEVER_READY = "exits_at_import"
READY_S = 30.0

RELAY = """
[broker]
host = "{host}"
port = {port}
tls = false
client_id = "relay-local"
session_expiry_s = 0

[[route]]
from = "broker"
topic = "bench/#"
to = ["cloud"]
"""

FUNCTION = """
[[function]]
name = "{name}"
file = "{file}"
timeout_s = {timeout_s}
memory_bytes_max = 50_000_000
publish = ["own/#"]
to = ["cloud"]
"""


class Delay(msgspec.Struct, frozen=True):
    """Of one run, in ms."""

    p50: float
    p99: float


def run(context: Context) -> list[Figure]:
    server = issue_server(make_ca(context.workdir / "ca"), context.workdir / "server", [HOST])
    count = context.pick(15_000, 3_000)
    functions = "".join(_section(name) for name in NAMES)
    with on_the_others_core(), brokers(context, server) as (local, cloud):

        def turn(sections: str) -> Callable[[], Delay]:
            def measured() -> Delay:
                folder = context.folder("gateway")
                relay = gateway_of(
                    cloud.port, None, folder, RELAY.format(host=HOST, port=local.port) + sections, local.port
                )
                return _measure(relay, local, cloud, count, attacked=folder if sections else None)

            return measured

        results = context.interleaved({"hostile": turn(functions), "alone": turn("")})

    def one(name: str, field: str, factor: float | None) -> Figure:
        samples = {who: [getattr(delay, field) for delay in delays] for who, delays in results.items()}
        hostile = samples.pop("hostile")
        goal = None if factor is None else times(factor, "alone")
        return figure(name, hostile, "ms", "lower", goal=goal, references=samples)

    return [one("delay_ms_p50", "p50", None), one("delay_ms_p99", "p99", 2.0)]


def _section(name: str) -> str:
    """Who floods is left alone: its answers wait behind its flood."""
    file = HOSTILE / f"{name}.py"
    section = FUNCTION.format(name=name, file=file, timeout_s=60 if name in {"floods", "invokes"} else 2)
    return section + handled(name, file, 'every = "1 s"\n')


def _measure(relay: ProcessRelay, local: Mosquitto, cloud: Mosquitto, count: int, attacked: Path | None) -> Delay:
    relay.start()
    counter = Counter(cloud.port, "counter", "bench/#")
    publisher = Publisher(relay.local_port, "publisher")
    direct: Counter | None = None
    try:
        wait_until_it_carries(publisher, counter)
        if attacked is not None:
            _wait_for_attacks(attacked / "log")
        direct = Counter(relay.local_port, "direct", TOPIC)
        here, there = pace(publisher, [direct, counter], count, 0.001)
        check_all_arrived("paced", count, len(there))
        added = quantiles([(there[number] - here[number]) / 1e6 for number in there], n=100)
        return Delay(added[49], added[98])
    finally:
        counter.close()
        publisher.close()
        if direct is not None:
            direct.close()
        relay.stop()


def _wait_for_attacks(log: Path) -> None:
    """Until all are ready and have been called, and the one that never is has crashed."""
    end = time.monotonic() + READY_S
    while not _all_attack(log.read_text(errors="replace")):
        if time.monotonic() > end:
            raise NoFigure("not all functions were ready to attack")
        time.sleep(0.1)
    time.sleep(1)


def _all_attack(log: str) -> bool:
    crashed = any("function_worker_ended" in line and NEVER_READY in line for line in log.splitlines())
    return crashed and log.count("function_ready") >= len(NAMES)  # one never is, one has another that it calls
