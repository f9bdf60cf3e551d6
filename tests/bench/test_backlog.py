"""The backlog that benches drain, and the control group they may do it in."""

import os
import subprocess
from pathlib import Path

import pytest

from edge.log import Log
from edge.outbox.record import decode
from edge.outbox.report import FOLDER
from tests.bench import cgroup
from tests.bench.backlog import BOARDS, STREAM, build_backlog
from tests.bench.cgroup import NoControl, limits
from tests.bench.relay.raw import number_in


def test_a_backlog_holds_every_reading_in_order_named_by_its_board(tmp_path: Path) -> None:
    build_backlog(tmp_path, 2500)
    log = Log.open_read_only(str(tmp_path / FOLDER / STREAM))
    rows = log.read(1, records_max=5000, bytes_max=1 << 24)
    log.close()
    records = [record for _, data in rows if (record := decode(data)) is not None]
    assert [number_in(record.payload) for record in records] == list(range(1, 2501))
    names = {record.reading for record in records if record.reading is not None}
    assert names == {(f"board{n % BOARDS}", 1, (n - 1) // BOARDS + 1) for n in range(1, 2501)}


def test_a_command_runs_within_the_limits_or_it_is_said_why_not() -> None:
    try:
        with limits(64 * 10**6, 0.5) as prefix:
            group = subprocess.run([*prefix, "cat", "/proc/self/cgroup"], capture_output=True, text=True, check=True)
    except NoControl as reason:
        assert str(reason)
        return
    assert "edgeloop-bench-" in group.stdout
    assert not list(cgroup.ROOT.glob(f"**/edgeloop-bench-{os.getpid()}"))


def test_without_controllers_there_is_no_limit_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroup, "ROOT", tmp_path)
    (tmp_path / "cgroup.controllers").touch()
    with pytest.raises(NoControl, match="memory"), limits(64 * 10**6, 0.5):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["cgroup.controllers"]
