"""What is in a folder: counted however deep, and the newest taken away again, but nothing that was there before."""

import os
from pathlib import Path

from edge.functions.sandbox.folder import Before, remember, size, take_away

KILO = 4096


def write(path: Path, kilos: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(kilos * KILO))
    while write_clock(path.parent) <= path.stat().st_ctime_ns:
        pass  # so that what follows is newer
    return path


def write_clock(folder: Path) -> int:
    probe = folder.parent / "probe"
    probe.touch()
    time = probe.stat().st_ctime_ns
    probe.unlink()
    return time


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def make_deep(folder: Path, levels: int) -> None:
    """Deeper than any path is long."""
    here = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d" * 50, dir_fd=here)
        below = os.open("d" * 50, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    fd = os.open("bottom", os.O_CREAT | os.O_WRONLY, dir_fd=here)
    os.write(fd, bytes(100 * KILO))
    os.close(fd)
    os.close(here)


def test_what_is_in_folders_within_it_is_counted_and_what_links_name_is_not(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", 100)
    folder = tmp_path / "f"
    write(folder / "a", 2)
    write(folder / "b" / "c", 3)
    (folder / "link").symlink_to(tmp_path)
    found = size(str(folder))
    assert found.files == 4
    assert 5 * KILO <= found.bytes < 10 * KILO


def test_counting_ends_one_past_what_is_allowed(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number}").touch()
    assert size(str(tmp_path), 7).files == 8


def test_what_a_hole_may_become_is_known(tmp_path: Path) -> None:
    with open(tmp_path / "hole", "wb") as file:
        file.truncate(1 << 20)
    found = size(str(tmp_path))
    assert (found.bytes, found.apparent_bytes) == (0, 1 << 20)


def test_no_folder_is_too_deep(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    make_deep(folder, 1500)
    found = size(str(folder))
    assert found.files == 1501
    assert found.bytes > 100 * KILO
    taken, left = take_away(str(folder), Before(), 1, 1)
    assert (taken.files, left.files) == (1500, 1)


def test_a_folder_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert size(str(tmp_path / "none")).files == 0


def test_the_newest_is_taken_away_until_the_rest_fits(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    for name in ("1", "2", "in/3", "4"):
        write(folder / name, 4)
    kept = size(str(folder)).bytes - 8 * KILO
    taken, left = take_away(str(folder), Before(), kept, 0)
    assert names(folder) == {"1", "2", "in"}
    assert (taken.bytes, taken.files, left.bytes) == (8 * KILO, 2, kept)


def test_what_was_there_before_stays_however_it_changed(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    for name in ("grown", "renamed", "replaced", "left"):
        write(folder / name)
    before, _ = remember(str(folder))
    write(folder / "grown", 50)
    (folder / "renamed").rename(folder / "new name")
    write(folder / "replaced.tmp", 50).rename(folder / "replaced")
    write(folder / "new", 50)
    take_away(str(folder), before, 1, 1)
    assert names(folder) == {"grown", "new name", "replaced", "left"}
    assert (folder / "grown").stat().st_size == 50 * KILO


def test_of_too_many_files_the_newest_go_and_folders_that_are_empty_then(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    write(folder / "old")
    before, _ = remember(str(folder))
    for number in range(20):
        write(folder / f"d{number}" / "x")
    _, left = take_away(str(folder), before, 0, 6)
    assert left.files <= 6
    assert (folder / "old").exists()
    assert (folder / "d0" / "x").exists()


def test_nothing_beyond_a_link_is_taken_away(tmp_path: Path) -> None:
    outside = write(tmp_path / "outside" / "kept")
    folder = tmp_path / "f"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "outside")
    write(folder / "big", 50)
    take_away(str(folder), Before(), 1, 1)
    assert outside.exists()
    assert names(folder) == set()
