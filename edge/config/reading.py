"""From the text of a gateway file to a Config, or to a ConfigError that names file, field and fix.

Paths in the file are relative to the file. A field that is not known is refused, never ignored.
"""

import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from edge.config.checks import check_config, hint
from edge.config.sections import (
    BoardSettings,
    ConnectionSettings,
    GatewaySettings,
    MqttSnSettings,
    RouteSettings,
    RuleSettings,
    RulesSettings,
    StreamSettings,
)
from edge.config.whole import Config
from edge.config_functions import FunctionSettings, with_absolute_paths
from edge.errors import ConfigError

DEFAULT_FILE = "/etc/edgeloop/gateway.toml"

_PATHS = ("ca", "certificate", "key", "password_file")
_S = TypeVar("_S", bound=msgspec.Struct)

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
            raise ConfigError(file, name, "is no section of a gateway file", hint(name, list(_SECTIONS)))
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
    check_config(config)
    return config


def _convert(file: str, path: str, raw: object, kind: type[_S]) -> _S:
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        problem, _, place = str(error).partition(" - at `")
        field = path + place.rstrip("`").removeprefix("key` in `").removeprefix("$")
        if unknown := re.match(r"Object contains unknown field `(.*)`$", problem):
            known = [f.encode_name for f in msgspec.structs.fields(kind)]
            raise ConfigError(file, f"{field}.{unknown[1]}", "is not a known field", hint(unknown[1], known)) from None
        if missing := re.match(r"Object missing required field `(.*)`$", problem):
            raise ConfigError(file, f"{field}.{missing[1]}", "is missing", f"Add {missing[1]} = … there.") from None
        raise ConfigError(file, field, problem[:1].lower() + problem[1:], "Give it such a value.") from None


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
