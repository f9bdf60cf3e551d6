"""A worker's process with the test at the gateway's end of its socket."""

import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from types import TracebackType
from typing import Any, Self

from edge.functions import wire

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 30.0

Request = wire.Publish | wire.Shadow | wire.Invoke


class Worker:
    """Answers each request that carries an id by `answer`, and keeps all that were made in `requests`; what it tried
    beyond its grants in `tried`, the calls that it said had begun in `begun`.
    arguments: of the worker's main."""

    def __init__(
        self,
        settings: wire.Configure,
        answer: Callable[[Request], wire.Reply] | None = None,
        arguments: str = "",
    ) -> None:
        self.requests: list[Request] = []
        self.tried: list[wire.Tried] = []
        self.begun: list[int] = []
        self.answer = answer or (lambda request: wire.Reply(request.id))
        self._said: list[wire.FromWorker] = []
        self._reader = wire.from_worker()
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self.socket, theirs = socket.socketpair()
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-c", f"{_START}; main({arguments})", str(ROOT)],
            env={"EDGE_FUNCTION_FD": str(theirs.fileno()), "PATH": os.environ["PATH"]},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
        )
        theirs.close()
        self.send(settings)

    def send(self, *said: wire.ToWorker) -> None:
        self.socket.sendall(b"".join(map(wire.frame, said)))

    def receive(self) -> wire.Ready | wire.StartFailed | wire.Done | wire.Failed:
        """What it says next, but for requests."""
        until = time.monotonic() + TIMEOUT_S
        while True:
            for place, said in enumerate(self._said):
                if isinstance(said, wire.Ready | wire.StartFailed | wire.Done | wire.Failed):
                    del self._said[: place + 1]
                    return said
            self._said.clear()
            self._read(until)

    def request(self) -> Request:
        """The next request, if none was made since the last look."""
        until = time.monotonic() + TIMEOUT_S
        seen = len(self.requests)
        while len(self.requests) == seen:
            self._read(until)
        return self.requests[seen]

    def _read(self, until: float) -> None:
        ready, _, _ = select.select([self.socket], [], [], until - time.monotonic())
        assert ready, f"the worker says nothing; it wrote: {self.output()}"
        data = self.socket.recv(65536)
        assert data, f"the worker has gone; it wrote: {self.output()}"
        for said in self._reader.feed(data):
            if isinstance(said, Request):
                self.requests.append(said)
                if said.id:
                    self.send(self.answer(said))
            elif isinstance(said, wire.Tried):
                self.tried.append(said)
            elif isinstance(said, wire.Begun):
                self.begun.append(said.id)
            else:
                self._said.append(said)

    def ready(self) -> wire.Ready:
        said = self.receive()
        assert isinstance(said, wire.Ready), said
        return said

    def call(self, topic: str = "t", payload: bytes = b"{}", **fields: Any) -> wire.Done | wire.Failed:
        """One call, and how it ended."""
        self.send(wire.Call(**{"id": 1, "topic": topic, "payload": payload, **fields}))
        said = self.receive()
        assert isinstance(said, wire.Done | wire.Failed), said
        return said

    def done(self, topic: str = "t", payload: bytes = b"{}", **fields: Any) -> bytes | None:
        """The result of a call that goes well."""
        said = self.call(topic, payload, **fields)
        assert isinstance(said, wire.Done), said
        return said.result

    def failed(self, topic: str = "t", payload: bytes = b"{}", **fields: Any) -> wire.Failed:
        said = self.call(topic, payload, **fields)
        assert isinstance(said, wire.Failed), said
        return said

    def output(self) -> str:
        self._output.seek(0)
        return self._output.read().decode()

    def wait(self) -> int:
        return self.process.wait(TIMEOUT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()
        self.process.kill()
        self.process.wait()
        self._output.close()


# What is under test need not be what is installed, and -I leaves out PYTHONPATH.
_START = "import sys; sys.path.insert(0, sys.argv.pop(1)); from edge.functions.worker import main"


def configure(folder: Path, code: str, *, handler: str = "", file: str = "made.py", **fields: Any) -> wire.Configure:
    """The settings of a function whose file holds this code."""
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dedent(code))
    given = {"name": "made", "thing": "gateway-1", "publish": ("out/#",), **fields}
    return wire.Configure(file=str(path), handler=handler, **given)


def worker(folder: Path, code: str, answer: Callable[[Request], wire.Reply] | None = None, **fields: Any) -> Worker:
    return Worker(configure(folder, code, **fields), answer)
