"""The real `edge run` under fault: started, traced, killed, started again; its streams asked for what they shed."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import edge
from edge.control import ask_status
from edge.errors import TransientError
from tests.faults.oracle import Shed
from tests.faults.waiting import wait_until

ROOT = Path(edge.__file__).parent.parent
NAME = "gateway-1"
STOP_S = 120.0
ASKED_MAX = 3


def gateway_file(
    folder: Path, ports: Mapping[str, Path], cloud_port: int, *, more: str = "", data: Path | None = None, **stream: Any
) -> Path:
    """Write a gateway file with one stream that takes everything of the boards to the cloud. Returns its path."""
    settings = {"name": "readings", "from": ["boards"], "topics": ["dt/#"], "commit": "20 ms", **stream}
    parts = [
        f'[gateway]\nname = "{NAME}"\ndata_dir = {json.dumps(str(data or folder / "data"))}\n',
        f'[cloud]\nhost = "127.0.0.1"\nport = {cloud_port}\ntls = false\nkeepalive_s = 5\n'
        "backoff_s_min = 0.05\nbackoff_s_max = 0.5\n",
        "[mqttsn]\nretry_s = 1.0\n",
        *(f"[[board]]\nname = {json.dumps(name)}\nport = {json.dumps(str(port))}\n" for name, port in ports.items()),
        "[[stream]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items()),
        more,
    ]
    path = folder / "gateway.toml"
    path.write_text("\n".join(parts))
    return path


class Gateway:
    """file: its gateway file; its data folder is as that says. The log of every start goes to gateway.log beside it."""

    def __init__(self, file: Path, data: Path | None = None) -> None:
        self.file, self.data = file, data or file.parent / "data"
        self.log_path = file.parent / "gateway.log"
        self._child: subprocess.Popen[bytes] | None = None
        self._traced = False
        self.starts = 0

    def start(self, prefix: Sequence[str | Path] = (), env: Mapping[str, str] | None = None) -> None:
        """prefix: a command to run it under, such as strace or faketime."""
        assert self._child is None or self._child.poll() is not None
        for program in prefix[:1]:
            assert shutil.which(program), f"this test needs {program}: apt-get install {program}"
        command = [*prefix, sys.executable, "-m", "edge.cli", "run", "--config", self.file, "--log", "json"]
        whole = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **(env or {})}
        self._traced = bool(prefix)
        self.starts += 1
        with self.log_path.open("ab") as log:
            self._child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=whole, cwd=self.file.parent
            )

    @property
    def pid(self) -> int:
        """Of the gateway itself, be it traced or not."""
        assert self._child is not None
        if not self._traced:
            return self._child.pid
        children = Path(f"/proc/{self._child.pid}/task/{self._child.pid}/children").read_text().split()
        return int(children[0]) if children else self._child.pid

    def ended(self) -> bool:
        return self._child is None or self._child.poll() is not None

    def kill(self) -> None:
        """kill -9, at whatever it is doing."""
        if self.ended():
            return
        assert self._child is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self._child.wait(STOP_S)

    def stop(self) -> None:
        """In good order, which is exit 0."""
        assert self.ended_itself(), self.log()

    def ended_itself(self) -> bool:
        """Told to stop, it did so in good order; or a kill came before that."""
        if self.ended():
            return True
        assert self._child is not None
        os.kill(self.pid, signal.SIGTERM)
        code = self._child.wait(STOP_S)
        assert code in {0, -signal.SIGKILL}, self.log()
        return code == 0

    def close(self) -> None:
        self.kill()

    def status(self) -> dict[str, Any] | None:
        """What `edge status --json` prints; None while nobody answers."""
        assert not self.ended(), f"the gateway ended: {self.log()}"
        return self.answer()

    def answer(self) -> dict[str, Any] | None:
        """The same, of one that may have ended."""
        try:
            status: dict[str, Any] = ask_status(str(self.data / "control.sock"))
        except TransientError:
            return None
        return status

    def counters(self) -> dict[str, float]:
        found: dict[str, float] = wait_until(self.status, "the gateway's status")["counters"]
        return found

    def has_exported_all(self) -> bool:
        """No stream has a backlog, as far as anybody answers."""
        if (status := self.answer()) is None:
            return False
        backlog = [value for name, value in status["counters"].items() if name.startswith("stream_backlog_records")]
        return bool(backlog) and not any(backlog)

    def ask(self, *words: str) -> Any:
        """`edge WORDS --json`, from another process as a user would; once more if the gateway was killed over it."""
        command = [sys.executable, "-m", "edge.cli", *words, "--config", str(self.file), "--json"]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        for _ in range(ASKED_MAX):
            done = subprocess.run(command, capture_output=True, text=True, env=env, check=False, timeout=STOP_S)
            if done.returncode != 1 or "Ask again" not in done.stderr:
                break
        assert done.returncode == 0, f"edge {' '.join(words)}: {done.stderr}"
        return json.loads(done.stdout)

    def shed(self, stream: str = "readings") -> list[Shed]:
        """The shed book, from `edge stream losses`, but for what boards shed: they keep books of their own."""
        return [
            Shed(row["thing"], one["boot"], one["first"], one["last"], one["count"], one["reason"])
            for row in self.ask("stream", "losses", stream)
            for one in row["shed"]
            if one["reason"] != "shed_by_board"
        ]

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")[-4000:] if self.log_path.exists() else ""


def stream_folder(data: Path, name: str = "readings") -> Path:
    return data / "streams" / name


def sleep_until(deadline_s: float) -> None:
    time.sleep(max(0.0, deadline_s - time.monotonic()))
