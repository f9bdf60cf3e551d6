"""The demo's receiving side: `fleet ingest` into SQLite, and what `fleet telemetry query` shows of it afterwards."""

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec

from edge_tools.hil import process
from edge_tools.pki import Credential

INGEST = "demo-ingest"
_END_TIMEOUT_S = 10.0
_ASK_EVERY_S = 0.2


class Shown:
    """Ingests `dt/#` from the broker until `stop`; its log is ingest.log in the folder."""

    def __init__(self, folder: Path, broker: tuple[str, int], credential: Credential, prefix: Sequence[str]) -> None:
        self._database = f"sqlite:///{folder / 'telemetry.sqlite'}"
        tls = ("--ca", str(credential.ca), "--certificate", str(credential.certificate), "--key", str(credential.key))
        source = ("--broker", f"mqtts://{broker[0]}:{broker[1]}", "--client-id", INGEST, "--topic", "dt/#")
        with (folder / "ingest.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*prefix, *_FLEET, "ingest", *source, *tls, "--database", self._database],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def readings(self) -> Counter[tuple[str, int, int]]:
        """How often each reading is shown, by (thing, boot, sequence)."""
        query = [*_FLEET, "telemetry", "query", "--database", self._database, "--json"]
        done = subprocess.run(query, capture_output=True, text=True, check=False)
        rows = (msgspec.json.decode(line) for line in done.stdout.splitlines())
        return Counter((row["thing"], row["boot"], row["seq"]) for row in rows)

    def wait(self, count: int, timeout_s: float) -> Counter[tuple[str, int, int]]:
        """Wait until so many readings are shown, or the time is up; returns what is shown then."""
        deadline = time.monotonic() + timeout_s
        while len(shown := self.readings()) < count and time.monotonic() < deadline:
            time.sleep(_ASK_EVERY_S)
        return shown

    def stop(self) -> None:
        process.end(self._process, _END_TIMEOUT_S)


_FLEET = (sys.executable, "-m", "edge_tools.fleet.cli")
