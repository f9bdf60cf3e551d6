"""The files that rules look up in."""

from pathlib import Path

import pytest

from edge.config import parse_config
from edge.errors import ConfigError
from edge.rules.build import read_rules
from edge.rules.tables import Table
from tests.rules.test_engine import HEAD, rule


def read(folder: Path, data: bytes) -> Table:
    (folder / "t.csv").write_bytes(data)
    sql = "SELECT lookup('t', topic(2), 'room') AS room FROM 'dt/+/temp'"
    text = HEAD + rule("r", sql, 'to = ["cloud"]\ntables = { t = "t.csv" }')
    (found,) = read_rules(parse_config(text, str(folder / "gateway.toml")))
    return found.tables["t"]


@pytest.mark.parametrize(
    "data",
    [
        b"id,room\nb1,kitchen",
        b"\xef\xbb\xbfid,room\r\nb1,kitchen\r\n",
        b'"id","room"\r"b1","kitchen"\r',
        b"id,room,,\nb1,kitchen,,\n,,,\n\n  \n",
        b"id,room\nb1,kitchen,,\n",
        b"id,room,,\nb1,kitchen\n",
    ],
)
def test_a_table_is_read_as_spreadsheets_save_it(tmp_path: Path, data: bytes) -> None:
    assert [(key, row["room"]) for key, row in read(tmp_path, data).items()] == [("b1", "kitchen")]


def test_a_table_may_have_no_rows_and_lines_within_a_cell(tmp_path: Path) -> None:
    assert read(tmp_path, b"id,room\n") == {}
    found = read(tmp_path, 'id,room\nb1,"kitchen\nbelow\u2028"\nb2,\n'.encode())
    assert found == {"b1": {"id": "b1", "room": "kitchen\nbelow\u2028"}, "b2": {"id": "b2", "room": ""}}


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "has no header in its first line"),
        (b"\nid,room\nb1,kitchen\n", "has no header in its first line"),
        (b",\nb1,kitchen\n", "has no header in its first line"),
        (b"id,room,room\nb1,kitchen,hall\n", "its header has 'room' twice"),
        (b"id;room\nb1;kitchen\n", "its columns are separated by ';'"),
        (b"id,room\nb1,kitchen\n\nb2\n", "line 4 has 1 cell, its header 2"),
        (b'id,room\n"b\n1",kitchen\nb2,hall, big\n', "line 4 has 3 cells, its header 2"),
        (b'id,room\nb1,"kitchen\n', "is no CSV: unexpected end of data"),
        (b"id,room\nb1,K\xfcche\n", "is no CSV: 'utf-8' codec"),
        ("id,room\nb1,hall\n".encode("utf-16"), "is no CSV: 'utf-8' codec"),
        (b"id,room\nb1," + b"x" * 200_000, "is no CSV: field larger than field limit"),
        (b"x" * (4 * 1024 * 1024 + 1), "is longer than 4194304 bytes"),
    ],
)
def test_a_table_that_would_be_looked_up_wrongly_is_refused(tmp_path: Path, data: bytes, problem: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read(tmp_path, data)
    assert refused.value.field == "rule[1].tables.t"
    assert problem in str(refused.value)
