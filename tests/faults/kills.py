"""A fault at a chosen system call of the gateway, kill -9 first of all: strace counts the calls on one path and strikes
at the nth.

strace counts each kind of call in each thread by itself; a kill is named (path, call, n), and strikes in whichever
thread comes there first. The calls of a run without kills, listed by `calls_of`, say which there are.
"""

import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from tests.faults.gateways import Gateway, gateway_file
from tests.faults.mounts import small_disk
from tests.faults.oracle import Books, Shed, Verdict, judge
from tests.faults.receivers import FakeCloud
from tests.faults.sources import Boards
from tests.faults.waiting import comes_about, wait_until

CALLS = (
    "openat", "mkdir", "write", "pwrite64", "fdatasync", "fsync", "ftruncate", "fallocate",
    "rename", "renameat", "renameat2", "unlink", "unlinkat",
)  # fmt: skip
DRAIN_S = 240.0
# What may be given up, by policy.
SHEDS = {"thin": ("thinned",), "drop_oldest": ("dropped_oldest",)}
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


def _strace(calls: Sequence[str], output: Path, paths: Sequence[Path] = ()) -> list[str]:
    # Without --seccomp-bpf: with it strace 6.1 does not count `when` right.
    only = [word for path in paths for word in ("-P", str(path))]
    return [
        "strace", "-f", "-y", "-qq", "-s", "0", "-e", "signal=none", "-e", f"trace={','.join(calls)}", *only,
        "-o", str(output),
    ]  # fmt: skip


