"""One compiled rule: batches of decoded messages in, rows out. Pure: time is what it is told."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from edge.messages import Message
from edge.rules.compiling import Code, Tables
from edge.rules.joining import JoinCode
from edge.rules.joins import Joining
from edge.rules.plan import Plan
from edge.rules.sliding import Sliding
from edge.rules.windows import Memory

Row = tuple[Message | None, Any]
"""The message a row stems from (None for a window's) and the row: a dict, or with `SELECT *` any payload."""

_STATE_VERSION = 2
_SLACK_MS = 1_000
_STILL_MS_MAX = 60_000


class Rule:
    """time: path of the event time in ms within a payload; empty for the time of arrival. idle_ms: when nothing came
    for so long (and the lateness), windows in event time that have ended by the clock close all the same; 0: they
    wait for the next event.
    heard_ms: when the rule last got a message, kept by whoever calls `run`; -1: unknown.

    When the clock is put back the rule is ahead of it. By little, time of arrival stands still until the clock has
    caught up: at most a window's size, or a minute. By more, `fall_back` ends what is open and begins time anew."""

    def __init__(
        self,
        name: str,
        plan: Plan,
        *,
        time: tuple[str | int, ...] = (),
        lateness_ms: int = 0,
        idle_ms: int = 0,
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
        self._silence_ms = idle_ms + lateness_ms if time and idle_ms else 0
        size = plan.window.size if plan.window else 0
        self._slack_ms = _SLACK_MS + lateness_ms if time else min(max(size, _SLACK_MS), _STILL_MS_MAX)
        self.heard_ms = -1
        self.take = code.build()
        """take(messages, docs, now_ms) -> list[Row]; docs: a payload a message. Never raises for what they hold. Of
        windows that end by it the rows are due, for `give`."""
        self.source = code.source

    def run(self, messages: Sequence[Message], docs: Sequence[Any], now_ms: int) -> list[Row]:
        """As `take`, with all that is due."""
        rows = self._fallen(now_ms)
        rows += self.take(messages, docs, now_ms)
        if self._memory.due:
            rows += self._all_due()
        return rows

    def give(self) -> Iterator[Any]:
        """The rows of windows that ended, in their order; None for a step that made none. May be left after any step,
        for good or until later: the place is part of `state`."""
        return self._memory.give()

    @property
    def is_giving(self) -> bool:
        """Whether `give` has more."""
        return bool(self._memory.due)

    @property
    def is_behind(self) -> bool:
        """Whether so much is due that it is held as often as what is open may be: let it give before it takes more."""
        return self._memory.is_behind

    @property
    def watermark(self) -> int:
        """The latest time that it has seen, in ms; far below any where there is none."""
        return self._memory.watermark

    def is_ahead(self, now_ms: int) -> bool:
        """Whether its time is so far ahead that the clock was put back: then it is to `fall_back` before it takes."""
        return self._memory.watermark > now_ms + self._slack_ms

    def fall_back(self) -> bool:
        """All that is open is due; once that is given, and this called again, time begins anew. Whether it did. A
        restart in between changes nothing: the rule is ahead still."""
        return self._memory.fall_back()

    def _fallen(self, now_ms: int) -> list[Row]:
        rows: list[Row] = []
        while self.is_ahead(now_ms) and not self.fall_back():
            rows += self._all_due()
        return rows

    def _all_due(self) -> list[Row]:
        return [(None, row) for row in self._memory.give() if row is not None]

    @property
    def counts(self) -> dict[str, int]:
        """What was left out, by reason."""
        return self._memory.counts

    def tick(self, now_ms: int) -> list[Row]:
        """As `pass_time`, with all that is due."""
        rows = self._fallen(now_ms)
        self.pass_time(now_ms)
        return rows + self._all_due()

    def pass_time(self, now_ms: int) -> None:
        """Let time pass without a message: ends windows in arrival time, and in event time after `idle_ms`."""
        memory = self._memory
        if memory.kind in {"", "count"}:
            return
        if self._arrival:
            if now_ms > memory.watermark:
                memory.watermark = now_ms
                if now_ms >= memory.close_at:
                    memory.close(now_ms)
        elif self.due(now_ms):
            memory.close_open(now_ms)

    def due(self, now_ms: int) -> bool:
        """Whether `pass_time` would end anything; it need not be called before."""
        memory = self._memory
        if self._arrival:
            return now_ms >= memory.close_at
        if not self._silence_ms:
            return False
        if not 0 <= self.heard_ms <= now_ms:  # not since the start, or the clock was put back
            self.heard_ms = now_ms
        return now_ms - self.heard_ms >= self._silence_ms and memory.next_end() <= now_ms

    def fingerprint(self, *more: str) -> bytes:
        """Of what its state means: a state is for the rule of the same fingerprint alone. more: settings that count."""
        told = msgspec.json.encode(
            [_STATE_VERSION, self.plan, self._memory.layout, self._memory.init, self._arrival, more]
        )
        return hashlib.sha256(told).digest()[:16]

    def flush(self) -> list[Row]:
        """Close every window, as at the end of a recording."""
        self._memory.close(2**62)
        return self._all_due()

    def state(self) -> dict[str, bytes]:
        """What changed since the last call, by entry; b'' for what is gone. Kept with the position in the input, it
        makes a restart give what an uninterrupted run gives."""
        return self._memory.state()

    @property
    def state_bytes(self) -> int:
        """About what is stored of it, as of the last `state`."""
        return self._memory.state_bytes

    def bound(self, *, full: bool) -> None:
        """full: from now on nothing is taken that would make the state larger, as far as that can be known before."""
        self._memory.is_full = full

    def forget(self) -> None:
        """All that it remembers; `state` tells it."""
        self._memory.forget()

    def restore(self, entries: dict[str, bytes]) -> None:
        """Into a rule that saw no message yet: the last value of each entry."""
        self._memory.restore(entries)
