"""A real mosquitto on a free port of the loopback."""

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


class Mosquitto:
    """A broker of one's own, ended by its own process id. `options`: further lines of its configuration."""

    def __init__(self, folder: Path, options: str = "") -> None:
        self._folder, self._options = folder, options
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        self.at_end: list[Callable[[], None]] = []

    def start(self) -> None:
        program = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin")
        if program is None:
            raise RuntimeError("mosquitto is missing: apt-get install mosquitto")
        lines = [f"listener {self.port} 127.0.0.1", "allow_anonymous true", "persistence false", self._options]
        config = self._folder / "mosquitto.conf"
        config.write_text("\n".join(lines) + "\n")
        with (self._folder / "mosquitto.log").open("ab") as log:
            self._process = subprocess.Popen([program, "-c", str(config)], stdout=log, stderr=log)
        for _ in range(500):
            if self._process.poll() is not None:
                break
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                time.sleep(0.01)
            else:
                return
        raise RuntimeError((self._folder / "mosquitto.log").read_text())

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    broker = Mosquitto(
        tmp_path, "max_topic_alias 3\nmax_inflight_messages 4\nmax_queued_messages 0\nmessage_size_limit 4000000"
    )
    broker.start()
    yield broker
    for close in broker.at_end:
        close()
    broker.stop()
