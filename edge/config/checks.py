"""What no single field of the gateway file shows: that its names lead somewhere and nothing contradicts itself."""

import difflib
from collections.abc import Sequence

from edge.config.sections import ConnectionSettings, RouteSettings
from edge.config.whole import SENDER, Config, placed_routes
from edge.config_functions import check_functions, is_shadow
from edge.errors import ConfigError, InputRejected
from edge.topic_bounds import GENERAL
from edge.topics import check_heard, check_topic, overlap

RULES = "rules"
_SOCKET_PATH_BYTES_MAX = 107  # sun_path, unix(7)


def check_config(config: Config) -> None:
    """Raises ConfigError at the first thing that is wrong."""
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
                    raise ConfigError(file, f"{field}.{what}", problem, hint(name, sorted(known)))
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
                    raise ConfigError(config.file, f"{field}.{what}", problem, hint(name, sorted(known)))
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
            raise ConfigError(file, f"{field}.{what}", f"{name!r} is nowhere in this file", hint(name, sorted(ends)))
        if what == "to" and name == route.source and name in {"cloud", "broker"}:
            raise ConfigError(file, f"{field}.to", f"sends {name!r} what came from there", "Remove it.")
    if SENDER in route.topic and (
        route.source in {"cloud", "broker"} or route.source.startswith(("rule:", "function:"))
    ):
        fix = "Only what boards and UDP clients send has a sender; use + instead."
        raise ConfigError(file, f"{field}.{topic_field}", f"holds {SENDER}", fix)
    try:
        check_heard(route.topic.replace(SENDER, "board"))
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


def hint(name: str, known: Sequence[str]) -> str:
    """What was perhaps meant."""
    near = difflib.get_close_matches(name, known, 1)
    return f"Did you mean {near[0]}?" if near else f"Known are {', '.join(sorted(known))}."
