"""The whole gateway file, and what follows from its sections together: routes, streams, loops."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from edge.config.sections import (
    BoardSettings,
    ConnectionSettings,
    GatewaySettings,
    MqttSnSettings,
    RouteSettings,
    RuleSettings,
    RulesSettings,
    StreamSettings,
    dead_letter_stream,
)
from edge.config_functions import FunctionSettings, function_routes
from edge.errors import ConfigError
from edge.loops import Loop, Node, find_loop

SENDER = "{board}"


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
