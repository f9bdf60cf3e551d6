"""`edge function` and `edge invoke`: ask the running gateway; without one `invoke` starts a worker for the one call."""

import argparse
import sys
from pathlib import Path
from typing import Any

import msgspec

from edge.config import DEFAULT_FILE, Config, load_config
from edge.control import BrokenOff, ask_rows
from edge.errors import InputRejected, TransientError

DONE, FAILED = 0, 1
EVENT_BYTES_MAX = 128 * 1024


def add_function_commands(commands: Any) -> None:
    """`commands` as argparse's add_subparsers gives them."""
    function = commands.add_parser("function", help="the running gateway's functions").add_subparsers(
        required=True, metavar="COMMAND"
    )
    for name, text, run in (("list", "all functions", _list), ("show", "one function, and what holds it", _show)):
        command = function.add_parser(name, help=text)
        if name == "show":
            command.add_argument("name", metavar="FUNCTION")
        _add_config(command, run)
    invoking = commands.add_parser("invoke", help="call a function once with an event, and show what it does")
    invoking.add_argument("name", metavar="FUNCTION")
    invoking.add_argument("--event", required=True, metavar="FILE", help="the payload; - is stdin")
    invoking.add_argument("--topic", default="", help="the topic it seems to come by")
    invoking.add_argument("--here", action="store_true", help="in a worker of its own, even if a gateway runs")
    _add_config(invoking, _invoke)


def _add_config(command: argparse.ArgumentParser, run: Any) -> None:
    command.add_argument("--config", default=DEFAULT_FILE, metavar="FILE", help="gateway file (default %(default)s)")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=run)


def _list(args: argparse.Namespace) -> int:
    rows = list(ask_rows(load_config(args.config).control_socket, "functions"))
    if args.json:
        print(msgspec.json.format(msgspec.json.encode(rows)).decode())
    for row in () if args.json else rows:
        p99 = "" if row["p99_ms"] is None else f", p99 {row['p99_ms']:g} ms"
        lost = {"publishes refused": row["publishes_refused"], "publishes denied": row["denied"]}
        went = "".join(f", {count:g} {what}" for what, count in lost.items() if count)
        why = f": {row['last_error']}" if row["state"] == "refused" else ""
        print(f"{row['name']}: {row['state']}, {row['calls']} calls{p99}, {row['errors']} errors{went}{why}")
    return DONE


def _show(args: argparse.Namespace) -> int:
    for row in ask_rows(load_config(args.config).control_socket, "function", name=args.name):
        if args.json:
            print(msgspec.json.format(msgspec.json.encode(row)).decode())
            continue
        for name, value in row.items():
            lines = value if isinstance(value, list) else [value]
            print(f"{name}: {', '.join(map(str, lines))}" if name != "contained_by" else f"{name}:")
            if name == "contained_by":
                print("\n".join(f"  {line}" for line in lines))
    return DONE


def _invoke(args: argparse.Namespace) -> int:
    config = load_config(args.config)
    payload = _event(args.event)
    row = None if args.here else _ask(config, args.name, args.topic, payload)
    if row is None:
        from edge.functions.alone import invoke_alone

        row = invoke_alone(config, args.name, args.topic, payload)
    if args.json:
        print(msgspec.json.format(msgspec.json.encode(row)).decode())
    else:
        _print(row)
    return DONE if row["ok"] else FAILED


def _event(path: str) -> bytes:
    try:
        payload = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise InputRejected("file", f"{path}: {error.strerror}") from None
    if len(payload) > EVENT_BYTES_MAX:
        raise InputRejected("event_too_large", f"{len(payload)} bytes, at most {EVENT_BYTES_MAX}")
    return payload


def _ask(config: Config, name: str, topic: str, payload: bytes) -> dict[str, Any] | None:
    """None when no gateway runs."""
    try:
        rows = list(ask_rows(config.control_socket, "invoke", name=name, topic=topic, payload=payload))
    except BrokenOff:
        raise TransientError("The gateway ended before the call did. Ask again.") from None
    except TransientError:
        return None
    return rows[0]


def _print(row: dict[str, Any]) -> None:
    for line in row["logs"]:
        print(f"log: {line}", file=sys.stderr)
    for one in row["publishes"]:
        print(f"published {one['topic']}  {one.get('payload', 'base64 ' + one.get('payload_base64', ''))}")
    if row["ok"]:
        result = row.get("result", f"base64 {row['result_base64']}" if "result_base64" in row else None)
        if result is not None:
            print(result)
    else:
        print(row["traceback"] or f"{row['error']}: {row['message']}", file=sys.stderr)
    print(f"edge: {row['duration_ms']:g} ms", file=sys.stderr)
