"""The whole way to what a user sees: a mosquitto, `fleet ingest` at it, a SQLite database, `fleet telemetry query`."""

import contextlib
import json
import subprocess
from pathlib import Path

from edge.errors import TransientError
from edge_tools.fleet.store import opener
from edge_tools.mosquitto import HOST
from tests.faults.oracle import Arrival, Id, arrival
from tests.faults.receivers import RealBroker
from tests.fleet.ingesters import ENVIRONMENT, FLEET, Ingester

QUERY_S = 300.0


class FleetCloud(RealBroker):
    """The ingester is killed with -9 as often as you like."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._database = f"sqlite:///{folder / 'telemetry.db'}"
        self._ingester = Ingester(folder, f"mqtt://{HOST}:{self.port}", self._database, "ingest")
        self._ingester.start()

    def kill_ingester(self) -> None:
        """kill -9 and a new start, which takes up its session at the broker."""
        self._ingester.kill()
        self._ingester.start(wait=False)

    def received(self) -> int:
        """How many readings are stored."""
        with contextlib.suppress(TransientError), contextlib.closing(opener(self._database)(False)) as store:
            return sum(one.count for one in store.losses())
        return 0

    def arrivals(self) -> list[Arrival]:
        """Every row, as `fleet telemetry query` shows it and in that order."""
        command = [*FLEET, "telemetry", "query", "--database", self._database, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False, timeout=QUERY_S)
        assert done.returncode == 0, done.stderr
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        return [
            arrival(
                row.get("payload", "").encode(),
                None if row["seq"] is None else Id(row["thing"], row["boot"], row["seq"]),
            )
            for row in rows
        ]

    def close(self) -> None:
        self._ingester.kill()
        self._broker.stop()
