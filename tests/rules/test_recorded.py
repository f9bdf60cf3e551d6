"""`edge try`, `edge replay`, `edge record`, `edge explain` as a person types them."""

import json
from pathlib import Path
from typing import Any

import pytest

from edge import cli

CONFIG = """
[gateway]
name = "g"
data_dir = "d"
[broker]
host = "h"
tls = false
[[route]]
from = "boards"
topic = "dt/#"
to = ["broker"]
[[rule]]
name = "mean"
sql = "SELECT topic(2) AS b, avg(c) AS a FROM 'dt/+/temp' GROUP BY topic(2), TUMBLINGWINDOW(ss, 10)"
to = ["broker"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "gateway.toml").write_text(CONFIG)
    lines = [
        json.dumps({"time": at, "source": "boards", "topic": "dt/b1/temp", "payload": json.dumps({"c": at}), "qos": 1})
        for at in range(15)
    ]
    lines.append(json.dumps({"time": 15, "topic": "dt/b1/temp", "payload_base64": "/w=="}))
    (tmp_path / "day.jsonl").write_text("\n".join(lines))
    return tmp_path


def edge(capsys: pytest.CaptureFixture[str], folder: Path, *argv: str) -> tuple[int, list[Any], str]:
    code = cli.main([*argv, "--config", str(folder / "gateway.toml")])
    out, err = capsys.readouterr()
    return code, [json.loads(line) for line in out.splitlines()], err


def test_try_prints_the_rows_and_a_report(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = edge(capsys, folder, "try", "mean", "--input", str(folder / "day.jsonl"), "--json")
    assert code == 0
    assert out[:2] == [{"b": "b1", "a": 4.5}, {"b": "b1", "a": 12.0}]
    assert out[2]["messages"] == 16
    assert out[2]["payloads_rejected"] == 1


def test_try_takes_sql_itself(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sql = "SELECT c FROM 'dt/#' WHERE c > 12"
    code, out, err = edge(capsys, folder, "try", sql, "--input", str(folder / "day.jsonl"))
    assert (code, out) == (0, [{"c": 13}, {"c": 14}])
    assert "messages 16" in err
    assert edge(capsys, folder, "try", "SELECT c FRM 'a'", "--input", "x")[0] == 78
    assert edge(capsys, folder, "try", "none", "--input", "x")[0] == 78
    assert edge(capsys, folder, "try", sql, "--input", "none")[0] == 2
    (folder / "bad").write_text("{}\n")
    code, _, err = edge(capsys, folder, "try", sql, "--input", str(folder / "bad"))
    assert code == 2
    assert "line 1" in err


def test_replay_says_what_bytes_the_rules_save(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, (report,), _ = edge(capsys, folder, "replay", str(folder / "day.jsonl"), "--json", "--speed", "1000")
    assert code == 0
    assert (report["rule"], report["rows"]) == ("mean", 2)
    assert report["bytes_out"] < report["bytes_in"]


def test_explain_says_where_a_topic_goes_and_why(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, (told,), _ = edge(capsys, folder, "explain", "dt/b1/temp", "--json")
    assert code == 0
    assert told["targets"] == ["broker"]
    assert told["rules"]["mean"].startswith("yes")
    assert edge(capsys, folder, "explain", "dt/b1", "--from", "broker", "--json")[1][0]["rules"]["mean"].startswith(
        "no"
    )


def test_check_config_refuses_a_wrong_rule(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = folder / "gateway.toml"
    file.write_text(CONFIG.replace("avg(c)", "avrg(c)"))
    assert cli.main(["check-config", str(file)]) == 78
    assert "rule[1].sql: line 1, column 23: avrg() is no function. Did you mean avg()?" in capsys.readouterr().err


def test_record_never_writes_over_a_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = edge(capsys, folder, "record", "dt/#", "--output", str(folder / "day.jsonl"))
    assert code == 2
    assert "File exists" in err
