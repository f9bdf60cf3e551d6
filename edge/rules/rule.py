"""One compiled rule: batches of decoded messages in, rows out. Pure: time is what it is told."""

from typing import Any

from edge.messages import Message
from edge.rules.compiling import Code, Tables
from edge.rules.joining import JoinCode
from edge.rules.joins import Joining
from edge.rules.plan import Plan
from edge.rules.sliding import Sliding
from edge.rules.windows import Memory

Row = tuple[Message | None, Any]
"""The message a row stems from (None for a window's) and the row: a dict, or with `SELECT *` any payload."""


class Rule:
    """time: path of the event time in ms within a payload; empty for the time of arrival."""

    def __init__(
        self,
        name: str,
        plan: Plan,
        *,
        time: tuple[str | int, ...] = (),
        lateness_ms: int = 0,
        keys_max: int = 10_000,
        events_max: int = 20_000,
        tables: Tables | None = None,
    ) -> None:
        self.name = name
        self.plan = plan
        lateness_ms = lateness_ms if time else 0
        tables = tables or {}
        if plan.join is not None:
            held = Joining(plan.window, [], [], lateness_ms, keys_max, events_max=events_max, outer=plan.join.outer)
            self._memory: Memory = held
            code: Code = JoinCode(plan, held, time, tables)
        elif plan.window is not None and plan.window.kind == "sliding":
            self._memory = Sliding(plan.window, [], [], lateness_ms, keys_max, events_max=events_max)
            code = Code(plan, self._memory, time, tables)
        else:
            self._memory = Memory(plan.window, [], [], lateness_ms, keys_max)
            code = Code(plan, self._memory, time, tables)
        self._arrival = not time
        self.run = code.build()
        """run(messages, docs, now_ms) -> list[Row]; docs: a payload a message. Never raises for what they hold."""
        self.source = code.source

    @property
    def counts(self) -> dict[str, int]:
        """What was left out, by reason."""
        return self._memory.counts

    def tick(self, now_ms: int) -> list[Row]:
        """Let time pass without a message: closes windows in arrival time. Event time moves with events alone."""
        rows: list[Row] = []
        memory = self._memory
        if self._arrival and memory.kind not in {"", "count"} and now_ms > memory.watermark:
            memory.watermark = now_ms
            if now_ms >= memory.close_at:
                memory.close(now_ms, rows)
        return rows

    def flush(self) -> list[Row]:
        """Close every window, as at the end of a recording."""
        rows: list[Row] = []
        self._memory.close(2**62, rows)
        return rows

    def state(self) -> dict[str, bytes]:
        """What changed since the last call, by entry; b'' for what is gone. Kept with the position in the input, it
        makes a restart give what an uninterrupted run gives."""
        return self._memory.state()

    def restore(self, entries: dict[str, bytes]) -> None:
        """Into a rule that saw no message yet: the last value of each entry."""
        self._memory.restore(entries)
