"""Stores records in a database in several lives, and says after each commit how many are in it.

python -m tests.fleet.writer FILE; run under strace by tests/fleet/recorder.py.
"""

import sys

from edge_tools.fleet.records import Record
from edge_tools.fleet.store import Batch, opener

LIVES, COMMITS, RECORDS = 3, 3, 8


def record(number: int) -> Record:
    return Record("dt/b1/temp", b"%d " % number * 20, 1000 + number, "b1", 1, number, None)


def main() -> None:
    number = 0
    for _ in range(LIVES):
        store = opener(f"sqlite:///{sys.argv[1]}")(True)
        for _ in range(COMMITS):
            fresh = [record(number + one) for one in range(1, RECORDS + 1)]
            # A repeat beside the fresh ones, as after a restart.
            store.commit(Batch([record(max(number, 1)), *fresh]))
            number += RECORDS
            print(number, flush=True)
        store.close()


if __name__ == "__main__":
    main()
