"""A real PostgreSQL for the run, and an empty database of it or of SQLite for each test."""

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_tools.postgresql import Postgresql

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Postgresql]:
    """Its folder is made by hand: PostgreSQL's user may not pass through pytest's own."""
    with tempfile.TemporaryDirectory(prefix="edgeloop-postgresql-") as folder:
        Path(folder).chmod(0o755)
        with Postgresql(Path(folder) / "server") as server:
            yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'telemetry.db'}"
    server: Postgresql = request.getfixturevalue("postgresql")
    return server.create(f"test_{next(_numbers)}")
