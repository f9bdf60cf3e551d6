"""`edge try` gives what the gateway gave: a live engine, recorded as `edge watch` shows it, and a trial of that."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge.config import parse_config
from edge.control import describe
from edge.messages import Message, Properties, Reading
from edge.outbox.marks import Marks
from edge.rules.build import read_rules
from edge.rules.payloads import decoder
from edge.rules.recorded import Recorded, Trial, read_lines
from tests.rules.test_engine import HEAD, House, rule

START = 1_763_700_000_000


class Recording(House):
    """A live engine whose messages are recorded."""

    def __init__(self, text: str, folder: Path) -> None:
        super().__init__(text, folder)
        self.lines: list[bytes] = []
        self.router.tap(self._record)

    def _record(self, source: str, messages: Sequence[Message]) -> None:
        if not source.startswith("rule:"):
            self.lines += [msgspec.json.encode(describe(source, one, self.now / 1000)) for one in messages]

    def give(self, now: int, message: Message) -> None:
        """The clock ticks once a second until then."""
        while self.now < now:
            self.now = min(now, self.now + 1000)
            self.tick()
        self.router.route("boards", "b", [message], self.sender)


def tried(text: str, folder: Path, lines: Sequence[bytes]) -> list[Any]:
    (read,) = read_rules(parse_config(HEAD + text, str(folder / "gateway.toml")))
    trial = Trial(read.compile(), decoder(read.settings.payload, read.settings.columns), Marks({}))
    return [row for one in read_lines(lines) for row in trial.feed(one)]


NAMED = Properties("r", b"\xff", "text/plain", payload_is_utf8=True, expiry_s=9, user=(("site", "x"), ("site", "y")))


def one_in_two_is_late(second: int) -> Message:
    return Message("dt/b1/temp", b'{"at":%d}' % (START + 1000 * second - second % 2 * 3000))


RULES = {
    "clientid": (
        "SELECT clientid() AS who, c FROM 'dt/+/temp' WHERE clientid() = 'b1'",
        "",
        [Message("dt/b1/temp", b'{"c":%d}' % at, reading=Reading(f"b{at % 2}", 1, 1 + at)) for at in range(4)],
    ),
    "a reading that comes again": (
        "SELECT c FROM 'dt/+/temp'",
        "",
        [Message("dt/b1/temp", b'{"c":1}', reading=Reading("b1", 1, at)) for at in (1, 2, 2, 1, 3)],
    ),
    "timestamp": (
        "SELECT timestamp() AS t FROM 'dt/+/temp' WHERE timestamp() - at < 2000",
        "",
        [Message("dt/b1/temp", b'{"at":%d}' % START) for _ in range(4)],
    ),
    "user properties": (
        "SELECT get_user_properties('site') AS s FROM 'dt/+/temp' WHERE cardinality(get_user_properties('site')) = 2",
        "",
        [Message("dt/b1/temp", b"{}", properties=one) for one in (NAMED, None, Properties(user=(("site", "z"),)))],
    ),
    "properties": (
        "SELECT get_mqtt_property('format_indicator') AS f, get_mqtt_property('content_type') AS c, "
        "get_mqtt_property('response_topic') AS r, get_mqtt_property('correlation_data') AS d FROM 'dt/+/temp'",
        "",
        [Message("dt/b1/temp", b"{}", properties=one) for one in (NAMED, None, Properties())],
    ),
    "idle_s": (
        "SELECT count(*) AS n, window_start() AS s FROM 'dt/+/temp' GROUP BY TUMBLINGWINDOW(ss, 10)",
        'time = "at"\nlateness_s = 5\nidle_s = 8',
        [one_in_two_is_late(second) for second in range(40)],
    ),
}


@pytest.mark.parametrize("name", RULES)
def test_a_trial_gives_the_rows_that_the_gateway_gave(tmp_path: Path, name: str) -> None:
    sql, more, messages = RULES[name]
    text = rule("r", sql, f'to = ["cloud"]\n{more}')
    house = Recording(text, tmp_path)
    house.now = START
    for second, message in enumerate(messages):
        house.give(START + 1000 * second, message)
    rows = [json.loads(payload) for _, payload in house.cloud.got]
    assert tried(text, tmp_path, house.lines) == rows != []


def test_a_recording_of_before_is_read(tmp_path: Path) -> None:
    line = b'{"time":1.5,"topic":"dt/b1/temp","payload_base64":"/w==","qos":1,"response_topic":"r","source":"board:b1"}'
    (found,) = read_lines([line])
    assert found.message() == Message("dt/b1/temp", b"\xff", properties=Properties("r"))
    assert Recorded(1.5, "t", "x").message() == Message("t", b"x")
