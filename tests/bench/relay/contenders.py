"""Those who carry messages from a local mosquitto to one that stands for the cloud, each as one process on one core."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from edge_tools.mosquitto import Bridge, Mosquitto
from edge_tools.pki import Credential
from tests.bench.relay.ports import WINDOW as BOARD_WINDOW
from tests.bench.relay.ports import Port
from tests.bench.relay.raw import HOST

WINDOW = 1000
# The same for every broker: no log of each packet, no window that holds a relay back (gmqtt fails at the window).
BROKER_OPTIONS = (
    "log_type none",
    "log_type information",
    "max_inflight_messages 20000",
    "max_inflight_bytes 0",
)
ROOT = Path(__file__).resolve().parents[3]


class Contender(Protocol):
    """pid: the process that is measured; local_port: where to publish what it shall carry."""

    local_port: int

    @property
    def pid(self) -> int: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...
    def hold(self) -> None:
        """From now on nothing is carried: what is published waits at the local broker."""

    def release(self) -> None: ...


def on_core(core: int) -> tuple[str, ...]:
    """A command's prefix; core: an index into those this process was started with."""
    return ("taskset", "-c", str(CORES[core % len(CORES)]))


CORES: Sequence[int] = sorted(os.sched_getaffinity(0))
RELAY_CORE, OTHERS_CORE = 0, 1


class ProcessRelay:
    """A relay that is a process beside the local broker."""

    def __init__(self, command: Sequence[str], local_port: int, log: Path, prefix: Sequence[str] | None = None) -> None:
        in_front = on_core(RELAY_CORE) if prefix is None else prefix
        self._command, self.local_port, self._log = [*in_front, *command], local_port, log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tools'}"}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self._log.parent, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def hold(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def release(self) -> None:
        os.kill(self.pid, signal.SIGCONT)


class BridgeRelay:
    """mosquitto's own bridge. What is measured is the whole process from `release` on, when all that is to be carried
    waits in it already: the bridge's work, and nothing of taking the messages in."""

    def __init__(
        self,
        folder: Path,
        cloud: Mosquitto,
        cloud_port: int,
        credential: Credential | None,
        *,
        options: Sequence[str] = (),
    ) -> None:
        bridge = Bridge("bridge", cloud_port, ["bench/# out 1"], credential=credential, options=options)
        self._cloud = cloud
        self._broker = Mosquitto(folder, bridges=[bridge], options=BROKER_OPTIONS, prefix=on_core(RELAY_CORE))
        self.local_port = 0

    @property
    def pid(self) -> int:
        return self._broker.pid

    def start(self) -> None:
        self._broker.start()
        self.local_port = self._broker.port

    def stop(self) -> None:
        self._broker.stop()

    def hold(self) -> None:
        self._cloud.freeze()

    def release(self) -> None:
        self._cloud.thaw()


def script(name: str, local: Mosquitto, cloud_port: int, folder: Path, credential: Credential | None) -> ProcessRelay:
    """`NAME_relay.py` beside this file."""
    files = [] if credential is None else [str(credential.ca), str(credential.certificate), str(credential.key)]
    program = str(Path(__file__).with_name(f"{name}_relay.py"))
    return ProcessRelay([sys.executable, program, str(local.port), str(cloud_port), *files], local.port, folder / "log")


def gateway(local: Mosquitto, cloud_port: int, folder: Path, *, durable: bool = False) -> ProcessRelay:
    """Ours: the real gateway with a local broker as source. durable: by way of a stream on disk."""
    broker = f"""
[broker]
host = "{HOST}"
port = {local.port}
tls = false
client_id = "relay-local"
session_expiry_s = 0
window = {WINDOW}
"""
    return gateway_of(cloud_port, None, folder, broker + _way("broker", "bench/#", durable=durable), local.port)


def gateway_with_boards(
    ports: Sequence[Port],
    cloud_port: int,
    folder: Path,
    credential: Credential | None,
    *,
    durable: bool = False,
    sections: str = "",
) -> ProcessRelay:
    """Ours: the real gateway with boards as sources. durable: by way of a stream on disk; sections: more of them."""
    boards = "".join(
        f'[[board]]\nname = "{port.name}"\nport = "{port.path}"\nwindow = {BOARD_WINDOW}\n' for port in ports
    )
    way = _way("boards", "bench/{board}", durable=durable)
    return gateway_of(cloud_port, credential, folder, boards + way + sections)


def _way(source: str, topic: str, *, durable: bool) -> str:
    if durable:
        return f'[[stream]]\nname = "bench"\nfrom = ["{source}"]\ntopics = ["{topic}"]\n'
    return f'[[route]]\nfrom = "{source}"\ntopic = "{topic}"\nto = ["cloud"]\n'


def gateway_of(
    cloud_port: int,
    credential: Credential | None,
    folder: Path,
    sections: str,
    local_port: int = 0,
    *,
    cloud: str = "",
    prefix: Sequence[str] | None = None,
) -> ProcessRelay:
    """Ours with a gateway file of these sections, in that folder, which is its data_dir too. cloud: further lines of
    that section. prefix: a command in front, instead of the relay's core."""
    tls = "tls = false\n"
    if credential is not None:
        files = {"ca": credential.ca, "certificate": credential.certificate, "key": credential.key}
        tls = "".join(f"{name} = {json.dumps(str(path))}\n" for name, path in files.items())
    text = f"""
[gateway]
name = "relay"
data_dir = {json.dumps(str(folder))}

[cloud]
host = "{HOST}"
port = {cloud_port}
session_expiry_s = 0
window = {WINDOW}
{cloud}
{tls}
{sections}
"""
    file = folder / "gateway.toml"
    file.write_text(text)
    command = [sys.executable, "-m", "edge.cli", "run", "--config", str(file)]
    return ProcessRelay(command, local_port, folder / "log", prefix)
