"""`edge stream`: asks the running gateway; where none runs, looks into the streams' folders and changes nothing."""

import argparse
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

import msgspec

from edge.config import DEFAULT_FILE, Config, load_config
from edge.control import ask_rows
from edge.errors import InputRejected, TransientError

DONE = 0
LAST = (1 << 63) - 1


def add_stream_commands(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, text, run in (
        ("list", "all streams: backlog, bytes, rates", _list),
        ("show", "one stream", _show),
        ("export", "a stretch of records as newline-delimited JSON", _export),
        ("purge", "give up all that a running gateway's stream holds, counted", _purge),
        ("losses", "what was taken and what was shed, by thing", _losses),
    ):
        command = commands.add_parser(name, help=text)
        if name != "list":
            command.add_argument("name", metavar="STREAM")
        if name == "export":
            command.add_argument("--from", dest="first", type=int, default=1, metavar="N", help="first record's number")
            command.add_argument("--to", dest="last", type=int, default=LAST, metavar="N", help="last record's number")
            command.add_argument("--output", metavar="FILE", help="write there instead of stdout")
        if name == "purge":
            command.add_argument("--dry-run", action="store_true", help="say what would be given up, change nothing")
        command.add_argument(
            "--config", default=DEFAULT_FILE, metavar="FILE", help="the gateway file (default %(default)s)"
        )
        command.add_argument("--json", action="store_true", help="print JSON")
        command.set_defaults(run=run)


def _list(args: argparse.Namespace) -> int:
    config = load_config(args.config)
    from edge.outbox.report import Folder, held

    found = _rows(config, "streams", (Folder(config, name).status() for name in held(config)))
    _print(args, list(found))
    return DONE


def _show(args: argparse.Namespace) -> int:
    config = load_config(args.config)
    for row in _rows(config, "stream", _folder_rows(config, args.name, "status"), name=args.name):
        _print(args, row)
    return DONE


def _export(args: argparse.Namespace) -> int:
    config = load_config(args.config)
    rows = _folder_rows(config, args.name, "rows", args.first, args.last)
    asked = _rows(config, "export", rows, name=args.name, first=args.first, last=args.last)
    count = 0
    try:
        with _output(args.output) as output:
            for row in asked:
                output.write(msgspec.json.encode(row) + b"\n")
                count += 1
            output.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise InputRejected("file", f"{args.output or 'stdout'}: {error.strerror}") from None
    print(f"edge: {count} records", file=sys.stderr)
    return DONE


def _purge(args: argparse.Namespace) -> int:
    config = load_config(args.config)
    if args.dry_run:
        for row in _rows(config, "stream", _folder_rows(config, args.name, "status"), name=args.name):
            _print(args, {"stream": args.name, "would_purge": row["backlog_records"]})
        return DONE
    for row in ask_rows(config.control_socket, "purge", name=args.name):
        _print(args, row)
    return DONE


def _losses(args: argparse.Namespace) -> int:
    config = load_config(args.config)
    _print(args, list(_rows(config, "losses", _folder_rows(config, args.name, "losses"), name=args.name)))
    return DONE


@contextmanager
def _output(path: str | None) -> Iterator[BinaryIO]:
    """A file is made, or replaced, only when all is in it; a pipe or a device is written to as it is."""
    if path is None:
        yield sys.stdout.buffer
        return
    if os.path.exists(path) and not os.path.isfile(path):
        with open(path, "wb") as output:
            yield output
        return
    target = os.path.realpath(path)
    partial = f"{target}.{os.getpid()}.partial"
    try:
        with open(partial, "wb") as output:
            yield output
        os.replace(partial, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(partial)
        raise


def _rows(config: Config, do: str, otherwise: Iterable[Any], **fields: str | int) -> Iterator[dict[str, Any]]:
    """What the running gateway answers; what the folders say if none runs, or it ends before its first row."""
    told = False
    try:
        for row in ask_rows(config.control_socket, do, **fields):
            told = True
            yield row
    except TransientError:
        if told:
            raise
        yield from (msgspec.to_builtins(row) for row in otherwise)


def _folder_rows(config: Config, name: str, what: str, *args: int) -> Iterator[Any]:
    from edge.outbox.report import Folder

    folder = Folder(config, name)
    match what:
        case "status":
            yield folder.status()
        case "rows":
            yield from folder.rows(*args)
        case _:
            yield from folder.losses()


def _print(args: argparse.Namespace, found: Any) -> None:
    if args.json:
        print(msgspec.json.format(msgspec.json.encode(found)).decode())
        return
    for row in found if isinstance(found, list) else [found]:
        told = {key: value for key, value in row.items() if value is not False and value not in (None, "", {}, [])}
        print(", ".join(f"{key} {_text(value)}" for key, value in told.items() if key != "shed" or "marks" not in row))
        if "marks" in row:
            for one in row["shed"]:
                print(f"  {_text(one)}")


def _text(value: Any) -> str:
    """Of the values that rows have, for people."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {one}" for key, one in value.items())
    if isinstance(value, list):
        return "; ".join(f"boot {boot} up to {sequence}" for boot, sequence in value)
    return str(value)
