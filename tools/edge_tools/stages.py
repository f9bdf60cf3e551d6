"""The stages of `./tools/test`: each a few commands; all run, whatever the others' outcome; exit 1 if any failed.

A command's output goes to `.cache/test/STAGE.log`; shown are the stage's name and its closing line, and for a stage
that failed the end of its log.
"""

import argparse
import contextlib
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
FUZZ_S = 10
LOG_LINES_SHOWN = 150
BOARD_OPTIONS = ("--board", "--board-id", "--board-reset")


class Stage(NamedTuple):
    """commands run one after the other until one fails. emulator: needs QEMU, left out by --quick."""

    name: str
    description: str
    commands: tuple[tuple[str, ...], ...]
    emulator: bool = False


class Outcome(NamedTuple):
    name: str
    failed: bool
    closing: str
    took_s: float


def stages(root: Path = ROOT, *, expression: str | None = None, board: Sequence[str] = ()) -> list[Stage]:
    """All stages in the order they run: the quick ones first. expression: pytest's -k; board: pytest's options that
    say which board the system tests run on."""
    python = str(root / ".venv/bin/python")
    run = (python, "-m")
    chosen = ("-k", expression) if expression else ()
    pytest = (*run, "pytest", "-q", *chosen)
    setup = str(root / "tools/setup")
    return [
        Stage("lint", "ruff check", ((*run, "ruff", "check"),)),
        Stage("format", "ruff format --check", ((*run, "ruff", "format", "--check"),)),
        Stage("types", "mypy, strict", ((*run, "mypy", "-p", "edge", "-p", "edge_tools", "-p", "tests"),)),
        Stage("imports", "import-linter's contracts", ((str(root / ".venv/bin/lint-imports"),),)),
        Stage(
            "c",
            "the portable C on this host, with sanitizers",
            ((setup, "--firmware", "host"), ("ctest", "--test-dir", "firmware/build/host", "--output-on-failure")),
        ),
        Stage("firmware", "all firmware images", ((setup, "--firmware", "mps2_an385", "posix", "stm32f405"),)),
        Stage("unit", "pytest without boards", ((*pytest, "-m", "not system", "--ignore=tests/faults"),)),
        Stage(
            "faults",
            "kills, power cuts, full disks, bad networks, one oracle; mounts, so it needs root",
            ((*pytest, "tests/faults"),),
        ),
        Stage(
            "fuzz-c",
            f"libFuzzer on the C decoders, {FUZZ_S} s each",
            ((setup, "--firmware", "fuzz"), (*run, "edge_tools.fuzzing", "c", str(FUZZ_S))),
        ),
        Stage(
            "fuzz-python",
            f"atheris on the Python decoders, {FUZZ_S} s each",
            ((*run, "edge_tools.fuzzing", "python", str(FUZZ_S)),),
        ),
        Stage("system", "pytest on emulated boards", ((*pytest, "-m", "system", *board),), emulator=True),
    ]


def run_stage(stage: Stage, root: Path, log: Path) -> Outcome:
    """Run the stage's commands; their output goes to the log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    failed = False
    with log.open("wb") as output:
        for command in stage.commands:
            output.write(f"$ {shlex.join(command)}\n".encode())
            output.flush()
            code = subprocess.run(
                command, cwd=root, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False
            ).returncode
            if failed := code != 0 and not _chose_nothing(command, code):
                break
    return Outcome(stage.name, failed, _closing_line(log), time.monotonic() - began)


def _chose_nothing(command: Sequence[str], code: int) -> bool:
    """Whether pytest's -k left nothing to run in this stage, which is no failure."""
    return "pytest" in command and "-k" in command and code == 5


def _closing_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    if not lines or lines[-1].startswith("$ "):
        return "done, with nothing to say"
    return lines[-1].strip(" =")


def choose(available: Sequence[Stage], names: Sequence[str], *, quick: bool) -> list[Stage]:
    """The stages named, or all; with quick none that needs an emulator unless it is named. Raises KeyError."""
    by_name = {stage.name: stage for stage in available}
    if names:
        wanted = {by_name[name].name for name in names}
        return [stage for stage in available if stage.name in wanted]
    return [stage for stage in available if not (quick and stage.emulator)]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="./tools/test", description=__doc__, allow_abbrev=False)
    parser.add_argument("names", nargs="*", metavar="STAGE", help="run only these; --list names them")
    parser.add_argument("--quick", action="store_true", help="without the emulated boards")
    parser.add_argument("-k", dest="expression", metavar="EXPRESSION", help="pytest's -k: only tests that match")
    for option in BOARD_OPTIONS:
        parser.add_argument(option, metavar="…", help="for the system tests; `pytest --help` says more")
    parser.add_argument("--list", action="store_true", help="name the stages and end")
    options = parser.parse_args(arguments)
    given = {option: getattr(options, option.removeprefix("--").replace("-", "_")) for option in BOARD_OPTIONS}
    board = [word for option, value in given.items() if value is not None for word in (option, value)]
    available = stages(expression=options.expression, board=board)
    if options.list:
        print("\n".join(f"{stage.name:<12} {stage.description}" for stage in available))
        return 0
    try:
        chosen = choose(available, options.names, quick=options.quick)
    except KeyError as error:
        print(f"no such stage: {error}; there are: {', '.join(stage.name for stage in available)}", file=sys.stderr)
        return 2
    return run_all(chosen, ROOT, ROOT / ".cache/test")


def run_all(chosen: Sequence[Stage], root: Path, logs: Path) -> int:
    """Run every stage, then print the summary."""
    outcomes = []
    for stage in chosen:
        print(f"── {stage.name}: {stage.description}", flush=True)
        log = logs / f"{stage.name}.log"
        outcome = run_stage(stage, root, log)
        outcomes.append(outcome)
        if outcome.failed:
            shown = log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
            print("\n".join(f"   {line}" for line in shown))
            print(f"   FAILED; the whole output is in {log}")
        print(f"   {outcome.closing} ({outcome.took_s:.0f} s)", flush=True)
    failed = [outcome.name for outcome in outcomes if outcome.failed]
    took_s = sum(outcome.took_s for outcome in outcomes)
    if failed:
        print(f"\n{len(failed)} of {len(outcomes)} stages failed in {took_s:.0f} s: {', '.join(failed)}")
        return 1
    print(f"\nall {len(outcomes)} stages passed in {took_s:.0f} s")
    return 0


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
