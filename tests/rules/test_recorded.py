"""`edge try`, `edge replay`, `edge record`, `edge explain` as a person types them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edge import cli
from tests.processes import ENVIRONMENT

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


def test_replay_says_what_bytes_are_saved_before_upload(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rule = '[[rule]]\nname = "hot"\nsql = "SELECT c FROM \'dt/#\' WHERE c > 10"\nto = ["stream:s"]\n'
    stream = '[[stream]]\nname = "s"\nformat = "cbor"\nexport = "broker"\nbatch_records_max = 3\n'
    (folder / "gateway.toml").write_text(CONFIG + rule + stream)
    code, (mean, hot, whole), _ = edge(capsys, folder, "replay", str(folder / "day.jsonl"), "--json", "--speed", "1000")
    assert code == 0
    assert [(one["rule"], one["messages"], one["rows"]) for one in (mean, hot, whole)] == [
        ("mean", 16, 2), ("hot", 16, 4), ("", 16, 6)]  # fmt: skip
    assert (hot["batches"], whole["batches"]) == (4, 6)  # rows are a second apart or more
    assert whole["bytes_raw"] == mean["bytes_raw"] == hot["bytes_raw"] == 16 * (2 + 12 + 2 + 1) + 10 * 8 + 5 * 9 + 1
    assert whole["bytes_rules"] == mean["bytes_rules"] + hot["bytes_rules"]
    assert mean["saved_percent"] == round(100 - 100 * mean["bytes_batched"] / mean["bytes_raw"], 1)
    assert whole["payloads_rejected"] == 2
    code = cli.main(["replay", str(folder / "day.jsonl"), "--config", str(folder / "gateway.toml")])
    assert "all rules: 16 messages" in capsys.readouterr().out


def test_explain_says_where_a_topic_goes_and_why(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, (told,), _ = edge(capsys, folder, "explain", "dt/b1/temp", "--json")
    assert code == 0
    assert told["targets"] == ["broker"]
    assert told["rules"]["mean"].startswith("yes")
    assert edge(capsys, folder, "explain", "dt/b1", "--from", "broker", "--json")[1][0]["rules"]["mean"].startswith(
        "no"
    )


FUNCTION = """
[[function]]
name = "f"
exec = ["/bin/true"]
from = ["broker"]
subscribe = ["in/#"]
publish = []
to = []
"""


def test_explain_finds_the_sources_that_a_topic_is_taken_from(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = folder / "gateway.toml"
    more = '[[rule]]\nname = "in"\nsql = "SELECT c FROM \'in/x\'"\nfrom = ["broker", "rule:mean"]\nto = []\n'
    file.write_text(CONFIG + FUNCTION + more)
    told = edge(capsys, folder, "explain", "in/x", "--json")[1]
    assert [(one["source"], one["targets"]) for one in told] == [("broker", ["function:f"]), ("rule:mean", [])]
    assert told[0]["functions"] == {"f": "yes: function[1]: from broker, topic in/#"}
    assert told[0]["rules"]["in"].startswith("yes")
    (here,) = edge(capsys, folder, "explain", "in/x", "--from", "boards", "--json")[1]
    assert here["functions"]["f"].endswith(" from boards; one from broker does")
    (nobody,) = edge(capsys, folder, "explain", "x", "--json")[1]
    assert nobody["source"] == "boards"
    assert nobody["nowhere"]


@pytest.mark.parametrize("speed", ["-1", "nan", "inf", "-0.5", "fast"])
def test_a_speed_that_is_none_is_refused(folder: Path, capsys: pytest.CaptureFixture[str], speed: str) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["replay", str(folder / "day.jsonl"), f"--speed={speed}", "--config", str(folder / "gateway.toml")])
    assert ended.value.code == 2
    assert "--speed" in capsys.readouterr().err


def test_check_config_refuses_a_wrong_rule(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = folder / "gateway.toml"
    file.write_text(CONFIG.replace("avg(c)", "avrg(c)"))
    assert cli.main(["check-config", str(file)]) == 78
    assert (
        "rule[1].sql: rule 'mean', line 1, column 23: avrg() is no function. Did you mean avg()?\n"
        in capsys.readouterr().err
    )


def test_record_never_writes_over_a_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = edge(capsys, folder, "record", "dt/#", "--output", str(folder / "day.jsonl"))
    assert code == 2
    assert "File exists" in err


def test_a_recording_begun_before_the_gateway_answers_can_be_tried_again(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = edge(capsys, folder, "record", "dt/#", "--output", str(folder / "new.jsonl"))
    assert code == 1
    assert "No gateway answers" in err
    assert not (folder / "new.jsonl").exists()


@pytest.mark.parametrize("argv", [("try", "mean", "--input"), ("replay",)])
def test_a_minus_is_stdin(folder: Path, argv: tuple[str, ...]) -> None:
    recording = folder / "day.jsonl"

    def said(file: str) -> str:
        command = [sys.executable, "-m", "edge.cli", *argv, file, "--json", "--config", str(folder / "gateway.toml")]
        with recording.open("rb") as stdin:
            done = subprocess.run(command, stdin=stdin, capture_output=True, text=True, env=ENVIRONMENT, check=True)
        return done.stdout

    assert said("-") == said(str(recording)) != ""
