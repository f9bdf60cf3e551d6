"""What a call of a function costs, in the real gateway: MQTT in from a local broker, the function's inbox on disk, its
worker, what it publishes to the broker that stands for the cloud.

The function publishes each message's payload again, so every call is seen from outside and checked. The messages have
1,000 topics: calls of one topic wait for each other. calls_per_s: the gateway and its worker share one core; everything
waits in the local broker first. call_ms: at 1,000 messages a second, from a message's arrival at a subscriber of the
local broker to its arrival at one of the cloud, with the gateway and its worker together on a third of a core (a
control group; without one on a whole core: the host line then says so, and there is no goal). Reference `pipe`: a round
trip over a bare multiprocessing pipe with the same payload, one after the other. worker_pss_mb beside a bare `python3`
that waits on its stdin; async_worker_pss_mb: of the same function with an async handler, after BURST calls.
change_live_s: see change.py.
"""

import multiprocessing
import subprocess
import sys
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import quantiles

import msgspec

from edge.mqtt import packets as p
from edge_tools.mosquitto import Mosquitto
from tests.bench.cgroup import is_held
from tests.bench.change import GOAL_S, function_live_s
from tests.bench.figures import Context, Figure, NoFigure, check_all_arrived, figure
from tests.bench.processes import family, pss_mb
from tests.bench.relay.contenders import RELAY_CORE, ProcessRelay, gateway_of, on_core
from tests.bench.relay.flow import QUIET_S, READY_S, SETTLING_S, brokers, on_the_others_core
from tests.bench.relay.raw import (
    HOST,
    Counter,
    Publisher,
    check_in_order,
    number_in,
    numbers,
    pace,
    packet_bytes,
    payload,
)
from tests.bench.window import third_of_a_core

DESCRIPTION = "calls of a function by the gateway, beside a bare pipe; its worker's memory beside a bare python3"
TOPICS = 1000
CALLS_PER_S = 1000
P99_MS_GOAL = 20
CODE = """
from edge import on, publish


@on("dt/+/temp")
def again(message):
    publish("again" + message.topic[2:], message.payload)
"""
ASYNC_CODE = CODE.replace("def again", "async def again")
BURST = 500
_SECTIONS = f"""
[broker]
host = "{HOST}"
port = %d
tls = false
client_id = "functions-local"
session_expiry_s = 0

[[function]]
name = "again"
file = "again.py"
from = ["broker"]
subscribe = ["dt/+/temp"]
publish = ["again/#"]
to = ["cloud"]
"""


class Calls(msgspec.Struct, frozen=True):
    """Of the gateway, or of the pipe."""

    per_s: float
    ms_p50: float
    ms_p99: float
    worker_pss_mb: float
    async_worker_pss_mb: float = 0.0


def run(context: Context) -> list[Figure]:
    share = third_of_a_core(context, "call_ms is of a whole core, and has no goal")
    with on_the_others_core(), brokers(context, None) as (local, cloud), share as (prefix, held):
        results = context.interleaved(
            {
                "calls": lambda: _measure(context, local, cloud, prefix, held=held),
                "pipe": lambda: _measure_pipe(context),
            }
        )
        changes = context.interleaved({"change": lambda: function_live_s(context, local, cloud)})["change"]
    ours, pipe = results["calls"], results["pipe"]

    def of_pipe(field: str) -> dict[str, list[float]]:
        return {"pipe": [getattr(one, field) for one in pipe]}

    goal = P99_MS_GOAL if held else None  # it is for a third of a core
    bare = {"bare_python3": [one.worker_pss_mb for one in pipe]}
    return [
        figure("calls_per_s", [one.per_s for one in ours], "1/s", "higher", references=of_pipe("per_s")),
        figure("call_ms_p50", [one.ms_p50 for one in ours], "ms", "lower", references=of_pipe("ms_p50")),
        figure("call_ms_p99", [one.ms_p99 for one in ours], "ms", "lower", goal=goal, references=of_pipe("ms_p99")),
        figure("worker_pss_mb", [one.worker_pss_mb for one in ours], "MB", "lower", goal=12, references=bare),
        figure(
            "async_worker_pss_mb", [one.async_worker_pss_mb for one in ours], "MB", "lower", goal=12, references=bare
        ),
        figure("change_live_s", changes, "s", "lower", goal=GOAL_S),
    ]


def _topic(number: int) -> str:
    return f"dt/b{number % TOPICS}/temp"


def _again(topic: str) -> str:
    return "again" + topic[2:]


def _measure(context: Context, local: Mosquitto, cloud: Mosquitto, prefix: Sequence[str], *, held: bool) -> Calls:
    delays, weight = _paced(context, local, cloud, prefix, held=held)
    cuts = quantiles(delays, n=100)
    return Calls(_flat_out(context, local, cloud), cuts[49], cuts[98], weight, _async_weight(context, local, cloud))


