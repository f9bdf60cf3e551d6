"""A function's code as a version of its own: copied into the function's folder, so that what runs can run again.

Invariants: a copy, of code or of secrets, is whole or not there; its name is its content's hash. One in use is never
written to, nor removed.
"""

import contextlib
import hashlib
import os
import pwd
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from edge.config_functions import FunctionSettings
from edge.errors import ConfigError, EdgeLoopError
from edge.functions.child import Launch
from edge.functions.crew import Version
from edge.functions.sandbox import number_of
from edge.functions.words import problem, words

FILES_MAX: Final = 2000
BYTES_MAX: Final = 64 * 1024 * 1024
DIGEST_CHARACTERS: Final = 12
_SKIPPED: Final = frozenset({"__pycache__", ".git", ".venv", ".mypy_cache", ".pytest_cache"})

Signature = tuple[tuple[str, int, int, int], ...]


class CodeError(EdgeLoopError):
    """The code, its requirements or secrets are not there, or too much."""

    code = "function_code"


def signature(settings: FunctionSettings, base: str = "") -> Signature:
    """Changes when the files of this function do: path, size, time and inode of each. Cheap. base: the gateway file's
    folder."""
    rows = []
    with contextlib.suppress(OSError, CodeError):
        for path in _watched(settings, base):
            found = os.stat(path)
            rows.append((path, found.st_size, found.st_mtime_ns, found.st_ino))
    return tuple(rows)


def take_over(settings: FunctionSettings, folder: str, base: str = "") -> tuple[Launch, str]:
    """Copy code and secrets into the function's folder. base: the gateway file's. Returns what to start and the code's
    digest. Blocks. Raises CodeError."""
    _check_program(settings, base)
    try:
        for path in (os.path.dirname(folder), folder):
            os.makedirs(path, mode=0o711, exist_ok=True)  # its user goes through, and lists nothing
        digest = _digest(settings, base)
        files = dict(_code(settings, base))
        copied = _copy(files, f"{folder}/code", digest) if files else ""
        secrets = _secrets(settings, f"{folder}/secrets", digest)
    except OSError as error:
        raise CodeError(f"{error.filename or settings.file}: {error.strerror or error}") from None
    except KeyError:
        raise CodeError(f"there is no account {settings.user!r}") from None
    code = f"{copied}/{os.path.basename(settings.file.rstrip('/'))}" if settings.file else copied
    argv = tuple(f"{copied}/{word.name}" if word.file else word.text for word in words(settings.exec, base))
    return Launch(settings, code, folder, secrets=secrets, argv=argv), digest


def check_files(file: str, functions: Sequence[FunctionSettings], base: str = "") -> None:
    """Whether all that the gateway file names is there. Raises ConfigError."""
    for place, settings in enumerate(functions, 1):
        try:
            _check_program(settings, base)
            _digest(settings, base)
        except (OSError, CodeError) as error:
            problem = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
            fix = "Name files that are there and that the gateway may read."
            raise ConfigError(file, f"function[{place}]", problem, fix) from None


def forget_others(folder: str, keep: Iterable[Version]) -> None:
    """Remove copies of versions that are no more."""
    names = set()
    for version in keep:
        names |= {version.digest, *(Path(copy).parent.name for copy in version.launch.secrets.values())}
    for place in (f"{folder}/code", f"{folder}/secrets"):
        with contextlib.suppress(OSError):
            for name in os.listdir(place):
                if name not in names:
                    shutil.rmtree(f"{place}/{name}", ignore_errors=True)


def _check_program(settings: FunctionSettings, base: str) -> None:
    if settings.exec and (wrong := problem(settings.exec, base)):
        raise CodeError(wrong)


def _watched(settings: FunctionSettings, base: str) -> Iterator[str]:
    for path, _ in _code(settings, base):
        yield path
    if settings.exec and os.path.isabs(settings.exec[0]):
        yield settings.exec[0]
    if settings.requirements:
        yield settings.requirements
    yield from settings.secrets.values()


