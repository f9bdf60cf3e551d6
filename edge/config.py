"""The gateway file: TOML, typed, checked whole at start; whatever is wrong names file, field and fix.

Paths in the file are relative to the file. A field that is not known is refused, never ignored.
"""

import difflib
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from edge.config_functions import FunctionSettings, check_functions, function_routes, is_shadow, with_absolute_paths
from edge.errors import ConfigError, InputRejected
from edge.loops import Loop, Node, find_loop
from edge.topic_bounds import AWS_BYTES_MAX, AWS_LEVELS_MAX, GENERAL, LEVELS_MAX, TopicBounds
from edge.topics import TOPIC_BYTES_MAX, check_filter, check_topic, overlap

DEFAULT_FILE = "/etc/edgeloop/gateway.toml"
SENDER = "{board}"
RULES = "rules"
STREAM_BYTES_LEAST = 2 * 1024 * 1024  # some segments, each with room for the largest record
_SOCKET_PATH_BYTES_MAX = 107  # sun_path, unix(7)

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.:-]{1,128}$")]
ClientId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.:-]{1,23}$")]  # MQTT-SN 1.2, 5.3.1: 1 to 23 characters
ClientPattern = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.:-]{0,22}\*?$", min_length=1)]
Port = Annotated[int, Meta(ge=1, le=65535)]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class GatewaySettings(_Section, frozen=True, kw_only=True):
    """name: the gateway's thing name; data_dir: where the gateway keeps its state and its control socket."""

    name: Name
    data_dir: str = "/var/lib/edgeloop"


class ConnectionSettings(_Section, frozen=True, kw_only=True):
    """One MQTT connection, to the cloud or to the local broker. An empty client_id means the gateway's name.

    topic_levels_max, topic_bytes_max: of what is published; 0 is what AWS IoT Core takes (8 levels, 256 bytes) where
    the host is its endpoint, else 128 levels and 65,535 bytes.
    backoff_s_max: how long after the return of its broker a try may come. Each wait is drawn anew between the least
    and the ceiling, so that gateways do not come back as one; a fleet of many thousands behind one broker sets more.
    """

    host: Annotated[str, Meta(min_length=1, max_length=255)]
    port: Port = 8883
    client_id: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.:-]{0,128}$")] = ""
    protocol: Literal["5", "3.1.1"] = "5"
    implementation: Literal["codec", "aws"] = "codec"
    tls: bool = True
    ca: str = ""
    certificate: str = ""
    key: str = ""
    alpn: str = ""
    username: str = ""
    password_file: str = ""
    keepalive_s: Annotated[int, Meta(ge=5, le=65535)] = 30
    session_expiry_s: Annotated[int, Meta(ge=0, le=0xFFFFFFFF)] = 3600
    connect_timeout_s: Seconds = 10.0
    backoff_s_min: Seconds = 1.0
    backoff_s_max: Seconds = 5.0
    window: Annotated[int, Meta(ge=1, le=65535)] = 1000
    queue_messages_max: Annotated[int, Meta(ge=0, le=10_000_000)] = 10_000
    queue_bytes_max: Annotated[int, Meta(ge=0, le=2**34)] = 4 * 1024 * 1024
    message_bytes_max: Annotated[int, Meta(ge=128, le=268_435_455)] = 128 * 1024
    topic_levels_max: Annotated[int, Meta(ge=0, le=TOPIC_BYTES_MAX)] = 0
    topic_bytes_max: Annotated[int, Meta(ge=0, le=TOPIC_BYTES_MAX)] = 0

    @property
    def aws_region(self) -> str:
        """Where the host is an endpoint of AWS IoT Core; else empty."""
        found = re.search(r"\.iot\.([a-z0-9-]+)\.amazonaws\.com(\.cn)?$", self.host.lower())
        return found[1] if found else ""

    @property
    def topic_bounds(self) -> TopicBounds:
        is_aws = bool(self.aws_region)
        levels, size = (AWS_LEVELS_MAX, AWS_BYTES_MAX) if is_aws else (LEVELS_MAX, TOPIC_BYTES_MAX)
        return TopicBounds(self.topic_levels_max or levels, self.topic_bytes_max or size, is_aws)


