"""`edge trace` and `edge explain` as a person types them, of a gateway that runs and of one that does not."""

import json
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge.config import RULES as RULES_LOG
from edge.config import Config, load_config
from edge.errors import InputRejected
from edge.log import Log, LogOptions
from edge.messages import Properties
from edge.outbox.clock import CLOCK
from edge.outbox.ledger import Ledger
from edge.outbox.marks import Marks
from edge.outbox.record import Record, encode
from edge.outbox.report import CURSOR, path_of
from edge.rules.build import read_rules
from edge.tracing import logs_in, parse_id
from edge.tracing import trace as trace_in
from tests.faults.gateways import NAME, Gateway, gateway_file
from tests.faults.receivers import FakeCloud
from tests.faults.sources import Boards
from tests.faults.waiting import wait_until
from tests.processes import edge

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


ID = ("board1", 1, 1)
WENT_ON = "came here, was taken by cloud, and its place is free again"


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
        wait_until(lambda: trace(gateway, "board1/1/5")["logs"][0]["why"] in {"taken by cloud", WENT_ON}, "the export")
        missing = trace(gateway, "board1/1/9")
        assert missing["logs"][0]["why"] == "did not come here: the last of boot 1 is 5"
        assert trace(gateway, "board1/7/1")["logs"][0]["why"] == "nothing of boot 7 came here; the last was 1"
        assumed = gateway.ask("trace", "board1/1/9", "--topic", "dt/board1/temp")
        assert assumed["ways"] == told["ways"]
        assert assumed["rules"]["late"].startswith("has not seen it: ")
        gateway.stop()
        offline = gateway.ask("trace", "board1/1/9", "--topic", "dt/board1/temp")
        assert (offline["ways"], offline["rules"]) == (assumed["ways"], assumed["rules"])
        offline = trace(gateway, "board1/1/2")
        assert {log["log"]: log["why"] for log in offline["logs"]}["stream:readings"] == WENT_ON
        assert offline["rules"]["late"] == told["rules"]["late"]  # the inbox has it still
        told = edge("trace", "board1/1/2", "--config", str(gateway.file)).stdout
        assert f"stream:readings: number 2, {WENT_ON}" in told
    finally:
        gateway.close()
        boards.close()
        cloud.close()


def stored(config: Config, name: str, records: list[Record], *, taken: int, free: bool, clock: int = 0) -> None:
    """A log's folder as a gateway leaves it: `taken` records went on; free: and their places are others' now."""
    path = path_of(config, name)
    log = Log.open(path, options=LogOptions(segment_bytes=64 * 1024))
    log.put_state(CLOCK, msgspec.msgpack.encode({3: ("system", clock), 4: ("system", 0)}))
    marks = Marks({})
    for place, record in enumerate(records, 1):
        log.append([encode(record)])
        if record.reading is not None and name != RULES_LOG:
            marks.advance(*record.reading)
        if place == taken and free:
            log.commit()
            while log.next == log.segments[-1].next and log.segments[-1].first == log.segments[0].first:
                log.append([bytes(20_000)])  # what no record is: so that the segment is full
                log.commit()
    for key, value in marks.changes():
        log.put_state(key, value)
    log.commit()
    before = taken + 1 if not free else log.segments[-1].first
    log.put_state(CURSOR, msgspec.msgpack.encode((before, 0, 0)))
    log.release(before)
    log.commit()
    assert (log.segments[0].first > taken) is free
    log.close()


def record(payload: bytes, *, topic: str = "dt/board1/temp", boot: int = 3, reading: Any = None) -> Record:
    return Record(1, boot, 0, topic, payload, 1, None, reading)


def told_of(config: Config, name: str, topic: str = "") -> Any:
    *_, told = trace_in(parse_id(name), config, read_rules(config), logs_in(config), topic)
    return msgspec.to_builtins(told)


def why_in(told: Any) -> dict[str, str]:
    return {log["log"]: log["why"] for log in told["logs"]}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return load_config(str(gateway_file(tmp_path, {"board1": tmp_path / "p"}, 1, more=RULES, topics=["dt/{board}/#"])))


def test_what_was_freed_and_lies_there_still_is_told_whole(config: Config) -> None:
    readings = [record(b'{"seq":%d,"boot":1}' % n, reading=("board1", 1, n)) for n in range(1, 6)]
    stored(config, "readings", readings, taken=3, free=False)
    told = told_of(config, "board1/1/2")
    assert told["logs"] == [{"log": "stream:readings", "held": False, "number": 2, "why": WENT_ON}]
    assert told["topic"] == "dt/board1/temp"
    assert [way["to"] for way in told["ways"]["ways"]] == ["stream:readings", "function:sums"]
    assert told["rules"]["late"] == "WHERE leaves it out: seq > 2 is not true"
    assert why_in(told_of(config, "board1/1/4")) == {"stream:readings": "waits for cloud"}


