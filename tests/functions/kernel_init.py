"""The first process of a Linux 6.1 with cgroup v2, started by test_kernel as a user-mode kernel on the files of here.

What it makes is in memory. It tries the sandbox as root and as an ordinary user, each with a delegated group and
without, prints what came of it, and switches the machine off."""

import asyncio
import ctypes
import json
import os
import sys
import tempfile
import traceback
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
CONTROLLERS = "+memory +pids +cpu"
NOBODY = 65_534
POWER_OFF = 0x4321_FEDC

HOG = "kept = bytearray(b'x') * (200 << 20)"
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
