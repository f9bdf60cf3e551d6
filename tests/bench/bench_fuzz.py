"""A long run of every fuzzer, Python and C, on one corpus a target, which is kept in .cache/fuzz from run to run."""

import re
import subprocess

from edge_tools.fuzzing import Fuzzer, c_fuzzers, corpus, python_fuzzers
from tests.bench.figures import Context, Figure, NoFigure, figure
from tests.fuzz.seeds import write_seeds

DESCRIPTION = "all fuzzers, Python and C: executions and crashes"
NEEDS_FIRMWARE = ("fuzz",)

_EXECUTED = re.compile(rb"stat::number_of_executed_units: (\d+)")
_PEAK = re.compile(rb"stat::peak_rss_mb: +(\d+)")


def run(context: Context) -> list[Figure]:
    fuzzers = {_name(one): one for one in (*python_fuzzers(context.root), *c_fuzzers(context.root))}
    total_s = context.pick(600, 36)
    each_s = max(total_s // len(fuzzers), 3)
    executed, crashes, peak_mb = {}, 0, 0
    for name, fuzzer in fuzzers.items():
        context.progress(f"  {name}: {each_s} s")
        executed[name], crashed, peak = _fuzz(context, name, fuzzer, each_s)
        crashes += crashed
        peak_mb = max(peak_mb, peak)
    return [
        figure("executions", [sum(executed.values())], "inputs", "higher"),
        *(figure(f"executions_{name}", [count], "inputs", "higher") for name, count in executed.items()),
        figure("peak_rss_mb", [peak_mb], "MB", "lower"),
        figure("crashes", [crashes], "inputs", "lower", goal=0),
    ]


def _name(fuzzer: Fuzzer) -> str:
    """`c-fuzz_wire` → `wire_c`."""
    kind, _, name = fuzzer.name.partition("-fuzz_")
    return f"{name}_{kind}"


def _fuzz(context: Context, name: str, fuzzer: Fuzzer, seconds: int) -> tuple[int, int, int]:
    """(inputs tried, crashes, peak of memory). What crashed is kept in .cache/fuzz/crashes and named on stderr."""
    shared, crashes = corpus(context.root, fuzzer), context.root / ".cache/fuzz/crashes"
    write_seeds(shared, fuzzer.target)
    crashes.mkdir(parents=True, exist_ok=True)
    before = set(crashes.iterdir())
    options = [
        f"-max_total_time={seconds}",
        "-timeout=10",
        "-print_final_stats=1",
        f"-artifact_prefix={crashes}/{name}-",
    ]
    done = subprocess.run(
        [*fuzzer.command, *options, str(shared)],
        cwd=context.workdir,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=seconds + 120,
        check=False,
    )
    found = sorted(set(crashes.iterdir()) - before)
    executed, peak = _EXECUTED.search(done.stdout), _PEAK.search(done.stdout)
    if done.returncode != 0 or found:
        context.progress(done.stdout.decode(errors="replace")[-3000:])
        context.progress(f"  {name}: exit {done.returncode}; kept: {', '.join(map(str, found)) or 'nothing'}")
        return int(executed[1]) if executed else 0, max(len(found), 1), int(peak[1]) if peak else 0
    if not executed or not peak:
        raise NoFigure(f"{name} told no statistics")
    return int(executed[1]), 0, int(peak[1])