def _code(settings: FunctionSettings, base: str) -> Iterator[tuple[str, str]]:
    """Each file that is copied, and its name below the copy's folder. Raises CodeError when there are too many."""
    if settings.exec:
        yield from ((word.file, word.name) for word in words(settings.exec, base) if word.file)
        return
    name = os.path.basename(settings.file.rstrip("/"))
    for path in _files(settings.file):
        relative = os.path.relpath(path, settings.file) if os.path.isdir(settings.file) else ""
        yield path, os.path.normpath(f"{name}/{relative}")


def _files(path: str) -> Iterator[str]:
    """The file, or all files of the folder in order. Raises CodeError when there are too many."""
    if not os.path.isdir(path):
        yield path
        return
    count = 0
    for place, folders, files in os.walk(path):
        folders[:] = sorted(name for name in folders if name not in _SKIPPED)
        for name in sorted(files):
            count += 1
            if count > FILES_MAX:
                raise CodeError(f"{path}: more than {FILES_MAX} files")
            yield os.path.join(place, name)


def _digest(settings: FunctionSettings, base: str) -> str:
    found = hashlib.sha256()
    total = 0
    for path in _watched(settings, base):
        data = Path(path).read_bytes()
        total += len(data)
        if total > BYTES_MAX:
            raise CodeError(f"{settings.file or path}: more than {BYTES_MAX} bytes")
        found.update(f"{os.path.relpath(path, os.path.dirname(settings.file or '/'))}\0{len(data)}\0".encode())
        found.update(data)
    return found.hexdigest()[:DIGEST_CHARACTERS]


def _copy(files: Mapping[str, str], folder: str, digest: str) -> str:
    """files: path to name. Returns the copy's folder."""
    target, partial = f"{folder}/{digest}", f"{folder}/.partial"
    if not os.path.isdir(target):
        os.makedirs(folder, mode=0o711, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        os.mkdir(partial, 0o755)
        for path, name in files.items():
            copy = f"{partial}/{name}"
            os.makedirs(os.path.dirname(copy), mode=0o755, exist_ok=True)
            shutil.copyfile(path, copy)
            os.chmod(copy, 0o755 if os.access(path, os.X_OK) else 0o644)
        os.rename(partial, target)
    return target


def _secrets(settings: FunctionSettings, folder: str, digest: str) -> dict[str, str]:
    """Copies of its own, which no other function may read."""
    if not settings.secrets:
        return {}
    uid = -1
    if os.geteuid() == 0:
        uid = pwd.getpwnam(settings.user).pw_uid if settings.user else number_of(settings.name)
    contents = {name: Path(path).read_bytes() for name, path in settings.secrets.items()}
    called = hashlib.sha256(f"{uid} {digest}".encode())
    for name, data in contents.items():
        called.update(f"\0{name}\0{len(data)}\0".encode() + data)
    target, partial = f"{folder}/{called.hexdigest()[:DIGEST_CHARACTERS]}", f"{folder}/.partial"
    if not os.path.isdir(target):
        os.makedirs(folder, exist_ok=True)
        os.chmod(folder, 0o711)  # noqa: S103 - its user goes through, and lists nothing
        shutil.rmtree(partial, ignore_errors=True)
        os.mkdir(partial, 0o700)
        for name, data in contents.items():
            with open(f"{partial}/{name}", "xb", opener=_opened_for_owner) as file:
                file.write(data)
            _give(file.name, uid, 0o440)
        _give(partial, uid, 0o750)
        os.rename(partial, target)
    return {name: f"{target}/{name}" for name in contents}


def _opened_for_owner(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o400)


def _give(path: str, uid: int, mode: int) -> None:
    """To the function's user, -1 for the gateway's own. Root's group may read it as well: where that user cannot be
    taken on, root runs the function, without what lets root read everything."""
    if uid >= 0:
        os.chown(path, uid, 0)
        os.chmod(path, mode)
