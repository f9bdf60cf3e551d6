"""The gateway file's rules → compiled rules and the routes that feed them; loops are refused here."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from edge.config import Config, RouteSettings, RuleSettings
from edge.errors import ConfigError, InputRejected
from edge.loops import Node
from edge.router import comes_from
from edge.rules.child import parse_rules
from edge.rules.plan import Plan
from edge.rules.rule import Rule
from edge.rules.tables import Table, read_table
from edge.topics import check_topic, overlap

Tables = dict[str, Table]


class ReadRule(msgspec.Struct, frozen=True):
    """One rule, checked."""

    settings: RuleSettings
    plan: Plan
    tables: Tables

    def compile(self) -> Rule:
        time = tuple(self.settings.time.split(".")) if self.settings.time else ()
        return Rule(
            self.settings.name,
            self.plan,
            time=time,
            lateness_ms=round(self.settings.lateness_s * 1000),
            idle_ms=round(self.settings.idle_s * 1000),
            keys_max=self.settings.keys_max,
            events_max=self.settings.events_max,
            tables=self.tables,
        )


class CompiledRule:
    """One that can work. fingerprint: what it remembers means the same to a rule of the same."""

    def __init__(self, read: ReadRule) -> None:
        settings = read.settings
        self.name, self.read, self.rule = settings.name, read, read.compile()
        columns, sources = ",".join(settings.columns), ",".join(sorted(settings.source))
        self.fingerprint = self.rule.fingerprint(settings.time, settings.payload, columns, sources)


def read_rules(config: Config) -> list[ReadRule]:
    """Parse and check all rules of a gateway file. Raises ConfigError with line and column."""
    rules = []
    for place, (settings, answer) in enumerate(
        zip(config.rules, parse_rules([rule.sql for rule in config.rules]), strict=True), 1
    ):
        field, named = f"rule[{place}].sql", f"rule {settings.name!r}"
        if answer.plan is None:
            assert answer.mistake is not None
            wrong = answer.mistake
            problem = f"{named}, line {wrong.line}, column {wrong.column}: {wrong.problem}"
            raise ConfigError(config.file, field, problem, wrong.allowed + "." * (wrong.allowed[-1:] not in {"?", "."}))
        for lookup in answer.lookups:
            if lookup.table not in settings.tables:
                place_of_it = f"{named}, line {lookup.line}, column {lookup.column}"
                problem = f"{place_of_it}: lookup() names no table: {lookup.table!r}"
                known = ", ".join(sorted(settings.tables))
                fix = (
                    f"The rule's `tables` are {known}." if known else 'Add tables = { name = "file.csv" } to the rule.'
                )
                raise ConfigError(config.file, field, problem, fix)
        try:
            check_topic(re.sub(r"\$\{[^}]*\}", "x", settings.topic or "x"))
        except InputRejected as error:
            raise ConfigError(config.file, f"rule[{place}].topic", str(error), "Name a topic.") from None
        base = Path(config.file).resolve().parent
        tables = {
            name: read_table(config.file, f"rule[{place}].tables.{name}", base / file)
            for name, file in settings.tables.items()
        }
        rules.append(ReadRule(settings, answer.plan, tables))
    config.check_loops((*config.function_nodes, *rule_nodes(rules)))  # none may feed itself, nor through functions
    return rules


def table_files(config: Config) -> list[str]:
    """The files that rules look up in."""
    base = Path(config.file).resolve().parent
    return [str(base / file) for rule in config.rules for file in rule.tables.values()]


def rule_routes(rules: Sequence[ReadRule]) -> list[RouteSettings]:
    """Into the rules by their FROM, and out of them to their targets."""
    routes = []
    for rule in rules:
        for source in rule.settings.source:
            for topic in rule.plan.topics:
                routes.append(RouteSettings(source=source, topic=topic, to=(engine_name(rule.settings),)))
        if rule.settings.to:
            routes.append(RouteSettings(source=f"rule:{rule.settings.name}", topic="#", to=rule.settings.to))
    return routes


def engine_name(settings: RuleSettings) -> str:
    """Rules of the same form of payload are one target, which decodes a payload once, whoever of them reads it."""
    return f"rules:{settings.payload}:{','.join(settings.columns)}"


def output_topic(settings: RuleSettings) -> str:
    return settings.topic or f"rule/{settings.name}"


def rule_nodes(rules: Sequence[ReadRule]) -> list[Node]:
    """The rules as `find_loop` wants them."""
    nodes = []
    for rule in rules:
        settings = rule.settings
        said = (settings.row_filter,)
        nodes.append(Node(f"rule:{settings.name}", settings.source, tuple(rule.plan.topics), said, settings.to))
    return nodes


def explain(rules: Sequence[ReadRule], source: str, topic: str) -> Mapping[str, str]:
    """Rule name → why it takes the topic or does not."""
    rows = {}
    for rule in rules:
        settings, named = rule.settings, _named(rule.plan)
        if not any(comes_from(wanted, source) for wanted in settings.source):
            rows[settings.name] = f"no: it reads from {', '.join(settings.source)}"
        elif any(overlap(filter_, topic) for filter_ in rule.plan.topics):
            rows[settings.name] = f"yes: FROM {named}; its rows go to {', '.join(settings.to) or 'routes from it'}"
        else:
            rows[settings.name] = f"no: FROM {named}"
    return rows


def _named(plan: Plan) -> str:
    return " and ".join(f"'{topic}'" for topic in plan.topics)
