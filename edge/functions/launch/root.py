"""A file tree of the function's own: nothing but the paths it was given, each under its usual name.

A tmpfs takes the place of `/`; what is given is bound into it; the old tree is then let go (pivot_root(2)). Needs a
mount namespace of its own."""

import os
import stat
from collections.abc import Iterable
from typing import Final

from edge.functions.launch import kernel
from edge.functions.launch.order import Access

_DEVICES: Final = ("null", "zero", "full", "random", "urandom")
_QUIET: Final = kernel.MS_NOSUID | kernel.MS_NODEV


def change_root(paths: Iterable[tuple[str, Access]], tmp_bytes: int, *, processes: bool) -> bool:
    """paths: absolute; what is not there is passed over. tmp_bytes: the size of `/tmp`, which is memory. processes:
    this process has a process namespace, so that `/proc` may be shown. Says whether `/proc` is there."""
    kernel.mount(None, "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    base = "/tmp" if os.path.isdir("/tmp") else "/run"  # noqa: S108  any folder serves: only this process sees it
    kernel.mount("tmpfs", base, "tmpfs", _QUIET, "size=1m,mode=755")
    os.mkdir(f"{base}/old")
    os.mkdir(f"{base}/new")
    kernel.mount(f"{base}/new", f"{base}/new", None, kernel.MS_BIND)
    kernel.pivot_root(base, f"{base}/old")
    os.chdir("/")
    _links("/old", "/new")
    _tmp(tmp_bytes)
    for path, access in sorted(dict(paths).items()):
        if access != "list":
            _place(path, access)
    for name in _DEVICES:
        _bind(f"/dev/{name}", 0)
    shown = processes and _processes()
    os.symlink("/tmp", "/new/dev/shm")  # noqa: S108
    for link, target in (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        os.symlink(target, f"/new/dev/{link}")
    kernel.set_mount_flags("/new", kernel.MS_RDONLY | _QUIET, recursive=False)
    kernel.unmount("/old")
    os.chdir("/new")
    kernel.pivot_root(".", ".")
    kernel.unmount(".")  # the tmpfs, stacked upon the new root
    os.chdir("/")
    return shown


def _links(old: str, new: str) -> None:
    """`/bin`, `/lib`, …: links into `/usr` on most systems."""
    for name in os.listdir(old):
        if os.path.islink(f"{old}/{name}"):
            os.symlink(os.readlink(f"{old}/{name}").removeprefix("/"), f"{new}/{name}")


def _tmp(size: int) -> None:
    os.mkdir("/new/tmp")
    kernel.mount("tmpfs", "/new/tmp", "tmpfs", _QUIET, f"size={size},nr_inodes=1024,mode=1777")


def _place(path: str, access: Access) -> None:
    real = _real(path)
    if real is None or real == "/":
        return
    if access == "hide":
        if os.path.isdir(f"/new{real}"):
            kernel.mount("tmpfs", f"/new{real}", "tmpfs", _QUIET, "size=64k,nr_inodes=64,mode=755")
        elif os.path.exists(f"/new{real}"):
            kernel.mount("/old/dev/null", f"/new{real}", None, kernel.MS_BIND)
        return
    _bind(real, _QUIET if access == "write" else _QUIET | kernel.MS_RDONLY)
    if real != os.path.normpath(path) and not os.path.lexists(f"/new{path}") and _plain(os.path.dirname(path)):
        os.makedirs(os.path.dirname(f"/new{path}"), exist_ok=True)
        os.symlink(real, f"/new{path}")


def _real(path: str) -> str | None:
    """The path with its links followed, as they lead from the old tree."""
    done = "/"
    rest = [part for part in reversed(path.split("/")) if part]
    for _ in range(1_000):
        if not rest:
            return done
        part = rest.pop()
        if part in (".", ".."):
            done = done if part == "." else os.path.dirname(done)
            continue
        here = os.path.join(done, part)
        try:
            if not stat.S_ISLNK(os.lstat(f"/old{here}").st_mode):
                done = here
                continue
            target = os.readlink(f"/old{here}")
        except OSError:
            return None
        done = "/" if target.startswith("/") else done
        rest += [more for more in reversed(target.split("/")) if more]
    return None


def _plain(folder: str) -> bool:
    """No link on the way to it in the new tree: it would lead out of it."""
    here = "/new"
    for part in folder.split("/"):
        here = os.path.join(here, part)
        if os.path.islink(here):
            return False
    return True


def _bind(path: str, flags: int) -> None:
    source, target = f"/old{path}", f"/new{path}"
    try:
        folder = stat.S_ISDIR(os.stat(source).st_mode)
    except OSError:
        return
    if folder:
        os.makedirs(target, exist_ok=True)
    elif not os.path.lexists(target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o444))
    kernel.mount(source, target, None, kernel.MS_BIND | kernel.MS_REC)
    if not folder:
        flags &= ~kernel.MS_NODEV
    if flags:
        kernel.set_mount_flags(target, flags, recursive=folder)


def _processes() -> bool:
    os.makedirs("/new/proc", exist_ok=True)
    try:
        kernel.mount("proc", "/new/proc", "proc", _QUIET | kernel.MS_NOEXEC)
    except OSError:  # in a container whose own /proc is partly hidden
        return False
    return True
