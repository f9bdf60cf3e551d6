"""Child processes that never outlive their parent: the kernel kills them when it dies, however it dies."""

import itertools
import os
import select
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from edge_tools.hil.errors import HilError, SetupError

_ENDING_S = 5.0
_cores = itertools.count()


def next_core() -> int:
    """Round-robin over the cores this process may use."""
    cores = sorted(os.sched_getaffinity(0))
    return cores[next(_cores) % len(cores)]


def start(
    command: Sequence[str],
    folder: Path,
    log: Path,
    *,
    pass_fds: Sequence[int] = (),
    stdout: int | None = None,
    env: dict[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start command in folder with stderr (and stdout, unless given) appended to log. Not from a thread that ends."""
    with log.open("ab") as out:
        try:
            return subprocess.Popen(
                ["setpriv", "--pdeathsig", "SIGKILL", "--", *command],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=out if stdout is None else stdout,
                stderr=out,
                pass_fds=pass_fds,
                env=env,
                start_new_session=True,  # Ctrl-C is for us, who end it in order
            )
        except FileNotFoundError as problem:
            raise SetupError(
                f"the program {problem.filename} is missing", "Install it: apt-get install util-linux"
            ) from problem


def first_line(child: subprocess.Popen[bytes], log: Path, patience_s: float = 20.0) -> bytes:
    """The first line child prints on its stdout pipe. Raises HilError with the end of the log when it dies first."""
    assert child.stdout is not None
    line = b""
    deadline_s = time.monotonic() + patience_s
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([child.stdout], [], [], max(0.0, deadline_s - time.monotonic()))
        chunk = os.read(child.stdout.fileno(), 4096) if ready else b""
        if not chunk:
            end(child)
            raise HilError(f"{child.args!r} did not start: {tail(log)}", f"See {log}.")
        line += chunk
    return line


def end(child: subprocess.Popen[bytes], patience_s: float = _ENDING_S) -> None:
    """Ask it to end, kill it when it does not. One that has ended already is fine."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(patience_s)
        except subprocess.TimeoutExpired:
            kill(child)
    if child.stdout is not None:
        child.stdout.close()


def kill(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()


def tail(log: Path, bytes_max: int = 500) -> str:
    try:
        return log.read_bytes()[-bytes_max:].decode("utf-8", "replace").strip() or "it said nothing"
    except FileNotFoundError:
        return "it said nothing"
