"""A gateway's rules with their log: a board that sends again what is not acknowledged, a cloud with a book."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from edge.config import StreamSettings, parse_config
from edge.log import Files, Log
from edge.messages import Message, Origin, Outcome, Reading
from edge.metrics import Metrics
from edge.outbox.drain import Drain
from edge.outbox.opening import BOOT, next_boot
from edge.outbox.stream import Stream
from edge.router import Router
from edge.rulelog.rulelog import RuleLog
from edge.rules.build import CompiledRule, ReadRule, read_rules, rule_routes
from tests.log.history import options

HEAD = """
[gateway]
name = "g"
data_dir = "state"
[rules]
commit = "every message"
[cloud]
host = "h"
tls = false
[broker]
host = "h"
tls = false
"""

# Of every kind of memory one; event time, so that no clock has a say. BY_THE_CLOCK: the other way about.
RULES = """
[[rule]]
name = "tumbling"
sql = "SELECT g, count(*) AS n, sum(c) AS s, min(c) AS lo FROM 'dt/+' GROUP BY g, TUMBLINGWINDOW(ms, 10)"
time = "t"
lateness_s = 0.003
to = ["cloud"]
[[rule]]
name = "hopping"
sql = "SELECT g, avg(c) AS a, window_start() AS w FROM 'dt/+' GROUP BY g, HOPPINGWINDOW(ms, 10, 4)"
time = "t"
to = ["cloud"]
[[rule]]
name = "session"
sql = "SELECT g, collect(c) AS c FROM 'dt/+' GROUP BY g, SESSIONWINDOW(ms, 2)"
time = "t"
to = ["cloud"]
[[rule]]
name = "counted"
sql = "SELECT g, max(c) AS m, first(c) AS f FROM 'dt/+' GROUP BY g, COUNTWINDOW(4)"
time = "t"
to = ["cloud"]
[[rule]]
name = "changed"
sql = "SELECT c FROM 'dt/+' WHERE changed(c, 3) AND every(2)"
to = ["cloud"]
[[rule]]
name = "sliding"
sql = "SELECT g, sum(c) AS s, first(c) AS f, count(*) AS n FROM 'dt/+' GROUP BY g, SLIDINGWINDOW(ms, 25)"
time = "t"
lateness_s = 0.004
to = ["cloud"]
[[rule]]
name = "join"
sql = '''SELECT a.g AS g, a.c AS c, b.t AS t FROM 'dt/+' AS a LEFT JOIN 'dt/b1' AS b ON a.g = b.g AND a.c < b.c
 GROUP BY HOPPINGWINDOW(ms, 12, 8)'''