def test_of_what_is_gone_the_user_may_give_the_topic(config: Config) -> None:
    readings = [record(b"{}", reading=("board1", 1, n)) for n in range(1, 4)]
    stored(config, "readings", readings, taken=3, free=True)
    told = told_of(config, "board1/1/2")
    assert (why_in(told), "ways" in told) == ({"stream:readings": WENT_ON}, False)
    assert told["why"].endswith("(--topic T, if you know)")
    told = told_of(config, "board1/1/2", "dt/board1/temp")
    assert list(told["ways"]["targets"]) == ["stream:readings", "function:sums"]
    assert told["rules"] == {
        "late": "its payload is not known any more, and so what WHERE said",
        "cold": "no: FROM 'dt/+/hum'",
        "seldom": "its payload is not known any more, and so what WHERE said",
    }


WHERES = {
    "mine": "clientid() = 'board1'",
    "fresh": "timestamp() - seq < 1000 AND seq > 0",
    "site": "cardinality(get_user_properties('site')) = 1",
}


@pytest.mark.parametrize("clock", [1_763_700_000_000, 0])
def test_a_rule_is_told_of_with_all_that_it_saw(tmp_path: Path, clock: int) -> None:
    more = "".join(
        f'[[rule]]\nname = "{name}"\nsql = "SELECT seq FROM \'dt/#\' WHERE {where}"\nto = ["cloud"]\n'
        for name, where in WHERES.items()
    )
    file = gateway_file(tmp_path, {"board1": tmp_path / "p"}, 1, more=more, topics=["dt/{board}/#"])
    config = load_config(str(file))
    came = Record(1, 3, 0, "dt/board1/temp", b'{"seq":1763700000000}', 1, Properties(user=(("site", "x"),)), ID)
    stored(config, "readings", [came], taken=1, free=False, clock=clock)
    unknown = "when it came is not known, and so whether timestamp() - seq < 1000"
    assert told_of(config, "board1/1/1")["rules"] == {
        "mine": "WHERE lets it pass",
        "fresh": "WHERE lets it pass" if clock else unknown,
        "site": "WHERE lets it pass",
    }


@pytest.mark.parametrize("free", [False, True])
def test_what_the_gateway_named_and_freed_was_taken(config: Config, *, free: bool) -> None:
    stored(config, "readings", [record(b"{}") for _ in range(3)], taken=3, free=free)
    told = told_of(config, f"{NAME}/readings/3/2", "dt/board1/temp")
    assert why_in(told) == {"stream:readings": WENT_ON}
    assert told["ways"]["source"] == "boards"
    assert not told["rules"]["late"].startswith("has not seen it")
    wrong = told_of(config, f"{NAME}/readings/9/2")
    assert why_in(wrong)["stream:readings"] == "did not come here: nothing was stored in boot 9 of the gateway"
    assert why_in(told_of(config, f"{NAME}/readings/3/9999")) == {
        "stream:readings": f"did not come here: the last record is number {_last(config)}"
    }


def _last(config: Config) -> int:
    (log,) = [one.log for one in logs_in(config)]
    return log.next - 1


@pytest.mark.parametrize("free", [False, True])
def test_rows_of_a_rule_that_were_freed_went_where_its_routes_lead(config: Config, *, free: bool) -> None:
    thing = f"{NAME}/rule/late"
    rows = [record(b"{}", topic="rule/late", reading=(thing, 3, n)) for n in range(1, 4)]
    stored(config, RULES_LOG, rows, taken=3, free=free)
    told = told_of(config, f"{thing}/3/2", "rule/late")
    assert why_in(told) == {
        "rules": "came here, was taken by where its rule's routes lead, and its place is free again"
    }
    assert told["ways"]["source"] == "rule:late"
    if not free:
        told = told_of(config, f"{NAME}/rule/cold/3/2")
        assert why_in(told)["rules"] == f"did not come here: its number is that of {thing}/3/2"


def test_what_was_shed_is_not_said_to_be_taken(config: Config) -> None:
    readings = [record(b"{}", reading=("board1", 1, n)) for n in range(1, 4)]
    stored(config, "readings", readings, taken=3, free=False)
    log = Log.open(path_of(config, "readings"))
    ledger = Ledger({})
    ledger.add("board1", 1, 2, "dropped_oldest")
    for key, value in ledger.changes():
        log.put_state(key, value)
    log.commit()
    log.close()
    assert why_in(told_of(config, "board1/1/2"))["stream:readings"] == "shed: dropped_oldest"
    assert why_in(told_of(config, "board1/1/1"))["stream:readings"] == WENT_ON


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
    file.write_text(f'{file.read_text()}[[route]]\nfrom = "boards"\ntopic = "#"\nto = ["function:sums"]\n')
    assert told("dt/board1/temp")["functions"]["sums"].startswith("yes: route[1]")
    assert told("dt/board1/hum")["functions"] == {"sums": "no: no route takes it there that it subscribes to"}


@pytest.mark.parametrize("name", ["", "board1", "board1/1", "board1/x/1", "/1/1", "board1/1/-1"])
def test_what_names_no_reading_is_refused(name: str) -> None:
    with pytest.raises(InputRejected):
        parse_id(name)
