"""`mcu`: builds and emulates boards. stdout is data; stderr is for people."""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import edge_tools
from edge_tools.command import DONE, FAILED, USAGE, between, reader_left
from edge_tools.hil import qemu
from edge_tools.hil.board import default_elf, start_boards
from edge_tools.hil.control import Set
from edge_tools.hil.errors import HilError
from edge_tools.hil.identity import identity_page
from edge_tools.hil.pace import BAUD_DEFAULT, BAUD_MAX, BAUD_MIN
from edge_tools.mcu import build as building
from edge_tools.mcu.emulate import BoardState, Emulation, ListBoards, SetBoard, as_json, ask, claim

FIRMWARE = Path(edge_tools.__file__).resolve().parents[2] / "firmware"
KINDS = (*sorted(qemu.MACHINES), "posix")
_BOARDS_MAX = 1000


class _Ended(Exception):
    """Ctrl-C or SIGTERM: the boards are to end in good order."""


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done, 1 failed, 2 usage, 78 something is missing on this machine."""
    args = _parser().parse_args(argv)
    try:
        code: int = args.run(args)
    except HilError as problem:
        print(f"mcu: {problem}", file=sys.stderr)
        return problem.exit_code
    except _Ended:
        return DONE
    except KeyboardInterrupt:
        return DONE
    except BrokenPipeError:
        return reader_left()
    except OSError as problem:
        print(f"mcu: {problem}. Check the folder and its permissions.", file=sys.stderr)
        return FAILED
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mcu", description="Builds and emulates boards.", allow_abbrev=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _emulate_parser(commands)
    _set_parser(commands)

    listing = commands.add_parser("list", help="show the emulated boards of a folder", allow_abbrev=False)
    _where(listing)
    listing.set_defaults(run=_list)

    make = commands.add_parser("build", help="build the firmware of a board", allow_abbrev=False)
    make.add_argument("--board", required=True, metavar="BOARD", help="a CMake preset, such as mps2_an385")
    make.add_argument("--firmware", type=Path, default=FIRMWARE, metavar="DIR", help="default %(default)s")
    make.add_argument("--dry-run", action="store_true", help="print the commands only")
    make.set_defaults(run=_build)
    return parser


def _emulate_parser(commands: Any) -> None:
    emulate = commands.add_parser("emulate", help="run emulated boards until Ctrl-C", allow_abbrev=False)
    emulate.add_argument("--count", type=between(1, _BOARDS_MAX), default=1, metavar="N", help="how many")
    emulate.add_argument("--board", choices=KINDS, default="mps2_an385")
    emulate.add_argument("--baud", type=between(BAUD_MIN, BAUD_MAX), default=BAUD_DEFAULT, metavar="N")
    emulate.add_argument("--name", default="board", metavar="PREFIX", help="boards are called PREFIX1, PREFIX2, …")
    emulate.add_argument("--elf", type=Path, metavar="FILE", help="the image (default: where `mcu build` leaves it)")
    emulate.add_argument("--seed", type=int, default=0, metavar="N", help="of the noise on the line")
    emulate.add_argument("--dry-run", action="store_true", help="print what would be started only")
    _where(emulate)
    emulate.set_defaults(run=_emulate)


def _set_parser(commands: Any) -> None:
    change = commands.add_parser("set", help="change an emulated board or its line", allow_abbrev=False)
    change.add_argument("name", metavar="NAME", help="as `mcu list` shows it")
    change.add_argument("--temperature", type=float, metavar="C", help="what the sensor measures, in °C")
    change.add_argument("--baud", type=between(BAUD_MIN, BAUD_MAX), metavar="N")
    for rate, of in (("bit-errors", "a bit"), ("byte-loss", "a byte"), ("byte-insertion", "a byte")):
        change.add_argument(f"--{rate}", type=_rate, metavar="R", help=f"chance for {of}, 0 to 1")
    for span in ("delay-ms", "jitter-ms"):
        change.add_argument(f"--{span}", type=_delay, metavar="N", help="0 to 10000")
    change.add_argument(
        "--direction", choices=("up", "down", "both"), default="both", help="of the noise; up: board to gateway"
    )
    change.add_argument(
        "--stall", action=argparse.BooleanOptionalAction, help="the board's end no longer reads what is written to it"
    )
    plug = change.add_mutually_exclusive_group()
    plug.add_argument("--unplug", dest="plugged", action="store_const", const=False, help="pull the cable")
    plug.add_argument("--replug", dest="plugged", action="store_const", const=True)
    power = change.add_mutually_exclusive_group()
    power.add_argument("--power-cut", dest="powered", action="store_const", const=False)
    power.add_argument("--power-on", dest="powered", action="store_const", const=True)
    power.add_argument("--reset", action="store_true", help="press the reset button")
    change.add_argument("--dry-run", action="store_true", help="print the request only")
    _where(change)
    change.set_defaults(run=_set)


def _where(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dir", type=Path, required=True, metavar="DIR", help="the folder of the boards")
    parser.add_argument("--json", action="store_true", help="print JSON lines")


def _emulate(args: argparse.Namespace) -> int:
    elf: Path = args.elf or default_elf(args.board, FIRMWARE)
    names = [f"{args.name}{number}" for number in range(1, args.count + 1)]
    identity_page(names[-1], bytes(32))  # a name that does not fit is refused before anything is started
    if args.board == "posix":
        qemu.check_elf(args.board, elf)
    else:
        qemu.check(args.board, elf)
    folder: Path = args.dir.absolute()
    if args.dry_run:
        for name in names:
            row = {"name": name, "board": args.board, "port": str(folder / name / "port"), "elf": str(elf)}
            print(as_json(row) if args.json else f"would start {name} ({args.board}, {elf}) at {row['port']}")
        return DONE
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    folder.mkdir(parents=True, exist_ok=True)
    with (
        claim(folder) as listener,
        start_boards(args.count, args.board, folder, elf, args.baud, prefix=args.name, seed=args.seed) as boards,
    ):
        emulation = Emulation(folder, args.board, boards)
        emulation.serve(listener, on_ready=lambda: _announce(emulation, json=args.json))
    return DONE


def _announce(emulation: Emulation, *, json: bool) -> None:
    rows = emulation.describe()
    for row in rows:
        print(as_json(row) if json else f"{row['name']}  {row['port']}", flush=True)
    print(f"mcu: {len(rows)} board(s) run; Ctrl-C ends them", file=sys.stderr, flush=True)


def _end(*_: object) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # a second Ctrl-C does not cut the ending short
    raise _Ended


def _set(args: argparse.Namespace) -> int:
    line = Set(
        direction=args.direction,
        baud=args.baud,
        bit_errors=args.bit_errors,
        byte_loss=args.byte_loss,
        byte_insertion=args.byte_insertion,
        delay_ms=args.delay_ms,
        jitter_ms=args.jitter_ms,
        stall=args.stall,
    )
    request = SetBoard(
        name=args.name,
        line=None if line == Set(direction=args.direction) else line,
        plugged=args.plugged,
        temperature_c=args.temperature,
        powered=args.powered,
        reset=args.reset,
    )
    if request == SetBoard(name=args.name):
        print("mcu: nothing to set. Name at least one setting; `mcu set --help` lists them.", file=sys.stderr)
        return USAGE
    if args.dry_run:
        print(as_json(request))
        return DONE
    _show(ask(args.dir, request), json=args.json)
    return DONE


def _list(args: argparse.Namespace) -> int:
    _show(ask(args.dir, ListBoards()), json=args.json)
    return DONE


def _show(boards: Sequence[BoardState], *, json: bool) -> None:
    for board in boards:
        if json:
            print(as_json(board))
        else:
            power = "on" if board.powered else "off"
            plug = "plugged" if board.line.plugged else "unplugged"
            print(f"{board.name}  {board.board}  {power}  {plug}  {board.line.baud} baud  {board.port}")


def _build(args: argparse.Namespace) -> int:
    if args.dry_run:
        for step in building.commands(args.board, args.firmware):
            print(" ".join(step))
        return DONE
    building.build(args.board, args.firmware)
    print(default_elf(args.board, args.firmware))
    return DONE


def _within(low: float, high: float, text: str) -> float:
    value = float(text)
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"{text} is not within {low:g} to {high:g}")
    return value


def _rate(text: str) -> float:
    return _within(0.0, 1.0, text)


def _delay(text: str) -> float:
    return _within(0.0, 10_000.0, text)


if __name__ == "__main__":
    sys.exit(main())
