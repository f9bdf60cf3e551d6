"""Whatever is in the folder, a log opens, loses no more than was hit, and counts it."""

import random
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.errors import ConfigError
from edge.log import Log
from edge.log.format import BATCH_BYTES, BATCH_MAGIC
from edge.metrics import Metrics
from tests.log import make_v1
from tests.log.disk import Disk
from tests.log.history import FOLDER, options, read_all

OPTIONS = options(5120)


class Small:
    """A log of two segments with a few batches each; batches: the records of each, and its place."""

    def __init__(self, batches: int = 9) -> None:
        self.disk = Disk()
        self.batches: list[list[int]] = []
        self.places: list[tuple[str, int, int]] = []
        log = Log.open(FOLDER, self.disk, options=OPTIONS)
        for index in range(batches):
            first = log.append([b"%d/%d" % (index, one) * 3 for one in range(index % 4 + 1)])
            log.put_state("index", b"%d" % index)
            if index % 3 == 0:
                log.put_state(f"once/{index}", b"kept")
            log.commit()
            self.batches.append(list(range(first, log.next)))
        self.records = dict(read_all(log))
        self.state = dict(log.state)
        self.next = log.next
        self.names = [f"{FOLDER}/{segment.number:010d}.segment" for segment in log.segments]
        log.close()

    def open(self, disk: Disk) -> tuple[Log, dict[int, bytes], dict[str, float]]:
        metrics = Metrics()
        log = Log.open(FOLDER, disk, options=OPTIONS, metrics=metrics)
        found = dict(read_all(log))
        return log, found, {title.partition("{")[0]: value for title, value in metrics.snapshot().items()}

    def used(self, name: str) -> Iterator[int]:
        """Where there is something, and now and then a zero."""
        content = self.disk.content(name)
        end = len(bytes(content).rstrip(b"\0"))
        zeros = 0
        for at in range(min(end + 64, len(content))):
            zeros = 0 if content[at] else zeros + 1
            if zeros < 24 or at % 64 == 0:
                yield at


def test_every_flipped_bit_costs_at_most_the_batch_it_hit_and_is_counted() -> None:
    small = Small()
    assert len(small.names) == 2
    lossless = 0
    for name in small.names:
        for at in small.used(name):
            for bit in range(8):
                disk = small.disk.copy()
                disk.content(name)[at] ^= 1 << bit
                place = f"{name} byte {at} bit {bit}"
                log, found, counted = small.open(disk)
                assert found.items() <= small.records.items(), f"{place}: changed or invented"
                lost = sorted(set(small.records) - set(found))
                if not lost:
                    lossless += 1
                    assert log.next == small.next, place
                    assert dict(log.state) == small.state, place
                    continue
                assert lost in small.batches, f"{place}: lost {lost}"
                assert counted["log_batches_damaged"] + counted["log_tails_cut"] == 1, (place, counted)
                assert counted["log_segments_damaged"] == 0, place
                assert any("/quarantine/" in path for path in disk.names), place
                if lost == small.batches[-1]:
                    assert log.next == lost[0], place
                else:
                    assert counted["log_records_lost"] == len(lost), (place, counted)
                    assert log.state["index"] == small.state["index"], place
    assert lossless > 2000


def test_damage_is_found_once_and_what_follows_goes_on() -> None:
    small = Small()
    disk = small.disk.copy()
    content = disk.content(small.names[0])
    at = bytes(content).index(b"1/0")
    content[at] ^= 1
    log, found, counted = small.open(disk)
    assert counted["log_records_lost"] == 2
    read_all(log)
    log.append([b"more"])
    log.commit()
    assert len(log.damages) == 1
    assert (log.damages[0].first, log.damages[0].next, log.damages[0].reason) == (2, 4, "bad_crc")
    assert dict(read_all(log)) == found | {small.next: b"more"}


def last_batch(small: Small) -> tuple[str, int]:
    """Where it stands."""
    name = small.names[-1]
    return name, bytes(small.disk.content(name)).rindex(BATCH_MAGIC)


