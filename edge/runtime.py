"""Builds everything once, gives it to each other, and owns the root TaskGroup.

Invariants: after start nothing that arrives from outside ends the process; one gateway works on one data_dir; at
SIGTERM or SIGINT the connections say goodbye and the ports are given back.
"""

import asyncio
import contextlib
import fcntl
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from edge import __version__
from edge.boards.board import Board, BoardStatus
from edge.boards.gateway import ClientStatus, Gateway
from edge.boards.port import run_port
from edge.boards.udp import UdpClients
from edge.cloud.codec import CodecConnection
from edge.cloud.connection import Connection
from edge.cloud.held import HeldFilters
from edge.cloud.inbox import Receive
from edge.cloud.shadows import Shadows
from edge.cloud.tls import check_credentials
from edge.config import Config, ConnectionSettings
from edge.control import Answering, Ask, Control
from edge.errors import ConfigError
from edge.functions.child import Spawn
from edge.functions.figures import FunctionStatus
from edge.functions.functions import Functions
from edge.functions.processes import Processes
from edge.functions.versions import check_files
from edge.logs import log_event
from edge.messages import Message, Origin
from edge.metrics import Metrics
from edge.outbox.marks import Keeper
from edge.outbox.outbox import Outbox
from edge.outbox.report import StreamStatus
from edge.reload import Reload, ReloadStatus
from edge.router import Router
from edge.rulelog.rulelog import RuleLog
from edge.rules.build import CompiledRule, ReadRule, read_rules, rule_nodes, rule_routes, table_files
from edge.tracing import logs_of, parse_id, trace

# A message costs a tuple or two and makes no cycle: at the default of 700 the collector took about a tenth of a core.
GC_THRESHOLDS = 20_000, 20, 100
# The thread of a commit takes the interpreter back after each call to the disk: at the default of 5 ms it waited longer
# for a busy loop than for the disk.
SWITCH_S = 0.001
_CLOCK_IS_SET_AFTER_S = 1_600_000_000  # earlier than this no gateway ran: its clock stands at the epoch
_RULES_TICK_S = 0.1
_log = logging.getLogger(__name__)


class ConnectionStatus(msgspec.Struct, frozen=True):
    """One connection, for `edge status`. cause, problem, remedy: of the last failure, kept after recovery."""

    name: str
    connected: bool
    since_s: float
    cause: str
    problem: str
    remedy: str
    queued: int
    in_flight: int


class Status(msgspec.Struct, frozen=True):
    """What `edge status` shows. counters: `name{label="value"}` to value."""

    gateway: str
    version: str
    pid: int
    uptime_s: float
    connections: tuple[ConnectionStatus, ...]
    boards: tuple[BoardStatus, ...]
    clients: tuple[ClientStatus, ...]
    counters: dict[str, float]
    streams: tuple[StreamStatus, ...] = ()
    functions: tuple[FunctionStatus, ...] = ()
    reload: ReloadStatus = ReloadStatus()


