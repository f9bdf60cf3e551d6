"""Rules over JSON payloads in one process: from a batch of messages to the batch of rows, beside a bare loop; and one
of them in a whole gateway, see window.py. change_live_s: see change.py."""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import orjson

from edge.messages import Message, Origin, Outcome
from edge.metrics import Metrics
from edge.outbox.marks import Marks
from edge.rules.child import parse_rules
from edge.rules.engine import NOBODY, Engine, KeptRow, Output
from edge.rules.payloads import decoder
from edge.rules.rule import Rule
from tests.bench import window
from tests.bench.change import GOAL_S, rule_live_s
from tests.bench.figures import Context, Figure, check_all_arrived, figure, times
from tests.bench.relay.flow import brokers, on_the_others_core

DESCRIPTION = "filter, dead-band and window rules over JSON, beside a bare loop and bytewax"

SOURCES = 1000
BATCH = 256
COMMIT_MESSAGES = 4096  # what gathers at these rates while one commit, some 3 ms, is on its way to the disk
WINDOW_S = 10
_SOURCES_WEIGHED = 20_000

RULES = {
    "filter": "SELECT topic(2) AS board, c FROM 'dt/+/temp' WHERE c > 30",
    "deadband": "SELECT topic(2) AS board, c FROM 'dt/+/temp' WHERE changed(c, 0.5)",
    "window": "SELECT topic(2) AS board, avg(c) AS c FROM 'dt/+/temp' "
    f"GROUP BY topic(2), TUMBLINGWINDOW(ss, {WINDOW_S})",
}


class _Book:
    """Takes rows as the rules' log would, and what rules remember as often as its commits would ask for it."""

    def __init__(self) -> None:
        self.rows = self.messages = 0
        self.engine: Engine | None = None
        self.is_asked = False

    def has_room(self) -> bool:
        return True

    def come_again(self) -> None:
        self.is_asked = True

    def keep(self, rows: Sequence[KeptRow], origin: Origin, receipts: Sequence[int], messages: int) -> None:
        self.rows += len(rows)
        self.messages += messages
        if self.messages >= COMMIT_MESSAGES and self.engine is not None:
            self.messages = 0
            for output in self.engine.touched:
                output.rule.state()
            self.engine.touched.clear()
        if receipts:
            origin.settled(receipts, Outcome.TAKEN)


