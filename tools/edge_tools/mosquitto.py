"""A real mosquitto in a folder of its own, on free loopback ports: for tests, benches and the demo.

Invariants: it listens on 127.0.0.1 only; it keeps its ports over `stop` and `start`; it is ended by its own process id;
its log is `mosquitto.log` in the folder, appended to by every start.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from edge_tools.pki import Credential

HOST = "127.0.0.1"
START_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 20.0
PORT_TAKEN_S = 2.0
_SAVING = "Saving in-memory database"

# What a thing may do: its own topics, where the second level is its name, and its own AWS reserved ones.
THING_ACL = ("pattern readwrite +/%u/#", "pattern readwrite $aws/things/%u/#")


def user_acl(user: str, *rules: str) -> tuple[str, ...]:
    """ACL lines for one user (a certificate's common name); a rule is `readwrite FILTER`, `read …` or `write …`."""
    return (f"user {user}", *(f"topic {rule}" for rule in rules))


class Bridge(msgspec.Struct, frozen=True):
    """mosquitto's own bridge to another broker. topics: mosquitto's words after `topic`, such as `# out 1`."""

    name: str
    port: int
    topics: Sequence[str]
    host: str = HOST
    credential: Credential | None = None
    options: Sequence[str] = ()


class MosquittoFailed(RuntimeError):
    """It did not start; the message ends with its log."""


class Mosquitto:
    """`with Mosquitto(folder) as broker:` … `broker.port`.

    plain: a listener without TLS, all allowed. tls: a listener with mutual TLS, where the user is the certificate's
    common name and acl (lines, see THING_ACL, user_acl) says what it may do; without acl all is allowed.
    persistent: sessions and queued messages outlive `stop` (but not `kill`, except as of the last autosave).
    options: further configuration lines. prefix: a command in front, such as ("taskset", "-c", "1").
    Queues have no bound, which by itself is 1,000 messages for each client (README, "Store it").
    whole: instead of all that, the configuration as people write it, {port} in it for the plain listener's.
    """

    def __init__(
        self,
        directory: Path,
        *,
        plain: bool = True,
        tls: Credential | None = None,
        acl: Sequence[str] | None = None,
        bridges: Sequence[Bridge] = (),
        persistent: bool = False,
        options: Sequence[str] = (),
        prefix: Sequence[str] = (),
        whole: str = "",
    ) -> None:
        self.directory = directory
        self.log_path = directory / "mosquitto.log"
        self._plain, self._tls, self._acl = plain, tls, acl
        self._bridges, self._persistent, self._options, self._prefix = bridges, persistent, options, prefix
        self._whole = whole
        self._ports = (0, 0)
        self._started = False
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        """The plain listener's port."""
        return self._ports[0]

    @property
    def tls_port(self) -> int:
        return self._ports[1]

    @property
    def pid(self) -> int:
        if self._process is None:
            raise MosquittoFailed("mosquitto is not running")
        return self._process.pid

    def start(self) -> None:
        """Start and wait until it listens. The first start chooses the ports, later ones wait until nobody else has
        them; raises MosquittoFailed."""
        program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if program is None:
            raise MosquittoFailed("mosquitto is not installed: apt-get install mosquitto")
        self.directory.mkdir(parents=True, exist_ok=True)
        for attempt in range(5):
            if not self._started:
                self._ports = _free_ports()
            elif attempt:
                time.sleep(PORT_TAKEN_S)
            if self._start_once(program):
                self._started = True
                return
        raise MosquittoFailed(f"mosquitto found no free port:\n{self._log_end()}")

    def stop(self) -> None:
        """End it in good order (it saves what is persistent). Stopped already is no error."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self._end(signal.SIGKILL)

    def save(self) -> None:
        """Have it write its sessions to disk, so that they outlive a later `kill`."""
        seen = self.log_text().count(_SAVING)
        os.kill(self.pid, signal.SIGUSR1)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while self.log_text().count(_SAVING) == seen:
            if time.monotonic() > deadline:
                raise TimeoutError("mosquitto saved nothing")
            time.sleep(0.01)

    def freeze(self) -> None:
        """Stop it from reading and writing; its sockets stay open."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def log_text(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def _log_end(self) -> str:
        return self.log_text()[-4000:]

    def wait_log(self, text: str, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until its log holds the text, such as `Sending SUBACK to NAME`; raises TimeoutError."""
        deadline = time.monotonic() + timeout_s
        while text not in self.log_text():
            if time.monotonic() > deadline:
                raise TimeoutError(f"no {text!r} within {timeout_s} s in:\n{self.log_text()[-4000:]}")
            time.sleep(0.01)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _start_once(self, program: str) -> bool:
        """Return False when a port was taken meanwhile."""
        configuration = self.directory / "mosquitto.conf"
        configuration.write_text("\n".join(self._lines()) + "\n")
        seen = len(self.log_text())
        with self.log_path.open("ab") as log:
            process = subprocess.Popen(
                [*self._prefix, program, "-c", str(configuration)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while process.poll() is None and time.monotonic() < deadline:
            if " running" in self.log_text()[seen:]:
                self._process = process
                return True
            time.sleep(0.01)
        process.kill()
        process.wait()
        text = self.log_text()[seen:]
        if "Address already in use" in text:
            return False
        raise MosquittoFailed(f"mosquitto did not start:\n{text[-4000:]}")

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            if self._persistent:
                raise MosquittoFailed(f"it had to be killed, and what it held is gone:\n{self._log_end()}") from None

    def _lines(self) -> list[str]:
        if self._whole:
            return [self._whole.replace("{port}", str(self.port))]
        lines = ["per_listener_settings true"] if self._plain and self._tls else []
        lines += [
            "user root",  # started by root it stays root, to read keys of mode 0600; others it leaves as they are
            "log_dest stderr",
            "log_type all",
            "connection_messages true",
            "set_tcp_nodelay true",  # else a small answer waits up to 40 ms
            "max_queued_messages 0",
            "max_queued_bytes 0",
        ]
        if self._persistent:
            lines += ["persistence true", f"persistence_location {self.directory}/", "autosave_interval 1"]
        lines += self._options
        if self._plain:
            lines += [f"listener {self.port} {HOST}", "allow_anonymous true"]
        if self._tls is not None:
            lines += [
                f"listener {self.tls_port} {HOST}",
                f"cafile {self._tls.ca}",
                f"certfile {self._tls.certificate}",
                f"keyfile {self._tls.key}",
                "require_certificate true",
                "use_identity_as_username true",
                "allow_anonymous false",
            ]
            if self._acl is not None:
                acl = self.directory / "mosquitto.acl"
                acl.write_text("\n".join(self._acl) + "\n")
                acl.chmod(0o600)
                lines.append(f"acl_file {acl}")
        for bridge in self._bridges:
            lines += _bridge_lines(bridge)
        return lines


def _bridge_lines(bridge: Bridge) -> list[str]:
    lines = [
        f"connection {bridge.name}",
        f"address {bridge.host}:{bridge.port}",
        "bridge_protocol_version mqttv50",
        "cleansession false",
        "try_private false",
        "notifications false",
        "restart_timeout 1 5",
        *(f"topic {topic}" for topic in bridge.topics),
    ]
    if bridge.credential is not None:
        lines += [
            f"bridge_cafile {bridge.credential.ca}",
            f"bridge_certfile {bridge.credential.certificate}",
            f"bridge_keyfile {bridge.credential.key}",
        ]
    return [*lines, *bridge.options]


def _free_ports() -> tuple[int, int]:
    with socket.create_server((HOST, 0)) as one, socket.create_server((HOST, 0)) as other:
        return one.getsockname()[1], other.getsockname()[1]
