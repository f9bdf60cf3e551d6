"""A fault at a chosen system call of the gateway, kill -9 first of all: strace counts the calls on one path and strikes
at the nth.

strace counts each kind of call in each thread by itself; a kill is named (path, call, n), and strikes in whichever
thread comes there first. The calls of a run without kills, listed by `calls_of`, say which there are.
"""

import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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
DRAIN_S = 30.0
KILL = "signal=SIGKILL"
_LINE = re.compile(r"^(\d+) +(\w+)\((.*)$")


class Kill(NamedTuple):
    """path: below the data folder."""

    path: str
    call: str
    when: int

    def __str__(self) -> str:
        return f"{self.call} {self.when} of {self.path}"


class Struck(msgspec.Struct):
    """where: the call that was struck, as strace wrote it; empty if the run came to its end before."""

    kill: Kill
    where: str
    verdict: Verdict


def _trace(calls: Sequence[str], output: Path, paths: Sequence[Path] = ()) -> list[str]:
    # Without --seccomp-bpf: with it strace 6.1 does not count `when` right.
    only = [word for path in paths for word in ("-P", str(path))]
    return [
        "strace", "-f", "-y", "-qq", "-s", "0", "-e", "signal=none", "-e", f"trace={','.join(calls)}", *only,
        "-o", str(output),
    ]  # fmt: skip


class Run:
    """One gateway, one board, one cloud, and a run that is the same each time: `records` in bursts."""

    def __init__(
        self,
        folder: Path,
        records: int = 20,
        *,
        burst: int = 5,
        backlog: int = 0,
        payload_bytes: int = 0,
        **stream: Any,
    ) -> None:
        """backlog: of so many records from an earlier life, which ended by kill -9 while the cloud was away."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.records, self.burst = folder, records, burst
        self.boards = Boards(folder / "ports", 1, payload_bytes=payload_bytes)
        self.cloud = FakeCloud()
        self.gateway = Gateway(gateway_file(folder, self.boards.ports, self.cloud.port, **stream))
        if backlog:
            self.cloud.stop()
            self.gateway.start()
            self.boards.produce(backlog)
            wait_until(self.boards.idle, "the backlog to be stored")
            self.gateway.kill()
            self.cloud.start()

    def close(self) -> None:
        self.gateway.close()
        self.boards.close()
        self.cloud.close()

    def live(self) -> None:
        """Until all is acknowledged, or the gateway is dead."""
        made = 0
        while made < self.records:
            self.boards.produce(self.burst)
            made += self.burst
            wait_until(lambda: self.gateway.ended() or self.boards.idle(), "the boards to be rid of all")
            if self.gateway.ended():
                self.boards.produce(self.records - made)
                return

    def drain(self, patience_s: float = DRAIN_S) -> Verdict:
        """Without faults from here on. The judgement of the whole run."""
        if self.gateway.ended():
            self.gateway.start()

        def at_rest() -> bool:
            return self.boards.idle() and len({one.made for one in self.cloud.arrivals()}) >= len(
                self.boards.book().made
            )

        drained = bool(comes_about(at_rest, patience_s))
        self.gateway.stop()
        shed = [*self.boards.shed(), *self.gateway.shed()]
        return judge(Books(self.boards.book(), self.cloud.arrivals(), shed, drained=drained))


def calls_of(folder: Path, make: Callable[..., Run] = Run, **run_options: Any) -> dict[Kill, str]:
    """Every write-like call of a run without kills that touches the data folder, as kills, in order of time. With each
    the call as strace wrote it."""
    run = make(folder, **run_options)
    try:
        trace = folder / "trace"
        run.gateway.start(_trace(CALLS, trace))
        run.live()
        run.drain().check()
    finally:
        run.close()
    return dict(_kills(trace.read_text(), str(run.gateway.data)))


def _kills(trace: str, data: str) -> Iterator[tuple[Kill, str]]:
    counts: Counter[tuple[str, str, str]] = Counter()
    reached: Counter[tuple[str, str]] = Counter()
    named = re.compile(re.escape(data) + r"(/[^>\"]*)?(?=[>\"])")
    for line in trace.splitlines():
        found = _LINE.match(line)
        if found is None:
            continue
        thread, call, rest = found.groups()
        for path in dict.fromkeys(match.group().removeprefix(data).strip("/") for match in named.finditer(rest)):
            counts[thread, call, path] += 1
            count = counts[thread, call, path]
            if count <= reached[call, path]:
                continue  # another thread came to this number before
            reached[call, path] = count
            reads = call == "openat" and not re.search(r"O_CREAT|O_TRUNC", rest)
            if not reads and not path.endswith(".sock"):
                yield Kill(path, call, count), f"{call}({rest}"
                break  # rename names two, one is enough


def strike(folder: Path, kill: Kill, fault: str = KILL, make: Callable[..., Run] = Run, **run_options: Any) -> Struck:
    """A run struck there, started again without faults if it ended, drained and judged. fault: strace's words."""
    run = make(folder, **run_options)
    try:
        trace = folder / "trace"
        inject = ["-e", f"inject={kill.call}:{fault}:when={kill.when}"]
        run.gateway.start([*_trace((kill.call,), trace, [run.gateway.data / kill.path]), *inject])
        run.live()
        verdict = run.drain()
    finally:
        run.close()
    struck = [line for line in trace.read_text().splitlines() if line.endswith(("= ?", "(INJECTED)"))]
    return Struck(kill, struck[-1] if struck else "", verdict)


def spread(kills: Sequence[Kill], most: int) -> list[Kill]:
    """At most so many of them, evenly spread, the first and the last among them."""
    if len(kills) <= most:
        return list(kills)
    return [kills[place * (len(kills) - 1) // (most - 1)] for place in range(most)]


def strike_all(
    folder: Path, kills: Sequence[Kill], fault: str = KILL, *, at_once: int = 2, **run_options: Any
) -> list[Struck]:
    """Every one in a run of its own, some at a time. Raises AssertionError naming the first that broke a promise."""

    def one(number: int) -> Struck:
        kill = kills[number]
        place = folder / f"kill{number}"
        where = ""
        try:
            struck = strike(place, kill, fault, **run_options)
            where = struck.where
            struck.verdict.check()
        except AssertionError as error:
            raise AssertionError(f"{fault} at {kill} ({where}), see {place}: {error}") from error
        shutil.rmtree(place)
        return struck

    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(one, range(len(kills))))