def run(context: Context) -> list[Figure]:
    count = context.pick(200_000, 60_000)
    messages = _messages(count)
    plans = {name: _plan(sql) for name, sql in RULES.items()}
    ways: dict[str, Callable[[], float]] = {}
    for name, plan in plans.items():
        for many in (1, 10, 100):
            share = messages[: max(count // many, 20_000)]
            ways[f"{name}_{many}"] = partial(_ours, name, plan, many, share)
    ways["bare_loop"] = lambda: _bare(messages)
    ways["bytewax"] = lambda: _bytewax(messages[:20_000])
    results = context.interleaved(ways)
    figures = []
    for name in plans:
        for many in (1, 10, 100):
            title = f"{name}_msgs_per_s" + (f"_{many}_rules" if many > 1 else "")
            peers = ["bare_loop", "bytewax"] if name == "window" and many == 1 else ["bare_loop"]
            figures.append(
                figure(
                    title,
                    results[f"{name}_{many}"],
                    "1/s",
                    "higher",
                    goal=times(0.3, "bare_loop") if many == 1 else None,
                    references={peer: results[peer] for peer in peers},
                )
            )
    weighed = [_pss_mb_per_1000() for _ in range(3)]
    figures.append(figure("pss_mb_per_1000_sources", weighed, "MB", "lower"))
    context.progress("  from broker to cloud")
    figures += window.figures(context)
    context.progress("  a rule that changes")
    with on_the_others_core(), brokers(context, None) as (local, cloud):
        changes = context.interleaved({"change": lambda: rule_live_s(context, local, cloud)})["change"]
    return [*figures, figure("change_live_s", changes, "s", "lower", goal=GOAL_S)]


def _messages(count: int) -> list[Message]:
    """Ten turns of all sources within a window of event time; values move by 0.25 a turn."""
    return [
        Message(f"dt/b{at % SOURCES}/temp", b'{"c":%.4f,"up_ms":%d}' % (20 + at // SOURCES % 80 / 4, at))
        for at in range(count)
    ]


def _plan(sql: str) -> Any:
    (answer,) = parse_rules([sql])
    assert answer.plan is not None, answer.mistake
    return answer.plan


def _ours(name: str, plan: Any, many: int, messages: list[Message]) -> float:
    """Messages a second of CPU; each message is seen by all rules."""
    book, metrics = _Book(), Metrics()
    time_path = ("up_ms",) if name == "window" else ()
    outputs = [Output(Rule(f"r{n}", plan, time=time_path), f"g/rule/r{n}", f"rule/r{n}", metrics) for n in range(many)]
    engine = Engine(
        outputs, decoder("json"), book=book, seen=Marks({}), metrics=metrics, unix_time_ms=lambda: len(messages)
    )
    book.engine = engine
    port = engine.port("boards")
    batches = [messages[at : at + BATCH] for at in range(0, len(messages), BATCH)]
    began = time.process_time()
    for batch in batches:
        port.send(batch, NOBODY)
        while book.is_asked:
            book.is_asked = False
            engine.give()
    took = time.process_time() - began
    check_all_arrived(f"rows of {name}", _expected(name, messages) * many, book.rows)
    return len(messages) / took


def _expected(name: str, messages: list[Message]) -> int:
    values = [orjson.loads(message.payload)["c"] for message in messages]
    if name == "filter":
        return sum(value > 30 for value in values)
    if name == "window":
        return (len(messages) - 1) // (WINDOW_S * 1000) * SOURCES
    rows, last = 0, dict[str, float]()
    for message, value in zip(messages, values, strict=True):
        if abs(value - last.get(message.topic, -1e9)) >= 0.5:
            last[message.topic] = value
            rows += 1
    return rows


def _bare(messages: list[Message]) -> float:
    """The limit: decode and keep in a dictionary."""
    loads = orjson.loads
    last: dict[str, float] = {}
    began = time.process_time()
    for message in messages:
        last[message.topic] = loads(message.payload)["c"]
    took = time.process_time() - began
    check_all_arrived("sources of the bare loop", SOURCES, len(last))
    return len(messages) / took


def _bytewax(messages: list[Message]) -> float:
    """The peer: the same window as a bytewax data flow, on one worker."""
    from datetime import datetime, timedelta, timezone

    import bytewax.operators as op
    import bytewax.operators.windowing as win
    from bytewax.dataflow import Dataflow
    from bytewax.testing import TestingSink, TestingSource, run_main

    start = datetime(2026, 1, 1, tzinfo=timezone.utc)  # noqa: UP017 as its own documents write it
    rows: list[Any] = []

    def decoded(message: Message) -> tuple[str, dict[str, Any]]:
        return message.topic.split("/")[1], orjson.loads(message.payload)

    clock: Any = win.EventClock(
        ts_getter=lambda doc: start + timedelta(milliseconds=doc["up_ms"]), wait_for_system_duration=timedelta(0)
    )
    windower = win.TumblingWindower(length=timedelta(seconds=WINDOW_S), align_to=start)
    flow = Dataflow("mean")
    keyed = op.map("decode", op.input("in", flow, TestingSource(messages, batch_size=BATCH)), decoded)
    folded = win.fold_window(
        "mean",
        keyed,
        clock,
        windower,
        lambda: (0.0, 0),
        lambda held, doc: (held[0] + doc["c"], held[1] + 1),
        lambda one, other: (one[0] + other[0], one[1] + other[1]),
    )
    means = op.map("row", folded.down, lambda row: (row[0], row[1][1][0] / row[1][1][1]))
    op.output("out", means, TestingSink(rows))
    began = time.process_time()
    run_main(flow)  # type: ignore[no-untyped-call]
    took = time.process_time() - began
    check_all_arrived("rows of bytewax", -(-len(messages) // (WINDOW_S * 1000)) * SOURCES, len(rows))
    return len(messages) / took


def _pss_mb_per_1000() -> float:
    command = [sys.executable, "-c", "from tests.bench.bench_rules import weigh; weigh()"]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def weigh() -> None:
    """In a process of its own: what a window of many sources adds to its memory, for each 1,000 of them."""
    rule = Rule("r", _plan(RULES["window"]), time=("up_ms",), keys_max=_SOURCES_WEIGHED)
    before = _pss_kb()
    for at in range(_SOURCES_WEIGHED):
        rule.run([Message(f"dt/b{at}/temp", b"")], [{"c": at / 7, "up_ms": 1}], 1)
    print((_pss_kb() - before) / 1024 / (_SOURCES_WEIGHED / 1000))


def _pss_kb() -> int:
    with open("/proc/self/smaps_rollup") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
