"""The power is cut at every write, sync, creation and removal of the SQLite database of fleet ingest.

Each image that a cut may leave (sectors torn, unsynced ones missing in any order) is opened by the real code.
"""

import sys
import tempfile
from bisect import bisect_right
from pathlib import Path

from edge_tools.fleet.store import Batch, Query, opener
from tests.fleet.recorder import Recorded, record
from tests.fleet.writer import COMMITS, LIVES, RECORDS
from tests.fleet.writer import record as row
from tests.log.disk import Cut, Disk, power_cuts

COUNT = LIVES * COMMITS * RECORDS
MEMORY = Path("/dev/shm")


def recorded(folder: Path) -> Recorded:
    home = folder / "recorded"
    home.mkdir()
    return record([sys.executable, "-m", "tests.fleet.writer", str(home / "t.db")], home, folder / "trace")


def judge(cut: Cut, home: Path, sure: int) -> None:
    """sure: how many records were committed, and thereby acknowledged to the broker, before the cut."""
    home.mkdir()
    for path, inode in cut.disk.names.items():
        (home / Path(path).name).write_bytes(cut.disk.inodes[inode])
    store = opener(f"sqlite:///{home / 't.db'}")(True)
    try:
        kept = [one.seq for one in store.query(Query())]
        assert kept == list(range(1, len(kept) + 1)), "something between is missing, or there twice"
        assert len(kept) % RECORDS == 0, "a commit is there in part"
        assert len(kept) >= sure, f"{sure - len(kept)} acknowledged records are lost"
        store.commit(Batch([row(number) for number in range(1, COUNT + 1)]))
        assert [one.seq for one in store.query(Query())] == list(range(1, COUNT + 1))
    finally:
        store.close()
    assert not [path for path in home.iterdir() if "t.db" not in path.name or "damaged" in path.name]
    for left in home.iterdir():
        left.unlink()
    home.rmdir()


def test_an_acknowledged_record_is_in_the_database_after_a_power_cut_at_any_operation(tmp_path: Path) -> None:
    found = recorded(tmp_path)
    kinds = {operation.kind for operation in found.journal}
    assert {"create", "write", "sync", "unlink", "sync_dir"} <= kinds
    assert len(found.said) == LIVES * COMMITS
    images = 0
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else tmp_path) as folder:
        for cut in power_cuts(found.journal, Disk(), seed=1, random_choices=6):
            place = bisect_right(found.said, cut.operations, key=lambda one: one[0]) - 1
            sure = int(found.said[place][1]) if place >= 0 else 0
            try:
                judge(cut, Path(folder) / str(images), sure)
            except AssertionError as error:
                raise AssertionError(f"cut after {cut.operations} ({cut.choice}): {error}") from error
            images += 1
    assert images > 500