class Runtime:
    """One gateway: `run` is its life."""

    def __init__(self, config: Config, discard: Sequence[str] = ()) -> None:
        self._config = self._live = config
        self._started = time.monotonic()
        self._metrics = metrics = Metrics()
        self._read = rules = read_rules(config)
        self._routes = [*config.all_routes, *rule_routes(rules)]
        self._router = router = Router(self._routes, metrics)
        self._connections = {
            name: _connect(name, settings, metrics, config)
            for name, settings in (("cloud", config.cloud), ("broker", config.broker))
            if settings is not None
        }
        self._gateway = gateway = Gateway(config.mqttsn, config.boards, router.route, metrics, time.monotonic)
        self._outbox = Outbox(config, metrics, self._connections, discard=discard)
        self._rules = RuleLog(
            config, self._outbox, router, metrics, now=time.monotonic, unix_time_ms=lambda: int(time.time() * 1000)
        )
        self._rules.change([CompiledRule(rule) for rule in rules], self._routes)
        self._functions = Functions(
            config,
            router,
            metrics,
            self._processes,
            letters=self._outbox.dead_letters,
            shadows=Shadows(self._connections.get("cloud"), f"{config.gateway.name}-{os.getpid()}"),
            changed=self._functions_changed,
            is_behind=lambda: self._reload.is_behind,
            rules=lambda: rule_nodes(self._read),
        )
        self._marks = marks = self._outbox.marks(lambda: self._routes, self._keeper)
        self._boards = [
            Board(
                settings,
                gateway,
                metrics,
                marks,
                unix_time_ms=_unix_time_ms,
                advertise_s=config.mqttsn.advertise_s,
                lines=partial(_log_lines, settings.name),
            )
            for settings in config.boards
        ]
        udp = config.mqttsn.udp
        self._udp = UdpClients(udp, gateway, metrics) if udp is not None else None
        self._receivers: dict[str, Receive] = {}
        self._subscribed: dict[str, list[str]] = {}
        self._reload = Reload(config, metrics, prepare=self._prepare, files=table_files)
        self._control = Control(config.control_socket, self.status, router, self._asks())
        self._wire()

    def _wire(self) -> None:
        """Let every end of a route be a source and a target."""
        router = self._router
        for name, connection in self._connections.items():
            router.attach(name, connection)
            self._receivers[name] = partial(_receive, router, name)
        for name in ("boards", *(f"board:{board.name}" for board in self._boards)):
            router.attach(name, self._gateway.target(name))
        if self._udp is not None:
            router.attach("udp", self._gateway.target("udp"))
        bounds = {name: settings.topic_bounds for name, settings in self._config.connections}
        for stream in self._config.all_streams:
            its = bounds.get(stream.export) if stream.format == "message" else None
            refuses = its.refuses if its is not None else None
            router.attach(f"stream:{stream.name}", self._outbox.streams[stream.name], refuses)
        self._subscribe()

    def _subscribe(self) -> None:
        """To what routes name, and no longer to what they named."""
        for name, connection in self._connections.items():
            known, named = self._subscribed.get(name, []), self._router.filters(name)
            self._subscribed[name] = named
            receive = self._receivers[name]
            if new := [one for one in named if one not in known]:
                connection.subscribe(new, receive)
            if old := [one for one in known if one not in named]:
                connection.unsubscribe(old, receive)

    def _prepare(self, config: Config) -> Callable[[], None] | None:
        """In a thread: what to do so that the rules and functions of this file are at work."""
        read = read_rules(config)
        check_files(config.file, config.functions, config.folder)
        if (read, config.functions, config.routes) == (self._read, self._live.functions, self._live.routes):
            return None
        compiled = [CompiledRule(rule) for rule in read]
        return lambda: self._change(config, read, compiled)

    def _change(self, config: Config, read: Sequence[ReadRule], rules: Sequence[CompiledRule]) -> None:
        """Between two batches: from the next on messages go the new ways."""
        self._read = list(read)
        self._routes = [*config.all_routes, *rule_routes(read)]
        self._reroute()
        self._rules.change(rules, self._routes)
        self._live = config
        self._functions.apply(config)
        self._marks.forget_keepers()
        self._subscribe()

    async def run(self) -> None:
        """Until cancelled, or until SIGTERM or SIGINT."""
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload.look)
        self._outbox.start()
        self._rules.start()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(connection.run()) for connection in self._connections.values()]
            tasks += [group.create_task(run_port(board, self._metrics)) for board in self._boards]
            if self._udp is not None:
                tasks.append(group.create_task(self._udp.run()))
            tasks.append(group.create_task(self._tick_rules()))
            tasks.append(group.create_task(self._control.run()))
            tasks.append(group.create_task(self._reload.run()))
            functions = group.create_task(self._functions.run())
            gc.collect()
            gc.freeze()  # what start-up made lives as long as the process: no collection looks at it again
            gc.set_threshold(*GC_THRESHOLDS)
            sys.setswitchinterval(SWITCH_S)
            log_event(_log, "gateway_started", gateway=self._config.gateway.name, control=self._config.control_socket)
            await stop.wait()
            log_event(_log, "gateway_stopping")
            self._functions.stop()
            await asyncio.wait([functions])
            for task in tasks:
                task.cancel()
        self._outbox.close()

    def _asks(self) -> Mapping[str, Answering]:
        """What the control socket answers about streams and functions."""
        outbox = self._outbox
        return {
            "streams": lambda ask: outbox.status(),
            "stream": lambda ask: (outbox.show(ask.name),),
            "purge": lambda ask: (outbox.purge(ask.name),),
            "export": lambda ask: outbox.rows(ask.name, ask.first, ask.last),
            "losses": lambda ask: outbox.losses(ask.name),
            "functions": lambda ask: self._functions.status(),
            "function": lambda ask: (self._functions.show(ask.name),),
            "invoke": self._invoke,
            "trace": self._trace,
        }

    def _trace(self, ask: Ask) -> Iterable[Any]:
        logs = logs_of(self._live, self._outbox.streams, self._functions.inboxes)
        return trace(parse_id(ask.name), self._live, self._read, logs, ask.topic)

    async def _invoke(self, ask: Ask) -> Iterable[Any]:
        return (await self._functions.invoke(ask.name, ask.topic, ask.payload),)

    def _processes(self, create_task: Callable[[Coroutine[Any, Any, None]], object]) -> Spawn:
        config = self._config
        connections = [one for one in (config.cloud, config.broker) if one is not None]
        hidden = [path for one in connections for path in (one.key, one.password_file) if path]
        hidden.append(config.gateway.data_dir)
        return Processes(create_task, config.gateway.name, tuple(hidden))

    def _functions_changed(self) -> None:
        self._marks.forget_keepers()
        self._reroute()

    def _reroute(self) -> None:
        self._router.change([*self._routes, *self._functions.kept_routes])

    def _keeper(self, name: str) -> Keeper | None:
        """Of a target that is no stream."""
        return self._functions.inboxes.get(name) or self._rules.keeper(name)

    async def _tick_rules(self) -> None:
        """Close the windows whose time has come."""
        while True:
            await asyncio.sleep(_RULES_TICK_S)
            self._rules.tick()

    def status(self) -> Status:
        return Status(
            gateway=self._config.gateway.name,
            version=__version__,
            pid=os.getpid(),
            uptime_s=round(time.monotonic() - self._started, 3),
            connections=tuple(_describe(name, connection) for name, connection in self._connections.items()),
            boards=tuple(board.status() for board in self._boards),
            clients=self._gateway.clients(),
            counters=self._metrics.snapshot(),
            streams=self._outbox.status(),
            functions=self._functions.status(),
            reload=self._reload.status,
        )


