"""A real PostgreSQL for the run, and an empty database of it or of SQLite for each test."""

import itertools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge_tools.postgresql import Postgresql

_numbers = itertools.count(1)


@contextmanager
def _server() -> Iterator[Postgresql]:
    """Its folder is made by hand: PostgreSQL's user may not pass through pytest's own. Without fsync, since it is the
    server that is killed here and never the machine."""
    with tempfile.TemporaryDirectory(prefix="edgeloop-postgresql-") as folder:
        Path(folder).chmod(0o755)
        with Postgresql(Path(folder) / "server", options=["fsync=off"]) as server:
            yield server


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Postgresql]:
    with _server() as server:
        yield server


@pytest.fixture
def own_postgresql() -> Iterator[Postgresql]:
    """For one test alone, which may stop it."""
    with _server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'telemetry.db'}"
    server: Postgresql = request.getfixturevalue("postgresql")
    return server.create(f"test_{next(_numbers)}")
