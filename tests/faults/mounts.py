"""Small file systems of their own for tests of a disk that is full or fails. Need root."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.block import Missing, run


@contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[Path]:
    """A tmpfs that holds no more than that. Raises Missing."""
    if os.geteuid() != 0:
        raise Missing("a disk with a size is mounted: run this test as root")
    folder.mkdir(parents=True)
    run("mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", folder)
    try:
        yield folder
    finally:
        run("umount", "--lazy", folder)
