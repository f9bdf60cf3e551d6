"""All rules of a gateway, and the log in which their rows, their open windows and the marks of their sources commit
together: a kill changes no result.

The straight line: router -> engine -> `keep` -> the stream's commit -> the source is told; committed rows -> outlet ->
router, as messages of `rule:NAME`, named (GATEWAY/rule/NAME, boot, record number) so that a stream drops repeats.
Invariants:
- Nothing runs between an engine's change of windows and marks and `keep` of the rows, and the checkpoint is taken when
  the commit is sealed: so a commit holds rows, windows and marks of the same messages.
- Windows that ended give their rows in turns of the loop, as far as the log has room; how far they are is part of what
  rules remember.
- What a rule remembers is given to a rule of the same fingerprint alone; otherwise it is dropped, and told.
- What rules remember takes at most a share of the log's bound, so that it never keeps the log from having room. Before
  that a rule that takes more than its part leaves out what is new; where that is not enough the largest is forgotten.
- In the state: `rule/NAME/plan` the fingerprint, `rule/NAME/state/…` what it remembers, `seen/ENGINE/THING` marks.
"""

import asyncio
import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from edge.config import RULES, Config, RouteSettings, StreamSettings
from edge.log import Batch
from edge.logs import log_event
from edge.messages import Origin
from edge.metrics import Metrics
from edge.outbox.marks import Keeper, Marks
from edge.outbox.outbox import Outbox
from edge.outbox.report import path_of
from edge.outbox.stream import Stream
from edge.router import Router
from edge.rulelog.outlets import Outlets, thing_of
from edge.rules.build import CompiledRule, engine_name, output_topic
from edge.rules.engine import NOBODY, Engine, KeptRow, Output
from edge.rules.payloads import decoder
from edge.rules.rule import Rule

COMMIT_SOONER: Final = 16  # messages that wait: a board's window, beyond which waiting only holds it up
STATE_SHARE: Final = 12  # of bytes_max: two segments, each with the state at its head, and as much again for rows
FULL_SHARE: Final = 20
RULE, PLAN, STATE, SEEN = "rule/", "plan", "state/", "seen/"

_log = logging.getLogger(__name__)


class _Seen:
    """An engine's marks, as the gateway's marks see them."""

    def __init__(self, stream: Stream, prefix: str) -> None:
        self.prefix = prefix
        self.marks = Marks(stream.state, prefix)
        self._stream = stream
        self.keep = stream.keep

    @property
    def state(self) -> Mapping[str, bytes]:
        return self._stream.state

    def board_shed(self, thing: str, boot: int, first: int, last: int) -> None:
        """The streams' ledgers tell it; a rule has nothing to say of what it never saw."""


