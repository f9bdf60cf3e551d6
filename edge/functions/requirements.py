"""Installs a function's requirements into a folder of its own: wheels alone, with hashes, none of their code run.

The folder is named after the file's content, this Python and this machine, and appears whole or not at all; pip runs in
a sandbox that may write nothing but the folder beside it."""

import asyncio
import hashlib
import os
import platform
import re
import shutil
import stat
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from edge.errors import EdgeLoopError
from edge.functions.sandbox import ControlGroups, Ending, Sandbox, SandboxError, spawn

TIMEOUT_S: Final = 600.0
OUTPUT_BYTES_MAX: Final = 262_144
_STAGING: Final = ".staging"
_ALLOWED: Final = re.compile(
    r"--(index-url|extra-index-url|no-index|find-links|require-hashes|only-binary|prefer-binary|pre|trusted-host)\b|-i\b"
)
_PASSED: Final = re.compile(r"PIP_\w+|https?_proxy|no_proxy|all_proxy|SSL_CERT_(FILE|DIR)", re.IGNORECASE)
_CAUSES: Final[tuple[tuple[str, str, str], ...]] = (
    (
        "DO NOT MATCH THE HASHES",
        "wrong_hash",
        "Make the hashes anew from a source you trust, as with `pip-compile --generate-hashes`",
    ),
    (
        "Hashes are required",
        "no_hash",
        "Give each package `==VERSION` and `--hash=sha256:…`, as `pip-compile --generate-hashes` writes them",
    ),
    ("must have their versions pinned", "no_hash", "Give each package `==VERSION`"),
    (
        "Failed to establish a new connection|name resolution|Network is unreachable|timed out|Connection refused|"
        "Connection broken|Max retries|ProxyError|No route to host",
        "offline",
        "Connect the gateway to its package index, or set PIP_NO_INDEX=1 and PIP_FIND_LINKS to a folder into which "
        "`pip download --require-hashes --only-binary :all: -r FILE -d FOLDER` put the wheels elsewhere",
    ),
    (
        "No matching distribution|is not a supported wheel",
        "no_wheel",
        "Nothing is built on the gateway: name a version that has a wheel for this Python and this machine",
    ),
    ("Invalid requirement|invalid requirement", "invalid", "Correct the line"),
    ("No module named pip", "no_pip", "Install pip beside the gateway, on Debian `apt install python3-venv`"),
    ("No space left|File too large|Disk quota", "no_room", "Make room on the disk"),
)


class RequirementsError(EdgeLoopError):
    """reason: a stable word: `wrong_hash`, `no_hash`, `offline`, `no_wheel`, `invalid`, `no_pip`, `no_room`, `timeout`,
    `failed`. remedy: what a person can do."""

    code = "requirements"

    def __init__(self, file: Path, reason: str, problem: str, remedy: str) -> None:
        self.file, self.reason, self.problem, self.remedy = file, reason, problem, remedy
        super().__init__(f"{file}: {problem}. {remedy}")


class Bounds(msgspec.Struct, frozen=True):
    """What pip may take, and what the installed packages may weigh."""

    memory_bytes_max: int = 268_435_456
    folder_bytes_max: int = 536_870_912
    files_max: int = 50_000
    timeout_s: float = TIMEOUT_S


_BOUNDS: Final = Bounds()


def folder_name(content: bytes) -> str:
    """Of the same requirements for another Python or machine there would be other wheels."""
    tag = f"{sys.implementation.cache_tag} {platform.machine()} {sys.maxsize}".encode()
    return hashlib.sha256(tag + b"\0" + content).hexdigest()[:32]


async def install(
    requirements: Path,
    into: Path,
    *,
    groups: ControlGroups | None = None,
    environment: Mapping[str, str] | None = None,
    read: Sequence[Path] = (),
    bounds: Bounds = _BOUNDS,
) -> Path:
    """The folder of the packages, below into; made at most once per content. environment: of it pip sees PIP_*, proxies
    and SSL_CERT_*; the gateway's own unless given. read: further folders that pip may read, as one of wheels. Beside
    it, what an installation that was interrupted left is removed. Raises RequirementsError."""
    try:
        content = await asyncio.to_thread(requirements.read_bytes)
    except OSError as error:
        raise RequirementsError(
            requirements, "invalid", f"cannot be read: {error.strerror}", "Check `requirements`"
        ) from None
    _check(requirements, content)
    folder = into / folder_name(content)
    if await asyncio.to_thread(folder.is_dir):
        return folder
    staging = into / _STAGING
    passed = {k: v for k, v in (os.environ if environment is None else environment).items() if _PASSED.fullmatch(k)}
    try:
        await asyncio.to_thread(_begin, staging, content)
        links = [Path(part) for part in passed.get("PIP_FIND_LINKS", "").split() if part.startswith("/")]
        sandbox = Sandbox(
            name=f"requirements {into}",
            folder=f"{staging}/work",
            memory_bytes_max=bounds.memory_bytes_max,
            processes_max=32,
            file_bytes_max=bounds.folder_bytes_max,
            folder_bytes_max=bounds.folder_bytes_max,
            folder_files_max=bounds.files_max,
            files_open_max=256,
            network=True,
            read=(f"{staging}/requirements.txt", "/etc/pip.conf", *map(str, (*links, *read))),
        )
        try:
            ending, text = await _pip(sandbox, staging, groups, passed, bounds.timeout_s)
        except TimeoutError:
            problem = f"pip was not done within {bounds.timeout_s:g} s"
            raise RequirementsError(requirements, "timeout", problem, "Try again when the line is better") from None
        except SandboxError as error:
            raise RequirementsError(requirements, "failed", str(error), "See what holds functions here") from None
        if (ending.reason, ending.code) != ("exited", 0):
            raise _cause(requirements, ending, text)
        await asyncio.to_thread(_finish, staging, folder)
    except OSError as error:
        problem = f"{error.filename or staging}: {error.strerror}"
        raise RequirementsError(requirements, "failed", problem, "Check the disk and its rights") from None
    finally:
        await asyncio.to_thread(shutil.rmtree, staging, ignore_errors=True)
    return folder