def run_gateway(config: Config, discard: Sequence[str] = ()) -> int:
    """Run one gateway to its end. discard: streams whose backlog may be given up.

    Returns the exit code. Raises ConfigError for what is wrong at start.
    """
    check_credentials_of(config)
    with _data_dir(config):
        asyncio.run(Runtime(config, discard).run())
    log_event(_log, "gateway_stopped")
    return 0


def check_credentials_of(config: Config) -> None:
    """Look at the certificates and keys that a gateway file names. Raises ConfigError."""
    for section, settings in (("cloud", config.cloud), ("broker", config.broker)):
        if settings is not None:
            check_credentials(settings, config.file, section)


@contextlib.contextmanager
def _data_dir(config: Config) -> Iterator[None]:
    """Hold the data_dir for this process alone; made if it is not there."""
    path = config.gateway.data_dir
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        lock = os.open(f"{path}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        fix = "Make it a folder that this user may write, or name another."
        raise ConfigError(config.file, "gateway.data_dir", f"{path}: {error.strerror}", fix) from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 20, 0).decode("ascii", "replace").strip() or "unknown"
            fix = "Stop that one, or give this gateway a data_dir of its own."
            problem = f"{path} is in use by another gateway (pid {holder})"
            raise ConfigError(config.file, "gateway.data_dir", problem, fix) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(lock)


def _connect(name: str, settings: ConnectionSettings, metrics: Metrics, config: Config) -> Connection:
    held = HeldFilters(os.path.join(config.gateway.data_dir, f"{name}.subscribed"))
    if settings.implementation == "aws":
        from edge.cloud.aws import AwsConnection  # its SDK costs memory that others need not pay

        return AwsConnection(settings, metrics, name=name, held=held, file=config.file)
    # Not towards the cloud: whether AWS IoT Core takes No Local is not documented, and configured routes make no loop.
    return CodecConnection(settings, metrics, name=name, no_local=name == "broker", held=held)


def _receive(router: Router, source: str, messages: Sequence[Message], origin: Origin) -> None:
    router.route(source, "", messages, origin)


def _describe(name: str, connection: Connection) -> ConnectionStatus:
    state = connection.state
    return ConnectionStatus(
        name=name,
        connected=state.connected,
        since_s=state.since_s,
        cause=state.cause,
        problem=state.problem,
        remedy=state.remedy,
        queued=state.queued_messages,
        in_flight=state.in_flight,
    )


def _unix_time_ms() -> int:
    now = time.time()
    return int(now * 1000) if now > _CLOCK_IS_SET_AFTER_S else 0


def _log_lines(board: str, lines: Sequence[str]) -> None:
    for line in lines:
        log_event(_log, "board_logged", board=board, line=line)
