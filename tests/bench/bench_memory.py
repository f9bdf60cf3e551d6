"""What a gateway with a large backlog needs: in a control group of 128 MB of memory and a third of a core.

A backlog of 10 million readings of 100 bytes (quick: 1 million) is made beforehand by the outbox itself. Then `edge
run` starts with it in the control group, connects and drains for some seconds, message by message. start_s: from the
start of the process until it logs that it has started, imports and all. pss_mb: the most seen from then on while it
drains. What arrives is checked: every reading from the first the cloud does not have on, in order, none left out; at
the end the log holds the rest. Growth: beside the same gateway with a small backlog; beside mosquitto 2.0, whose queue
for a client that is away is measured with fewer messages and scaled to a million.
Where no control group is to be had, the same is measured without, and said so on stderr.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from edge.log import Log
from edge.outbox.report import FOLDER
from edge_tools.mosquitto import Mosquitto
from edge_tools.pki import Credential, issue_client, issue_server, make_ca
from tests.bench.backlog import STREAM, build_backlog, stream_section
from tests.bench.cgroup import NoControl, limits
from tests.bench.figures import Context, Figure, NoFigure, figure
from tests.bench.processes import pss_mb
from tests.bench.relay.contenders import BROKER_OPTIONS, OTHERS_CORE, RELAY_CORE, gateway_of, on_core
from tests.bench.relay.flow import SETTLING_S, on_the_others_core
from tests.bench.relay.raw import HOST, TOPIC, Client, Counter, Publisher, check_in_order, numbers

DESCRIPTION = "memory and start with 10 million records of backlog, in 128 MB and a third of a core"
LARGE, SMALL, MOSQUITTO = "backlog", "small_backlog", "mosquitto_queue"
MEMORY_BYTES = 128 * 10**6
CORE_SHARE = 1 / 3
SAMPLE_S = 0.1
READY_S = 30.0
STARTED = b"gateway_started"


class Run(msgspec.Struct, frozen=True):
    pss_mb: float
    start_s: float = 0.0


class _Backlog:
    """A data_dir with readings 1 … count; up_to: the cloud has all up to this one."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.count, self.up_to = folder, count, 0
        build_backlog(folder, count)


def run(context: Context) -> list[Figure]:
    authority = make_ca(context.workdir / "ca")
    server = issue_server(authority, context.workdir / "server", [HOST])
    client = issue_client(authority, context.workdir / "client", "relay")
    large, small, queued = context.pick((10_000_000, 200_000, 200_000), (1_000_000, 50_000, 50_000))
    cloud = Mosquitto(context.folder("cloud"), tls=server, options=BROKER_OPTIONS, prefix=on_core(OTHERS_CORE))
    with _limited(context) as prefix, on_the_others_core(), cloud:
        context.progress(f"  building a backlog of {large:,}")
        backlogs = {LARGE: _Backlog(context.folder(LARGE), large), SMALL: _Backlog(context.folder(SMALL), small)}
        drain_s = context.pick(5.0, 2.0)
        contenders: dict[str, Callable[[], Run]] = {
            LARGE: lambda: _gateway(backlogs[LARGE], cloud, client, prefix, drain_s),
            SMALL: lambda: _gateway(backlogs[SMALL], cloud, client, prefix, drain_s / 5),
            MOSQUITTO: lambda: _mosquitto(context, queued),
        }
        results = context.interleaved(contenders)
        for backlog in backlogs.values():
            _check_rest(backlog)
    return _figures(results, large - small)


@contextmanager
def _limited(context: Context) -> Iterator[Sequence[str]]:
    with ExitStack() as stack:
        try:
            prefix = stack.enter_context(limits(MEMORY_BYTES, CORE_SHARE))
        except NoControl as reason:
            context.progress(f"  without a control group: {reason}")
            prefix = on_core(RELAY_CORE)
        yield prefix


def _gateway(backlog: _Backlog, cloud: Mosquitto, client: Credential, prefix: Sequence[str], drain_s: float) -> Run:
    counter = Counter(cloud.port, "counter", "bench/#")
    log = backlog.folder / "log"
    log.unlink(missing_ok=True)
    relay = gateway_of(cloud.tls_port, client, backlog.folder, stream_section(), prefix=prefix)
    began = time.monotonic()
    relay.start()
    try:
        started_s = _started(log) - began
        most, end = 0.0, time.monotonic() + drain_s
        while time.monotonic() < end:
            most = max(most, pss_mb(relay.pid))
            counter.receive(1 << 40, SAMPLE_S, until=time.monotonic() + SAMPLE_S)
    finally:
        relay.stop()
    try:
        counter.receive(1 << 40, SETTLING_S)
        _check_arrived(backlog, numbers(counter.found()))
    finally:
        counter.close()
    return Run(most, started_s)


def _started(log: Path) -> float:
    end = time.monotonic() + READY_S
    while not (log.exists() and STARTED in log.read_bytes()):
        if time.monotonic() > end:
            raise NoFigure("the gateway does not start")
        time.sleep(0.002)
    return time.monotonic()


def _check_arrived(backlog: _Backlog, found: Sequence[int]) -> None:
    """From the first one the cloud does not have on, none left out; earlier ones only as repeats."""
    check_in_order("drained", found)
    fresh = [number for number in dict.fromkeys(found) if number > backlog.up_to]
    if not fresh or fresh != list(range(backlog.up_to + 1, backlog.up_to + 1 + len(fresh))):
        raise NoFigure(f"drained: {len(fresh):,} readings, not the ones that follow {backlog.up_to:,}")
    backlog.up_to = fresh[-1]


def _check_rest(backlog: _Backlog) -> None:
    log = Log.open_read_only(str(backlog.folder / FOLDER / STREAM))
    first, following = log.first, log.next
    log.close()
    if first > backlog.up_to + 1 or following != backlog.count + 1:
        raise NoFigure(f"the log holds {first:,} to {following - 1:,}, the cloud 1 to {backlog.up_to:,}")


def _mosquitto(context: Context, count: int) -> Run:
    """MB a million messages: what it has more with so many queued for a client that is away than before."""
    with Mosquitto(context.folder("queue"), options=BROKER_OPTIONS, prefix=on_core(RELAY_CORE)) as broker:
        away = Client(broker.port, "away", clean_start=False)
        away.subscribe(TOPIC, qos=1)
        away.close()
        publisher = Publisher(broker.port, "publisher")
        before = pss_mb(broker.pid)
        publisher.publish(range(1, count + 1))
        grown = pss_mb(broker.pid) - before
        publisher.close()
    return Run(grown * 1e6 / count)


def _figures(results: dict[str, list[Run]], more: int) -> list[Figure]:
    large, small = results[LARGE], results[SMALL]
    grown = [(one.pss_mb - other.pss_mb) * 1e6 / more for one, other in zip(large, small, strict=True)]
    queue = {MOSQUITTO: [one.pss_mb for one in results[MOSQUITTO]]}
    starts = {SMALL: [one.start_s for one in small]}
    return [
        figure(
            "pss_mb",
            [one.pss_mb for one in large],
            "MB",
            "lower",
            goal=64,
            references={SMALL: [o.pss_mb for o in small]},
        ),
        figure("pss_growth_mb_per_million", grown, "MB", "lower", goal=2, references=queue),
        figure("start_s", [one.start_s for one in large], "s", "lower", goal=1, references=starts),
    ]