class BoardSettings(_Section, frozen=True, kw_only=True):
    """One serial port and the board on it. clients: further client ids it may bring, `*` at the end for any tail."""

    name: ClientId
    port: Annotated[str, Meta(pattern=r"^(/|usb:[0-9A-Fa-f]{4}:[0-9A-Fa-f]{4}(:.+)?$)")]
    baud: Annotated[int, Meta(ge=300, le=3_000_000)] = 115_200
    clients: tuple[ClientPattern, ...] = ()
    predefined: dict[str, str] = {}
    window: Annotated[int, Meta(ge=1, le=255)] = 16
    content_bytes_max: Annotated[int, Meta(ge=64, le=65_535)] = 2048
    output_bytes_max: Annotated[int, Meta(ge=1024, le=16 * 1024 * 1024)] = 64 * 1024


class UdpSettings(_Section, frozen=True, kw_only=True):
    """Where stock MQTT-SN clients may reach the gateway over UDP."""

    host: Annotated[str, Meta(min_length=1)]
    port: Port = 1883
    clients: tuple[ClientPattern, ...] = ("*",)
    predefined: dict[str, str] = {}
    addresses_max: Annotated[int, Meta(ge=1, le=65_535)] = 256


class MqttSnSettings(_Section, frozen=True, kw_only=True):
    """Times and bounds of the MQTT-SN gateway (MQTT-SN 1.2, 7.2)."""

    gateway_id: Annotated[int, Meta(ge=1, le=255)] = 1
    advertise_s: Annotated[int, Meta(ge=10, le=65_535)] = 900
    retry_s: Seconds = 10.0
    retries: Annotated[int, Meta(ge=1, le=20)] = 4
    queue_messages_max: Annotated[int, Meta(ge=1, le=100_000)] = 256
    sleeping_messages_max: Annotated[int, Meta(ge=0, le=100_000)] = 64
    retained_max: Annotated[int, Meta(ge=0, le=1_000_000)] = 1024
    retained_bytes_max: Annotated[int, Meta(ge=0, le=2**30)] = 1024 * 1024
    topics_max: Annotated[int, Meta(ge=1, le=65_000)] = 1024
    udp: UdpSettings | None = None


class RouteSettings(_Section, frozen=True, kw_only=True, rename={"source": "from"}):
    """Who may send what to whom. Nothing that no route names goes anywhere."""

    source: str
    topic: str
    to: tuple[str, ...]


class StreamSettings(_Section, frozen=True, kw_only=True, rename={"sources": "from"}):
    """A durable stream: what goes in is on disk before its source is told so, and goes on from there.

    from, topics: routes to this stream (others may name it `stream:NAME`). age_max_s, ttl_s, rates: 0 is none.
    commit: `every message`, `never` (the operating system decides) or a time such as `100 ms`. export: the connection
    it goes on by, or nothing. batch_topic: empty means `batch/GATEWAY/STREAM`.
    """

    name: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
    sources: tuple[str, ...] = ()
    topics: tuple[str, ...] = ("#",)
    bytes_max: Annotated[int, Meta(ge=STREAM_BYTES_LEAST, le=2**44)] = 256 * 1024 * 1024
    age_max_s: Annotated[float, Meta(ge=0)] = 0.0
    when_full: Literal["reject", "drop_oldest", "thin"] = "reject"
    priority: Annotated[int, Meta(ge=-100, le=100)] = 0
    commit: Annotated[str, Meta(pattern=r"^(every message|never|[0-9]{1,6} (ms|s))$")] = "every message"
    commit_records_max: Annotated[int, Meta(ge=1, le=100_000)] = 1000
    export: Literal["cloud", "broker", ""] = "cloud"
    format: Literal["message", "ndjson", "cbor"] = "message"
    gzip: bool = False
    batch_topic: str = ""
    batch_records_max: Annotated[int, Meta(ge=1, le=100_000)] = 500
    batch_bytes_max: Annotated[int, Meta(ge=1024, le=128 * 1024)] = 100 * 1024
    batch_wait_s: Annotated[float, Meta(ge=0, le=86_400)] = 1.0
    rate_bytes_per_s: Annotated[float, Meta(ge=0)] = 0.0
    rate_messages_per_s: Annotated[float, Meta(ge=0)] = 0.0
    ttl_s: Annotated[float, Meta(ge=0)] = 0.0
    live_first: bool = False

    @property
    def commit_interval_s(self) -> float:
        """How long records may wait for others to be committed with."""
        if self.commit == "every message":
            return 0.0
        if self.commit == "never":
            return 1.0
        count, unit = self.commit.split()
        return int(count) / (1000 if unit == "ms" else 1)


