"""What `edge stream export` writes into a file, while no gateway runs."""

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.cli_streams import add_stream_commands
from edge.errors import InputRejected, TransientError
from edge.log import Log

FILE = """\
[gateway]
name = "g"
data_dir = "{}"
[cloud]
host = "c"
[[stream]]
name = "readings"
from = ["boards"]
topics = ["dt/#"]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Of a gateway whose stream holds three records."""
    (tmp_path / "streams").mkdir()
    log = Log.open(str(tmp_path / "streams/readings"))
    log.append([b"1", b"2", b"3"])
    log.commit()
    log.close()
    path = tmp_path / "gateway.toml"
    path.write_text(FILE.format(tmp_path))
    return path


def export(file: Path, name: str, output: Path) -> None:
    parser = argparse.ArgumentParser()
    add_stream_commands(parser)
    args = parser.parse_args(["export", name, "--config", str(file), "--output", str(output)])
    assert args.run(args) == 0


def test_an_export_replaces_the_file_and_leaves_nothing_beside_it(file: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    output = tmp_path / "out/rows.ndjson"
    output.write_text("of yesterday")
    link = tmp_path / "link"
    link.symlink_to(output)
    for target in (output, link):
        export(file, "readings", target)
        assert [json.loads(line)["number"] for line in output.read_text().splitlines()] == [1, 2, 3]
    assert link.is_symlink()
    assert [entry.name for entry in output.parent.iterdir()] == ["rows.ndjson"]


def test_an_export_of_a_stream_that_is_not_there_leaves_the_file_as_it_was(file: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    output = tmp_path / "out/rows.ndjson"
    output.write_text("of yesterday")
    with pytest.raises(InputRejected):
        export(file, "raedings", output)
    assert output.read_text() == "of yesterday"
    assert [entry.name for entry in output.parent.iterdir()] == ["rows.ndjson"]


def test_an_export_that_ends_halfway_leaves_the_file_as_it_was(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ends(socket: str, do: str, **fields: str | int) -> Iterator[dict[str, int]]:
        yield {"number": 1}
        raise TransientError("the gateway ended")

    monkeypatch.setattr("edge.cli_streams.ask_rows", ends)
    output = tmp_path / "rows.ndjson"
    output.write_text("of yesterday")
    with pytest.raises(TransientError):
        export(file, "readings", output)
    assert output.read_text() == "of yesterday"


def test_an_export_writes_into_a_pipe_as_it_is(file: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    end = os.open(pipe, os.O_RDWR)
    export(file, "readings", pipe)
    assert len(os.read(end, 4096).splitlines()) == 3
    os.close(end)
    assert pipe.is_fifo()
