"""The gateway file: TOML, typed, checked whole at start; whatever is wrong names file, field and fix.

(`[[function]]` is in edge.config_functions, which a function's process imports without all this.)
"""

from edge.config.checks import RULES, check_config
from edge.config.reading import DEFAULT_FILE, load_config, parse_config
from edge.config.sections import (
    STREAM_BYTES_LEAST,
    BoardSettings,
    ConnectionSettings,
    GatewaySettings,
    MqttSnSettings,
    RouteSettings,
    RuleSettings,
    RulesSettings,
    StreamSettings,
    UdpSettings,
    dead_letter_stream,
)
from edge.config.whole import SENDER, Config, placed_routes

__all__ = [
    "DEFAULT_FILE",
    "RULES",
    "SENDER",
    "STREAM_BYTES_LEAST",
    "BoardSettings",
    "Config",
    "ConnectionSettings",
    "GatewaySettings",
    "MqttSnSettings",
    "RouteSettings",
    "RuleSettings",
    "RulesSettings",
    "StreamSettings",
    "UdpSettings",
    "check_config",
    "dead_letter_stream",
    "load_config",
    "parse_config",
    "placed_routes",
]