class RuleSettings(_Section, frozen=True, kw_only=True, rename={"source": "from"}):
    """One rule. topic: of its rows, `${column}` stands for a row's field (default rule/NAME); to: who gets them.

    time: path of the event time (Unix ms) in a payload, empty for the time of arrival; tables: name to CSV file.
    idle_s: windows in event time are closed when no message came for so long beside lateness_s; 0: they stay open until
    the next event, so that a board that was away loses nothing.
    keys_max: groups, and topics that filters remember; events_max: what sliding windows and joins hold.
    """

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    sql: Annotated[str, Meta(min_length=1, max_length=16_384)]
    source: Annotated[tuple[str, ...], Meta(min_length=1)] = ("boards",)
    topic: str = ""
    to: tuple[str, ...] = ()
    payload: Literal["json", "csv", "cbor", "raw"] = "json"
    columns: tuple[str, ...] = ()
    time: str = ""
    lateness_s: Annotated[float, Meta(ge=0, le=86_400)] = 0.0
    idle_s: Annotated[float, Meta(ge=0, le=86_400)] = 0.0
    keys_max: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    events_max: Annotated[int, Meta(ge=1, le=1_000_000)] = 20_000
    tables: dict[str, str] = {}

    @property
    def row_filter(self) -> str:
        """Takes the topics that its rows may have."""
        out = re.sub(r"\$\{[^}]*\}", "+", self.topic or f"rule/{self.name}")
        return "/".join("+" if "+" in level else level for level in out.split("/"))


def dead_letter_stream(name: str) -> StreamSettings:
    """One that the file does not declare: it is kept here, and its oldest go when it is full."""
    return StreamSettings(name=name, bytes_max=16 * 1024 * 1024, when_full="drop_oldest", export="")


