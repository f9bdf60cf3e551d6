"""`edge`: run the gateway, check its file, look at what it does. stdout is data; stderr is for people."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence

import msgspec

from edge import __version__, cli_status
from edge.cli_streams import add_stream_commands
from edge.config import DEFAULT_FILE, Config, load_config
from edge.control import ask_status, watch
from edge.errors import ConfigError, EdgeLoopError, InputRejected
from edge.logs import log_event, set_up_logs

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
    return parser


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
    from edge.runtime import check_credentials_of

    config = load_config(args.file)
    check_credentials_of(config)
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


if __name__ == "__main__":
    sys.exit(main())
