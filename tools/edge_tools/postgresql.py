"""A real PostgreSQL in a folder of its own, on a free loopback port: for tests and benches.

Invariants: it listens on 127.0.0.1 only, and on no other socket; it keeps its port over `stop` and `start`; it is ended
by its own process id. PostgreSQL refuses to run as root: then it runs as Debian's user `postgres`.
"""

import os
import pwd
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

HOST = "127.0.0.1"
USER = "postgres"
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 20.0
_DEBIAN = Path("/usr/lib/postgresql")


class PostgresqlFailed(RuntimeError):
    """It did not start; the message ends with its log."""


class Postgresql:
    """`with Postgresql(folder) as server:` … `server.url("postgres")`. The folder must not be there yet, or be its own
    from before. It is owned by the user it runs as, and the folders above it must let that user pass."""

    def __init__(self, directory: Path, *, options: Sequence[str] = ()) -> None:
        self.directory = directory
        self.log_path = directory / "postgresql.log"
        self.port = 0
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://{USER}@{HOST}:{self.port}/{database}"

    def start(self) -> None:
        """Start and wait until it answers. Raises PostgresqlFailed."""
        data = self.directory / "data"
        if not data.exists():
            self._initialise(data)
        if not self.port:
            self.port = _free_port()
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [*_as_user(), str(_program("postgres")), "-D", str(data), "-h", HOST, "-p", str(self.port), "-k", ""]
                + [part for option in self._options for part in ("-c", option)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
            )
        ready = [str(_program("pg_isready")), "-q", "-h", HOST, "-p", str(self.port), "-U", USER]
        deadline = time.monotonic() + START_TIMEOUT_S
        while self._process.poll() is None and time.monotonic() < deadline:
            if subprocess.run(ready, check=False).returncode == 0:
                return
            time.sleep(0.05)
        self.kill()
        raise PostgresqlFailed(f"PostgreSQL did not start:\n{self.log_path.read_text(errors='replace')[-4000:]}")

    def stop(self) -> None:
        """End it in good order, and the connections to it. Stopped already is no error."""
        self._end(signal.SIGINT)  # its "fast" shutdown

    def kill(self) -> None:
        """End it at once; its children notice, and it recovers at the next start."""
        self._end(signal.SIGQUIT)  # its "immediate" shutdown, which leaves no child behind

    def create(self, database: str) -> str:
        """Make an empty database; returns its address."""
        command = [str(_program("createdb")), "-h", HOST, "-p", str(self.port), "-U", USER, database]
        subprocess.run(command, check=True, capture_output=True, timeout=START_TIMEOUT_S)
        return self.url(database)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _initialise(self, data: Path) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        if _as_user():
            account = pwd.getpwnam(USER)
            os.chown(self.directory, account.pw_uid, account.pw_gid)
        command = [*_as_user(), str(_program("initdb")), "-D", str(data), "-U", USER, "-A", "trust", "-E", "UTF8"]
        done = subprocess.run(
            [*command, "--locale", "C.UTF-8", "--no-sync", "--no-instructions"],
            capture_output=True,
            text=True,
            check=False,
            cwd=self.directory,
        )
        if done.returncode:
            raise PostgresqlFailed(f"initdb failed: {done.stderr.strip()}")

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGQUIT)
            process.wait(STOP_TIMEOUT_S)


def _program(name: str) -> Path:
    """The newest that Debian has installed; its programs are not on the PATH."""
    found = sorted(_DEBIAN.glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    if not found:
        raise PostgresqlFailed("PostgreSQL is not installed: apt-get install postgresql")
    return found[-1]


def _as_user() -> tuple[str, ...]:
    return ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--") if os.getuid() == 0 else ()


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as one:
        port: int = one.getsockname()[1]
        return port
