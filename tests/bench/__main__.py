"""Runs the benches: `python -m tests.bench`, which `./tools/bench` calls after setting up."""

import argparse
import ast
import importlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tests.bench import show
from tests.bench.figures import Context, NoFigure, Report
from tests.bench.host import commit_id, host_line

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(__file__).resolve().parent


def discover(folder: Path = FOLDER) -> dict[str, str]:
    """Name to description of each `bench_NAME.py`, in order of name; nothing is imported."""
    found = {}
    for file in sorted(folder.glob("bench_*.py")):
        found[file.stem.removeprefix("bench_")] = _description(file)
    return found


def _description(file: Path) -> str:
    for node in ast.parse(file.read_text(), str(file)).body:
        match node:
            case ast.Assign(targets=[ast.Name(id="DESCRIPTION")], value=ast.Constant(value=str(text))):
                return text
            case ast.AnnAssign(target=ast.Name(id="DESCRIPTION"), value=ast.Constant(value=str(text))):
                return text
    raise ValueError(f"{file} has no DESCRIPTION = '…'")


def run_bench(name: str, *, quick: bool, package: str = "tests.bench") -> Report:
    """Import and run one bench in a fresh folder. Raises NoFigure."""
    module = importlib.import_module(f"{package}.bench_{name}")
    for preset in getattr(module, "NEEDS_FIRMWARE", ()):
        subprocess.run([ROOT / "tools/setup", "--firmware", preset], check=True, stdout=sys.stderr)
    commit = commit_id(ROOT)
    with tempfile.TemporaryDirectory(prefix=f"edgeloop-bench-{name}-") as workdir:
        context = Context(ROOT, Path(workdir), quick=quick)
        figures = module.run(context)
    if not figures:
        raise NoFigure("the bench gave none")
    return Report(name, commit, "; ".join([host_line(), *context.notes]), figures)


def main(arguments: Sequence[str] | None = None) -> int:
    benches = discover()
    parser = argparse.ArgumentParser(
        prog="./tools/bench", description="Measures. Without a name: lists the benches.", allow_abbrev=False
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="a bench; several run one after the other")
    parser.add_argument("--quick", action="store_true", help="three repeats, each bench within 50 seconds")
    parser.add_argument("--json", action="store_true", help="one JSON object a bench on stdout")
    parser.add_argument("--table", nargs="+", type=Path, metavar="FILE", help="print --json output as a Markdown table")
    options = parser.parse_args(arguments)
    if options.table:
        try:
            print("\n".join(show.table(show.read(options.table))))
        except (OSError, msgspec.DecodeError) as error:
            print(f"--table: {error}", file=sys.stderr)
            return 1
        return 0
    if not options.names:
        width = max(map(len, benches), default=0)
        print("\n".join(f"{name:<{width}}  {description}" for name, description in benches.items()))
        return 0
    if unknown := [name for name in options.names if name not in benches]:
        print(f"no such bench: {', '.join(unknown)}; there are: {', '.join(benches)}", file=sys.stderr)
        return 2
    failed = False
    for name in options.names:
        print(f"{name}: {benches[name]}", file=sys.stderr, flush=True)
        began = time.monotonic()
        try:
            report = run_bench(name, quick=options.quick)
        except NoFigure as reason:
            print(f"{name}: no figure: {reason}", file=sys.stderr, flush=True)
            failed = True
            continue
        print(f"{name}: took {time.monotonic() - began:.0f} s", file=sys.stderr)
        if options.json:
            print(msgspec.json.encode(report).decode(), flush=True)
        else:
            print("\n".join(show.lines(report)), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
