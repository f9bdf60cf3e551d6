"""A short run of every fuzzer: `python -m edge_tools.fuzzing c|python SECONDS`, as many at a time as there are cores.

C: the libFuzzer programs `fuzz_NAME` of the CMake preset `fuzz`. Python: `tests/fuzz/fuzz_NAME.py` under atheris. Both
start from the same seeds, made of the vectors, and share one corpus a target, `.cache/fuzz/corpus/TARGET`, which the
long run of `./tools/bench fuzz` goes on with.
"""

import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
SAME_SEEDS = {"wire": "frames"}  # the C demultiplexer and the Python frame reader take the same streams
GRACE_S = 120  # to start under sanitizers on a busy machine, before the fuzzer counts its own seconds


class Fuzzer(NamedTuple):
    """target: the seeds it takes; command: without options and corpora."""

    name: str
    target: str
    command: tuple[str, ...]


def c_fuzzers(root: Path) -> list[Fuzzer]:
    """Those that the preset `fuzz` has built."""
    programs = sorted(path for path in (root / "firmware/build/fuzz").rglob("fuzz_*") if _is_program(path))
    return [Fuzzer(f"c-{path.name}", _target(path), (str(path),)) for path in programs]


def _is_program(path: Path) -> bool:
    return path.is_file() and not path.suffix and os.access(path, os.X_OK)


def python_fuzzers(root: Path) -> list[Fuzzer]:
    scripts = sorted((root / "tests/fuzz").glob("fuzz_*.py"))
    return [Fuzzer(f"python-{path.stem}", _target(path), (sys.executable, str(path))) for path in scripts]


def _target(path: Path) -> str:
    name = path.stem.removeprefix("fuzz_")
    return SAME_SEEDS.get(name, name)


def corpus(root: Path, fuzzer: Fuzzer) -> Path:
    """What fuzzers of the same input, Python and C, have found so far."""
    return root / ".cache/fuzz/corpus" / fuzzer.target


def run(fuzzer: Fuzzer, seconds: int, root: Path, seeds: Path) -> tuple[bool, str]:
    """Whether it found nothing, and what it said."""
    shared = corpus(root, fuzzer)
    shared.mkdir(parents=True, exist_ok=True)
    corpora = [str(shared), *(str(folder) for folder in (seeds / fuzzer.target,) if folder.is_dir())]
    options = [f"-max_total_time={seconds}", "-timeout=10", f"-artifact_prefix={root}/.cache/fuzz/{fuzzer.name}-"]
    done = subprocess.run(
        [*fuzzer.command, *options, *corpora],
        cwd=root,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
        timeout=seconds + GRACE_S,
    )
    return done.returncode == 0, done.stdout


def main(arguments: Sequence[str]) -> int:
    kind, seconds = arguments[0], int(arguments[1])
    if kind == "python" and platform.machine() != "x86_64":
        print(f"left out: atheris is not built for {platform.machine()}; pytest still runs its targets on every seed")
        return 0
    fuzzers = c_fuzzers(ROOT) if kind == "c" else python_fuzzers(ROOT)
    if not fuzzers:
        print(f"no {kind} fuzzers found; build the C ones with: ./tools/setup --firmware fuzz", file=sys.stderr)
        return 1
    failed = []
    with tempfile.TemporaryDirectory(prefix="edgeloop-seeds-") as folder:
        subprocess.run([sys.executable, str(ROOT / "tests/fuzz/seeds.py"), folder], cwd=ROOT, check=True)
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            runs = [pool.submit(run, fuzzer, seconds, ROOT, Path(folder)) for fuzzer in fuzzers]
            for fuzzer, one in zip(fuzzers, runs, strict=True):
                passed, output = one.result()
                words = output.splitlines()[-1] if passed and output.strip() else output
                print(f"{fuzzer.name}: {words}", flush=True)
                if not passed:
                    failed.append(fuzzer.name)
    if failed:
        print(f"{len(failed)} of {len(fuzzers)} fuzzers failed: {', '.join(failed)}; inputs are in .cache/fuzz")
        return 1
    print(f"{len(fuzzers)} fuzzers found nothing in {seconds} s each")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
