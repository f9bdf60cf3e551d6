import json
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from edge_tools.fleet.cli import main
from edge_tools.fleet.records import Record
from edge_tools.fleet.show import parse_time
from edge_tools.fleet.store import Batch, opener
from tests.fleet.ingesters import ENVIRONMENT, FLEET, PATIENCE_S, rows

NOW = 1_795_000_000_000


def fill(database: str, records: list[Record]) -> None:
    store = opener(database)(True)
    store.commit(Batch(records))
    store.close()


def reading(seq: int, t: int | None = None, thing: str = "b1") -> Record:
    return Record(f"dt/{thing}/temp", b'{"c":%d.25,"in":{"v":3.3}}' % (20 + seq % 5), NOW, thing, 1, seq, t)


def test_a_query_prints_what_a_batch_row_holds(database: str, capsys: pytest.CaptureFixture[str]) -> None:
    fill(database, [reading(2, NOW - 1000), reading(1, NOW - 2000), Record("raw", b"\xff", NOW)])
    found = rows(capsys, "query", "--database", database)
    assert [row["seq"] for row in found] == [1, 2, None]
    assert found[0] == {
        "topic": "dt/b1/temp",
        "thing": "b1",
        "boot": 1,
        "seq": 1,
        "t": NOW - 2000,
        "received": NOW,
        "payload": '{"c":21.25,"in":{"v":3.3}}',
    }
    assert found[2]["payload_base64"] == "/w=="
    assert main(["telemetry", "query", "--database", database, "--thing", "b1", "--limit", "1"]) == 0
    assert capsys.readouterr().out == '2026-11-18T11:06:39.000Z  b1 1/2  dt/b1/temp  {"c":22.25,"in":{"v":3.3}}\n'


def test_a_query_takes_times_as_people_write_them(database: str, capsys: pytest.CaptureFixture[str]) -> None:
    now = int(time.time() * 1000)
    fill(database, [reading(1, now - 7_200_000), reading(2, now - 60_000)])
    assert [row["seq"] for row in rows(capsys, "query", "--database", database, "--from", "-1h")] == [2]
    assert [row["seq"] for row in rows(capsys, "query", "--database", database, "--to", "-30m")] == [1]
    assert rows(capsys, "query", "--database", database, "--from", "2100-01-01") == []
    assert rows(capsys, "query", "--database", database, "--topic", "other/#") == []
    assert parse_time("2026-11-18T11:06:40Z", 0) == parse_time("2026-11-18 11:06:40", 0) == NOW
    with pytest.raises(SystemExit) as ended:
        main(["telemetry", "query", "--database", database, "--from", "yesterday"])
    assert ended.value.code == 2
    assert "a span such as -1h" in capsys.readouterr().err


def test_a_tail_shows_each_record_once_as_it_comes(database: str) -> None:
    fill(database, [reading(1)])
    command = [*FLEET, "telemetry", "tail", "--database", database, "--from-start", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
    assert process.stdout is not None
    try:
        assert json.loads(process.stdout.readline())["seq"] == 1
        fill(database, [reading(1), reading(2), reading(3)])
        assert [json.loads(process.stdout.readline())["seq"] for _ in range(2)] == [2, 3]
    finally:
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, rest) == (0, "")


def test_losses_are_listed_by_thing_and_boot(database: str, capsys: pytest.CaptureFixture[str]) -> None:
    fill(database, [reading(seq) for seq in (2, 3, 6, 9)])
    assert rows(capsys, "losses", "--database", database) == [
        {
            "thing": "b1",
            "boot": 1,
            "first": 2,
            "last": 9,
            "count": 4,
            "missing_count": 5,
            "missing": [[1, 1], [4, 5], [7, 8]],
            "unknown_count": 0,
            "unknown": [],
        }
    ]
    assert main(["telemetry", "losses", "--database", database]) == 0
    assert "5 missing: 1, 4-5, 7-8" in capsys.readouterr().out
    fill(database, [Record("x", b"1", NOW, "g/telemetry", 3, seq) for seq in (1, 4, 5)])
    assert main(["telemetry", "losses", "--thing", "g/telemetry", "--database", database]) == 0
    assert capsys.readouterr().out == "g/telemetry  boot 3  1 to 5  3 records  2 unknown: 2-3\n"


def test_a_plot_is_a_png_of_the_field(database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(database, [reading(seq, NOW + seq * 60_000) for seq in range(1, 200)] + [Record("x", b"no", NOW, "b1")])
    output = tmp_path / "plot.png"
    shown = rows(capsys, "plot", "--database", database, "--thing", "b1", "--field", "in.v", "--output", str(output))
    assert shown[0]["records"] == 199
    assert shown[0]["skipped"] == 1
    assert output.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_a_plot_of_a_field_that_is_not_there_says_so(
    database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(database, [reading(1)])
    output = tmp_path / "plot.png"
    command = ["telemetry", "plot", "--database", database, "--thing", "b1", "--field", "x", "--output", str(output)]
    assert main(command) == 1
    assert "Check --thing and --field" in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--broker", "http://x", "--database", "sqlite:///{}/t.db", "--topic", "a"], "mqtts://HOST:PORT"),
        (["--broker", "mqtt://x", "--database", "mysql://x", "--topic", "a"], "sqlite:///FILE"),
        (["--broker", "mqtt://x:99999", "--database", "sqlite:///{}/t.db", "--topic", "a"], "mqtts://HOST:PORT"),
        (["--broker", "mqtts://x", "--ca", "{}/none", "--database", "sqlite:///{}/t.db", "--topic", "a"], "not exist"),
        (
            ["--broker", "mqtt://x", "--database", "sqlite:///{}/t.db", "--topic", "a", "--shared", "a/b"],
            "no /, + or #",
        ),
        (["--broker", "mqtt://x", "--database", "sqlite:///{}/none/t.db", "--topic", "a"], "does not exist"),
        (["--broker", "mqtt://x", "--database", "sqlite:///{}/letter.txt", "--topic", "a"], "no SQLite database"),
    ],
)
def test_a_wrong_configuration_is_refused_at_the_start(tmp_path: Path, arguments: list[str], said: str) -> None:
    (tmp_path / "letter.txt").write_text("Dear reader, this is somebody's letter.")
    given = [argument.format(tmp_path) for argument in arguments]
    done = subprocess.run(
        [*FLEET, "ingest", "--client-id", "x", *given], capture_output=True, text=True, env=ENVIRONMENT, check=False
    )
    assert done.returncode == 78, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "letter.txt").exists()


def test_a_password_is_not_shown(tmp_path: Path) -> None:
    command = [*FLEET, "telemetry", "query", "--database", "postgresql://u:sesame@127.0.0.1:1/n"]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode == 1
    assert re.search(r"postgresql://127\.0\.0\.1:1/n", done.stderr)
    assert "sesame" not in done.stderr