class RulesSettings(_Section, frozen=True, kw_only=True):
    """What all rules share: the log where their rows and open windows are before anybody gets them.

    commit: as of a stream; sooner when some messages wait for it. when_full: `drop_oldest` (rows that nobody took) or
    `reject` (sources keep what they have, for streams too).
    """

    commit: Annotated[str, Meta(pattern=r"^(every message|never|[0-9]{1,6} (ms|s))$")] = "100 ms"
    bytes_max: Annotated[int, Meta(ge=STREAM_BYTES_LEAST, le=2**44)] = 64 * 1024 * 1024
    when_full: Literal["reject", "drop_oldest"] = "drop_oldest"


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """A whole, valid gateway file. Paths are absolute."""

    file: str
    gateway: GatewaySettings
    cloud: ConnectionSettings | None
    broker: ConnectionSettings | None
    boards: tuple[BoardSettings, ...]
    mqttsn: MqttSnSettings
    routes: tuple[RouteSettings, ...]
    streams: tuple[StreamSettings, ...] = ()
    rules: tuple[RuleSettings, ...] = ()
    functions: tuple[FunctionSettings, ...] = ()
    rules_log: RulesSettings = RulesSettings()

    @property
    def folder(self) -> str:
        """The gateway file's."""
        return str(Path(self.file).resolve().parent)

    @property
    def connections(self) -> tuple[tuple[str, ConnectionSettings], ...]:
        """Those that there are, with their sections."""
        return tuple((name, one) for name, one in (("cloud", self.cloud), ("broker", self.broker)) if one is not None)

    @property
    def all_streams(self) -> tuple[StreamSettings, ...]:
        """Those of the file, and the functions' dead-letter streams that it does not declare."""
        declared = {stream.name for stream in self.streams}
        names = dict.fromkeys(one.dead_letter for one in self.functions if one.dead_letter)
        return self.streams + tuple(dead_letter_stream(name) for name in names if name not in declared)

    @property
    def all_routes(self) -> tuple[RouteSettings, ...]:
        """Those of the file, and those that the streams' `from` and `topics` and the functions' grants make."""
        streams = tuple(
            RouteSettings(source=source, topic=topic, to=(f"stream:{stream.name}",))
            for stream in self.streams
            for source in stream.sources
            for topic in stream.topics
        )
        functions = tuple(
            RouteSettings(source=source, topic=topic, to=to)
            for _, _, (source, topic, to) in function_routes(self.functions)
        )
        return self.routes + streams + functions

    @property
    def function_nodes(self) -> tuple[Node, ...]:
        """The functions as `find_loop` wants them: what they hear comes by routes."""
        return tuple(
            Node(
                one.target,
                (),
                tuple(topic.replace(SENDER, "+") for topic in one.subscribe),
                one.publish,
                (),
                tuple(f"function:{name}" for name in one.invoke),
                f"stream:{one.dead_letter}" if one.dead_letter else "",
            )
            for one in self.functions
        )

    def find_loop(self, nodes: Sequence[Node]) -> Loop | None:
        """nodes: rules and functions that might feed themselves by the routes and streams of this file."""
        routes = [(route.source, route.topic.replace(SENDER, "+"), route.to) for route in self.all_routes]
        exported = [stream for stream in self.streams if stream.export]
        batches = [
            Node(f"stream:{one.name}", (), None, (self.batch_topic(one),), (one.export,))
            for one in exported
            if one.format != "message"
        ]
        exports: dict[str, str] = {f"stream:{one.name}": one.export for one in exported if one.format == "message"}
        return find_loop((*nodes, *batches), routes, exports)

    def check_loops(self, nodes: Sequence[Node]) -> None:
        """Raises ConfigError that names what closes a loop."""
        if (loop := self.find_loop(nodes)) is None:
            return
        step = loop.steps[-1]
        kind, _, name = step.node.name.partition(":")
        placed: dict[str, tuple[str, Sequence[StreamSettings | RuleSettings | FunctionSettings]]] = {
            "rule": ("topic", self.rules),
            "stream": ("batch_topic", self.streams),
            "function": ("publish" if step.said in step.node.says else "dead_letter", self.functions),
        }
        field, of = placed[kind]
        fix = "Use topics that do not overlap."
        if not step.said:
            field, fix = "invoke", "Let calls go one way: a function that waits for itself never ends."
        place = 1 + [one.name for one in of].index(name)
        raise ConfigError(self.file, f"{kind}[{place}].{field}", loop.told(), fix)

    def batch_topic(self, stream: StreamSettings) -> str:
        """Of a stream whose format is not `message`."""
        return stream.batch_topic or f"batch/{self.gateway.name}/{stream.name}"

    @property
    def control_socket(self) -> str:
        return f"{self.gateway.data_dir}/control.sock"


_SECTIONS = {
    "gateway": GatewaySettings,
    "cloud": ConnectionSettings,
    "broker": ConnectionSettings,
    "board": BoardSettings,
    "function": FunctionSettings,
    "mqttsn": MqttSnSettings,
    "route": RouteSettings,
    "rule": RuleSettings,
    "rules": RulesSettings,
    "stream": StreamSettings,
}
_LISTS = {"board", "function", "route", "stream", "rule"}


def load_config(file: str) -> Config:
    """Read and check a gateway file. Raises ConfigError at the first thing that is wrong."""
    try:
        text = Path(file).read_bytes().decode()
    except OSError as error:
        raise ConfigError(file, "", f"cannot be read: {error.strerror}", "Name a gateway file that exists.") from None
    except UnicodeDecodeError as error:
        raise ConfigError(file, "", f"is not UTF-8 at byte {error.start}", "Save it as UTF-8.") from None
    return parse_config(text, file)


