"""`fleet`: stores telemetry and shows it. stdout is data; stderr is for people."""

import argparse
import logging
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from edge.errors import ConfigError, InputRejected, TransientError
from edge.logs import log_event, set_up_logs
from edge.topics import check_filter
from edge_tools.command import CONFIGURATION, DONE, FAILED, USAGE, between, reader_left
from edge_tools.fleet.decode import Decoder
from edge_tools.fleet.ingest import Bounds, Ingest
from edge_tools.fleet.link import SESSION_EXPIRY_S, Link, parse_broker, share
from edge_tools.fleet.show import as_json, line_of, parse_time, row_of, stamp
from edge_tools.fleet.store import Missing, Query, Store, opener

_RECEIVE_MAX = 65_535
_FOLLOW_S = 0.25
_FOLLOW_ROWS = 1000
_KEPT = (
    f"Its part of what comes waits at the broker, {SESSION_EXPIRY_S // 86_400} days at most; no other gets it."
    " Start it again; if it goes for good, once more with --leave."
)
_log = logging.getLogger(__name__)


class _Ended(Exception):
    """Ctrl-C or SIGTERM while following."""


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done, 1 failed, 2 usage, 78 something of the configuration is wrong."""
    args = _parser().parse_args(_joined(sys.argv[1:] if argv is None else argv))
    try:
        code: int = args.run(args)
    except ConfigError as problem:
        print(f"fleet: {problem}", file=sys.stderr)
        return CONFIGURATION
    except (TransientError, InputRejected) as problem:
        print(f"fleet: {problem}", file=sys.stderr)
        return FAILED
    except (_Ended, KeyboardInterrupt):
        return DONE
    except BrokenPipeError:
        return reader_left()
    except OSError as problem:
        print(f"fleet: {problem}. Check the path and its permissions.", file=sys.stderr)
        return FAILED
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fleet", description="Stores telemetry and shows it.", allow_abbrev=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _ingest_parser(commands)
    telemetry = commands.add_parser("telemetry", help="show what is stored", allow_abbrev=False)
    _telemetry_parser(telemetry.add_subparsers(required=True, metavar="WHAT"))
    return parser


def _ingest_parser(commands: Any) -> None:
    ingest = commands.add_parser(
        "ingest",
        help="store telemetry from a broker until SIGTERM",
        description="Stores telemetry from a broker, each reading once, until SIGTERM. A message is acknowledged when"
        " its commit is on disk.",
        allow_abbrev=False,
    )
    ingest.add_argument("--broker", required=True, metavar="URL", help="mqtts://HOST:PORT, or mqtt:// without TLS")
    ingest.add_argument(
        "--ca", default="", metavar="FILE", help="what the broker is checked by (default: the system's)"
    )
    ingest.add_argument("--certificate", default="", metavar="FILE")
    ingest.add_argument("--key", default="", metavar="FILE")
    ingest.add_argument(
        "--client-id",
        required=True,
        metavar="ID",
        help="the broker keeps a session by it: each process its own, always the same",
    )
    ingest.add_argument("--topic", action="append", type=_filter, default=[], metavar="FILTER", help="single messages")
    ingest.add_argument("--batch-topic", action="append", type=_filter, default=[], metavar="FILTER", help="batches")
    ingest.add_argument("--shared", default="", metavar="GROUP", help="share the load with all who name this group")
    ingest.add_argument(
        "--leave",
        action="store_true",
        help="end this client's subscriptions, store what the broker still holds for it, and end: for one that goes for"
        " good",
    )
    ingest.add_argument(
        "--commit-records", type=between(1, 100_000), default=1000, metavar="N", help="default %(default)s"
    )
    ingest.add_argument("--commit-ms", type=between(1, 10_000), default=100, metavar="T", help="default %(default)s")
    _common(ingest)
    ingest.set_defaults(run=_ingest)


def _telemetry_parser(commands: Any) -> None:
    query = commands.add_parser("query", help="records in order of time", allow_abbrev=False)
    _selection(query)
    query.add_argument("--topic", type=_filter, metavar="FILTER", help="an MQTT topic filter")
    query.add_argument("--limit", type=between(1, 10**9), default=0, metavar="N", help="the newest N")
    _common(query)
    query.set_defaults(run=_query)

    tail = commands.add_parser("tail", help="records as they come, until Ctrl-C", allow_abbrev=False)
    tail.add_argument("--thing", metavar="T")
    tail.add_argument("--from-start", action="store_true", help="all that is stored first")
    _common(tail)
    tail.set_defaults(run=_tail)

    plot = commands.add_parser("plot", help="draw a field of a thing over time", allow_abbrev=False)
    _selection(plot, thing_required=True)
    plot.add_argument("--topic", type=_filter, metavar="FILTER", help="an MQTT topic filter")
    plot.add_argument(
        "--field",
        default="",
        metavar="NAME",
        help="in the JSON payload, such as c or air.c (default: the payload itself)",
    )
    plot.add_argument(
        "--limit",
        type=between(1, 10_000_000),
        default=1_000_000,
        metavar="N",
        help="the newest N (default %(default)s)",
    )
    plot.add_argument("--output", type=Path, required=True, metavar="FILE.png")
    _common(plot)
    plot.set_defaults(run=_plot)

    losses = commands.add_parser("losses", help="account for every sequence number", allow_abbrev=False)
    losses.add_argument("--thing", metavar="T")
    _common(losses)
    losses.set_defaults(run=_losses)

    rejected = commands.add_parser(
        "rejected", help="input that could not be stored, the newest first", allow_abbrev=False
    )
    rejected.add_argument("--limit", type=between(1, 10_000), default=20, metavar="N", help="default %(default)s")
    _common(rejected)
    rejected.set_defaults(run=_rejected)

    counters = commands.add_parser("counters", help="how much was rejected, by reason", allow_abbrev=False)
    _common(counters)
    counters.set_defaults(run=_counters)


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--database",
        required=True,
        metavar="URL",
        help="sqlite:///FILE or postgresql://USER@HOST/NAME (password: ~/.pgpass)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON lines")


def _selection(parser: argparse.ArgumentParser, *, thing_required: bool = False) -> None:
    parser.add_argument("--thing", required=thing_required, metavar="T")
    parser.add_argument("--from", dest="begin", type=_time, metavar="TIME", help="ISO 8601, or a span such as -1h")
    parser.add_argument("--to", dest="end", type=_time, metavar="TIME", help="excluded")


def _ingest(args: argparse.Namespace) -> int:
    if not args.topic and not args.batch_topic:
        print("fleet: nothing to subscribe to. Name at least one --topic or --batch-topic.", file=sys.stderr)
        return USAGE
    set_up_logs("json" if args.json else "text")
    open_store = opener(args.database)
    address = parse_broker(args.broker, args.client_id, args.ca, args.certificate, args.key)
    filters = share(args.shared, [*args.topic, *args.batch_topic])
    stopping: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: stopping.append(number))
    ingest = Ingest(
        lambda: open_store(True),
        lambda: Link(address, _RECEIVE_MAX, leave=args.leave),
        filters,
        Decoder(args.batch_topic),
        bounds=Bounds(commit_records=args.commit_records, commit_ms=args.commit_ms),
        stopped=lambda: bool(stopping),
        subscribed=lambda: args.json and print(as_json({"event": "subscribed", "filters": filters}), flush=True),
        leave=args.leave,
    )
    ingest.run()
    totals = msgspec.to_builtins(ingest.totals)
    log_event(_log, "ingest_ended", **totals)
    if args.json:
        print(as_json({"event": "ended", **totals}), flush=True)
    if args.leave and not ingest.left:
        print("fleet: it has not left. Run it again with --leave.", file=sys.stderr)
        return FAILED
    if args.shared and not args.leave:
        log_event(_log, "share_kept", level=logging.WARNING, client_id=args.client_id, remedy=_KEPT)
    return DONE


def _query(args: argparse.Namespace) -> int:
    with _reading(args.database) as store:
        for record in store.query(_wanted(args)):
            print(as_json(row_of(record)) if args.json else line_of(record))
    return DONE


def _tail(args: argparse.Namespace) -> int:
    signal.signal(signal.SIGTERM, _end)
    with _reading(args.database) as store:
        number = 0 if args.from_start else store.newest()
        while True:
            horizon = store.horizon()
            while found := store.after(number, horizon, _FOLLOW_ROWS):
                number = found[-1][0]
                for _, record in found:
                    if args.thing in {None, record.thing}:
                        print(as_json(row_of(record)) if args.json else line_of(record))
                sys.stdout.flush()
            time.sleep(_FOLLOW_S)


def _plot(args: argparse.Namespace) -> int:
    try:
        from edge_tools.fleet.plot import draw, read_series
    except ImportError as error:
        fix = "Install it with: pip install 'edgeloop[fleet]'."
        raise ConfigError("plot", "", f"matplotlib is not installed: {error}", fix) from None

    with _reading(args.database) as store:
        series = read_series(store.query(_wanted(args)), args.field)
    if not series.times:
        what = f"field {args.field!r} of {args.thing}" if args.field else f"numbers of {args.thing}"
        print(
            f"fleet: no {what} is stored ({series.skipped} other records). Check --thing and --field.", file=sys.stderr
        )
        return FAILED
    draw(series, args.thing, args.field, args.output)
    row = {
        "output": str(args.output),
        "thing": args.thing,
        "field": args.field,
        "records": len(series.times),
        "skipped": series.skipped,
        "first": series.times[0],
        "last": series.times[-1],
    }
    print(
        as_json(row) if args.json else f"{args.output}: {len(series.times)} records, {series.skipped} without the field"
    )
    return DONE


def _losses(args: argparse.Namespace) -> int:
    with _reading(args.database) as store:
        for one in store.losses(args.thing):
            if args.json:
                row = msgspec.to_builtins(one)
                pairs = {name: [[gap["first"], gap["last"]] for gap in row[name]] for name in ("missing", "unknown")}
                print(as_json({**row, **pairs}))
                continue
            told = f"{one.missing_count} missing{_stretches(one.missing)}"
            if one.unknown_count:
                told = f"{one.unknown_count} unknown{_stretches(one.unknown)}"
            print(f"{one.thing}  boot {one.boot}  {one.first} to {one.last}  {one.count} records  {told}")
    return DONE


def _stretches(gaps: Sequence[Missing]) -> str:
    if not gaps:
        return ""
    shown = ", ".join(f"{gap.first}-{gap.last}" if gap.last > gap.first else f"{gap.first}" for gap in gaps[:20])
    return f": {shown}{' …' if len(gaps) > 20 else ''}"


def _rejected(args: argparse.Namespace) -> int:
    with _reading(args.database) as store:
        for one in store.rejected(args.limit):
            if args.json:
                print(as_json(one))
            else:
                print(f"{stamp(one.received)}  {one.reason}  {one.topic}  {one.detail}  {one.sample[:80]!r}")
    return DONE


def _counters(args: argparse.Namespace) -> int:
    with _reading(args.database) as store:
        counters = store.counters()
    if args.json:
        print(as_json(counters))
    else:
        for name, value in counters.items():
            print(f"{name}  {value}")
    return DONE


def _wanted(args: argparse.Namespace) -> Query:
    return Query(thing=args.thing, topic_filter=args.topic, begin=args.begin, end=args.end, limit=args.limit)


@contextmanager
def _reading(database: str) -> Iterator[Store]:
    store = opener(database)(False)
    try:
        yield store
    finally:
        store.close()


def _joined(arguments: Sequence[str]) -> list[str]:
    """`--from -1h` as `--from=-1h`, which argparse would take for an option."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] in {"--from", "--to"} and argument[:1] == "-" and argument[1:2].isdigit():
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def _end(*_: object) -> None:
    raise _Ended


def _filter(text: str) -> str:
    try:
        check_filter(text)
    except InputRejected as problem:
        raise argparse.ArgumentTypeError(str(problem)) from None
    return text


def _time(text: str) -> int:
    try:
        return parse_time(text, int(time.time() * 1000))
    except (ValueError, OverflowError) as problem:
        raise argparse.ArgumentTypeError(str(problem)) from None


if __name__ == "__main__":
    sys.exit(main())
