"""Rules wired to a router: batches in, rows out, hostile payloads counted."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from edge.config import parse_config
from edge.errors import ConfigError
from edge.messages import Message, Origin, Outcome, Reading
from edge.metrics import Metrics
from edge.outbox.marks import Marks
from edge.router import Router
from edge.rules.build import CompiledRule, engine_name, explain, output_topic, read_rules, rule_routes
from edge.rules.engine import BYTES_A_TURN, PAYLOAD_BYTES_MAX, ROWS_A_TURN, Engine, KeptRow, Output
from edge.rules.payloads import Decoder, decoder
from edge.rules.rejections import TOLD_MAX, TOLD_MS

HEAD = """
[gateway]
name = "g"
data_dir = "d"
[broker]
host = "h"
tls = false
[cloud]
host = "h"
tls = false
"""


class Sink:
    """A target that keeps what it gets; `outcome` is what it tells of it."""

    def __init__(self) -> None:
        self.got: list[tuple[str, bytes]] = []
        self.outcome = Outcome.TAKEN

    def send(self, messages: Sequence[Message], origin: Origin) -> None:
        if self.outcome is Outcome.TAKEN:
            self.got += [(message.topic, message.payload) for message in messages]
        origin.settled([message.receipt for message in messages], self.outcome)


class Sender:
    def __init__(self) -> None:
        self.ended: list[tuple[list[int], Outcome]] = []

    def settled(self, receipts: Sequence[int], outcome: Outcome) -> None:
        self.ended.append((list(receipts), outcome))


class House:
    """A router with rules, a sink for the cloud, and a book that gives rows on at once."""

    def __init__(self, rules: str, folder: Path, decoders: Callable[[str, Sequence[str]], Decoder] = decoder) -> None:
        config = parse_config(HEAD + rules, str(folder / "gateway.toml"))
        read = read_rules(config)
        self.metrics = Metrics()
        self.router = Router([*config.all_routes, *rule_routes(read)], self.metrics)
        self.cloud, self.sender, self.now, self.room = Sink(), Sender(), 0, True
        self.router.attach("cloud", self.cloud)
        self.engines: dict[str, Engine] = {}
        self.asked_again = self.rows = 0
        for name in dict.fromkeys(engine_name(one.settings) for one in read):
            members = [CompiledRule(one) for one in read if engine_name(one.settings) == name]
            settings = members[0].read.settings
            self.engines[name] = Engine(
                [
                    Output(one.rule, one.name, output_topic(one.read.settings), self.metrics, one.read.settings.source)
                    for one in members
                ],
                decoders(settings.payload, settings.columns),
                book=self,
                seen=Marks({}),
                metrics=self.metrics,
                unix_time_ms=lambda: self.now,
            )
            self.router.attach_by_source(name, self.engines[name].port)

    def has_room(self) -> bool:
        return self.room

    def keep(self, rows: Sequence[KeptRow], origin: Origin, receipts: Sequence[int], messages: int) -> None:
        for thing, topic, payload in rows:
            self.router.route(f"rule:{thing}", "", [Message(topic, payload, 1)], Sender())
        if receipts:
            origin.settled(receipts, Outcome.TAKEN)

    def come_again(self) -> None:
        self.asked_again += 1

    def send(self, *messages: tuple[str, bytes]) -> None:
        batch = [Message(topic, payload, qos=1, receipt=at) for at, (topic, payload) in enumerate(messages, 1)]
        self.router.route("boards", "b", batch, self.sender)

    def tick(self) -> None:
        for engine in self.engines.values():
            engine.tick()

    def count(self, title: str) -> float:
        return self.metrics.snapshot().get(title, 0)


def rule(name: str, sql: str, more: str = 'to = ["cloud"]') -> str:
    return f'[[rule]]\nname = "{name}"\nsql = """{sql}"""\n{more}\n'


def test_rows_go_to_the_rules_target_on_its_topic(tmp_path: Path) -> None:
    more = 'to = ["cloud"]\ntopic = "agg/${b}/c"'
    house = House(rule("hot", "SELECT topic(2) AS b, c FROM 'dt/+/temp' WHERE c > 20", more), tmp_path)
    house.send(("dt/b1/temp", b'{"c":21}'), ("dt/b2/temp", b'{"c":2}'))
    assert house.cloud.got == [("agg/b1/c", b'{"b":"b1","c":21}')]
    assert house.sender.ended == [([1, 2], Outcome.TAKEN)]
    assert house.count('rule_messages_in{rule="hot"}') == 2
    assert house.count('rule_rows_out{rule="hot"}') == 1


def test_each_rule_gets_the_topics_of_its_from_in_their_order(tmp_path: Path) -> None:
    rules = rule("one", "SELECT i FROM 'a/+'") + rule("two", "SELECT i, 2 AS n FROM 'a/x'")
    house = House(rules, tmp_path)
    house.send(("a/x", b'{"i":1}'), ("a/y", b'{"i":2}'), ("a/x", b'{"i":3}'))
    assert house.cloud.got == [
        ("rule/one", b'{"i":1}'), ("rule/one", b'{"i":2}'), ("rule/one", b'{"i":3}'),
        ("rule/two", b'{"i":1,"n":2}'), ("rule/two", b'{"i":3,"n":2}')]  # fmt: skip
    assert len(house.engines) == 1


def test_a_rule_may_read_from_another(tmp_path: Path) -> None:
    rules = rule("one", "SELECT c * 2 AS d FROM 'a'", "") + rule(
        "two", "SELECT d + 1 AS e FROM 'rule/one'", 'from = ["rule:one"]\nto = ["cloud"]'
    )
    house = House(rules, tmp_path)
    house.send(("a", b'{"c":3}'))
    assert house.cloud.got == [("rule/two", b'{"e":7}')]


def test_a_batch_without_room_is_turned_away_whole_and_no_window_closes(tmp_path: Path) -> None:
    house = House(rule("r", "SELECT count(*) AS n FROM 'a' GROUP BY TUMBLINGWINDOW(ss, 1)"), tmp_path)
    house.send(("a", b"{}"))
    house.room, house.now = False, 1000
    house.send(("a", b"{}"), ("a", b"{}"))
    house.tick()
    assert house.cloud.got == []
    assert house.sender.ended == [([1], Outcome.TAKEN), ([1, 2], Outcome.CONGESTED)]
    assert house.count("rule_messages_congested") == 2
    house.room = True
    house.tick()
    assert house.cloud.got == [("rule/r", b'{"n":1}')]


JOIN = (
    "SELECT topic(2, a) AS b, a.c AS c, b.rh AS rh FROM 'dt/+/temp' AS a JOIN 'dt/+/hum' AS b "
    "ON topic(2, a) = topic(2, b) GROUP BY TUMBLINGWINDOW(ss, 1)"
)


def test_a_join_gets_both_its_topics_and_each_message_once(tmp_path: Path) -> None:
    house = House(rule("r", JOIN) + rule("q", JOIN.replace("dt/+/hum", "dt/#")), tmp_path)
    house.send(("dt/x/temp", b'{"c":1}'), ("dt/x/hum", b'{"rh":2}'), ("dt/x/other", b'{"rh":3}'))
    house.now = 1000
    house.tick()
    assert [payload for topic, payload in house.cloud.got if topic == "rule/r"] == [b'{"b":"x","c":1,"rh":2}']
    assert len([payload for topic, payload in house.cloud.got if topic == "rule/q"]) == 3
    assert house.sender.ended == [([1, 2, 3], Outcome.TAKEN)]
    assert house.count('rule_messages_in{rule="r"}') == 2


def pieces(house: House) -> list[int]:
    """Bytes of rows handed over in each turn until all is given; the cloud forgets them at once."""
    sizes = []
    while True:
        house.asked_again = 0
        for engine in house.engines.values():
            engine.give()
        sizes.append(sum(len(payload) for _, payload in house.cloud.got))
        house.rows += len(house.cloud.got)
        house.cloud.got.clear()
        if not house.asked_again:
            return sizes


BIG = {
    "a join": "SELECT a.p AS p, b.p AS q FROM 'm/#' AS a JOIN 'm/#' AS b ON mod(a.id, 2) = mod(b.id, 2) "
    "GROUP BY TUMBLINGWINDOW(ss, 10)",
    "a grouped join": "SELECT a.id AS id, collect(b.p) AS q FROM 'm/#' AS a JOIN 'm/#' AS b "
    "ON mod(a.id, 20) = mod(b.id, 20) GROUP BY a.id, TUMBLINGWINDOW(ss, 10)",
    "collected": "SELECT collect(p) AS p FROM 'm/#' GROUP BY mod(id, 20), TUMBLINGWINDOW(ss, 10)",
    "panes": "SELECT id, last(p) AS p FROM 'm/#' GROUP BY id, HOPPINGWINDOW(ss, 64, 1)",
    "sessions": "SELECT id, last(p) AS p, first(p) AS q FROM 'm/#' GROUP BY id, SESSIONWINDOW(ss, 1)",
    "sliding": "SELECT collect(p) AS p FROM 'm/#' GROUP BY mod(id, 40), SLIDINGWINDOW(ss, 10)",
}


@pytest.mark.parametrize(("kind", "rows"), [
    ("a join", 20_000), ("a grouped join", 400), ("collected", 20), ("panes", 64 * 400), ("sessions", 400),
    ("sliding", 400),
])  # fmt: skip
def test_windows_that_end_hand_over_no_more_bytes_in_a_turn_than_it_has_room_for(
    tmp_path: Path, kind: str, rows: int
) -> None:
    more = 'to = ["cloud"]\ntime = "t"\nlateness_s = 100\nkeys_max = 30000'
    house = House(rule("r", BIG[kind], more), tmp_path)
    house.now = 10**9
    pad = b"x" * (1000 if kind == "sliding" else 4000)
    for first in range(0, 400, 20):
        house.send(*(("m/x", b'{"id":%d,"t":1000,"p":"%s"}' % (at, pad)) for at in range(first, first + 20)))
    assert house.cloud.got == []
    house.send(("m/x", b'{"id":0,"t":900000000,"p":"a"}'))
    sizes = [sum(len(payload) for _, payload in house.cloud.got)]
    house.rows += len(house.cloud.got)
    house.cloud.got.clear()
    sizes += pieces(house)
    dropped = house.count('rule_dropped{reason="row_too_long",rule="r"}')
    assert house.rows + dropped == rows
    assert max(sizes) <= BYTES_A_TURN + PAYLOAD_BYTES_MAX
    assert len(sizes) > 3


def test_between_slices_the_book_is_asked_for_room_and_messages_come_in(tmp_path: Path) -> None:
    house = House(rule("r", "SELECT id, count(*) AS n FROM 'm' GROUP BY id, TUMBLINGWINDOW(ss, 1)"), tmp_path)
    house.send(*(("m", b'{"id":%d}' % at) for at in range(3 * ROWS_A_TURN)))
    house.now = 1000
    house.tick()
    assert (len(house.cloud.got), house.asked_again) == (ROWS_A_TURN, 1)
    house.room = False
    for engine in house.engines.values():
        engine.give()
    assert (len(house.cloud.got), house.asked_again) == (ROWS_A_TURN, 1)  # until the next tick finds room
    house.room = True
    house.send(("m", b'{"id":7}'))
    assert (len(house.cloud.got), house.asked_again) == (2 * ROWS_A_TURN, 2)
    pieces(house)
    assert house.rows == 3 * ROWS_A_TURN
    house.now = 2000
    house.tick()
    assert house.cloud.got == [("rule/r", b'{"id":7,"n":1}')]


def test_while_too_much_is_due_a_batch_is_turned_away_whole(tmp_path: Path) -> None:
    sql = "SELECT id, count(*) AS n FROM 'm' GROUP BY id, TUMBLINGWINDOW(ms, 1)"
    house = House(rule("r", sql, f'to = ["cloud"]\ntime = "t"\nkeys_max = {ROWS_A_TURN}\n'), tmp_path)
    house.now = 100
    house.send(*(("m", b'{"id":%d,"t":%d}' % (at, turn)) for turn in range(4) for at in range(ROWS_A_TURN)))
    house.send(("m", b"{}"))
    assert house.sender.ended[-1] == ([1], Outcome.CONGESTED)
    pieces(house)
    house.send(("m", b"{}"))
    assert house.sender.ended[-1] == ([1], Outcome.TAKEN)


def test_a_payload_is_decoded_once_whatever_else_its_rules_read_from(tmp_path: Path) -> None:
    rules = rule("one", "SELECT c FROM 'a'", 'from = ["broker"]\nto = ["cloud"]')
    rules += rule("two", "SELECT c + 1 AS c FROM 'a'", 'from = ["broker", "boards"]\nto = ["cloud"]')
    rules += rule("three", "SELECT c + 2 AS c FROM 'a'", 'from = ["boards"]\nto = ["cloud"]')
    rules += rule("four", "SELECT c + 3 AS c FROM 'a'", 'from = ["board:b"]\nto = ["cloud"]')
    text = '[[board]]\nname = "b"\nport = "/dev/null"\n' + rules
    decoded = []

    def count(form: str, columns: Sequence[str]) -> Decoder:
        decode = decoder(form, columns)

        def counting(payload: bytes) -> Any:
            decoded.append(payload)
            return decode(payload)

        return counting

    house = House(text, tmp_path, count)
    assert len(house.engines) == 1
    for source, expected in (("broker", ["one", "two"]), ("board:b", ["two", "three", "four"])):
        decoded.clear()
        house.cloud.got.clear()
        house.router.route(source, "b", [Message("a", b'{"c":1}', 1, receipt=1)], house.sender)
        assert [topic for topic, _ in house.cloud.got] == [f"rule/{name}" for name in expected]
        assert len(decoded) == 1
        assert house.sender.ended[-1] == ([1], Outcome.TAKEN)


def test_who_sends_what_cannot_be_read_is_told_but_not_without_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    house = House(rule("r", "SELECT c FROM 'a/+'") + rule("q", "SELECT c FROM 'a/x'"), tmp_path)
    with caplog.at_level("WARNING"):
        for _ in range(3):
            house.send(("a/x", b"junk"), ("a/y", b"{}"))
        for at in range(50):
            house.send((f"a/{at}", b"junk"))
        first = len(caplog.records)
        house.now = TOLD_MS
        house.send(("a/x", b"junk"))
    told = [vars(record)["fields"] for record in caplog.records]
    assert told[0] == {
        "rule": "q, r", "topic": "a/x", "client": "b", "reason": "payload_not_json", "payload_bytes": 4, "untold": 0,
    }  # fmt: skip
    assert (first, len(told), told[1]["untold"], told[-1]["untold"]) == (TOLD_MAX, TOLD_MAX + 1, 2, 41)
    assert house.count('rule_payloads_rejected{reason="payload_not_json",rule="q"}') == 4
    assert house.count('rule_payloads_rejected{reason="payload_not_json",rule="r"}') == 54


def test_explain_names_both_topics_of_a_join(tmp_path: Path) -> None:
    read = read_rules(parse_config(HEAD + rule("r", JOIN), str(tmp_path / "gateway.toml")))
    assert explain(read, "boards", "dt/x/hum")["r"].startswith("yes: FROM 'dt/+/temp' and 'dt/+/hum'")
    assert explain(read, "boards", "dt/x/co2")["r"].startswith("no: FROM 'dt/+/temp' and 'dt/+/hum'")


def test_a_reading_seen_before_is_no_message_again(tmp_path: Path) -> None:
    house = House(rule("r", "SELECT c FROM 'a'"), tmp_path)
    for sequences in ([1, 2], [2, 3], [1]):
        batch = [Message("a", b'{"c":%d}' % one, 1, False, one, None, Reading("b", 1, one)) for one in sequences]
        house.router.route("boards", "b", batch, house.sender)
    assert [payload for _, payload in house.cloud.got] == [b'{"c":1}', b'{"c":2}', b'{"c":3}']
    assert house.sender.ended == [([1, 2], Outcome.TAKEN), ([2, 3], Outcome.TAKEN), ([1], Outcome.TAKEN)]
    assert house.count("rule_messages_repeated") == 2


def test_windows_close_by_the_clock(tmp_path: Path) -> None:
    house = House(rule("r", "SELECT count(*) AS n FROM 'a' GROUP BY TUMBLINGWINDOW(ss, 1)"), tmp_path)
    house.send(("a", b"{}"), ("a", b"{}"))
    house.now = 1000
    house.tick()
    assert house.cloud.got == [("rule/r", b'{"n":2}')]


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"[" * 100_000, "payload_too_deep"),
        (b'{"c":NaN}', "payload_not_json"),
        (b'{"c":"\\ud800"}', "payload_not_json"),
        (b"\xff\xfe", "payload_not_json"),
        (b"", "payload_not_json"),
        (b'"' + b"x" * 131_072 + b'"', "payload_too_long"),
    ],
)
def test_a_hostile_payload_is_counted_and_stops_nothing(tmp_path: Path, payload: bytes, reason: str) -> None:
    house = House(rule("r", "SELECT c FROM 'a'"), tmp_path)
    house.send(("a", b'{"c":1}'), ("a", payload), ("a", b'{"c":2}'))
    assert [one for _, one in house.cloud.got] == [b'{"c":1}', b'{"c":2}']
    assert house.count(f'rule_payloads_rejected{{reason="{reason}",rule="r"}}') == 1
    assert house.sender.ended == [([1, 2, 3], Outcome.TAKEN)]


@pytest.mark.parametrize(
    "payload",
    [b'{"c":1,"c":2}', b'{"c":1e999}', b'{"c":' + b"9" * 400 + b"}", b"[1]", b"3", b'"c"', b"null", b'{"c":{"c":[]}}'],
)
def test_an_odd_payload_ends_nothing(tmp_path: Path, payload: bytes) -> None:
    sql = "SELECT g, c * c AS d, sum(c) AS s, stddev(c) AS v, percentile(c, 0.5) AS p FROM 'a' GROUP BY "
    rules = rule("r", sql.replace("c * c AS d, ", "") + "g, COUNTWINDOW(2)") + rule("q", "SELECT c * c AS d FROM 'a'")
    house = House(rules, tmp_path)
    house.send(("a", payload), ("a", b'{"c":2}'))
    assert house.cloud.got[-1] == ("rule/q", b'{"d":4}')


def test_raw_payloads_are_any_bytes(tmp_path: Path) -> None:
    sql = "SELECT topic(2) AS b, encode(*, 'base64') AS data FROM 'a/+'"
    house = House(rule("r", sql, 'to = ["cloud"]\npayload = "raw"'), tmp_path)
    house.send(("a/x", b"\x00\xff"), ("a/y", b"["))
    assert [one for _, one in house.cloud.got] == [b'{"b":"x","data":"AP8="}', b'{"b":"y","data":"Ww=="}']


def test_a_row_whose_topic_would_gain_levels_is_counted(tmp_path: Path) -> None:
    house = House(rule("r", "SELECT b FROM 'a'", 'to = ["cloud"]\ntopic = "x/${b}"'), tmp_path)
    house.send(("a", b'{"b":"y/z"}'), ("a", b'{"b":"#"}'), ("a", b"{}"), ("a", b'{"b":"y"}'))
    assert [topic for topic, _ in house.cloud.got] == ["x/y"]


def test_csv_and_cbor_are_read_too(tmp_path: Path) -> None:
    rules = rule("r", "SELECT c, n FROM 'a'", 'to = ["cloud"]\npayload = "csv"\ncolumns = ["c", "n"]')
    house = House(rules + rule("q", "SELECT c FROM 'b'", 'to = ["cloud"]\npayload = "cbor"'), tmp_path)
    house.send(("a", b"21.5,x"), ("b", b"\xa1\x61c\xf9\x3e\x00"), ("b", b"\xa1\x61c"), ("b", b"\x81" * 10_000))
    assert house.cloud.got == [("rule/r", b'{"c":21.5,"n":"x"}'), ("rule/q", b'{"c":1.5}')]
    assert house.count('rule_payloads_rejected{reason="payload_cbor",rule="q"}') == 2


FUNCTION = """
[[function]]
name = "f"
exec = ["/bin/false"]
subscribe = ["y"]
from = ["rule:a"]
publish = ["z", "x"]
to = []
"""


@pytest.mark.parametrize(
    ("text", "field", "way"),
    [
        (
            rule("a", "SELECT c FROM 'x'", 'from = ["boards", "rule:b"]\ntopic = "y"')
            + rule("b", "SELECT c FROM 'y'", 'from = ["rule:a"]\ntopic = "x"'),
            "rule[2].topic",
            "'x' comes back to rule:a by 'x': rule:a gives 'y' to rule:b, rule:b gives 'x' to rule:a",
        ),
        (
            rule("o", "SELECT c FROM 'o'")
            + rule("a", "SELECT c FROM 'x'", 'from = ["function:f"]\ntopic = "y"')
            + FUNCTION,
            "rule[2].topic",
            "'y' comes back to function:f by 'y': function:f gives 'x' to rule:a, rule:a gives 'y' to function:f",
        ),
        (
            rule("a", "SELECT c FROM 'x/#'", 'from = ["rule:c"]\ntopic = "y"')
            + rule("b", "SELECT c FROM 'y'", 'from = ["rule:a"]\ntopic = "z"')
            + rule("c", "SELECT c FROM 'z'", 'from = ["rule:b"]\ntopic = "x/1"'),
            "rule[3].topic",
            "rule:a gives 'y' to rule:b, rule:b gives 'z' to rule:c, rule:c gives 'x/1' to rule:a",
        ),
        (rule("a", "SELECT c FROM 'x'", 'from = ["rule:a"]\ntopic = "x"'), "rule[1].topic", "back to it by 'x'"),
        (
            rule("a", "SELECT c FROM 'batch/#'", 'from = ["cloud"]\nto = ["stream:s"]')
            + '[[stream]]\nname = "s"\nformat = "ndjson"\n',
            "stream[1].batch_topic",
            "rule:a gives 'rule/a' to stream:s, stream:s gives 'batch/g/s' to rule:a",
        ),
        (
            rule("a", "SELECT c FROM 'x'", 'from = ["cloud"]\ntopic = "y"\nto = ["function:f"]')
            + FUNCTION.replace('from = ["rule:a"]\n', "").replace("to = []", 'to = ["cloud"]'),
            "rule[1].topic",
            "function:f gives 'x' to rule:a, rule:a gives 'y' to function:f",
        ),
    ],
)
def test_a_loop_is_told_with_what_closes_it_and_the_way_round(tmp_path: Path, text: str, field: str, way: str) -> None:
    with pytest.raises(ConfigError) as refused:
        House(text, tmp_path)
    assert (refused.value.field, way in str(refused.value)) == (field, True), str(refused.value)


@pytest.mark.parametrize(
    ("rules", "problem"),
    [
        (rule("r", "SELECT a FROM 'rule/#'", 'from = ["rule:r"]'), "rule[1].topic: "),
        (rule("r", "SELECT a FROM 'x/+'", 'from = ["broker"]\nto = ["broker"]\ntopic = "x/${a}"'), "comes back"),
        (
            rule("r", "SELECT a FROM 'rule/q'", 'from = ["rule:q"]')
            + rule("q", "SELECT a FROM 'rule/r'", 'from = ["rule:r"]'),
            "comes back",
        ),
        (rule("r", JOIN, 'from = ["boards", "rule:r"]\ntopic = "dt/x/hum"'), "comes back"),
        (rule("r", "SELECT a,\n  avrg(b) FROM 'x'"), "line 2, column 3: avrg() is no function. Did you mean avg()?"),
        (
            rule("r", "SELECT a,\n  lookup('sites', c, 'x') AS d FROM 'x'"),
            "line 2, column 3: lookup() names no table: 'sites'. Add tables =",
        ),
        (rule("r", "SELECT a FROM 'x'", 'to = ["clod"]'), "'clod' is nowhere"),
        (rule("r", "SELECT a FROM 'x'") * 2, "another rule's"),
        (rule("r", "SELECT a FROM 'x'", 'payload = "csv"'), "columns"),
        (rule("r", "SELECT a FROM 'x'", "lateness_s = 1"), "without time"),
        (rule("r", "SELECT a FROM 'x'", 'tables = {t = "none.csv"}'), "cannot be read"),
        (rule("r", "SELECT a FROM 'x'", 'topic = "a/#"'), "wildcard"),
    ],
)
def test_a_wrong_rule_stops_the_start(tmp_path: Path, rules: str, problem: str) -> None:
    with pytest.raises(ConfigError, match="rule") as refused:
        House(rules, tmp_path)
    assert problem in str(refused.value)
