"""kill -9 of the gateway at a chosen system call: strace counts the calls and kills at the nth.

strace counts each kind of call in each thread by itself; so a kill is named (call, n), and strikes in whichever thread
comes there first. The calls of a run without kills, listed by `calls_of`, say which pairs there are.
"""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from tests.faults.gateways import Gateway, gateway_file
from tests.faults.oracle import Books, Verdict, judge
from tests.faults.receivers import FakeCloud
from tests.faults.sources import Boards
from tests.faults.waiting import comes_about, wait_until

CALLS = (
    "openat", "mkdir", "write", "pwrite64", "fdatasync", "fsync", "ftruncate", "fallocate",
    "rename", "renameat", "renameat2", "unlink", "unlinkat",
)  # fmt: skip
RECORDS, BURST = 20, 5
DRAIN_S = 30.0
_LINE = re.compile(r"^(\d+) +(\w+)\((.*)$")


class Kill(NamedTuple):
    call: str
    when: int


class Struck(msgspec.Struct):
    """where: the call that was not made, as strace wrote it; empty if the run came to its end before."""

    kill: Kill
    where: str
    verdict: Verdict


def _trace(calls: tuple[str, ...], output: Path) -> list[str]:
    # Without --seccomp-bpf: with it strace 6.1 does not count `when` right.
    return [
        "strace",
        "-f",
        "-y",
        "-qq",
        "-s",
        "0",
        "-e",
        "signal=none",
        "-e",
        f"trace={','.join(calls)}",
        "-o",
        str(output),
    ]


class Run:
    """One gateway, one board, one cloud, and a short run that is the same each time."""

    def __init__(self, folder: Path, **stream: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.boards = Boards(folder / "ports", 1)
        self.cloud = FakeCloud()
        self.gateway = Gateway(gateway_file(folder, self.boards.ports, self.cloud.port, **stream))

    def close(self) -> None:
        self.gateway.close()
        self.boards.close()
        self.cloud.close()

    def live(self) -> None:
        """Until all is acknowledged, or the gateway is dead."""
        made = 0
        while made < RECORDS:
            self.boards.produce(BURST)
            made += BURST
            if not wait_until(lambda: self.gateway.ended() or self.boards.idle(), "the boards to be rid of all"):
                return
            if self.gateway.ended():
                self.boards.produce(RECORDS - made)
                return

    def drain(self) -> Verdict:
        """Without faults from here on. The judgement of the whole run."""
        if self.gateway.ended():
            self.gateway.start()

        def at_rest() -> bool:
            return self.boards.idle() and len({one.made for one in self.cloud.arrivals()}) >= len(
                self.boards.book().made
            )

        drained = bool(comes_about(at_rest, DRAIN_S))
        self.gateway.stop()
        shed = [*self.boards.shed(), *self.gateway.shed()]
        return judge(Books(self.boards.book(), self.cloud.arrivals(), shed, drained=drained))


def calls_of(folder: Path, **stream: Any) -> dict[Kill, str]:
    """Every write-like call of a run without kills that touches the data folder, as kills: the first thread to come
    there is the one that is struck. With each the call as strace wrote it."""
    run = Run(folder, **stream)
    try:
        trace = folder / "trace"
        run.gateway.start(_trace(CALLS, trace))
        run.live()
        run.drain().check()
    finally:
        run.close()
    return dict(_kills(trace.read_text(), str(run.gateway.data)))


def _kills(trace: str, data: str) -> Iterator[tuple[Kill, str]]:
    counts: Counter[tuple[str, str]] = Counter()
    reached: Counter[str] = Counter()
    for line in trace.splitlines():
        found = _LINE.match(line)
        if found is None:
            continue
        thread, call, rest = found.groups()
        counts[thread, call] += 1
        count = counts[thread, call]
        if count <= reached[call]:
            continue  # another thread came to this number before
        reached[call] = count
        reads = call == "openat" and not re.search(r"O_CREAT|O_TRUNC", rest)
        if data in rest and not reads and ".sock" not in rest:
            yield Kill(call, count), f"{call}({rest}"


def strike(folder: Path, kill: Kill, **stream: Any) -> Struck:
    """A run killed there, started again without faults, drained and judged."""
    run = Run(folder, **stream)
    try:
        trace = folder / "trace"
        inject = ["-e", f"inject={kill.call}:signal=SIGKILL:when={kill.when}"]
        run.gateway.start([*_trace((kill.call,), trace), *inject])
        run.live()
        died = run.gateway.ended()
        run.gateway.kill()
        verdict = run.drain()
    finally:
        run.close()
    return Struck(kill, _last_call(trace.read_text()) if died else "", verdict)


def _last_call(trace: str) -> str:
    calls = [line for line in trace.splitlines() if line.rstrip().endswith("= ?")]
    return calls[-1] if calls else trace[-200:]