class Bursts:
    """One gateway, one board, one cloud, and a run that is the same each time: `records` in bursts."""

    def __init__(
        self,
        folder: Path,
        records: int,
        burst: int,
        *,
        boards: Mapping[str, Any] | None = None,
        disk_bytes: int = 0,
        **stream: Any,
    ) -> None:
        """boards: more of Boards' arguments; disk_bytes: of a file system of its own for the data folder; stream: more
        of gateway_file's."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.records, self.burst, self.offline = folder, records, burst, False
        self._mounts = ExitStack()
        data = self._mounts.enter_context(small_disk(folder / "disk", disk_bytes)) / "data" if disk_bytes else None
        self.boards = Boards(folder / "ports", 1, **(boards or {}))
        self.cloud = FakeCloud()
        self.gateway = Gateway(gateway_file(folder, self.boards.ports, self.cloud.port, data=data, **stream), data)

    def close(self) -> None:
        self.gateway.close()
        self.boards.close()
        self.cloud.close()
        self._mounts.close()

    def live(self) -> None:
        """Until all is acknowledged, or the gateway is dead; offline it lives again."""
        made = 0
        while made < self.records:
            self.boards.produce(self.burst)
            made += self.burst
            wait_until(lambda: self.gateway.ended() or self.boards.idle(), "the boards to be rid of all")
            if self.gateway.ended() and self.offline:
                self.gateway.start()
                wait_until(self.boards.idle, "the boards to be rid of all after the kill")
            if self.gateway.ended():
                self.boards.produce(self.records - made)
                return

    def start_struck(self, kill: "Kill", fault: str) -> None:
        """Under strace, which strikes there."""
        inject = ["-e", f"inject={kill.call}:{fault}:when={kill.when}"]
        self.gateway.start([*_strace((kill.call,), self._trace, [self.gateway.data / kill.path]), *inject])

    def struck(self) -> str:
        """The call that was struck, as strace wrote it; empty if the run came to its end before."""
        found = [line for line in self._trace.read_text().splitlines() if line.endswith(("= ?", "(INJECTED)"))]
        return found[-1] if found else ""

    def start_traced(self) -> None:
        """Under strace, which lists its calls."""
        self.gateway.start(_strace(CALLS, self._trace))

    def calls(self) -> dict["Kill", str]:
        """Every write-like call that was listed and touched the data folder, as kills, in order of time. With each
        the call as strace wrote it."""
        return dict(_kills(self._trace.read_text(), str(self.gateway.data)))

    @property
    def _trace(self) -> Path:
        return self.folder / "trace"


class Run(Bursts):
    """One that is judged by the books."""

    def __init__(
        self,
        folder: Path,
        records: int = 20,
        *,
        burst: int = 5,
        backlog: int = 0,
        payload_bytes: int = 0,
        numeric: bool = False,
        offline: bool = False,
        **stream: Any,
    ) -> None:
        """backlog: of so many records from an earlier life, which ended by kill -9 while the cloud was away. offline:
        it stays away until all is acknowledged, so that the stream fills and its policy acts."""
        boards = {"payload_bytes": payload_bytes, "numeric": numeric}
        super().__init__(folder, records, burst, boards=boards, **stream)
        self.offline = offline
        self.sheds = SHEDS.get(stream.get("when_full", ""), ())
        if backlog or offline:
            self.cloud.stop()
        if backlog:
            self.gateway.start()
            self.boards.produce(backlog)
            wait_until(self.boards.idle, "the backlog to be stored")
            self.gateway.kill()
        if not offline:
            self.cloud.start()

    def drain(self, patience_s: float = DRAIN_S) -> Verdict:
        """Without faults from here on, but the one that strike() may still have in store. The judgement of the whole
        run."""
        self.cloud.start()
        if self.gateway.ended():
            self.gateway.start()

        def at_rest() -> bool:
            if self.gateway.ended():
                self.gateway.start()
            if not self.boards.idle() or not self.gateway.has_exported_all():
                return False
            received = {one.made for one in self.cloud.arrivals() if not one.first}
            return len(received) + sum(one.count for one in self._shed()) >= len(self.boards.book().made)

        drained = bool(comes_about(at_rest, patience_s))
        if not self.gateway.ended_itself():
            drained = bool(comes_about(at_rest, patience_s))
            self.gateway.stop()
        return judge(Books(self.boards.book(), self.cloud.arrivals(), self._shed(), drained=drained))

    def _shed(self) -> list[Shed]:
        return [*self.boards.shed(), *self.gateway.shed()]


def calls_of(folder: Path, make: Callable[..., Run] = Run, **run_options: Any) -> dict[Kill, str]:
    """Every write-like call of a run without kills that touches the data folder, as kills, in order of time. With each
    the call as strace wrote it."""
    run = make(folder, **run_options)
    try:
        run.start_traced()
        run.live()
        run.drain().check(shed=run.sheds)
    finally:
        run.close()
    return run.calls()


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
        run.start_struck(kill, fault)
        run.live()
        verdict = run.drain()
    finally:
        run.close()
    return Struck(kill, run.struck(), verdict)


# Streams that fill while the cloud is away, so that their policies act; found by trying: too little, and nothing is
# shed. With `thin` numeric readings are averaged, of others some are kept.
_MB = 1024 * 1024
_THIN_BYTES = 2 * _MB + 5 * 256 * 1024 // 4 + 768 * 1024  # with what is kept back to thin, and for commits alone
FULL: dict[str, dict[str, Any]] = {
    "averages": {"when_full": "thin", "numeric": True, "records": 1900, "bytes_max": _THIN_BYTES},
    "every tenth": {"when_full": "thin", "records": 2000, "bytes_max": _THIN_BYTES},
    "drop_oldest": {"when_full": "drop_oldest", "records": 2000, "bytes_max": 2 * _MB},
    "a full disk": {"when_full": "thin", "records": 4000, "bytes_max": 64 * _MB, "disk_bytes": 4 * _MB},
}
for _options in FULL.values():
    _options |= {"burst": 1000, "payload_bytes": 1700, "offline": True}


def spread(kills: Sequence[Kill], most: int) -> list[Kill]:
    """At most so many of them, evenly spread, the first and the last among them."""
    if len(kills) <= most:
        return list(kills)
    return [kills[place * (len(kills) - 1) // (most - 1)] for place in range(most)]


def strike_all(
    folder: Path, kills: Sequence[Kill], fault: str = KILL, *, at_once: int = 2, **run_options: Any
) -> list[Struck]:
    """Every one in a run of its own, some at a time. Raises AssertionError naming the first that broke a promise."""
    sheds = SHEDS.get(run_options.get("when_full", ""), ())

    def one(number: int) -> Struck:
        kill = kills[number]
        place = folder / f"kill{number}"
        where = ""
        try:
            struck = strike(place, kill, fault, **run_options)
            if not struck.where and kill.when > 1:  # more was gathered into a commit than in the run that was listed
                shutil.rmtree(place)
                struck = strike(place, kill._replace(when=kill.when // 2), fault, **run_options)
            where = struck.where
            struck.verdict.check(shed=sheds)
        except AssertionError as error:
            raise AssertionError(f"{fault} at {kill} ({where}), see {place}: {error}") from error
        shutil.rmtree(place)
        return struck

    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(one, range(len(kills))))
