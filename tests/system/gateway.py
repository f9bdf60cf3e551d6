"""The real gateway as a process: `edge run --config FILE`."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import edge
from edge.control import ask_status, watch
from edge.errors import TransientError
from edge_tools.hil import process
from edge_tools.pki import Credential
from tests.system.cloud import HOST, PATIENCE_S, wait_until

ROOT = Path(edge.__file__).parent.parent
NAME = "gateway-1"

ROUTES = """
[[route]]
from = "boards"
topic = "dt/{board}/#"
to = ["cloud"]

[[route]]
from = "boards"
topic = "cmd/{board}/reply"
to = ["cloud"]

[[route]]
from = "boards"
topic = "answers/{board}/#"
to = ["cloud"]

[[route]]
from = "cloud"
topic = "cmd/#"
to = ["boards"]
"""


class OnPort(Protocol):
    """A board, or what else speaks at the end of a port."""

    @property
    def name(self) -> str: ...
    @property
    def port(self) -> Path: ...


def gateway_file(boards: Sequence[OnPort], tls_port: int, credential: Credential, more: str = "") -> str:
    """The text of a gateway file for these boards. more: further sections, routes for instance."""

    def word(text: object) -> str:
        return json.dumps(str(text))

    parts = [
        f'[gateway]\nname = "{NAME}"\ndata_dir = "data"\n',
        f"[cloud]\nhost = {word(HOST)}\nport = {tls_port}\nca = {word(credential.ca)}\n"
        f"certificate = {word(credential.certificate)}\nkey = {word(credential.key)}\n"
        "backoff_s_min = 0.1\nbackoff_s_max = 1.0\n",
        "[mqttsn]\nretry_s = 1.0\n",
        *(f"[[board]]\nname = {word(board.name)}\nport = {word(board.port)}\n" for board in boards),
        ROUTES,
        more,
    ]
    return "\n".join(parts)


class Gateway:
    """text: its gateway file. Ended by its own process id."""

    def __init__(self, folder: Path, text: str) -> None:
        self._folder = folder
        self._file = folder / "gateway.toml"
        self._file.write_text(text)
        self._log = folder / "gateway.log"
        self._child: subprocess.Popen[bytes] | None = None

    def start(self, boards: Sequence[str] = ()) -> None:
        """Until it answers, is connected to the cloud, and the boards named are and listen for commands."""
        command = [sys.executable, "-m", "edge.cli", "run", "--config", str(self._file), "--log", "json"]
        self._child = process.start(command, self._folder, self._log, env={**os.environ, "PYTHONPATH": str(ROOT)})
        self.wait_connected(boards)

    def wait_connected(self, boards: Sequence[str] = ()) -> dict[str, Any]:
        def ready() -> dict[str, Any] | None:
            status = self.status()
            if status is None or not all(row["connected"] for row in status["connections"]):
                return None
            connected = {row["name"] for row in status["boards"] if row["connected"] and row["firmware"]}
            listening = {row["id"] for row in status["clients"] if row["state"] == "active" and row["subscriptions"]}
            return status if connected & listening >= set(boards) else None

        found: dict[str, Any] = wait_until(ready, f"the gateway to be connected to cloud and {boards}")
        return found

    def status(self) -> dict[str, Any] | None:
        """What `edge status --json` prints; None while nobody answers."""
        assert self._child is not None
        assert self._child.poll() is None, f"the gateway ended with {self._child.returncode}: {self.log()[-3000:]}"
        try:
            status: dict[str, Any] = ask_status(str(self._folder / "data" / "control.sock"))
        except TransientError:
            return None
        return status

    def board(self, name: str) -> dict[str, Any]:
        """The board's row in the status."""
        status = wait_until(self.status, "the gateway's status")
        row: dict[str, Any] = next(row for row in status["boards"] if row["name"] == name)
        return row

    def wait_boot(self, name: str, boot: int) -> dict[str, Any]:
        """Until the board has come up as this boot and listens for commands."""
        wait_until(lambda: self.board(name)["boot"] == boot, f"the hello of boot {boot} of {name}")
        self.wait_connected([name])
        return self.board(name)

    def counters(self) -> dict[str, float]:
        status = wait_until(self.status, "the gateway's status")
        counters: dict[str, float] = status["counters"]
        return counters

    def watch(self, topic_filter: str) -> "Watch":
        return Watch(str(self._folder / "data" / "control.sock"), topic_filter)

    def log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def kill(self) -> None:
        """kill -9."""
        assert self._child is not None
        process.kill(self._child)

    def stop(self) -> None:
        """In good order, which is exit 0."""
        if self._child is None or self._child.poll() is not None:
            return
        self._child.send_signal(signal.SIGTERM)
        assert self._child.wait(PATIENCE_S) == 0, self.log()[-3000:]


class Watch:
    """What `edge watch --json` shows, from now until the gateway ends."""

    def __init__(self, socket: str, topic_filter: str) -> None:
        self._rows: list[dict[str, Any]] = []
        self._source = watch(socket, topic_filter)
        assert "watching" in next(self._source)
        threading.Thread(target=self._collect, daemon=True).start()

    def _collect(self) -> None:
        for row in self._source:
            self._rows.append(row)

    def sequences(self, boot: int) -> list[int]:
        """Of the readings routed, in order, each once."""
        return list(dict.fromkeys(row["sequence"] for row in self._rows if row.get("boot") == boot))