time = "t"
lateness_s = 0.003
to = ["cloud"]
[[rule]]
name = "filtered"
sql = "SELECT t, g FROM 'dt/+' WHERE c > 7"
to = ["cloud"]
[[rule]]
name = "on"
sql = "SELECT sum(n) AS n FROM 'rule/tumbling' GROUP BY COUNTWINDOW(5)"
from = ["rule:tumbling"]
to = ["cloud"]
"""

BY_THE_CLOCK = """
[[rule]]
name = "tumbling"
sql = "SELECT g, count(*) AS n, sum(c) AS s FROM 'dt/+' GROUP BY g, TUMBLINGWINDOW(ss, 10)"
to = ["cloud"]
[[rule]]
name = "long"
sql = "SELECT topic() AS g, count(*) AS n, window_start() AS w FROM 'dt/+' GROUP BY topic(), TUMBLINGWINDOW(mi, 2)"
to = ["cloud"]
[[rule]]
name = "hopping"
sql = "SELECT g, collect(c) AS c, window_start() AS w FROM 'dt/+' GROUP BY g, HOPPINGWINDOW(ss, 20, 8)"
to = ["cloud"]
[[rule]]
name = "session"
sql = "SELECT g, collect(c) AS c FROM 'dt/+' GROUP BY g, SESSIONWINDOW(ss, 10)"
to = ["cloud"]
[[rule]]
name = "sliding"
sql = "SELECT g, sum(c) AS s, count(*) AS n FROM 'dt/+' GROUP BY g, SLIDINGWINDOW(ss, 25)"
to = ["cloud"]
[[rule]]
name = "join"
sql = "SELECT a.t AS t, b.t AS u FROM 'dt/+' AS a JOIN 'dt/b1' AS b ON a.g = b.g GROUP BY HOPPINGWINDOW(ss, 12, 8)"
to = ["cloud"]
[[rule]]
name = "in_the_payload"
sql = "SELECT g, collect(c) AS c, window_start() AS w FROM 'dt/+' GROUP BY g, TUMBLINGWINDOW(mi, 2)"
time = "now"
lateness_s = 3
to = ["cloud"]
"""


def reading(number: int) -> dict[str, Any]:
    """What the board says in its number-th reading: some late, some far apart, three groups."""
    return {
        "t": number * 2 + (number * 7 % 5) - (9 if number % 11 == 0 else 0),
        "g": "abc"[number % 3],
        "c": number * 5 % 13,
    }


def message(number: int) -> Message:
    payload = msgspec.json.encode(reading(number))
    return Message("dt/b1", payload, 1, False, number, None, Reading("b1", 1, number))


class Cloud:
    """Takes rows, and knows each by its name."""

    def __init__(self, clock: Callable[[], int] = lambda: 0) -> None:
        self.answers: Outcome | None = Outcome.TAKEN
        self.got: list[tuple[int, Message]] = []
        self._clock = clock
        self.kept: list[tuple[int, Origin]] = []

    def send(self, messages: Sequence[Message], origin: Origin) -> None:
        if self.answers is None:
            self.kept += [(one.receipt, origin) for one in messages]
            return
        if self.answers is Outcome.TAKEN:
            self.got += [(self._clock(), one) for one in messages]
        origin.settled([one.receipt for one in messages], self.answers)


def rows(got: Sequence[Message]) -> dict[str, list[bytes]]:
    """By topic in their order, each name once."""
    seen: dict[Reading, bytes] = {}
    found: dict[str, list[bytes]] = {}
    for one in got:
        assert one.reading is not None
        if one.reading in seen:
            assert seen[one.reading] == one.payload
            continue
        seen[one.reading] = one.payload
        found.setdefault(one.topic, []).append(one.payload)
    return found


class Board:
    """Sends its readings in order and remembers which are acknowledged, and when."""

    def __init__(self, clock: Callable[[], int] = lambda: 0) -> None:
        self._clock = clock
        self.acknowledged: list[tuple[int, int]] = []
        self.congested: list[int] = []

    def settled(self, receipts: Sequence[int], outcome: Outcome) -> None:
        if outcome is Outcome.TAKEN:
            self.acknowledged += [(self._clock(), receipt) for receipt in receipts]
        else:
            self.congested += receipts


class Shelf:
    """What a rule log needs of an outbox; files: of the disk."""

    def __init__(self, metrics: Metrics, files: Files | None = None, folder: str = "", *, segment_bytes: int = 1 << 20):
        self.metrics, self.files, self.folder, self.segment_bytes = metrics, files, folder, segment_bytes
        self.streams: dict[str, Stream] = {}
        self.drains: list[Drain] = []

    def open(self, settings: StreamSettings, folder: str, own: str) -> Stream:
        log = Log.open(self.folder or folder, self.files, options=options(self.segment_bytes), metrics=self.metrics)
        boot = next_boot(log.state.get(BOOT), 0)
        log.put_state(BOOT, msgspec.msgpack.encode(boot))
        size = self.segment_bytes
        stream = Stream(settings, log, own, self.metrics, boot=boot, system_boot="b", segment_bytes=size)
        self.streams[settings.name] = stream
        return stream

    def export(self, stream: Stream, drain: Drain, backlog: Callable[[], int]) -> None:
        self.drains.append(drain)


class House:
    """One life of a gateway. The next on the same folder or disk is another."""

    def __init__(
        self, text: str, folder: Path, cloud: Cloud, *, files: Files | None = None, segment_bytes: int = 1 << 20
    ) -> None:
        self.file = str(folder / "gateway.toml")
        self.metrics = Metrics()
        self.now_ms = 1_000_000
        self.shelf = Shelf(
            self.metrics, files, "/rules" if files else str(folder / "rules"), segment_bytes=segment_bytes
        )
        self.config = parse_config(HEAD + text, self.file)
        self.router = Router([], self.metrics)
        self.cloud = cloud
        self.router.attach("cloud", cloud)
        self.log = RuleLog(
            self.config, self.shelf, self.router, self.metrics,  # type: ignore[arg-type]
            now=lambda: asyncio.get_running_loop().time(), unix_time_ms=lambda: self.now_ms,
        )  # fmt: skip
        self.change(text)

    def change(self, text: str, read: Sequence[ReadRule] | None = None) -> None:
        config = parse_config(HEAD + text, self.file)
        read = read_cached(HEAD + text, self.file) if read is None else read
        self.routes = [*config.all_routes, *rule_routes(read)]
        self.router.change(self.routes)
        self.log.change([CompiledRule(one) for one in read], self.routes)

    def start(self) -> None:
        self.stream.start()
        for drain in self.shelf.drains:
            drain.pump()
        self.log.start()

    @property
    def stream(self) -> Stream:
        return self.shelf.streams["rules"]

    def send(self, numbers: Sequence[int], board: Board) -> None:
        self.router.route("board:b1", "b1", [message(number) for number in numbers], board)

    async def rest(self) -> None:
        """Until all is given and committed, and nobody has more to send on."""
        async with asyncio.timeout(20):
            while self.log.is_giving or self.stream.is_busy or self.stream.sent().position < self.stream.log.next:
                await asyncio.sleep(0.001)

    def stop(self) -> None:
        for drain in self.shelf.drains:
            drain.stop()
        self.stream.close()

    def kill(self) -> None:
        for drain in self.shelf.drains:
            drain.stop()
        self.stream.abandon()

    def count(self, title: str) -> float:
        return self.metrics.snapshot().get(title, 0)


_read: dict[tuple[str, str], list[ReadRule]] = {}


def read_cached(text: str, file: str) -> list[ReadRule]:
    """The parser's child costs half a second."""
    found = _read.get((text, file))
    if found is None:
        found = _read[text, file] = read_rules(parse_config(text, file))
    return found
