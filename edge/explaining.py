"""Where a message goes, and why: what `edge explain` and `edge trace` say of routes, rules and functions. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from edge.config import SENDER, Config, placed_routes
from edge.errors import InputRejected
from edge.messages import Message
from edge.router import comes_from
from edge.rules.build import ReadRule, explain
from edge.rules.payloads import decoder
from edge.rules.plan import Call, Column, Expression, Field, Plan, Value
from edge.rules.rule import Rule
from edge.topics import matches

_INFIX = {"<", "<=", ">", ">=", "=", "<>", "!=", "+", "-", "*", "/", "%", "and", "or"}


class Way(msgspec.Struct, frozen=True):
    """by: the field of the gateway file that says so."""

    to: str
    by: str


class Explanation(msgspec.Struct, frozen=True):
    """targets: who gets it by routes; rules and functions: by name `yes: …` or `no: …`."""

    topic: str
    source: str
    sender: str
    targets: tuple[str, ...]
    ways: tuple[Way, ...]
    rules: Mapping[str, str]
    functions: Mapping[str, str]
    nowhere: str = ""


def explain_topic(config: Config, rules: Sequence[ReadRule], source: str, sender: str, topic: str) -> Explanation:
    """sender: the client id; empty: of a board whichever fits."""
    ways: dict[str, Way] = {}
    found_sender = sender
    for one in [sender] if sender else _senders(config, source):
        its = _ways(config, source, one, topic)
        if len(its) > len(ways):
            ways, found_sender = its, one
    took = explain(rules, source, topic)
    functions: dict[str, str] = {}
    for function in config.functions:
        way = ways.get(function.target)
        functions[function.name] = f"yes: {way.by}" if way else _why_not(config, function.target, source, topic)
    nowhere = ""
    if not ways and not any(why.startswith("yes") for why in took.values()):
        there = [f"{route.topic!r}" for _, route in placed_routes(config) if route.source == source]
        told = f"from {source} they take {', '.join(there)}" if there else f"none is from {source}"
        nowhere = f"no route takes it: {told}"
    return Explanation(topic, source, found_sender, tuple(ways), tuple(ways.values()), took, functions, nowhere)


def explain_all(config: Config, rules: Sequence[ReadRule], sender: str, topic: str) -> list[Explanation]:
    """From every source that something takes it from; from boards where there is none."""
    named = [route.source for _, route in placed_routes(config)]
    named += [source for rule in rules for source in rule.settings.source]
    found = [explain_topic(config, rules, source, sender, topic) for source in dict.fromkeys(["boards", *named])]
    return [one for one in found if not one.nowhere] or found[:1]


def _why_not(config: Config, target: str, source: str, topic: str) -> str:
    others = [
        route.source
        for _, route in placed_routes(config)
        if target in route.to
        and not comes_from(route.source, source)
        and matches(route.topic.replace(SENDER, "+"), topic)
    ]
    elsewhere = f" from {source}; one from {' or '.join(dict.fromkeys(others))} does" if others else ""
    return f"no: no route takes it there that it subscribes to{elsewhere}"


def _ways(config: Config, source: str, sender: str, topic: str) -> dict[str, Way]:
    ways: dict[str, Way] = {}
    subscribed = {one.target: one.subscribe for one in config.functions}
    for field, route in placed_routes(config):
        if not comes_from(route.source, source):
            continue
        if SENDER in route.topic and not sender:
            continue
        if matches(route.topic.replace(SENDER, sender), topic):
            by = f"{field.rpartition('.')[0]}: from {route.source}, topic {route.topic}"
            for to in route.to:
                if to not in subscribed or any(matches(one.replace(SENDER, sender), topic) for one in subscribed[to]):
                    ways.setdefault(to, Way(to, by))
    return ways


def _senders(config: Config, source: str) -> list[str]:
    if source.startswith("board:"):
        return [source.removeprefix("board:")]
    return ["", *(board.name for board in config.boards)] if source == "boards" else [""]


def where_says(rule: ReadRule, message: Message) -> str:
    """What a rule's WHERE says of one message by itself; what filters remember is not asked. message: as it came; its
    `time_ms` is when."""
    plan = rule.plan
    try:
        doc = decoder(rule.settings.payload, rule.settings.columns)(message.payload)
    except (InputRejected, ValueError, RecursionError) as error:
        return f"its payload is no {rule.settings.payload}: {error}"
    if plan.join is not None:
        return "it takes part in the join"
    unknown = ""
    for part in _parts(plan.where):
        if not message.time_ms and _asks_when(part):
            unknown = unknown or said(part)
            continue
        only = Plan(plan.topic, (Column("", Field(())),), where=part)
        if not Rule("trace", only, tables=rule.tables).run([message], [doc], message.time_ms):
            return f"WHERE leaves it out: {said(part)} is not true"
    if unknown:
        return f"when it came is not known, and so whether {unknown}"
    if plan.filters:
        return f"WHERE lets it pass; then {', '.join(map(said, plan.filters))} decided by what came before"
    return "WHERE lets it pass" if plan.where is not None else "it has no WHERE"


def _asks_when(expression: Expression) -> bool:
    return isinstance(expression, Call) and (expression.name == "timestamp" or any(map(_asks_when, expression.args)))


def _parts(where: Expression | None) -> list[Expression]:
    if where is None:
        return []
    if isinstance(where, Call) and where.name == "and":
        return [part for arg in where.args for part in _parts(arg)]
    return [where]


def said(expression: Expression) -> str:
    """As a person would write it, about."""
    match expression:
        case Value(value):
            return "NULL" if value is None else repr(value)
        case Field(path):
            return ".".join(map(str, path)) or "*"
        case Call(name, args) if name in _INFIX and len(args) == 2:
            return f"{said(args[0])} {name.upper()} {said(args[1])}"
        case Call(name, args):
            return f"{name}({', '.join(map(said, args))})"


def lines(told: Mapping[str, Any]) -> list[str]:
    """For people. told: an Explanation, as JSON has it."""
    sender = f" (client {told['sender']})" if told["sender"] else ""
    goes = f"goes to: {', '.join(told['targets'])}" if told["targets"] else told["nowhere"] or "goes to rules alone"
    found = [f"{told['topic']} from {told['source']}{sender} {goes}"]
    found += [f"  {way['to']} by {way['by']}" for way in told["ways"]]
    found += [f"rule {name}: {why}" for name, why in told["rules"].items()]
    found += [f"function {name}: {why}" for name, why in told["functions"].items()]
    return found
