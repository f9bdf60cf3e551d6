"""Records made durable: the log beside SQLite and beside a bare file, same payloads, same commits, same disk.

Payloads are 100-byte JSON readings; figures that end in `_random` have 100 random bytes instead, which nothing can
compress. `disk_bytes` are those the kernel charges to this process (write_bytes in /proc/self/io: whole pages, without
the file system's journal); `device_bytes` are all that reached the block device meanwhile, with the journal, and with
what other programs wrote.
"""

import os
import random
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from edge.log import Log
from tests.bench.figures import Context, Figure, NoFigure, check_all_arrived, figure, times

DESCRIPTION = "records made durable: rate, bytes on disk, beside SQLite and a bare file with fdatasync"

RECORD_BYTES = 100
COMMIT_SIZES = (1, 10, 100, 1000)
COMMITS = {1: 6000, 10: 4000, 100: 3000, 1000: 600}
COMMITS_QUICK = {1: 1500, 10: 1500, 100: 1000, 1000: 200}
PACED_COMMIT_S = 0.1
PACED_RECORDS = 100

Commit = Callable[[list[bytes]], None]


class Run(NamedTuple):
    """One contender, one size of commits."""

    records_per_s: float
    disk_bytes: float
    device_bytes: float


def run(context: Context) -> list[Figure]:
    readings, noise = json_payloads(4096), random_payloads(4096)
    contenders = {"edgeloop": edgeloop, "sqlite_wal_full": sqlite_wal_full, "fdatasync_file": fdatasync_file}
    context.progress(f"  on {filesystem(context.workdir)}")
    figures: list[Figure] = []
    for size, payloads, suffix in (*((n, readings, "") for n in COMMIT_SIZES), (100, noise, "_random")):
        commits = context.pick(COMMITS, COMMITS_QUICK)[size]
        context.progress(f"  {commits:,} commits of {size}{suffix}")
        results = context.interleaved(
            {name: runner(context, contender, payloads, size, commits) for name, contender in contenders.items()}
        )
        figures += _rates(size, suffix, results)
    for payloads, suffix in ((readings, ""), (noise, "_random")):
        context.progress(f"  1,000 records a second, a commit every 100 ms{suffix}")
        commits = context.pick(100, 15)
        paced = context.interleaved(
            {
                name: runner(context, contender, payloads, PACED_RECORDS, commits, every_s=PACED_COMMIT_S)
                for name, contender in contenders.items()
            }
        )
        written = {name: [one.disk_bytes / RECORD_BYTES for one in runs] for name, runs in paced.items()}
        figures.append(_beside(f"written_per_payload_byte{suffix}", written, "bytes", "lower", goal=2))
    return figures


def _rates(size: int, suffix: str, results: dict[str, list[Run]]) -> list[Figure]:
    rates = {name: [one.records_per_s for one in runs] for name, runs in results.items()}
    disk = {name: [one.disk_bytes for one in runs] for name, runs in results.items()}
    device = {name: [one.device_bytes for one in runs] for name, runs in results.items()}
    at_100 = size == 100
    figures = [
        _beside(
            f"records_per_s_{size}{suffix}",
            rates,
            "records/s",
            "higher",
            goal=times(1.2, "sqlite_wal_full") if at_100 else None,
        ),
        _beside(
            f"disk_bytes_per_record_{size}{suffix}",
            disk,
            "bytes",
            "lower",
            goal=times(0.5, "sqlite_wal_full") if at_100 else None,
        ),
    ]
    if all(all(values) for values in device.values()):
        figures.append(_beside(f"device_bytes_per_record_{size}{suffix}", device, "bytes", "lower"))
    return figures


def _beside(name: str, results: dict[str, list[float]], unit: str, better: str, *, goal: object = None) -> Figure:
    references = {other: values for other, values in results.items() if other != "edgeloop"}
    return figure(name, results["edgeloop"], unit, better, goal=goal, references=references)  # type: ignore[arg-type]