def parse_config(text: str, file: str) -> Config:
    """Check the text of a gateway file. file: its path, for messages and for relative paths."""
    try:
        raw = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(file, "", f"is not TOML: {error}", "Mend the line named.") from None
    for name in raw:
        if name not in _SECTIONS:
            raise ConfigError(file, name, "is no section of a gateway file", _hint(name, list(_SECTIONS)))
    for name in ("gateway",):
        if name not in raw:
            raise ConfigError(file, name, "is missing", f"Add a section [{name}].")
    lists: dict[str, list[Any]] = {}
    for name in _LISTS:
        value = raw.get(name, [])
        if not isinstance(value, list):
            raise ConfigError(file, name, "is one table", f"Write it as [[{name}]]; there may be several.")
        lists[name] = value
    config = Config(
        file=file,
        gateway=_convert(file, "gateway", raw["gateway"], GatewaySettings),
        cloud=_convert(file, "cloud", raw["cloud"], ConnectionSettings) if "cloud" in raw else None,
        broker=_convert(file, "broker", raw["broker"], ConnectionSettings) if "broker" in raw else None,
        boards=tuple(_convert(file, f"board[{n}]", one, BoardSettings) for n, one in enumerate(lists["board"], 1)),
        mqttsn=_convert(file, "mqttsn", raw.get("mqttsn", {}), MqttSnSettings),
        routes=tuple(_convert(file, f"route[{n}]", one, RouteSettings) for n, one in enumerate(lists["route"], 1)),
        streams=tuple(_convert(file, f"stream[{n}]", one, StreamSettings) for n, one in enumerate(lists["stream"], 1)),
        rules=tuple(_convert(file, f"rule[{n}]", one, RuleSettings) for n, one in enumerate(lists["rule"], 1)),
        functions=tuple(
            _convert(file, f"function[{n}]", one, FunctionSettings) for n, one in enumerate(lists["function"], 1)
        ),
        rules_log=_convert(file, "rules", raw.get("rules", {}), RulesSettings),
    )
    config = _with_absolute_paths(config)
    _check_whole(config)
    return config


def check_config(config: Config) -> None:
    """What no single section shows, of a Config that was put together. Raises ConfigError."""
    _check_whole(config)


_S = TypeVar("_S", bound=msgspec.Struct)


def _convert(file: str, path: str, raw: object, kind: type[_S]) -> _S:
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        problem, _, place = str(error).partition(" - at `")
        field = path + place.rstrip("`").removeprefix("key` in `").removeprefix("$")
        if unknown := re.match(r"Object contains unknown field `(.*)`$", problem):
            known = [f.encode_name for f in msgspec.structs.fields(kind)]
            raise ConfigError(file, f"{field}.{unknown[1]}", "is not a known field", _hint(unknown[1], known)) from None
        if missing := re.match(r"Object missing required field `(.*)`$", problem):
            raise ConfigError(file, f"{field}.{missing[1]}", "is missing", f"Add {missing[1]} = … there.") from None
        raise ConfigError(file, field, problem[:1].lower() + problem[1:], "Give it such a value.") from None


