"""Where and on what a figure was measured."""

import os
import platform
import subprocess
from pathlib import Path


def host_line() -> str:
    """Such as `2 cores, 24 GiB, Python 3.11.7`; the cores are those this process may use."""
    cores = len(os.sched_getaffinity(0))
    return f"{cores} {'core' if cores == 1 else 'cores'}, {_memory()}, Python {platform.python_version()}"


def _memory() -> str:
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if memory_bytes < 2**30:
        return f"{round(memory_bytes / 2**20)} MiB"
    return f"{round(memory_bytes / 2**30)} GiB"


def commit_id(root: Path) -> str:
    """The commit of the checkout, with `-dirty` when tracked files differ from it; `unknown` outside of git."""
    command = ["git", "-c", f"safe.directory={root}", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run([*command, "--exclude=*"], capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"
