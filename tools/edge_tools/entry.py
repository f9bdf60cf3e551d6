"""Where the laptop's commands begin, see edge/entry.py."""

from edge.entry import start


def mcu() -> int:
    return start("edge_tools.mcu.cli")


def fleet() -> int:
    return start("edge_tools.fleet.cli")