def _hint(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"Did you mean {near[0]}?" if near else f"Known are {', '.join(sorted(known))}."


def _with_absolute_paths(config: Config) -> Config:
    base = Path(config.file).resolve().parent

    def absolute(settings: ConnectionSettings | None) -> ConnectionSettings | None:
        if settings is None:
            return None
        paths = {name: str(base / getattr(settings, name)) for name in _PATHS if getattr(settings, name)}
        client_id = settings.client_id or config.gateway.name
        return msgspec.structs.replace(settings, client_id=client_id, **paths)

    gateway = msgspec.structs.replace(config.gateway, data_dir=str(base / config.gateway.data_dir))
    return msgspec.structs.replace(
        config,
        gateway=gateway,
        cloud=absolute(config.cloud),
        broker=absolute(config.broker),
        functions=with_absolute_paths(config.functions, base),
    )


_PATHS = ("ca", "certificate", "key", "password_file")


def _check_whole(config: Config) -> None:
    """What no single field shows."""
    file = config.file
    size = len(config.control_socket.encode())
    if size > _SOCKET_PATH_BYTES_MAX:
        fix = f"Choose a data_dir at least {size - _SOCKET_PATH_BYTES_MAX} bytes shorter."
        raise ConfigError(file, "gateway.data_dir", "is too long for a socket's path", fix)
    for section, settings in config.connections:
        _check_connection(file, section, settings)
    _check_boards(config)
    if config.mqttsn.udp is not None:
        _check_predefined(file, "mqttsn.udp", config.mqttsn.udp.predefined)
    for place, route in enumerate(config.routes, 1):
        _check_route(config, f"route[{place}]", route)
    _check_rules(config)
    _check_streams(config)
    _check_functions(config)
    _check_loops(config)


def _check_connection(file: str, section: str, settings: ConnectionSettings) -> None:
    if bool(settings.certificate) != bool(settings.key):
        missing = "key" if settings.certificate else "certificate"
        raise ConfigError(file, f"{section}.{missing}", "is missing", "A certificate and its key go together.")
    if not settings.tls and (settings.ca or settings.certificate):
        raise ConfigError(file, f"{section}.tls", "is false beside certificates", "Remove one of the two.")
    if settings.backoff_s_min > settings.backoff_s_max:
        raise ConfigError(file, f"{section}.backoff_s_min", "is above backoff_s_max", "Swap the two.")
    if settings.implementation == "aws" and settings.protocol != "5":
        raise ConfigError(file, f"{section}.protocol", 'is "3.1.1" with implementation "aws"', 'Use protocol = "5".')
    if settings.implementation == "aws" and not settings.tls:
        raise ConfigError(file, f"{section}.tls", 'is false with implementation "aws"', "Use the codec without TLS.")


def _check_length(config: Config, field: str, topic: str, to: Sequence[str]) -> None:
    """Of a topic that is published by connections among `to`, as far as it is known here."""
    named = [GENERAL, *(one.topic_bounds for name, one in config.connections if name in to)]
    if (wrong := next(filter(None, (bounds.wrong(topic) for bounds in named)), None)) is not None:
        raise ConfigError(config.file, field, f"has {wrong[1]}", "Write a shorter one.")


def _check_boards(config: Config) -> None:
    names: dict[str, int] = {}
    ports: dict[str, int] = {}
    for place, board in enumerate(config.boards, 1):
        field = f"board[{place}]"
        for what, seen, value in (("name", names, board.name), ("port", ports, board.port)):
            if value in seen:
                fix = "Each board has one of its own."
                raise ConfigError(config.file, f"{field}.{what}", f"{value!r} is board[{seen[value]}]'s already", fix)
            seen[value] = place
        _check_predefined(config.file, field, board.predefined)


def _check_predefined(file: str, field: str, table: dict[str, str]) -> None:
    for number, topic in table.items():
        if not number.isdecimal() or not 1 <= int(number) <= 0xFFFE:
            fix = "Topic ids are 1 to 65534 (MQTT-SN 1.2, 5.3.11)."
            raise ConfigError(file, f"{field}.predefined", f"{number!r} is no topic id", fix)
        try:
            check_topic(topic)
        except InputRejected as error:
            raise ConfigError(file, f"{field}.predefined.{number}", str(error), "Name a topic.") from None


def _sources(config: Config) -> set[str]:
    found = {"boards", *(f"board:{board.name}" for board in config.boards)}
    for name, there in (("cloud", config.cloud), ("broker", config.broker), ("udp", config.mqttsn.udp)):
        if there is not None:
            found.add(name)
    found |= {function.target for function in config.functions}
    return found | {f"rule:{rule.name}" for rule in config.rules}


def _ends(config: Config) -> set[str]:
    """What may stand in `to`."""
    streams = {f"stream:{stream.name}" for stream in config.streams}
    return {name for name in _sources(config) if not name.startswith("rule:")} | streams


def _check_streams(config: Config) -> None:
    file, names = config.file, set()
    for place, stream in enumerate(config.streams, 1):
        field = f"stream[{place}]"
        if stream.name in names:
            raise ConfigError(file, f"{field}.name", f"{stream.name!r} is there already", "Choose another name.")
        names.add(stream.name)
        if stream.name == RULES:
            raise ConfigError(file, f"{field}.name", f"{RULES!r} is the name of the rules' own log", "Choose another.")
        if stream.export and (config.cloud if stream.export == "cloud" else config.broker) is None:
            fix = f'Add a section [{stream.export}], or write export = "" to keep what is in it here.'
            raise ConfigError(file, f"{field}.export", f"there is no {stream.export} in this file", fix)
        for source in stream.sources:
            if source == stream.export:
                raise ConfigError(file, f"{field}.from", f"sends {source!r} what came from there", "Remove it.")
            if not stream.topics:
                raise ConfigError(file, f"{field}.topics", "is empty", 'Name topic filters, such as "dt/#".')
            for topic in stream.topics:
                route = RouteSettings(source=source, topic=topic, to=(f"stream:{stream.name}",))
                _check_route(config, field, route, topic_field="topics")
        if stream.batch_topic:
            try:
                check_topic(stream.batch_topic)
            except InputRejected as error:
                raise ConfigError(file, f"{field}.batch_topic", str(error), "Write an MQTT topic.") from None
        if stream.format != "message":
            _check_length(config, f"{field}.batch_topic", config.batch_topic(stream), (stream.export,))


def _check_rules(config: Config) -> None:
    """What a rule's settings say beside its SQL, which `edge.rules.build` checks."""
    file, sources, ends = config.file, _sources(config), _ends(config)
    seen: set[str] = set()
    for place, rule in enumerate(config.rules, 1):
        field = f"rule[{place}]"
        if rule.name in seen:
            raise ConfigError(file, f"{field}.name", f"{rule.name!r} is another rule's", "Each has a name of its own.")
        seen.add(rule.name)
        for what, named, known in (("from", rule.source, sources), ("to", rule.to, ends)):
            for name in named:
                if name not in known:
                    problem = f"{name!r} is nowhere in this file"
                    raise ConfigError(file, f"{field}.{what}", problem, _hint(name, sorted(known)))
        _check_heard(config, f"{field}.to", (rule.row_filter,), rule.to)
        _check_length(config, f"{field}.topic", rule.row_filter, rule.to)
        if (rule.payload == "csv") is not bool(rule.columns):
            fix = 'Name the columns of payload = "csv", and only of that.'
            raise ConfigError(file, f"{field}.columns", "does not fit the payload", fix)
        for name, value in (("lateness_s", rule.lateness_s), ("idle_s", rule.idle_s)):
            if value and not rule.time:
                raise ConfigError(file, f"{field}.{name}", "stands without time", "Name the event time, or remove it.")


def _check_functions(config: Config) -> None:
    """Where the functions' names lead to, and that none feeds itself. Rules may lie between: edge.rules.build."""
    check_functions(config.file, config.functions)
    sources = {route.source for route in config.all_routes} | {name for rule in config.rules for name in rule.source}
    targets = {name for of in (config.all_routes, config.rules) for one in of for name in one.to}
    ends, functions = _ends(config), {one.name for one in config.functions}
    for place, one in enumerate(config.functions, 1):
        field = f"function[{place}]"
        for what, named, known in (
            ("from", one.sources, _sources(config)),
            ("to", one.to, ends),
            ("invoke", one.invoke, functions),
        ):
            for name in named:
                if name not in known:
                    problem = f"{name!r} is nowhere in this file"
                    raise ConfigError(config.file, f"{field}.{what}", problem, _hint(name, sorted(known)))
        if one.subscribe and not one.sources and one.target not in targets:
            problem = "is empty beside subscribe, and nothing else sends it anything"
            fix = f'Name who does, such as from = ["boards"], or write a [[route]] to = ["{one.target}"].'
            raise ConfigError(config.file, f"{field}.from", problem, fix)
        if one.target not in sources and not all(is_shadow(topic) for topic in one.publish):
            problem = "is empty beside publish, and nothing else takes what it publishes"
            fix = f'Name who gets it, such as to = ["cloud"], or write a [[route]] from = "{one.target}".'
            raise ConfigError(config.file, f"{field}.to", problem, fix)
        _check_heard(config, f"{field}.to", one.publish, one.to)
        for source in one.sources:
            for topic in one.subscribe:
                route = RouteSettings(source=source, topic=topic, to=(one.target,))
                _check_route(config, field, route, topic_field="subscribe")
    config.check_loops(config.function_nodes)


def _check_heard(config: Config, field: str, topics: Sequence[str], to: Sequence[str]) -> None:
    """A function is never given what it does not subscribe to: as a target it must be able to get some of these."""
    for function in config.functions:
        heard = [topic.replace(SENDER, "+") for topic in function.subscribe]
        given = [topic.replace(SENDER, "+") for topic in topics]
        if function.target not in to or any(overlap(said, one) for said in given for one in heard):
            continue
        subscribed = f"subscribes to {', '.join(map(repr, heard))} alone" if heard else "subscribes to nothing"
        problem = f"names {function.target!r}, which {subscribed}: it would get none of {', '.join(map(repr, topics))}"
        raise ConfigError(config.file, field, problem, f"Add such a topic to `subscribe` of {function.name!r}.")


def _check_route(config: Config, field: str, route: RouteSettings, topic_field: str = "topic") -> None:
    file = config.file
    sources, ends = _sources(config), _ends(config)
    if not route.to:
        raise ConfigError(file, f"{field}.to", "is empty", f"Name one or more of {', '.join(sorted(ends))}.")
    for what, name in (("from", route.source), *(("to", name) for name in route.to)):
        if name not in (ends if what == "to" else sources):
            raise ConfigError(file, f"{field}.{what}", f"{name!r} is nowhere in this file", _hint(name, sorted(ends)))
        if what == "to" and name == route.source and name in {"cloud", "broker"}:
            raise ConfigError(file, f"{field}.to", f"sends {name!r} what came from there", "Remove it.")
    if SENDER in route.topic and (
        route.source in {"cloud", "broker"} or route.source.startswith(("rule:", "function:"))
    ):
        fix = "Only what boards and UDP clients send has a sender; use + instead."
        raise ConfigError(file, f"{field}.{topic_field}", f"holds {SENDER}", fix)
    try:
        check_filter(route.topic.replace(SENDER, "board"))
    except InputRejected as error:
        raise ConfigError(file, f"{field}.{topic_field}", str(error), "Write an MQTT topic filter.") from None
    _check_heard(config, f"{field}.to", (route.topic,), route.to)


def _check_loops(config: Config) -> None:
    """What goes from the cloud to the broker must not come back the same way, and the other way round."""
    exports = {f"stream:{stream.name}": stream.export for stream in config.streams}
    ways = [
        (place, route.source, {exports.get(name, name) for name in route.to}, route.topic)
        for place, route in placed_routes(config)
    ]
    for field, source, to, topic in ways:
        if source in to and source in {"cloud", "broker"}:
            raise ConfigError(config.file, field, f"{topic!r} sends {source!r} what came from there", "Remove it.")
    there = [(field, topic) for field, source, to, topic in ways if source == "cloud" and "broker" in to]
    back = [(field, topic) for field, source, to, topic in ways if source == "broker" and "cloud" in to]
    for field, topic in there:
        for other, returned in back:
            if overlap(topic, returned):
                problem = f"{returned!r} sends back what {field.rpartition('.')[0]} brings by {topic!r}"
                raise ConfigError(config.file, other, problem, "Use topics that do not overlap.")


def placed_routes(config: Config) -> list[tuple[str, RouteSettings]]:
    """Every route with the field that makes it, in the order of all_routes."""
    fields = [f"route[{place}].topic" for place in range(1, len(config.routes) + 1)]
    fields += [
        f"stream[{place}].topics"
        for place, stream in enumerate(config.streams, 1)
        for _ in range(len(stream.sources) * len(stream.topics))
    ]
    fields += [f"function[{place}].{field}" for place, field, _ in function_routes(config.functions)]
    return list(zip(fields, config.all_routes, strict=True))