def _paced(
    context: Context, local: Mosquitto, cloud: Mosquitto, prefix: Sequence[str], *, held: bool
) -> tuple[list[float], float]:
    """The delays of calls in ms, and the worker's PSS after them."""
    count = context.pick(10_000, 4_000)
    relay, publisher, counter = _started(context, local, cloud, prefix)
    direct = Counter(local.port, "direct", "dt/#")
    try:
        if held and not all(map(is_held, family(relay.pid))):
            raise NoFigure("the worker is not within the gateway's share of a core")
        here, there = pace(publisher, [direct, counter], count, 1 / CALLS_PER_S, _topic)
        check_all_arrived("calls at their pace", count, len(there))
        return [(there[number] - here[number]) / 1e6 for number in there], _worker_pss_mb(relay)
    finally:
        direct.close()
        _end(relay, counter, publisher)


def _async_weight(context: Context, local: Mosquitto, cloud: Mosquitto) -> float:
    """The PSS of a worker with an async handler."""
    relay, publisher, counter = _started(context, local, cloud, on_core(RELAY_CORE), ASYNC_CODE)
    try:
        size = sum(packet_bytes(_again(_topic(number))) for number in range(1, BURST + 1))
        counter.start()
        publisher.publish(range(1, BURST + 1), _topic)
        counter.receive(size, QUIET_S)
        _check(counter.found(), BURST)
        return _worker_pss_mb(relay)
    finally:
        _end(relay, counter, publisher)


def _flat_out(context: Context, local: Mosquitto, cloud: Mosquitto) -> float:
    count = context.pick(20_000, 5_000)
    relay, publisher, counter = _started(context, local, cloud, on_core(RELAY_CORE))
    try:
        size = sum(packet_bytes(_again(_topic(number))) for number in range(1, count + 1))
        counter.start()
        relay.hold()
        publisher.publish(range(1, count + 1), _topic)
        began = time.monotonic()
        relay.release()
        ended = counter.receive(size, QUIET_S)
        _check(counter.found(), count)
        return count / (ended - began)
    finally:
        _end(relay, counter, publisher)


def _started(
    context: Context, local: Mosquitto, cloud: Mosquitto, prefix: Sequence[str], code: str = CODE
) -> tuple[ProcessRelay, Publisher, Counter]:
    """A gateway that has answered for a first call, and the clients at both ends."""
    folder = context.folder("gateway")
    (folder / "again.py").write_text(code)
    relay = gateway_of(cloud.port, None, folder, _SECTIONS % local.port, local.port, prefix=prefix)
    relay.start()
    publisher, counter = Publisher(local.port, "publisher"), Counter(cloud.port, "counter", "again/#")
    end = time.monotonic() + READY_S
    try:
        while not counter.bytes:
            if time.monotonic() > end:
                raise NoFigure(f"the function was not called:\n{_last_words(folder)}")
            publisher.publish([0], _topic)
            counter.receive(1, 0.2)
        counter.receive(1 << 40, 2 * SETTLING_S)
    except BaseException:
        _end(relay, counter, publisher)
        raise
    return relay, publisher, counter


def _last_words(folder: Path) -> str:
    return "\n".join((folder / "log").read_text(errors="replace").splitlines()[-8:])


def _check(found: Sequence[p.Publish], count: int) -> None:
    """Each message's result has come, in order for each topic."""
    by_topic: dict[str, list[int]] = {}
    for one in found:
        number = number_in(one.payload)
        if one.topic != _again(_topic(number)) or one.payload != payload(number):
            raise NoFigure(f"a call gave what it should not: {one.topic}")
        by_topic.setdefault(one.topic, []).append(number)
    check_all_arrived("calls", count, len(set(numbers(found))))
    for topic, of_topic in by_topic.items():
        check_in_order(f"calls of {topic}", of_topic)


def _worker_pss_mb(relay: ProcessRelay) -> float:
    """Of all that the gateway has started, which is the one worker and what runs it."""
    found = family(relay.pid)[1:]
    if not found:
        raise NoFigure("the gateway has no worker")
    return sum(map(pss_mb, found))


def _end(relay: ProcessRelay, counter: Counter, publisher: Publisher) -> None:
    relay.release()
    counter.close()
    publisher.close()
    relay.stop()


def _measure_pipe(context: Context) -> Calls:
    """Round trips, one after the other, as fast as they go: the limit of one call at a time."""
    count = context.pick(20_000, 5_000)
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_echo, args=(there,), daemon=True)
    process.start()
    there.close()
    data, taken = payload(1), []
    here.send_bytes(data)
    here.recv_bytes()
    began = time.perf_counter()
    for _ in range(count):
        sent = time.perf_counter()
        here.send_bytes(data)
        here.recv_bytes()
        taken.append((time.perf_counter() - sent) * 1000)
    took = time.perf_counter() - began
    here.close()
    process.join()
    cuts = quantiles(taken, n=100)
    return Calls(count / took, cuts[49], cuts[98], _bare_pss_mb())


def _echo(pipe: Connection) -> None:
    while True:
        try:
            pipe.send_bytes(pipe.recv_bytes())
        except EOFError:
            return


def _bare_pss_mb() -> float:
    """`python3` that has started and waits."""
    command = [sys.executable, "-c", "print(flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        weight = pss_mb(process.pid)
        process.stdin.write(b"\n")
    return weight
