"""The file of filters that a broker may hold."""

import stat
from pathlib import Path

import pytest

from edge.cloud.held import HeldFilters


def test_what_was_saved_is_loaded_and_is_the_owners_alone(tmp_path: Path) -> None:
    held = HeldFilters(str(tmp_path / "held"))
    assert held.load() == []
    held.save(["a/#", "ü/+"])
    held.save(iter(["b"]))
    assert HeldFilters(str(tmp_path / "held")).load() == ["b"]
    assert stat.S_IMODE((tmp_path / "held").stat().st_mode) == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["held"]


@pytest.mark.parametrize("content", [b"", b"\xff", b"{}", b"[1]", b'["a/#/b"]', b'["a"'])
def test_a_damaged_file_is_put_aside_and_told(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "held").write_bytes(content)
    assert HeldFilters(str(tmp_path / "held")).load() == []
    assert (tmp_path / "held.damaged").read_bytes() == content
    assert not (tmp_path / "held").exists()
    assert [record.message for record in caplog.records] == ["subscriptions_unreadable"]


def test_a_disk_that_takes_nothing_is_told_and_raises_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    HeldFilters(str(tmp_path / "none" / "held")).save(["a"])
    assert [record.message for record in caplog.records] == ["subscriptions_not_kept"]