def tidy(into: Path, kept: Collection[Path]) -> None:
    """Removes what no requirements file asks for any more, once nothing runs that uses it. Blocks."""
    if not into.is_dir():
        return
    for folder in into.iterdir():
        if folder not in kept and folder.is_dir():
            shutil.rmtree(folder, ignore_errors=True)


def _check(requirements: Path, content: bytes) -> None:
    """Options that would take in other files or other sources."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise RequirementsError(requirements, "invalid", "is no UTF-8 text", "Write it anew") from None
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if line.startswith("-") and not line.startswith("--hash") and not _ALLOWED.match(line):
            raise RequirementsError(
                requirements,
                "invalid",
                f"line {number}: {line[:100]!r} is not allowed here",
                "Name packages with versions and hashes; one file holds them all",
            )


def _begin(staging: Path, content: bytes) -> None:
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True, mode=0o711)
    file = staging / "requirements.txt"
    file.write_bytes(content)
    file.chmod(0o644)


async def _pip(
    sandbox: Sandbox, staging: Path, groups: ControlGroups | None, environment: Mapping[str, str], timeout_s: float
) -> tuple[Ending, str]:
    """How pip ended, and the end of what it said. Raises TimeoutError, SandboxError."""
    command = [
        *(sys.executable, "-I", "-m", "pip", "install", "--require-hashes", "--no-deps", "--only-binary", ":all:"),
        *("--no-input", "--no-cache-dir", "--disable-pip-version-check", "--no-compile", "--no-color"),
        *("--progress-bar", "off", "--retries", "2", "--timeout", "20"),
        *("--target", f"{staging}/work/site", "-r", f"{staging}/requirements.txt"),
    ]
    read_fd, write_fd = os.pipe()
    try:
        child = await spawn(sandbox, command, environment=environment, output=write_fd, groups=groups)
    except BaseException:
        os.close(read_fd)
        raise
    finally:
        os.close(write_fd)
    reading = asyncio.get_running_loop().run_in_executor(None, _output, read_fd)  # ends when pip, and all of it, has
    try:
        async with asyncio.timeout(timeout_s):
            ending = await child.wait()
    finally:
        text = await reading
    return ending, text


def _cause(requirements: Path, ending: Ending, text: str) -> RequirementsError:
    if ending.reason != "exited":
        return RequirementsError(requirements, "no_room", f"pip was ended: {ending.detail}", "Ask for fewer packages")
    for pattern, reason, remedy in _CAUSES:
        if re.search(pattern, text):
            return RequirementsError(requirements, reason, _told(text), remedy)
    return RequirementsError(
        requirements, "failed", _told(text), "Run `pip install` with this file by hand to see more"
    )


def _output(fd: int) -> str:
    """The end of what pip says, which holds the error."""
    kept = b""
    with os.fdopen(fd, "rb", buffering=0) as file:
        while more := file.read(65_536):
            kept = (kept + more)[-OUTPUT_BYTES_MAX:]
    return kept.decode(errors="replace")


def _told(text: str) -> str:
    lines = [line.strip() for line in text.splitlines()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    return (errors or [line for line in lines if line] or ["pip failed"])[0][:500].rstrip(".: ")


def _finish(staging: Path, folder: Path) -> None:
    """The packages become the gateway's, for all to read; then, on disk, they get their name."""
    site = staging / "work" / "site"
    site.mkdir(exist_ok=True)
    uid, gid = os.geteuid(), os.getegid()
    for _, folders, files, fd in os.fwalk(site, follow_symlinks=False):
        os.fchown(fd, uid, gid)
        os.fchmod(fd, 0o755)
        for name in (*folders, *files):
            facts = os.stat(name, dir_fd=fd, follow_symlinks=False)
            os.chown(name, uid, gid, dir_fd=fd, follow_symlinks=False)
            if stat.S_ISREG(facts.st_mode):
                os.chmod(name, 0o755 if facts.st_mode & 0o100 else 0o644, dir_fd=fd)
    os.sync()
    site.rename(folder)
    os.sync()