class RuleLog:
    """Opened by `change` with the first rule."""

    def __init__(
        self,
        config: Config,
        outbox: Outbox,
        router: Router,
        metrics: Metrics,
        *,
        now: Callable[[], float],
        unix_time_ms: Callable[[], int],
    ) -> None:
        self._config, self._outbox, self._router, self._metrics = config, outbox, router, metrics
        self._now, self._unix_time_ms = now, unix_time_ms
        self._stream: Stream | None = None
        self._outlets: Outlets | None = None
        self._started = False
        self._rules: dict[str, CompiledRule] = {}
        self._outputs: dict[str, Output] = {}
        self._engines: dict[str, Engine] = {}
        self._seen: dict[str, _Seen] = {}
        self._changes: dict[str, bytes | None] = {}
        self._comes_again = False

    def change(self, rules: Sequence[CompiledRule], routes: Sequence[RouteSettings]) -> None:
        """These are the rules from now on; what is unchanged keeps its windows. routes: all that the router has."""
        if self._stream is None:
            if not rules and not os.path.isdir(path_of(self._config, RULES)):
                return
            stream, outlets = self._open()
            self._restore(rules, stream)
        else:
            assert self._outlets is not None
            stream, outlets = self._stream, self._outlets
            rules = [self._kept(rule, stream) for rule in rules]
        names = {rule.name for rule in rules}
        for name, before in self._rules.items():
            if name not in names:
                self._drop(name, self._entries(stream, before), "gone")
                self._changes[f"{RULE}{name}/{PLAN}"] = None
        self._outputs = {rule.name: self._output(rule) for rule in rules}
        self._rules = {rule.name: rule for rule in rules}
        self._build_engines(stream)
        outlets.place(
            {
                name: tuple(sorted({to for route in routes if route.source == f"rule:{name}" for to in route.to}))
                for name in self._rules
            }
        )
        if self._started and self._changes:
            self.keep((), NOBODY, (), 1)
        if self._started:
            self.come_again()

    def keeper(self, name: str) -> Keeper | None:
        """Of an engine's marks, by its name as a target."""
        return self._seen.get(name)

    def start(self) -> None:
        """On the running loop, after the outbox."""
        self._started = True
        held = sum([rule.rule.state_bytes for rule in self._rules.values()])
        if held > self._config.rules_log.bytes_max // STATE_SHARE:  # of a larger log before
            self.keep((), NOBODY, (), 1)
        self.come_again()  # what was being given when the last life ended

    def tick(self) -> None:
        for engine in self._engines.values():
            engine.tick()

    @property
    def is_giving(self) -> bool:
        """Whether a window that ended has rows left to give."""
        return any(engine.is_giving for engine in self._engines.values())

    def has_room(self) -> bool:
        assert self._stream is not None
        return self._stream.has_room

    def keep(self, rows: Sequence[KeptRow], origin: Origin, receipts: Sequence[int], messages: int) -> None:
        assert self._stream is not None
        self._stream.store(rows, origin, list(receipts), messages=messages)

    def come_again(self) -> None:
        if not self._comes_again:
            self._comes_again = True
            asyncio.get_running_loop().call_soon(self._give)

    def _give(self) -> None:
        self._comes_again = False
        for engine in self._engines.values():
            engine.give()

    def _open(self) -> tuple[Stream, Outlets]:
        shared, gateway = self._config.rules_log, self._config.gateway.name
        settings = StreamSettings(
            name=RULES,
            export="",
            bytes_max=shared.bytes_max,
            when_full=shared.when_full,
            commit=shared.commit,
            commit_records_max=COMMIT_SOONER,
        )
        stream = self._outbox.open(settings, path_of(self._config, RULES), f"{gateway}/{RULES}")
        outlets = Outlets(
            stream,
            gateway,
            self._metrics,
            route=self._router.route,
            now=self._now,
            added=lambda drain: self._outbox.export(stream, drain, outlets.backlog),
        )
        stream.checkpoint = self._checkpoint
        self._stream, self._outlets = stream, outlets
        if self._started:
            stream.start()
        return stream, outlets

    def _restore(self, rules: Sequence[CompiledRule], stream: Stream) -> None:
        """Give each rule what the log knows of it; what is of no rule any more goes."""
        found: dict[str, dict[str, bytes]] = {}
        for key, value in stream.state.items():
            if key.startswith(RULE):
                name, _, entry = key.removeprefix(RULE).partition("/")
                found.setdefault(name, {})[entry] = value
        for rule in rules:
            entries = found.pop(rule.name, {})
            if entries.pop(PLAN, None) == rule.fingerprint:
                rule.rule.restore({entry.removeprefix(STATE): raw for entry, raw in entries.items()})
                if rule.rule.counts.get("checkpoint_rejected"):  # what is left of it must not mix with what comes
                    self._drop(rule.name, [entry.removeprefix(STATE) for entry in entries], "damaged")
                    rule.rule = rule.read.compile()
            else:
                self._drop(rule.name, [entry.removeprefix(STATE) for entry in entries], "changed")
                self._changes[f"{RULE}{rule.name}/{PLAN}"] = rule.fingerprint
        for name, entries in found.items():
            entries.pop(PLAN, None)
            self._drop(name, [entry.removeprefix(STATE) for entry in entries], "gone")
            self._changes[f"{RULE}{name}/{PLAN}"] = None
        engines = {marks_prefix(engine_name(rule.read.settings)) for rule in rules}
        for key in stream.state:
            if key.startswith(SEEN) and not key.startswith(tuple(engines)):
                self._changes[key] = None

    def _kept(self, rule: CompiledRule, stream: Stream) -> CompiledRule:
        """The one that works already where nothing differs; what it remembers where that still means the same."""
        before = self._rules.get(rule.name)
        if before is not None and before.read == rule.read:
            return before
        if before is not None and before.fingerprint == rule.fingerprint:
            rule.rule.restore(self._entries(stream, before))
            rule.rule.heard_ms = before.rule.heard_ms
            return rule
        if before is not None:
            self._drop(rule.name, self._entries(stream, before), "changed")
        self._changes[f"{RULE}{rule.name}/{PLAN}"] = rule.fingerprint
        return rule

    def _entries(self, stream: Stream, rule: CompiledRule) -> dict[str, bytes]:
        """All that a rule at work remembers now: committed, being committed, and what goes with the next."""
        prefix = f"{RULE}{rule.name}/{STATE}"
        for entry, raw in rule.rule.state().items():
            self._changes[prefix + entry] = raw or None
        sealed = stream.log.sealed.changes if isinstance(stream.log.sealed, Batch) else {}
        now = {**stream.log.state, **sealed, **self._changes}
        return {key.removeprefix(prefix): raw for key, raw in now.items() if raw and key.startswith(prefix)}

    def _drop(self, name: str, entries: Iterable[str], reason: str) -> None:
        held = list(entries)
        for entry in held:
            self._changes[f"{RULE}{name}/{STATE}{entry}"] = None
        if held:
            log_event(_log, "rule_windows_dropped", level=logging.WARNING, rule=name, reason=reason)

    def _output(self, rule: CompiledRule) -> Output:
        if self._rules.get(rule.name) is rule:
            return self._outputs[rule.name]
        thing = thing_of(self._config.gateway.name, rule.name)
        return Output(rule.rule, thing, output_topic(rule.read.settings), self._metrics, rule.read.settings.source)

    def _build_engines(self, stream: Stream) -> None:
        by_name: dict[str, list[CompiledRule]] = {}
        for rule in self._rules.values():
            by_name.setdefault(engine_name(rule.read.settings), []).append(rule)
        engines = {}
        for name, members in by_name.items():
            outputs = tuple(self._outputs[rule.name] for rule in members)
            engine = self._engines.get(name)
            if engine is None or engine.outputs != outputs:
                if name not in self._seen:
                    self._seen[name] = _Seen(stream, marks_prefix(name))
                settings = members[0].read.settings
                engine = Engine(
                    outputs,
                    decoder(settings.payload, settings.columns),
                    book=self,
                    seen=self._seen[name].marks,
                    metrics=self._metrics,
                    unix_time_ms=self._unix_time_ms,
                )
                engine.touched = dict.fromkeys(outputs)
            engines[name] = engine
            self._router.attach_by_source(name, engine.port)
        for name in self._engines.keys() - engines.keys():
            self._router.detach(name)
            seen = self._seen.pop(name)
            self._changes |= dict.fromkeys(seen.prefix + thing for thing in seen.marks.things)
        self._engines = engines

    def _checkpoint(self) -> Iterable[tuple[str, bytes | None]]:
        """All that changed since the commit before."""
        assert self._outlets is not None
        changes, self._changes = self._changes, {}
        yield from changes.items()
        for name, engine in self._engines.items():
            yield from self._seen[name].marks.changes()
            for output in engine.touched:
                yield from _state(output.rule)
            engine.touched.clear()
        for rule in self._bound():
            yield from _state(rule)
        yield from self._outlets.checkpoint()

    def _bound(self) -> Iterable[Rule]:
        """Keep what rules remember within its share of the log. Gives those that were forgotten."""
        bytes_max, many = self._config.rules_log.bytes_max, max(len(self._rules), 1)
        sizes = {name: rule.rule.state_bytes for name, rule in self._rules.items()}
        total = sum(sizes.values())
        for name, size in sizes.items():
            full = total > bytes_max // FULL_SHARE and size > bytes_max // FULL_SHARE // many
            self._rules[name].rule.bound(full=full)
        while total > bytes_max // STATE_SHARE:
            name = max(sizes, key=lambda one: sizes[one])
            total -= sizes.pop(name)
            rule = self._rules[name].rule
            rule.forget()
            log_event(_log, "rule_windows_dropped", level=logging.WARNING, rule=name, reason="too_large")
            self._metrics.counter("rule_states_dropped", rule=name).value += 1
            yield rule


def _state(rule: Rule) -> Iterable[tuple[str, bytes | None]]:
    prefix = f"{RULE}{rule.name}/{STATE}"
    for entry, raw in rule.state().items():
        yield prefix + entry, raw or None


def marks_prefix(engine: str) -> str:
    """Of its marks; an engine's name may hold anything."""
    return f"{SEEN}{hashlib.sha256(engine.encode()).hexdigest()[:12]}/"