def test_a_last_batch_whose_header_was_hit_twice_is_counted_with_its_records() -> None:
    """It looks neither like what should stand there nor like nothing."""
    small = Small()
    name, at = last_batch(small)
    rng = random.Random(1)
    fields = [0, 8, 16, 24, 32, 36, 40, 48, 52]
    pairs = [(8 * one, 8 * other) for one in fields for other in fields if one < other]
    pairs += [(first, second) for first, second in (rng.sample(range(8 * BATCH_BYTES), 2) for _ in range(300))]
    for pair in pairs:
        disk = small.disk.copy()
        for bit in pair:
            disk.content(name)[at + bit // 8] ^= 1 << bit % 8
        log, found, counted = small.open(disk)
        assert set(small.records) - set(found) == set(small.batches[-1]), pair
        assert counted["log_tails_cut"] == 1, pair
        if not {bit // 32 for bit in pair} >= {8, 9}:  # both counts hit
            assert [(one.first, one.next) for one in log.damages] == [(small.batches[-1][0], small.next)], pair
        assert any("/quarantine/" in path for path in disk.names), pair


def test_what_a_recycled_file_held_before_is_no_tail_though_its_batches_stand_at_the_same_places() -> None:
    disk = Disk()
    log = Log.open(FOLDER, disk, options=OPTIONS)
    for index in range(60):
        log.append([b"%03d" % index])
        log.release(log.next - 2)
        log.commit()
        again = Log.open(FOLDER, disk.copy(), options=OPTIONS)
        assert not again.damages, index
    assert any(operation.kind == "rename" and "spare" in operation.path for operation in disk.journal)


def test_released_records_in_a_damaged_batch_are_not_lost() -> None:
    disk = Disk()
    log = Log.open(FOLDER, disk, options=OPTIONS)
    for _ in range(3):
        log.append([b"record"] * 10)
        log.commit()
    log.release(16)
    log.put_state("later", b"1")
    log.commit()
    log.close()
    (name,) = (name for name in disk.names if name.endswith(".segment"))
    content = bytes(disk.content(name))
    place = content.index(BATCH_MAGIC, struct.unpack_from("<I", content, 44)[0])
    for damaged, lost in ((0, []), (1, [(16, 21)]), (2, [(21, 31)])):
        hit = disk.copy()
        at = place
        for _ in range(damaged):
            at = content.index(BATCH_MAGIC, at + 1)
        hit.content(name)[at + BATCH_BYTES + 1] ^= 1
        metrics = Metrics()
        again = Log.open(FOLDER, hit, options=OPTIONS, metrics=metrics)
        read_all(again)
        counted = {title.partition("{")[0]: value for title, value in metrics.snapshot().items()}
        assert counted["log_batches_damaged"] == 1
        assert counted["log_records_lost"] == sum(until - first for first, until in lost)
        assert [(one.first, one.next) for one in again.damages if one.first < one.next] == lost


@pytest.mark.parametrize("which", [0, 1])
def test_a_segment_cut_at_any_length_keeps_what_stands_before_the_cut(which: int) -> None:
    small = Small()
    for length in range(len(small.disk.content(small.names[which]))):
        disk = small.disk.copy()
        del disk.content(small.names[which])[length:]
        log, found, counted = small.open(disk)
        assert found.items() <= small.records.items()
        lost = sorted(set(small.records) - set(found))
        if lost:
            ends = [batch[-1] for batch in small.batches]
            assert lost[0] == 1 or lost[0] - 1 in ends, length
            assert lost == list(range(lost[0], lost[-1] + 1)), length
            assert lost[-1] in ends
            whole = sum(counted[name] for name in counted if name.startswith("log_") and "damaged" in name)
            assert whole + counted["log_tails_cut"] or which == 1, (length, counted)
        first = log.append([b"after"])
        log.commit()
        assert dict(read_all(log)) == found | {first: b"after"}, length


def test_a_missing_segment_is_counted_with_the_records_it_held() -> None:
    small = Small(18)
    assert len(small.names) >= 3
    disk = small.disk.copy()
    disk.unlink(small.names[1])
    log, found, counted = small.open(disk)
    lost = set(small.records) - set(found)
    assert counted["log_segments_damaged"] == 1
    assert counted["log_records_lost"] == len(lost) > 0
    assert dict(log.state) == small.state


@pytest.mark.parametrize("empty", [True, False])
def test_a_segment_of_no_bytes_or_of_zeros_is_put_aside_and_the_older_ones_tell_the_state(empty: bool) -> None:
    small = Small()
    disk = small.disk.copy()
    content = disk.content(small.names[-1])
    if empty:
        content.clear()
    else:
        content[:] = bytes(len(content))
    log, found, counted = small.open(disk)
    assert counted["log_segments_damaged"] == 1
    assert found
    assert all(small.records[number] == data for number, data in found.items())
    assert int(log.state["index"]) == next(i for i, batch in enumerate(small.batches) if batch[-1] == max(found))


def test_a_half_made_segment_is_nothing() -> None:
    small = Small()
    disk = small.disk.copy()
    disk.open(f"{FOLDER}/0000000003.tmp", create=True).pwrite(b"EDGELOG\n" + bytes(100), 0)
    log, found, counted = small.open(disk)
    assert found == small.records
    assert not any(counted[name] for name in counted if "damaged" in name or "cut" in name)
    assert f"{FOLDER}/0000000003.tmp" not in disk.names
    assert log.next == small.next


def test_when_both_snapshots_of_the_newest_segment_are_damaged_older_segments_are_replayed() -> None:
    small = Small()
    disk = small.disk.copy()
    content = disk.content(small.names[-1])
    for at in (64 + 60, 4096 + 64 + 60):
        content[at] ^= 0x40
    log, found, _ = small.open(disk)
    assert found == small.records
    assert dict(log.state) == small.state
    assert log.next == small.next


def test_a_log_of_which_nothing_is_readable_begins_anew_and_keeps_the_remains() -> None:
    small = Small()
    disk = small.disk.copy()
    for name in small.names:
        disk.content(name)[:] = b"\xff" * len(disk.content(name))
    log, found, counted = small.open(disk)
    assert found == {}
    assert counted["log_segments_damaged"] == 2
    assert sum("/quarantine/" in path for path in disk.names) == 2
    log.append([b"new"])
    log.commit()
    _, found, _ = small.open(disk)
    assert found == {1: b"new"}


def test_quarantine_stays_within_its_bound() -> None:
    small = Small()
    disk = small.disk.copy()
    for name in small.names:
        disk.content(name)[:] = b"\xff" * len(disk.content(name))
    Log.open(FOLDER, disk, options=options(5120, quarantine_bytes_max=6000))
    assert sum("/quarantine/" in path for path in disk.names) == 1
    assert disk.used(f"{FOLDER}/quarantine") <= 6000


def test_files_that_are_no_segments_are_left_alone() -> None:
    small = Small()
    disk = small.disk.copy()
    strangers = [
        "notes.txt",
        "1.segment",
        "x.segment",
        "-000000001.segment",
        "0000000001.segment.bak",
        "٠٠٠٠٠٠٠٠٠١.segment",
    ]
    for name in strangers:
        disk.open(f"{FOLDER}/{name}", create=True).pwrite(b"mine", 0)
    disk.makedir(f"{FOLDER}/folder.segment")
    log, found, counted = small.open(disk)
    assert found == small.records
    assert not any(counted[name] for name in counted if "damaged" in name)
    log.release(log.next)
    log.commit()
    assert all(f"{FOLDER}/{name}" in disk.names for name in strangers)


def test_a_folder_that_bears_a_segment_name_on_a_real_disk_keeps_nothing_from_opening(tmp_path: Path) -> None:
    folder = str(tmp_path / "stream")
    with_records = Log.open(folder)
    with_records.append([b"one"])
    with_records.commit()
    with_records.close()
    (tmp_path / "stream/0000000007.segment").mkdir()
    log = Log.open(folder)
    assert read_all(log) == [(1, b"one")]
    log.append([b"two"])
    log.commit()
    log.close()
    again = Log.open(folder)
    assert read_all(again) == [(1, b"one"), (2, b"two")]
    again.close()


def test_a_stale_batch_behind_the_end_of_a_recycled_segment_is_never_taken() -> None:
    disk = Disk()
    log = Log.open(FOLDER, disk, options=OPTIONS)
    for index in range(60):
        log.append([b"%03d" % index * 20])
        log.release(log.next - 2)
        log.commit()
    assert any(operation.kind == "rename" and "spare" in operation.path for operation in disk.journal)
    assert max(disk.inodes) < 6  # the same few files over and over
    held = read_all(log)
    again = Log.open(FOLDER, disk.copy(), options=OPTIONS)
    assert read_all(again) == held
    assert again.next == 61
    assert not again.damages


def test_a_read_error_is_raised_first_and_costs_only_what_the_disk_cannot_read() -> None:
    small = Small()
    disk = small.disk.copy()
    log = Log.open(FOLDER, disk, options=OPTIONS)

    def fail(path: str, offset: int, size: int) -> None:
        if path == small.names[0] and offset + size > 4096 + 400:
            raise OSError(5, "bad sector")

    disk.read_fault = fail
    for _ in range(3):
        with pytest.raises(OSError, match="bad sector"):
            read_all(log)
    found = dict(read_all(log))
    assert found.items() <= small.records.items()
    assert set(small.batches[-1]) <= set(found)
    assert log.damages


def test_a_newest_segment_the_disk_cannot_read_whole_is_not_written_to() -> None:
    small = Small()
    disk = small.disk.copy()
    size = len(disk.content(small.names[-1]))

    def fail(path: str, offset: int, length: int) -> None:
        if path == small.names[-1] and offset + length > 4096 + 500:
            raise OSError(5, "bad sector")

    disk.read_fault = fail
    log = Log.open(FOLDER, disk, options=OPTIONS)
    before = bytes(disk.content(small.names[-1]))
    log.append([b"after"])
    log.commit()
    aside = small.names[-1].replace("/readings/", "/readings/quarantine/")
    assert bytes(disk.content(aside if aside in disk.names else small.names[-1])) == before
    assert len(before) == size


def newer(content: bytearray, at: int) -> None:
    struct.pack_into("<H", content, at + 8, 2)
    struct.pack_into("<I", content, at + 60, zlib.crc32(content[at : at + 60]))


def test_a_log_of_a_newer_version_is_refused_with_the_way_back() -> None:
    small = Small()
    disk = small.disk.copy()
    newer(disk.content(small.names[-1]), 0)
    before = disk.copy()
    with pytest.raises(ConfigError, match="version 2") as caught:
        Log.open(FOLDER, disk, options=OPTIONS)
    assert "newer edgeloop" in caught.value.fix
    assert {name: disk.content(name) for name in disk.names} == {name: before.content(name) for name in before.names}


def test_version_1_is_read() -> None:
    files, records = make_v1.build()
    disk = Disk()
    disk.makedir(FOLDER)
    for name, content in files.items():
        disk.open(f"{FOLDER}/{name}", create=True).pwrite(content, 0)
    for log in (Log.open_read_only(FOLDER, disk), Log.open(FOLDER, disk, options=options())):
        assert dict(read_all(log)) == records
        assert dict(log.state) == make_v1.STATE
        assert (log.first, log.next) == (2, 25)
        assert not log.damages
    log.append([b"goes on"])
    log.commit()
    assert dict(read_all(Log.open(FOLDER, disk))) == records | {25: b"goes on"}


def test_what_is_written_now_is_what_version_1_says() -> None:
    """A segment written now, taken apart by hand."""
    disk = Disk()
    log = Log.open(FOLDER, disk, options=OPTIONS)
    log.append([b"a", b"bc"])
    log.put_state("k", b"v")
    log.commit()
    content = bytes(disk.content(f"{FOLDER}/0000000001.segment"))
    magic, version, _, salt, number, first, sequence, twin, data = struct.unpack_from("<8sHHIQQQII", content)
    assert (magic, version, number, first, sequence) == (b"EDGELOG\n", 1, 1, 1, 0)
    assert content[:60] == content[twin : twin + 60]
    head = struct.unpack_from("<4sBBHIIQQIIQII", content, data)
    assert head[:4] == (b"ELB\x01", 0, 0, 0)
    assert head[6:11] == (1, 1, 2, 2, 1)
    body = content[data + 56 : data + 56 + head[4]]
    assert (head[11], head[12]) == (zlib.crc32(body, salt), zlib.crc32(content[data : data + 52], salt))
    assert body == struct.pack("<I", 6) + b"\x81\xa1k\xc4\x01v" + struct.pack("<II", 1, 2) + b"abc"


def test_what_is_written_over_a_torn_tail_is_read_although_the_tail_was_read_before() -> None:
    """The window of the reader may still hold the torn batch, whose header is sound and says more records."""
    disk = Disk()
    log = Log.open(FOLDER, disk, options=options())
    for _ in range(2):
        log.append([bytes(range(256)) * 4] * 3)
        log.commit()
    log.close()
    (path,) = (name for name in disk.names if name.endswith(".segment"))
    content = disk.content(path)
    torn = content.rindex(b"ELB\x01") + 56
    content[torn : torn + 16] = bytes(16)
    log = Log.open(FOLDER, disk, options=options())
    assert [number for number, _ in read_all(log)] == [1, 2, 3]
    log.append([b"after"])
    log.commit()
    assert log.read(4, records_max=1, bytes_max=1000) == [(4, b"after")]
    assert read_all(log)[-1] == (4, b"after")
