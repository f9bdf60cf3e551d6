"""`edge`: run the gateway, check its file, look at what it does. stdout is data; stderr is for people."""

import argparse
import itertools
import logging
import math
import os
import sys
import time
from collections.abc import Sequence
from typing import Any, BinaryIO

import msgspec

from edge import __version__, cli_status
from edge.cli_functions import add_function_commands
from edge.cli_streams import add_stream_commands
from edge.config import DEFAULT_FILE, Config, GatewaySettings, MqttSnSettings, RuleSettings, load_config
from edge.control import ask_rows, ask_status, watch
from edge.errors import ConfigError, EdgeLoopError, InputRejected, TransientError
from edge.logs import log_event, set_up_logs
from edge.topics import check_topic

DONE, FAILED, USAGE, CONFIGURATION = 0, 1, 2, 78


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done, 1 failed, 2 usage, 78 configuration."""
    args = _parser().parse_args(argv)
    try:
        code: int = args.run(args)
    except ConfigError as error:
        print(f"edge: {error}", file=sys.stderr)
        return CONFIGURATION
    except InputRejected as error:
        print(f"edge: {error}", file=sys.stderr)
        return USAGE
    except EdgeLoopError as error:
        print(f"edge: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return DONE
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="edge", description="EdgeLoop's gateway runtime.")
    parser.add_argument("--version", action="version", version=f"edge {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run the gateway until SIGTERM or Ctrl-C")
    run.add_argument("--config", default=DEFAULT_FILE, metavar="FILE", help="the gateway file (default %(default)s)")
    run.add_argument("--log", choices=("text", "json"), default="text", help="form of the events on stderr")
    run.add_argument("--verbose", action="store_true", help="log details too")
    run.add_argument(
        "--discard", action="append", default=[], metavar="STREAM", help="give up this stream's backlog if need be"
    )
    run.set_defaults(run=_run)

    check = commands.add_parser("check-config", help="check a gateway file and what it names")
    check.add_argument("file", metavar="FILE")
    check.add_argument("--json", action="store_true", help="print the whole file as understood, defaults filled in")
    check.set_defaults(run=_check_config)

    status = commands.add_parser("status", help="what a running gateway does")
    _add_where(status)
    status.set_defaults(run=_status)

    watching = commands.add_parser("watch", help="show messages as the running gateway routes them")
    watching.add_argument(
        "filter", metavar="FILTER", nargs="?", default="#", help="an MQTT topic filter, such as 'dt/#'"
    )
    _add_where(watching)
    watching.set_defaults(run=_watch)

    add_stream_commands(commands.add_parser("stream", help="what is held for later: look at it, export it, purge it"))
    add_function_commands(commands)
    _add_rules(commands)
    return parser


def _add_rules(commands: Any) -> None:
    trying = commands.add_parser("try", help="run one rule over recorded messages")
    trying.add_argument("rule", metavar="RULE", help="a rule's name in the gateway file, or the SQL itself")
    trying.add_argument("--input", required=True, metavar="FILE", help="lines as `edge record` writes them; - is stdin")
    trying.set_defaults(run=_try)
    recording = commands.add_parser("record", help="write messages of the running gateway to a file until Ctrl-C")
    recording.add_argument("filter", metavar="FILTER", help="an MQTT topic filter")
    recording.add_argument("--output", required=True, metavar="FILE")
    recording.add_argument("--socket", metavar="PATH", help="its control socket, instead of --config")
    recording.set_defaults(run=_record)
    replaying = commands.add_parser(
        "replay", help="run all rules over a recording; say what bytes they save before upload"
    )
    replaying.add_argument("file", metavar="FILE", help="lines as `edge record` writes them; - is stdin")
    replaying.add_argument("--speed", type=_speed, default=0.0, help="times as fast as recorded; 0 (default): at once")
    replaying.set_defaults(run=_replay)
    explaining = commands.add_parser("explain", help="where a message of a topic goes, and why")
    explaining.add_argument("topic", metavar="TOPIC")
    explaining.add_argument("--from", dest="source", default="", help="its source (default: all that it is taken from)")
    explaining.add_argument("--client", default="", help="who sends it, where a route names {board}")
    explaining.set_defaults(run=_explain)
    tracing = commands.add_parser("trace", help="what became of one reading: where it is, where it went, and why")
    tracing.add_argument("id", metavar="THING/BOOT/SEQUENCE")
    tracing.add_argument("--topic", default="", help="its topic, where nothing holds it any more")
    tracing.set_defaults(run=_trace)
    for one in (trying, recording, replaying, explaining, tracing):
        one.add_argument("--config", default=DEFAULT_FILE, metavar="FILE", help="gateway file (default %(default)s)")
    for one in (trying, replaying, explaining, tracing):
        one.add_argument("--json", action="store_true", help="print JSON")


def _add_where(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", default=DEFAULT_FILE, metavar="FILE", help="its gateway file (default %(default)s)")
    parser.add_argument("--socket", metavar="PATH", help="its control socket, instead of --config")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _run(args: argparse.Namespace) -> int:
    from edge.runtime import run_gateway  # the other commands pay none of the runtime's start

    set_up_logs(args.log, verbose=args.verbose)
    config = load_config(args.config)
    log_event(logging.getLogger("edge.cli"), "gateway_starting", version=__version__, config=config.file)
    return run_gateway(config, args.discard)


def _check_config(args: argparse.Namespace) -> int:
    from edge.functions.versions import check_files
    from edge.rules.build import read_rules
    from edge.runtime import check_credentials_of

    config = load_config(args.file)
    check_credentials_of(config)
    check_files(config.file, config.functions, config.folder)
    read_rules(config)
    if args.json:
        print(msgspec.json.format(msgspec.json.encode(config)).decode())
    else:
        boards, routes = len(config.boards), len(config.routes)
        print(f"{args.file}: gateway {config.gateway.name}, {boards} board(s), {routes} route(s): valid")
    return DONE


def _socket(args: argparse.Namespace) -> str:
    if args.socket:
        return str(args.socket)
    config: Config = load_config(args.config)
    return config.control_socket


def _status(args: argparse.Namespace) -> int:
    status = ask_status(_socket(args))
    if args.json:
        print(msgspec.json.format(msgspec.json.encode(status)).decode())
    else:
        print("\n".join(cli_status.lines(status)))
    return DONE


def _watch(args: argparse.Namespace) -> int:
    for row in watch(_socket(args), args.filter):
        if args.json:
            print(msgspec.json.encode(row).decode(), flush=True)
        elif "topic" in row:
            payload = row.get("payload", f"base64 {row.get('payload_base64')}")
            print(f"{row['source']:12} {row['topic']}  {payload}", flush=True)
        else:
            print(f"edge: {', '.join(f'{key} {value}' for key, value in row.items())}", file=sys.stderr, flush=True)
    return DONE


def _try(args: argparse.Namespace) -> int:
    from edge.outbox.marks import Marks
    from edge.rules.build import read_rules
    from edge.rules.payloads import decoder
    from edge.rules.recorded import Trial, read_lines

    if " " in args.rule.strip():
        gateway = GatewaySettings(name="try")
        settings = RuleSettings(name="try", sql=args.rule)
        base = Config(
            file="RULE", gateway=gateway, cloud=None, broker=None, boards=(), mqttsn=MqttSnSettings(), routes=()
        )
        (read,) = read_rules(msgspec.structs.replace(base, rules=(settings,)))
    else:
        rules = {rule.settings.name: rule for rule in read_rules(load_config(args.config))}
        if args.rule not in rules:
            known = ", ".join(sorted(rules)) or "none"
            raise ConfigError(args.config, "rule", f"{args.rule!r} is nowhere in this file", f"There are {known}.")
        read = rules[args.rule]
    trial = Trial(read.compile(), decoder(read.settings.payload, read.settings.columns), Marks({}))
    with _opened(args.input) as lines:
        for recorded in read_lines(lines):
            for row in trial.feed(recorded):
                print(msgspec.json.encode(row).decode())
    for row in trial.finish():
        print(msgspec.json.encode(row).decode())
    if args.json:
        print(msgspec.json.encode(trial.report()).decode())
    else:
        print("edge: " + ", ".join(f"{key} {value}" for key, value in trial.report().items()), file=sys.stderr)
    return DONE


def _opened(file: str) -> BinaryIO:
    """- is stdin."""
    try:
        return open(sys.stdin.fileno(), "rb", closefd=False) if file == "-" else open(file, "rb")
    except OSError as error:
        raise InputRejected("file", f"{file}: {error.strerror}") from None


def _created(file: str) -> BinaryIO:
    try:
        return open(file, "xb")
    except OSError as error:
        raise InputRejected("file", f"{file}: {error.strerror}") from None


def _record(args: argparse.Namespace) -> int:
    """The file is made once the gateway answers: who came too early may try again."""
    if os.path.lexists(args.output):
        raise InputRejected("file", f"{args.output}: File exists. A recording is never written over: name another.")
    rows = watch(_socket(args), args.filter)
    first = next(rows, {})
    with _created(args.output) as output:
        for row in itertools.chain([first], rows):
            if "topic" in row:
                output.write(msgspec.json.encode(row) + b"\n")
                output.flush()
            else:
                print(f"edge: {', '.join(f'{key} {value}' for key, value in row.items())}", file=sys.stderr)
    return DONE


def _replay(args: argparse.Namespace) -> int:
    from edge.replay import Replay
    from edge.rules.build import read_rules
    from edge.rules.recorded import read_lines

    config = load_config(args.config)
    replay = Replay(config, read_rules(config))
    began, first = time.monotonic(), None
    with _opened(args.file) as lines:
        for recorded in read_lines(lines):
            if args.speed > 0:
                first = recorded.time if first is None else first
                time.sleep(max(0.0, (recorded.time - first) / args.speed - (time.monotonic() - began)))
            replay.feed(recorded)
    for report in replay.finish():
        if args.json:
            print(msgspec.json.encode(report.json()).decode())
        else:
            print(
                f"{report.rule or 'all rules'}: {report.messages} messages, {report.bytes_raw} bytes raw -> "
                f"{report.rows} rows, {report.bytes_rules} bytes -> {report.batches} batches, "
                f"{report.bytes_batched} bytes; {report.saved_percent} % saved"
            )
    return DONE


def _explain(args: argparse.Namespace) -> int:
    from edge.explaining import explain_all, explain_topic, lines
    from edge.rules.build import read_rules

    config = load_config(args.config)
    check_topic(args.topic)
    rules = read_rules(config)
    if args.source:
        found = [explain_topic(config, rules, args.source, args.client, args.topic)]
    else:
        found = explain_all(config, rules, args.client, args.topic)
    for one in found:
        told = msgspec.to_builtins(one)
        print(msgspec.json.encode(told).decode() if args.json else "\n".join(lines(told)))
    return DONE


def _speed(text: str) -> float:
    speed = float(text)
    if not 0 <= speed < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no speed: 0 or more, such as 10")
    return speed


def _trace(args: argparse.Namespace) -> int:
    from edge.rules.build import read_rules
    from edge.tracing import lines, logs_in, parse_id, trace

    config = load_config(args.config)
    named = parse_id(args.id)
    if args.topic:
        check_topic(args.topic)
    try:
        found = list(ask_rows(config.control_socket, "trace", name=args.id, topic=args.topic))
    except TransientError:
        rows = trace(named, config, read_rules(config), logs_in(config), args.topic)
        found = [msgspec.to_builtins(row) for row in rows if row is not None]
    for told in found:
        print(msgspec.json.encode(told).decode() if args.json else "\n".join(lines(told)))
    return DONE


if __name__ == "__main__":
    sys.exit(main())
