"""Stands for the gateway in tests of what holds a function: a process of its own, as root or as an ordinary user.

`hold` runs one program within a Sandbox there and gives what came of it."""

import asyncio
import contextlib
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from edge.functions.sandbox import Containment, ControlGroups, Ending, Sandbox, SandboxError, spawn

ROOT: Final = Path(__file__).parents[2]
NOBODY: Final = 65_534
USERS: Final = ("root", "user") if os.geteuid() == 0 else ("user",)
OUTPUT_BYTES_MAX: Final = 65_536


class Held(msgspec.Struct):
    """output: the first of it. refused: what the kernel told of."""

    output: str = ""
    ending: Ending | None = None
    containment: Containment = Containment({})
    error: str = ""
    memory_bytes: int = 0
    reached: dict[str, str] = {}
    refused: list[tuple[str, str]] = []

    def holds(self, limit: str) -> bool:
        """Whether it is said to be held, without a reserve."""
        held = self.containment.limits[limit]
        return bool(held.by) and not held.but

    @property
    def reason(self) -> str:
        assert self.ending is not None, self.error
        return self.ending.reason


class Task(msgspec.Struct):
    sandbox: Sandbox
    argv: list[str]
    environment: dict[str, str]
    kill_after_s: float | None
    kill_at: str
    is_listened_to: bool


@contextlib.contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that an ordinary user may write, which pytest's are not."""
    with tempfile.TemporaryDirectory(prefix="edge-held-") as name:
        path = Path(name)
        path.chmod(0o711)
        if os.geteuid() == 0:
            os.chown(path, NOBODY, NOBODY)
        yield path


def hold(
    sandbox: Sandbox,
    code: str | Sequence[str],
    *,
    user: str,
    environment: dict[str, str] | None = None,
    kill_after_s: float | None = None,
    kill_at: str = "",
    is_listened_to: bool = False,
) -> Held:
    """code: a Python script, or a command. kill_at: as soon as it has written this,
    or as much as is read. is_listened_to: in a process that has a filter with a listener already, as in a container."""
    argv = [sys.executable, "-I", "-S", "-c", code] if isinstance(code, str) else list(code)
    task = Task(sandbox, argv, environment or {}, kill_after_s, kill_at, is_listened_to)
    with _gateway(task, user) as process:
        told = process.communicate(timeout=60)[0]
    assert process.returncode == 0
    return msgspec.json.decode(told, type=Held)


@contextlib.contextmanager
def begun(sandbox: Sandbox, code: str, *, user: str) -> Iterator[subprocess.Popen[bytes]]:
    """The gateway's process, which waits for the script to end."""
    task = Task(sandbox, [sys.executable, "-I", "-S", "-c", code], {}, None, "", is_listened_to=False)
    with _gateway(task, user) as process:
        yield process


@contextlib.contextmanager
def _gateway(task: Task, user: str) -> Iterator[subprocess.Popen[bytes]]:
    drop = {"user": NOBODY, "group": NOBODY, "extra_groups": ()} if user == "user" and os.geteuid() == 0 else {}
    with tempfile.TemporaryFile() as file:
        file.write(msgspec.json.encode(task))
        file.seek(0)
        process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=file,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": f"{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"},
            **drop,  # type: ignore[call-overload]
        )
    with process:
        try:
            yield process
        finally:
            process.kill()


def end_all_in(folder: Path) -> None:
    """All processes that stand in this folder: what was not held is not left to run."""
    for link in Path("/proc").glob("[0-9]*/cwd"):
        with contextlib.suppress(OSError):
            if os.readlink(link).startswith(str(folder)):
                os.kill(int(link.parent.name), signal.SIGKILL)


def beats(file: Path) -> bool:
    """Whether somebody still writes into it."""
    before = file.read_text()
    time.sleep(0.2)
    return file.read_text() != before


async def _held(task: Task) -> Held:
    if task.is_listened_to:
        _be_listened_to()
    groups = ControlGroups()
    read_fd, write_fd = os.pipe()
    held = Held(refused=[])

    def refused(what: str, detail: str) -> None:
        held.refused.append((what, detail))

    try:
        child = await spawn(
            task.sandbox, task.argv, environment=task.environment, output=write_fd, groups=groups, refused=refused
        )
    except SandboxError as error:
        groups.close()
        held.error = str(error)
        return held
    finally:
        os.close(write_fd)
    held.containment = child.containment
    try:
        async with asyncio.TaskGroup() as tasks:
            output = tasks.create_task(asyncio.to_thread(_first, read_fd, task.kill_at))
            waiting = tasks.create_task(child.wait())
            if task.kill_at:
                held.output = await output
                held.memory_bytes = child.memory_bytes()
                child.kill()
            elif task.kill_after_s is not None:
                await asyncio.wait([waiting], timeout=task.kill_after_s)
                held.memory_bytes = child.memory_bytes()
                child.kill()
        held.output, held.ending = output.result(), waiting.result()
        held.reached = dict(child.reached)
    finally:
        groups.close()
    return held


def _be_listened_to() -> None:
    from edge.functions.launch import kernel
    from edge.functions.launch.machine import machine

    here = machine()
    assert here is not None
    rules = [(0x20, 0, 0, 0), (0x15, 0, 1, here.numbers["kcmp"]), (0x06, 0, 0, 0x7FC0_0000), (0x06, 0, 0, 0x7FFF_0000)]
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    kernel.set_seccomp_filter(b"".join(struct.pack("=HBBI", *rule) for rule in rules), listen=True)


def _first(fd: int, until: str) -> str:
    """Ends when all who hold the other end have; or when there is enough, whatever more would come."""
    text = b""
    with os.fdopen(fd, "rb", buffering=0) as file:
        while len(text) < OUTPUT_BYTES_MAX and (more := file.read(OUTPUT_BYTES_MAX - len(text))):
            text += more
            if until and until.encode() in text:
                break
    return text.decode(errors="replace")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.stdout.buffer.write(
        msgspec.json.encode(asyncio.run(_held(msgspec.json.decode(sys.stdin.buffer.read(), type=Task))))
    )
