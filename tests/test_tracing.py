"""`edge trace` and `edge explain` as a person types them, of a gateway that runs and of one that does not."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from edge.errors import InputRejected
from edge.tracing import parse_id
from tests.faults.gateways import NAME, Gateway, gateway_file
from tests.faults.receivers import FakeCloud
from tests.faults.sources import Boards
from tests.faults.waiting import wait_until
from tests.test_runtime import edge

RULES = """
[[rule]]
name = "late"
sql = "SELECT seq FROM 'dt/+/temp' WHERE seq > 2 AND boot = 1"
to = ["cloud"]
[[rule]]
name = "cold"
sql = "SELECT seq FROM 'dt/+/hum'"
to = ["cloud"]
[[rule]]
name = "seldom"
sql = "SELECT seq FROM 'dt/#' WHERE every(3)"
to = ["stream:rows"]
[[stream]]
name = "rows"
export = ""
[[function]]
name = "sums"
exec = ["/bin/false"]
subscribe = ["dt/+/temp"]
from = ["boards"]
interval_s = 60.0
"""


WENT_ON = "came here and went on, and its place is free again"


def trace(gateway: Gateway, name: str) -> Any:
    return gateway.ask("trace", name)


def test_a_trace_says_where_a_reading_is_and_why(tmp_path: Path) -> None:
    boards, cloud = Boards(tmp_path / "ports", 1), FakeCloud()
    gateway = Gateway(gateway_file(tmp_path, boards.ports, cloud.port, more=RULES, topics=["dt/{board}/#"]))
    try:
        cloud.stop()
        gateway.start()
        boards.produce(5)
        wait_until(boards.idle, "the readings to be stored")
        told = trace(gateway, "board1/1/2")
        assert told["logs"][0] | {"taken_ms": 0} == {
            "log": "stream:readings", "held": True, "number": 2, "why": "waits for cloud", "taken_ms": 0,
        }  # fmt: skip
        assert told["topic"] == "dt/board1/temp"
        assert {way["to"]: way["by"] for way in told["ways"]["ways"]} == {
            "stream:readings": "stream[1]: from boards, topic dt/{board}/#",
            "function:sums": "function[1]: from boards, topic dt/+/temp",
        }
        inbox = {log["log"]: log for log in told["logs"]}["function:sums"]
        assert (inbox["held"], inbox["number"], inbox["why"]) == (True, 2, "waits for the function")
        assert told["rules"] == {
            "late": "saw it: WHERE leaves it out: seq > 2 is not true",
            "cold": "no: FROM 'dt/+/hum'",
            "seldom": "saw it: WHERE lets it pass; then every(3) decided by what came before",
        }
        assert trace(gateway, "board1/1/3")["rules"]["late"] == "saw it: WHERE lets it pass"
        row = trace(gateway, f"{NAME}/rule/seldom/{_boot(gateway)}/{_number(gateway)}")
        assert {log["log"]: log["why"] for log in row["logs"]} == {
            "stream:readings": "nothing of this thing came here",
            "stream:rows": "kept here; nothing exports it",
            "rules": "taken by where its rule's routes lead",
            "stream:dead-letter": "nothing of this thing came here",
            "function:sums": "nothing of this thing came here",
        }
        cloud.start()
        wait_until(lambda: trace(gateway, "board1/1/5")["logs"][0]["why"] == "taken by cloud", "the export")
        missing = trace(gateway, "board1/1/9")
        assert missing["logs"][0]["why"] == "did not come here: the last of boot 1 is 5"
        assert trace(gateway, "board1/7/1")["logs"][0]["why"] == "nothing of boot 7 came here; the last was 1"
        gateway.stop()
        offline = trace(gateway, "board1/1/2")
        assert {log["log"]: log["why"] for log in offline["logs"]}["stream:readings"] == WENT_ON
        assert offline["rules"]["late"] == told["rules"]["late"]  # the inbox has it still
        told = edge("trace", "board1/1/2", "--config", str(gateway.file)).stdout
        assert "stream:readings: came here and went on" in told
    finally:
        gateway.close()
        boards.close()
        cloud.close()


def _rows(gateway: Gateway) -> list[dict[str, Any]]:
    done: subprocess.CompletedProcess[str] = edge("stream", "export", "rows", "--config", str(gateway.file))
    return [json.loads(line) for line in done.stdout.splitlines()]


def _boot(gateway: Gateway) -> int:
    rows = wait_until(lambda: _rows(gateway), "rows in the stream")
    boot: int = rows[0]["boot"]
    return boot


def _number(gateway: Gateway) -> int:
    number: int = _rows(gateway)[0]["seq"]
    return number


def test_explain_knows_whom_a_route_means_by_board(tmp_path: Path) -> None:
    file = gateway_file(tmp_path, {"board1": tmp_path / "p"}, 1, more=RULES, topics=["dt/{board}/#"])

    def told(*argv: str) -> Any:
        return json.loads(edge("explain", *argv, "--config", str(file), "--json").stdout)

    assert told("dt/board1/temp")["targets"] == ["stream:readings", "function:sums"]
    assert told("dt/board1/temp")["functions"] == {"sums": "yes: function[1]: from boards, topic dt/+/temp"}
    assert told("dt/board1/hum")["functions"]["sums"].startswith("no")
    assert told("dt/board1/temp", "--from", "board:board1")["sender"] == "board1"
    assert told("dt/meter/hum", "--client", "meter")["targets"] == ["stream:readings"]
    assert told("x", "--from", "cloud")["nowhere"] == "no route takes it: none is from cloud"
    assert told("x/board1")["nowhere"].startswith(
        "no route takes it: from boards they take 'dt/{board}/#', 'dt/+/temp'"
    )
    assert "rule late: yes" in edge("explain", "dt/board1/temp", "--config", str(file)).stdout


@pytest.mark.parametrize("name", ["", "board1", "board1/1", "board1/x/1", "/1/1", "board1/1/-1"])
def test_what_names_no_reading_is_refused(name: str) -> None:
    with pytest.raises(InputRejected):
        parse_id(name)
