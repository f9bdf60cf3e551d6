"""pytest's `--board`: the same tests on an emulated board or a real one. Loaded by tests/conftest.py."""

from pathlib import Path
from typing import Any

import pytest

from edge_tools.hil.board import RESET_LINES, Board, Can, RealBoard, emulated_can
from edge_tools.hil.errors import HilError
from edge_tools.hil.qemu import MACHINES

DEFAULT = "mps2_an385"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("boards")
    emulated = ", ".join([*sorted(MACHINES), "posix"])
    group.addoption("--board", default=DEFAULT, help=f"{emulated}, or a port such as /dev/serial/by-id/… (%(default)s)")
    group.addoption("--board-id", default="board1", help="the identity of the real board (%(default)s)")
    group.addoption("--board-reset", choices=RESET_LINES, help="the modem line wired to the real board's reset")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*can, boards=1): what the board must be able to do, and how many of it")
    try:
        real_board(config)
    except HilError as problem:
        raise pytest.UsageError(f"--board: {problem}") from problem


def chosen_board(config: pytest.Config) -> str:
    return str(config.getoption("--board"))


def real_board(config: pytest.Config) -> Board | None:
    port = chosen_board(config)
    if not port.startswith("/"):
        return None
    return RealBoard(Path(port), config.getoption("--board-id"), config.getoption("--board-reset"))


def _can(config: pytest.Config) -> tuple[frozenset[Can], int]:
    """What the chosen board can, and how many of it there are."""
    real = real_board(config)
    if real is not None:
        return real.can, 1
    return emulated_can(chosen_board(config)), 1000


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests beyond what the chosen board can are deselected, each with its reason; none on an mps2_an385."""
    can, count = _can(config)
    kept, refused = [], []
    for item in items:
        lacking = _lacking(item, can, count)
        if lacking:
            refused.append(item)
            _say(config, f"{item.nodeid}: not run, {chosen_board(config)} lacks {', '.join(lacking)}")
        else:
            kept.append(item)
    if refused:
        items[:] = kept
        config.hook.pytest_deselected(items=refused)


def _lacking(item: pytest.Item, can: frozenset[Can], count: int) -> list[str]:
    lacking: list[str] = []
    for marker in item.iter_markers("needs"):
        lacking += [need.value for need in marker.args if need not in can]
        if marker.kwargs.get("boards", 1) > count:
            lacking.append(f"{marker.kwargs['boards']} boards")
    return lacking


def _say(config: pytest.Config, line: str) -> None:
    reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        reporter.write_line(line)
