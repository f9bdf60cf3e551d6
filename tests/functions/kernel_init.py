"""The first process of a Linux 6.1 with cgroup v2, started by test_kernel as a user-mode kernel on the files of here.

What it makes is in memory. It tries the sandbox as root and as an ordinary user, each with a delegated group and
without, and on a disk with quotas, prints what came of it, and switches the machine off."""

import asyncio
import ctypes
import json
import os
import shutil
import stat
import sys
import tempfile
import traceback
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
CONTROLLERS = "+memory +pids +cpu"
NOBODY = 65_534
POWER_OFF = 0x4321_FEDC
FINIT_MODULE = 313  # on x86_64
DISK = 98 << 8  # of user-mode-linux, the first

HOG = "kept = bytearray(b'x') * (200 << 20)"
FILLER = """
import time
try:
    for number in range(64): open(f'{number}', 'wb').write(bytes(1 << 20))
except OSError as error:
    print(error.strerror, end='', flush=True)
time.sleep(1.5)
"""
MANY = """
try:
    for number in range(1000): open(f'{number}', 'wb')
except OSError as error:
    print(error.strerror, end='')
"""
SOCKET = "import _socket; _socket.socket(2, 1)"
BOMB = """
import os, time
made = 0
for _ in range(60):
    try: pid = os.fork()
    except BlockingIOError: break
    if pid == 0: os.setsid(); time.sleep(30); os._exit(0)
    made += 1
raise SystemExit(made)
"""


async def look() -> dict[str, object]:
    from edge.functions.sandbox import ControlGroups, Sandbox, contained_by, spawn

    groups = ControlGroups()
    held = await contained_by(groups)
    with tempfile.TemporaryDirectory() as folder:
        sandbox = Sandbox(name="hostile", folder=f"{folder}/work")
        endings = []
        refused: list[str] = []
        for code in (HOG, BOMB, SOCKET):
            child = await spawn(
                sandbox,
                [sys.executable, "-I", "-S", "-c", code],
                groups=groups,
                refused=lambda what, detail: refused.append(f"{what}: {detail}"),
            )
            endings.append(await child.wait())
    groups.close()
    return {
        "limits": {limit: one.by for limit, one in held.limits.items()},
        "hog": endings[0].reason,
        "bomb": endings[1].code,
        "refused": refused,
        "groups_left": [str(path) for path in GROUPS.rglob("gateway-*")],
        "processes_left": sum(name.isdigit() and _is_of_a_function(name) for name in os.listdir("/proc")),
    }


def _is_of_a_function(pid: str) -> bool:
    try:
        return b"setsid" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


async def fill(folder: str, write: tuple[str, ...] = ()) -> dict[str, object]:
    """What a disk filler comes to in this folder, and what of it is there."""
    from edge.functions.sandbox import Sandbox, spawn

    found: dict[str, object] = {}
    for name, code in (("filler", FILLER), ("many", MANY)):
        bounds = Sandbox(
            name=name, folder=f"{folder}/{name}", folder_bytes_max=4 << 20, folder_files_max=100, write=write
        )
        read, end = os.pipe()
        child = await spawn(bounds, [sys.executable, "-I", "-S", "-c", code], output=end)
        os.close(end)
        ending = await child.wait()
        with os.fdopen(read) as file:
            said = file.read()
        files = list(Path(bounds.folder).iterdir())
        size = sum(path.stat().st_size for path in files)
        found[name] = [child.containment.limits["folder"].by, ending.reason, said, size, len(files), *child.reached]
        shutil.rmtree(bounds.folder)
    return found


def disk(options: str) -> None:
    """The same disk, mounted with these options."""
    from edge.functions.launch.kernel import mount, unmount

    place = "/tmp/disk"
    os.makedirs(place, exist_ok=True)
    mount("/tmp/ubda", place, "ext4", 0, options)
    os.makedirs(f"{place}/granted", exist_ok=True)
    for name, write in (("alone", ()), ("granted", (f"{place}/granted",))):
        row = asyncio.run(fill(f"{place}/{options or 'plain'}-{name}", write))
        print("FILLED", json.dumps({"options": options, "write": bool(write), **row}), flush=True)
    unmount(place)


def load(name: str) -> None:
    """A module of this kernel."""
    path = f"/usr/lib/uml/modules/{os.uname().release}/kernel/fs/quota/{name}.ko"
    fd = os.open(path, os.O_RDONLY)
    if ctypes.CDLL(None, use_errno=True).syscall(FINIT_MODULE, fd, b"", 0):
        raise OSError(ctypes.get_errno(), f"{path} was not loaded")
    os.close(fd)


def run(user: str, delegated: bool) -> None:
    """In a process of its own."""
    group = GROUPS / "system.slice" / f"{user}-{delegated}.service"
    group.mkdir()
    (group.parent / "cgroup.subtree_control").write_text(CONTROLLERS)
    if delegated:
        os.setxattr(group, "user.delegate", b"1")
        if user == "user":
            for path in (group, group / "cgroup.procs", group / "cgroup.subtree_control", group / "cgroup.threads"):
                os.chown(path, NOBODY, NOBODY)
    (group / "cgroup.procs").write_text("0")
    if user == "user":
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    found = asyncio.run(look())
    print("FOUND", json.dumps({"user": user, "delegated": delegated, **found}), flush=True)


def main(root: str) -> None:
    console = os.open("/dev/console", os.O_RDWR)
    for fd in range(3):
        os.dup2(console, fd)
    sys.path.insert(0, root)
    sys.dont_write_bytecode = True
    from edge.functions.launch.kernel import mount

    mount("proc", "/proc", "proc", 0)
    mount("sys", "/sys", "sysfs", 0)
    mount("tmp", "/tmp", "tmpfs", 0)
    mount("cgroup", str(GROUPS), "cgroup2", 0)
    (GROUPS / "cgroup.subtree_control").write_text(CONTROLLERS)
    (GROUPS / "system.slice").mkdir()
    load("quota_tree")
    load("quota_v2")
    os.mknod("/tmp/ubda", 0o600 | stat.S_IFBLK, DISK)
    for options in ("usrquota", ""):
        if (pid := os.fork()) == 0:
            try:
                disk(options)
            finally:
                traceback.print_exc()
                os._exit(0)
        os.waitpid(pid, 0)
    for user in ("root", "user"):
        for delegated in (False, True):
            if (pid := os.fork()) == 0:
                try:
                    run(user, delegated)
                finally:
                    traceback.print_exc()
                    os._exit(0)
            os.waitpid(pid, 0)


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    finally:
        traceback.print_exc()
        sys.stdout.flush()
        ctypes.CDLL(None).reboot(POWER_OFF)
