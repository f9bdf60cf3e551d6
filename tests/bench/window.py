"""A window rule from end to end: MQTT in from a local broker, a tumbling average over 1,000 sources, MQTT out.

The gateway has a third of a core and 128 MB (a control group; without one the rate is worked out from its CPU time).
Everything waits in the local broker first; the clock runs from the moment the gateway is let go until the row of the
last window has arrived at the broker that stands for the cloud. Time is that in the payloads, so each window holds ten
messages of each source however fast they come, and every row is known beforehand: what arrives is compared byte by
byte. A row is of ten messages; at the goal a window of ten seconds would hold 240, so rows cost more here than there.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import groupby

import msgspec

from edge.mqtt import packets as p
from edge_tools.mosquitto import Mosquitto
from tests.bench.cgroup import NoControl, limits
from tests.bench.figures import Context, Figure, NoFigure, check_all_arrived, figure
from tests.bench.processes import cpu_s, pss_mb
from tests.bench.relay.contenders import RELAY_CORE, ProcessRelay, gateway_of, on_core
from tests.bench.relay.flow import QUIET_S, READY_S, SETTLING_S, brokers, on_the_others_core
from tests.bench.relay.raw import HOST, Counter, Publisher, packet_bytes, payload

MEMORY_BYTES = 128 * 10**6
CORE_SHARE = 1 / 3
GOAL = 24_000
EKUIPER = 12_000
"""What eKuiper carried on this profile (third of a core, 1,000 sources, average) when it was measured for this
project, on another day than this run: a constant, cited."""

SOURCES = 1000
TURNS = 10
PER_WINDOW = SOURCES * TURNS
STEP_MS = 100  # of event time from one number to the next
WINDOW_S = PER_WINDOW * STEP_MS // 1000
READY = "ready"
_RULE = f"""
[broker]
host = "{HOST}"
port = %d
tls = false
client_id = "rules-local"
session_expiry_s = 0

[[rule]]
name = "mean"
from = ["broker"]
to = ["cloud"]
topic = "mean/${{board}}"
time = "up_ms"
sql = "SELECT topic(2) AS board, avg(c) AS c, count(*) AS n, window_start() AS start \
FROM 'dt/+/temp' GROUP BY topic(2), TUMBLINGWINDOW(ss, {WINDOW_S})"

[[route]]
from = "broker"
topic = "{READY}"
to = ["cloud"]
"""


class Run(msgspec.Struct, frozen=True):
    msgs_per_s: float
    cpu_s_per_100k: float
    pss_mb: float


class _Fields(msgspec.Struct):
    c: float
    up_ms: int


def figures(context: Context) -> list[Figure]:
    windows = context.pick(40, 16)
    expected = _expected(windows)
    share = third_of_a_core(context, "the end-to-end rate is worked out from CPU time")
    with on_the_others_core(), brokers(context, None) as (local, cloud), share as (prefix, held):
        results = context.interleaved(
            {"end_to_end": lambda: _measure(context, local, cloud, prefix, windows, expected, held=held)}
        )["end_to_end"]
    rates, spent = [one.msgs_per_s for one in results], [one.cpu_s_per_100k for one in results]
    weights = [one.pss_mb for one in results]
    cited = {"ekuiper_cited_not_of_this_run": [float(EKUIPER)]}
    return [
        figure("window_end_to_end_msgs_per_s", rates, "1/s", "higher", goal=GOAL, references=cited),
        figure("window_end_to_end_cpu_s_per_100k", spent, "s", "lower"),
        figure("window_end_to_end_pss_mb", weights, "MB", "lower"),
    ]


@contextmanager
def third_of_a_core(context: Context, instead: str) -> Iterator[tuple[Sequence[str], bool]]:
    """The prefix of a command, and whether it holds what it runs to that share; on the relay's core either way.

    instead: what is measured where it cannot be held, for people."""
    with ExitStack() as stack:
        try:
            prefix, held = tuple(stack.enter_context(limits(MEMORY_BYTES, CORE_SHARE))), True
        except NoControl as reason:
            context.note(f"no control group to hold a third of a core ({reason}): {instead}")
            prefix, held = (), False
        yield (*prefix, *on_core(RELAY_CORE)), held


def _topic(number: int) -> str:
    return f"dt/b{number % SOURCES}/temp"


def _expected(windows: int) -> dict[str, list[bytes]]:
    """Topic to the rows of each source, in order."""
    rows: dict[str, list[bytes]] = {}
    decode = msgspec.json.Decoder(_Fields).decode
    for window in range(1, windows + 1):
        fields = [decode(payload(number)) for number in range(window * PER_WINDOW, (window + 1) * PER_WINDOW)]
        start = fields[0].up_ms
        for source in range(SOURCES):
            board, values = f"b{source}", [one.c for one in fields[source::SOURCES]]
            row = {"board": board, "c": sum(values) / len(values), "n": len(values), "start": start}
            rows.setdefault(f"mean/{board}", []).append(msgspec.json.encode(row))
    return rows


def _measure(
    context: Context,
    local: Mosquitto,
    cloud: Mosquitto,
    prefix: Sequence[str],
    windows: int,
    expected: dict[str, list[bytes]],
    *,
    held: bool,
) -> Run:
    folder = context.folder("gateway")
    relay = gateway_of(cloud.port, None, folder, _RULE % local.port, local.port, prefix=prefix)
    counter = Counter(cloud.port, "counter", "#")
    publisher = Publisher(local.port, "publisher")
    relay.start()
    try:
        _wait_until_ready(publisher, counter)
        count = windows * PER_WINDOW
        numbers = range(PER_WINDOW, PER_WINDOW + count + 1)  # the last one closes the last window
        size = sum(packet_bytes(topic, len(row)) for topic, rows in expected.items() for row in rows)
        counter.start()
        relay.hold()
        publisher.publish(numbers, _topic)
        before_s, began = cpu_s(relay.pid), time.monotonic()
        relay.release()
        ended = counter.receive(size, QUIET_S)
        time.sleep(SETTLING_S)
        spent_s = cpu_s(relay.pid) - before_s
        _check_rows(counter.found(), expected)
        took_s = ended - began if held else spent_s / CORE_SHARE
        return Run(count / took_s, spent_s * 100_000 / count, pss_mb(relay.pid))
    finally:
        _end(relay, counter, publisher)


def _wait_until_ready(publisher: Publisher, counter: Counter) -> None:
    end = time.monotonic() + READY_S
    counter.start()
    while not counter.bytes:
        if time.monotonic() > end:
            raise NoFigure("the gateway carried nothing")
        publisher.publish([0], lambda _: READY)
        counter.receive(1, 0.1)
    counter.receive(1 << 40, SETTLING_S)


def _check_rows(found: Sequence[p.Publish], expected: dict[str, list[bytes]]) -> None:
    """Each row as it must be, each source's in order; a row may come twice."""
    arrived: dict[str, list[bytes]] = {}
    for one in found:
        if one.topic != READY:
            arrived.setdefault(one.topic, []).append(one.payload)
    once = {topic: [row for row, _ in groupby(rows)] for topic, rows in arrived.items()}
    check_all_arrived("rows of windows", sum(map(len, expected.values())), sum(map(len, once.values())))
    if once != expected:
        raise NoFigure("rows of windows: not the averages of what was sent")


def _end(relay: ProcessRelay, counter: Counter, publisher: Publisher) -> None:
    relay.release()
    counter.close()
    publisher.close()
    relay.stop()