def runner(
    context: Context,
    contender: Callable[[Path], "Store"],
    payloads: Sequence[bytes],
    size: int,
    commits: int,
    *,
    every_s: float = 0,
) -> Callable[[], Run]:
    """Makes the run of one contender in a fresh folder; what it holds is read back and compared."""

    def measure() -> Run:
        batches = list(cut(payloads, size, commits))
        store = contender(context.folder("store"))
        os.sync()
        device, disk = device_bytes(context.workdir), process_bytes()
        began = time.perf_counter()
        for index, batch in enumerate(batches):
            if every_s:
                time.sleep(max(began + index * every_s - time.perf_counter(), 0))
            store.commit(batch)
        took_s = time.perf_counter() - began
        disk, device = process_bytes() - disk, device_bytes(context.workdir) - device
        index = 0
        for batch, held in zip(batches, store.close(size), strict=True):
            if batch != held:
                raise NoFigure(f"commit {index} came back changed")
            index += 1
        check_all_arrived("commits", commits, index)
        count = size * commits
        return Run(count / took_s, disk / count, device / count)

    return measure


class Store(NamedTuple):
    """close: what is held, in commits of the size given, read by a fresh reader."""

    commit: Commit
    close: Callable[[int], Iterator[list[bytes]]]


def edgeloop(folder: Path) -> Store:
    log = Log.open(str(folder / "log"))

    def commit(batch: list[bytes]) -> None:
        log.append(batch)
        log.commit()

    def close(size: int) -> Iterator[list[bytes]]:
        log.close()
        again = Log.open_read_only(str(folder / "log"))
        number = again.first
        while number < again.next:
            taken = again.read(number, records_max=size, bytes_max=sys.maxsize)
            number = taken[-1][0] + 1
            yield [record for _, record in taken]
        again.close()

    return Store(commit, close)


def sqlite_wal_full(folder: Path) -> Store:
    path = folder / "records.sqlite"
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("CREATE TABLE records (number INTEGER PRIMARY KEY, record BLOB NOT NULL)")

    def commit(batch: list[bytes]) -> None:
        database.execute("BEGIN")
        database.executemany("INSERT INTO records (record) VALUES (?)", [(record,) for record in batch])
        database.execute("COMMIT")

    def close(size: int) -> Iterator[list[bytes]]:
        database.close()
        again = sqlite3.connect(path)
        rows = again.execute("SELECT record FROM records ORDER BY number")
        while taken := rows.fetchmany(size):
            yield [record for (record,) in taken]
        again.close()

    return Store(commit, close)


def fdatasync_file(folder: Path) -> Store:
    """The limit: the records alone, joined, at the end of a file; no lengths, no checks, nothing to recover by."""
    path = folder / "records"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def commit(batch: list[bytes]) -> None:
        os.write(fd, b"".join(batch))
        os.fdatasync(fd)

    def close(size: int) -> Iterator[list[bytes]]:
        os.close(fd)
        with path.open("rb") as file:
            while data := file.read(size * RECORD_BYTES):
                yield [data[at : at + RECORD_BYTES] for at in range(0, len(data), RECORD_BYTES)]

    return Store(commit, close)


def json_payloads(count: int) -> list[bytes]:
    rng = random.Random(1)
    return [_reading(rng, number).ljust(RECORD_BYTES).encode()[:RECORD_BYTES] for number in range(count)]


def _reading(rng: random.Random, number: int) -> str:
    return (
        f'{{"thing":"board-{number % 8}","seq":{100_000 + number},"c":{rng.uniform(18, 26):.4f},'
        f'"rh":{rng.uniform(35, 60):.2f},"hpa":{rng.uniform(990, 1030):.2f},"v":{rng.uniform(3.1, 3.4):.3f},'
        f'"up_ms":{number * 1000 + rng.randrange(9)}}}'
    )


def random_payloads(count: int) -> list[bytes]:
    rng = random.Random(2)
    return [rng.randbytes(RECORD_BYTES) for _ in range(count)]


def cut(payloads: Sequence[bytes], size: int, commits: int) -> Iterator[list[bytes]]:
    for index in range(commits):
        at = index * size % len(payloads)
        batch = list(payloads[at : at + size])
        while len(batch) < size:
            batch += payloads[: size - len(batch)]
        yield batch


def process_bytes() -> int:
    with open("/proc/self/io", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("write_bytes"))


def device_bytes(folder: Path) -> int:
    """All that was ever written to the folder's block device; 0 when it has none of its own."""
    device = os.stat(folder).st_dev
    try:
        with open(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat", encoding="ascii") as file:
            return int(file.read().split()[6]) * 512
    except OSError:
        return 0


def filesystem(folder: Path) -> str:
    """Such as `ext4 on /dev/vda`."""
    with open("/proc/self/mounts", encoding="ascii") as file:
        mounts = [line.split()[:3] for line in file]
    device, _, kind = max((row for row in mounts if folder.is_relative_to(row[1])), key=lambda row: len(row[1]))
    return f"{kind} on {device}"
