"""What the demo runs on: a private CA, a mosquitto that stands for the cloud, emulated boards, the real gateway.

Each process is started in a session of its own, so that Ctrl-C reaches the demo alone, which ends them in order and by
their ids; should the demo be killed, the kernel ends them.
"""

import contextlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from edge.config import load_config
from edge.control import ask_status
from edge.errors import TransientError
from edge_tools.demo.judge import ANSWERS, MEANS, RESULTS, TOPICS, Judge
from edge_tools.demo.shown import INGEST, Shown
from edge_tools.hil import process
from edge_tools.hil.board import EmulatedBoard, default_elf, start_boards
from edge_tools.mosquitto import HOST, Mosquitto, user_acl
from edge_tools.pki import Credential, issue_client, issue_server, make_ca

BOARD = "mps2_an385"
GATEWAY, JUDGE = "demo-gateway", "demo-judge"
EXAMPLES = Path(__file__).resolve().parents[3] / "device_configs"
FILE, FUNCTIONS, OWN = "demo.toml", "functions", "# --- from here on"
OF_ITS_OWN = ("setsid", "setpriv", "--pdeathsig", "SIGKILL", "--")
ROOM_C = 20.5
_READY_TIMEOUT_S = 30.0
_END_TIMEOUT_S = 10.0


class DemoFailed(Exception):
    """Something did not start or ended early; the message says what to look at."""


def things(count: int) -> list[str]:
    return [f"board{number}" for number in range(1, count + 1)]


def gateway_file(names: Sequence[str], ports: Sequence[Path], broker_port: int, credential: Credential) -> str:
    """The gateway's configuration: boards and cloud of this run, all else from the example. data_dir is beside it."""
    text = json.dumps  # a JSON string is a TOML string
    example = (EXAMPLES / FILE).read_text()
    parts = [
        f'[gateway]\nname = "{GATEWAY}"\ndata_dir = "data"\n',
        f'[cloud]\nhost = "{HOST}"\nport = {broker_port}\nca = {text(str(credential.ca))}\n'
        f"certificate = {text(str(credential.certificate))}\nkey = {text(str(credential.key))}\n"
        "backoff_s_max = 5\n",
        *(
            f"[[board]]\nname = {text(name)}\nport = {text(str(port))}\n"
            for name, port in zip(names, ports, strict=True)
        ),
        example[example.index(OWN) :],
    ]
    return "\n".join(parts)


def access_rules(names: Sequence[str]) -> list[str]:
    """The broker's default is deny: the gateway speaks for its boards only, the judge listens and commands."""
    own = ("write dt/{}/#", "read cmd/{}/#", f"write {MEANS}/{{}}", f"write {RESULTS}/{{}}")
    gateway = [rule.format(name) for name in names for rule in own]
    return [
        *user_acl(GATEWAY, *gateway, f"write {ANSWERS}/#"),
        *user_acl(INGEST, "read dt/#"),
        *user_acl(JUDGE, *(f"read {topic}/#" for topic in TOPICS), "write cmd/#"),
    ]


class Gateway:
    """`edge run` on a configuration file; its log is gateway.log beside it."""

    def __init__(self, file: Path) -> None:
        self._file, self._log = file, file.with_name("gateway.log")
        self._socket = load_config(str(file)).control_socket
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [*OF_ITS_OWN, sys.executable, "-m", "edge.cli", "run", "--config", str(self._file)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def kill_and_restart(self) -> None:
        """SIGKILL, as a power cut would; then start it again on what it left."""
        self._process.kill()
        self._process.wait()
        self._process = self._start()

    def check(self) -> None:
        """Raise DemoFailed when it has ended."""
        if (code := self._process.poll()) is not None:
            raise DemoFailed(f"the gateway ended with {code}; its last words:\n{self._last_words()}")

    def status(self) -> dict[str, Any] | None:
        """What `edge status --json` prints; None while it does not answer."""
        try:
            status: dict[str, Any] = ask_status(self._socket)
        except TransientError:
            return None
        return status

    def wait_ready(self) -> None:
        """Wait until the cloud and every board are connected, and every function is ready. Raises DemoFailed."""
        deadline = time.monotonic() + _READY_TIMEOUT_S
        status = None
        while time.monotonic() < deadline:
            self.check()
            status = self.status()
            if status and _is_ready(status):
                return
            time.sleep(0.1)
        raise DemoFailed(f"after {_READY_TIMEOUT_S:.0f} s not all is connected: {status}; see {self._log}")

    def stop(self) -> None:
        process.end(self._process, _END_TIMEOUT_S)

    def _last_words(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])


def _is_ready(status: dict[str, Any]) -> bool:
    connected = all(part["connected"] for part in (*status["connections"], *status["boards"]))
    return connected and all(function["state"] == "ready" for function in status["functions"])


class World:
    """All of it, running."""

    def __init__(
        self, boards: Sequence[EmulatedBoard], gateway: Gateway, judge: Judge, broker: Mosquitto, shown: Shown
    ) -> None:
        self.boards, self.gateway, self.judge, self.broker, self.shown = boards, gateway, judge, broker, shown


@contextlib.contextmanager
def start_world(folder: Path, count: int, root: Path, say: Callable[[str], None]) -> Iterator[World]:
    """Start all in folder, which keeps logs, keys and the boards' flash; end all on leaving. Raises DemoFailed."""
    names = things(count)
    with contextlib.ExitStack() as stack:
        say("makes a private CA and certificates for the broker, the gateway and the judge")
        authority = make_ca(folder / "ca")
        server = issue_server(authority, folder / "cloud", ["localhost", HOST])
        broker = Mosquitto(
            folder / "cloud", plain=False, tls=server, acl=access_rules(names), prefix=OF_ITS_OWN, persistent=True
        )
        say("starts mosquitto, which stands for the cloud")
        stack.enter_context(broker)
        judge = Judge(JUDGE, names, issue_client(authority, folder / "judge", JUDGE))
        judge.start(HOST, broker.tls_port)
        stack.callback(judge.stop)
        say("starts fleet ingest, which stores what arrives and shows it once")
        shown = Shown(folder, (HOST, broker.tls_port), issue_client(authority, folder / "ingest", INGEST), OF_ITS_OWN)
        stack.callback(shown.stop)
        say(f"starts {count} emulated boards ({BOARD})")
        elf = default_elf(BOARD, root / "firmware")
        boards = stack.enter_context(start_boards(count, BOARD, folder / "boards", elf))
        for number, board in enumerate(boards):
            board.set_temperature(ROOM_C + number)
        say("starts the gateway: edge run")
        file = folder / "gateway.toml"
        shutil.copytree(EXAMPLES / FUNCTIONS, folder / FUNCTIONS)
        credential = issue_client(authority, folder / "gateway", GATEWAY)
        file.write_text(gateway_file(names, [board.port for board in boards], broker.tls_port, credential))
        gateway = Gateway(file)
        stack.callback(gateway.stop)
        gateway.wait_ready()
        yield World(boards, gateway, judge, broker, shown)
