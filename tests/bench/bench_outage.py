"""1,000 records a second through an outage of the cloud, with a kill -9 of what stores them in its middle.

Ours: eight boards, the gateway with a durable stream. Beside it mosquitto's bridge, with its default and its safest
settings, fed by a publisher that keeps each record until it is acknowledged. Each has a broker of its own as its cloud,
and a subscriber with a session that outlives all; one oracle judges all three. They run at the same time.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from edge_tools.mosquitto import Bridge, Mosquitto
from tests.bench.figures import Context, Figure, NoFigure, figure
from tests.faults.oracle import Books, Produced, Verdict, judge
from tests.faults.publisher import Publisher
from tests.faults.receivers import RealCloud
from tests.faults.waiting import comes_about
from tests.faults.worlds import World

DESCRIPTION = (
    "1,000 records/s through an outage of the cloud with a kill -9 in its middle: lost, shown twice, overtaken"
)

RATE_PER_S = 1000
BOARDS = 8
PAYLOAD_BYTES = 100
BEFORE_S, AFTER_S = 3.0, 3.0
DRAIN_S = 30.0
QUIET_S = 3.0
DEFAULT = ("max_queued_messages 1000", "max_inflight_messages 20")
# Saving at every change (autosave_on_changes) it does not carry this rate; every second is the safest that does.
SAFEST = ("autosave_interval 1",)


class Contender(Protocol):
    """What is compared: records go in at a steady rate; it is killed and started again; it comes to rest."""

    cloud: RealCloud

    def kill(self) -> None: ...
    def finish(self) -> Verdict: ...
    def close(self) -> None: ...


class Ours:
    def __init__(self, folder: Path) -> None:
        self.cloud = RealCloud(folder / "cloud")
        self._world = World(
            folder, boards=BOARDS, payload_bytes=PAYLOAD_BYTES, cloud=self.cloud, commit="100 ms", ring=20_000
        )
        self._world.gateway.start()
        self._world.wait_counter("stream_records_in", 0)
        self._world.boards.run_at(RATE_PER_S / BOARDS)

    def kill(self) -> None:
        self._world.gateway.kill()
        self._world.gateway.start()

    def finish(self) -> Verdict:
        return self._world.drain(patience_s=DRAIN_S)

    def close(self) -> None:
        self._world.__exit__(None, None, None)


class MosquittoBridge:
    def __init__(self, folder: Path, options: tuple[str, ...], *, persistent: bool) -> None:
        self.cloud = RealCloud(folder / "cloud")
        bridge = Bridge("bridge", self.cloud.port, ["dt/# out 1"])
        self._local = Mosquitto(folder / "local", bridges=[bridge], persistent=persistent, options=options)
        self._local.start()
        self._publisher = Publisher("source", self._local.port)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._produce, daemon=True)
        self._thread.start()

    def kill(self) -> None:
        self._local.kill()
        self._local.start()

    def finish(self) -> Verdict:
        """At rest: the source is rid of everything, and nothing has arrived for a while."""
        self._stopping.set()
        self._thread.join()

        def idle() -> bool:
            self._publisher.produce(0, 0)
            return self._publisher.idle()

        drained = bool(comes_about(idle, DRAIN_S))
        count, since = -1, time.monotonic()
        while drained and time.monotonic() - since < QUIET_S:
            if (now := self.cloud.received()) != count:
                count, since = now, time.monotonic()
            if self._all_arrived():
                break
            time.sleep(0.1)
        return judge(Books(self._publisher.book(), self.cloud.arrivals(), drained=drained))

    def close(self) -> None:
        self._stopping.set()
        self._publisher.close()
        self._local.stop()
        self.cloud.close()

    def _all_arrived(self) -> bool:
        book: Produced = self._publisher.book()
        return self.cloud.received() == len(book.made)

    def _produce(self) -> None:
        began, made = time.monotonic(), 0
        while not self._stopping.wait(0.01):
            due = int((time.monotonic() - began) * RATE_PER_S)
            self._publisher.produce(due - made, PAYLOAD_BYTES)
            made = due


def run(context: Context) -> list[Figure]:
    outage_s = context.pick(60.0, 15.0)
    makers: dict[str, Callable[[Path], Contender]] = {
        "ours": Ours,
        "mosquitto_bridge_default": lambda folder: MosquittoBridge(folder, DEFAULT, persistent=False),
        "mosquitto_bridge_safest": lambda folder: MosquittoBridge(folder, SAFEST, persistent=True),
    }
    folder = context.workdir

    def one(name: str) -> Verdict:
        contender = makers[name](folder / name)
        try:
            time.sleep(BEFORE_S)
            contender.cloud.stop()
            time.sleep(outage_s / 2)
            contender.kill()
            time.sleep(outage_s / 2)
            contender.cloud.start()
            time.sleep(AFTER_S)
            return contender.finish()
        finally:
            contender.close()

    with ThreadPoolExecutor(len(makers)) as pool:
        verdicts = dict(zip(makers, pool.map(one, makers), strict=True))
    for name, verdict in verdicts.items():
        context.progress(f"  {name}: {verdict.summary()}; {'; '.join(verdict.faults) or 'no fault'}")
    ours = verdicts.pop("ours")
    if not ours.drained or ours.produced < 0.9 * RATE_PER_S * outage_s:
        raise NoFigure(f"ours did not come to rest: {ours.summary()}")
    if ours.invented or ours.misnamed or ours.miscounted or ours.shed:
        raise NoFigure(f"the books do not agree: {ours.faults} {ours.summary()}")

    def count(name: str, of: Callable[[Verdict], int]) -> Figure:
        references = {reference: [of(verdict)] for reference, verdict in verdicts.items()}
        return figure(name, [of(ours)], "records", "lower", goal=0, references=references)

    return [
        figure("produced", [ours.produced], "records", "higher"),
        count("lost", lambda verdict: len(verdict.lost)),
        count("repeats_visible", lambda verdict: len(verdict.repeats_visible)),
        count("out_of_order", lambda verdict: len(verdict.out_of_order)),
    ]
