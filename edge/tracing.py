"""What became of one reading: looked for in all logs at the asking, so that it costs nothing before.

ID is THING/BOOT/SEQUENCE, as receivers get it. A thing may have slashes: the rows of a rule are GATEWAY/rule/NAME.
"""

import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from edge.config import RULES, SENDER, Config, placed_routes
from edge.errors import InputRejected
from edge.explaining import explain_topic, where_says
from edge.functions.functions import FOLDER as FUNCTIONS
from edge.functions.functions import INBOX
from edge.log import Log
from edge.messages import Message, Reading
from edge.outbox.clock import Clock
from edge.outbox.intent import count_intent
from edge.outbox.lanes import Lanes, Sent
from edge.outbox.ledger import DAMAGED, OTHERS, Ledger
from edge.outbox.marks import Marks
from edge.outbox.record import Record, decode, encode, name_of
from edge.outbox.report import CURSOR, Folder, held
from edge.outbox.stream import Stream
from edge.router import comes_from
from edge.rulelog.outlets import thing_of
from edge.rulelog.rulelog import marks_prefix
from edge.rules.build import ReadRule, engine_name
from edge.topics import matches

SLICE_RECORDS: Final = 2048
SLICE_BYTES: Final = 1024 * 1024
PAYLOAD_SHOWN_BYTES: Final = 4096

Id = tuple[str, int, int]


class TracedLog(msgspec.Struct):
    """name: as routes have it (`stream:NAME`, `function:NAME`), or `rules`; own: what names records without a reading;
    export: who gets them; sent: how far."""

    name: str
    log: Log
    own: str
    export: str
    sent: Sent


def logs_of(config: Config, streams: Mapping[str, Stream], inboxes: Mapping[str, Stream]) -> list[TracedLog]:
    """Those of the running gateway. inboxes: of its functions, as routes name them."""
    found = [_traced(config, name, one.log, one.own, one.sent()) for name, one in streams.items()]
    return found + [TracedLog(name, one.log, one.own, "the function", one.sent()) for name, one in inboxes.items()]


def logs_in(config: Config) -> list[TracedLog]:
    """Those in the folders, where no gateway runs."""
    folders = {name: Folder(config, name) for name in held(config)}
    found = [_traced(config, name, one.log, one.own, one.sent) for name, one in folders.items()]
    for function in config.functions:
        try:
            log = Log.open_read_only(os.path.join(config.gateway.data_dir, FUNCTIONS, function.name, INBOX))
        except OSError:
            continue  # never started with it
        sent = Lanes(log.state.get(CURSOR), log.first, live_first=False).sent
        found.append(TracedLog(function.target, log, f"{config.gateway.name}/{function.target}", "the function", sent))
    return found


def _traced(config: Config, name: str, log: Log, own: str, sent: Sent) -> TracedLog:
    if name == RULES:
        return TracedLog(RULES, log, own, "where its rule's routes lead", sent)
    export = next((one.export for one in config.all_streams if one.name == name), "")
    return TracedLog(f"stream:{name}", log, own, export, sent)


def parse_id(text: str) -> Id:
    """Raises InputRejected."""
    parts = text.rsplit("/", 2)
    if len(parts) == 3 and parts[1].isdecimal() and parts[2].isdecimal():
        thing, boot, sequence = parts[0], int(parts[1]), int(parts[2])
        if thing and boot < 1 << 63 and sequence < 1 << 63:
            return thing, boot, sequence
    raise InputRejected("trace_id", f"{text[:80]!r} is not THING/BOOT/SEQUENCE, such as board1/3/120")


def trace(
    named: Id, config: Config, rules: Sequence[ReadRule], logs: Sequence[TracedLog], topic: str = ""
) -> Iterator[dict[str, Any] | None]:
    """None now and then while it looks, then what it found. topic: where its record is gone and does not tell it."""
    thing, boot, sequence = named
    rows = thing_of(config.gateway.name, "")
    places: list[dict[str, Any]] = []
    record: Record | None = None
    came_ms = 0
    for one in logs:
        by_number = thing == one.own or (one.name == RULES and thing.startswith(rows))
        found = yield from _find(one, named, by_number=by_number)
        if found is not None:
            number, record = found
            held = number >= one.log.first
            why = _state(one, number, thing) if held else _shed(one.log, named) or _freed(one)
            places.append({"log": one.name, "held": held, "number": number, "why": why})
            if stamp := Clock(one.log.state, 0, "").unix_ms(record.boot, record.taken_ms):
                places[-1]["taken_ms"] = came_ms = stamp
            continue
        why = _shed(one.log, named) or (_why_not_number if by_number else _why_not)(one, named)
        if why or one.name != RULES:
            places.append({"log": one.name, "held": False, "why": why or "nothing of this thing came here"})
    told: dict[str, Any] = {"id": f"{thing}/{boot}/{sequence}", "logs": places}
    if record is not None:
        told |= _message(record)
        topic = record.topic
    else:
        told["why"] = "its record is held nowhere any more, or never came" + (
            f"; as if its topic were {topic}" if topic else ": what its topic was is not known (--topic T, if you know)"
        )
    source = _source(config, thing, topic)
    if topic:
        told["ways"] = explain_topic(config, rules, source, "" if "/" in thing else thing, topic)
    log = {one.name: one.log for one in logs}.get(RULES)
    marked = all(thing != one.own for one in logs)  # what the gateway names it names after the rules had it
    message = _as_it_came(record, named if marked else None, came_ms) if record is not None else None
    told["rules"] = {
        rule.settings.name: _rule_says(rule, message, topic, named, log if marked else None)
        for rule in rules
        if _may_see(rule, source)
    }
    yield told


def _find(one: TracedLog, named: Id, *, by_number: bool) -> Generator[None, None, tuple[int, Record] | None]:
    """In what is held, then in what was freed and lies there still."""
    sequence, needle = named[2], encode(named)
    for rows in _slices(one.log, sequence if by_number else 0, only=by_number):
        for number, data in rows:
            if by_number and number != sequence:
                continue
            if not by_number and not data.endswith(needle):
                continue
            record = decode(data)
            if record is not None and name_of(record, number, one.own) == named:
                return number, record
        yield None
    return None


def _slices(log: Log, number: int, *, only: bool) -> Iterator[Sequence[tuple[int, bytes]]]:
    """only: this number alone."""
    at = number
    while rows := log.read(at, records_max=1 if only else SLICE_RECORDS, bytes_max=SLICE_BYTES):
        yield rows
        if only:
            break
        at = rows[-1][0] + 1
    for rows in log.read_released(number):
        yield rows
        if only:
            break


def _state(one: TracedLog, number: int, thing: str) -> str:
    if not one.export:
        return "kept here; nothing exports it"
    if one.sent.is_settled(number, thing):
        return f"taken by {one.export}"
    return f"waits for {one.export}"


def _shed(log: Log, named: Id) -> str:
    """What the ledger says of it; empty if nothing."""
    thing, boot, sequence = named
    ledger = Ledger(log.state)
    count_intent(log, ledger)
    for entry in ledger.things.get(thing, ()):
        if entry.boot == boot and entry.first <= sequence <= entry.last:
            whole = entry.count == entry.last - entry.first + 1
            among = "" if whole else f", perhaps: {entry.count} of {entry.first} to {entry.last}"
            return f"shed: {entry.reason}{among}"
    return ""


def _freed(one: TracedLog, *, by_number: bool = False) -> str:
    """Of what did come, is held no more, and is in no entry of the ledger under its name."""
    entries = Ledger(one.log.state).things.get(OTHERS, ())
    lost = [f"{entry.count} {entry.reason}" for entry in entries if not by_number or entry.reason != DAMAGED]
    unless = f", if it is not of those lost without their names: {', '.join(lost)}" if lost else ""
    taken = f", was taken by {one.export}," if one.export else ""
    return f"came here{taken} and its place is free again{unless}"


def _why_not_number(one: TracedLog, named: Id) -> str:
    """Of one that is named by this gateway's boot and the record's number, and is not there."""
    _, boot, number = named
    log = one.log
    if number >= log.next or not number:
        return f"did not come here: the last record is number {log.next - 1}"
    if Clock(log.state, 0, "").has_not(boot):
        return f"did not come here: nothing was stored in boot {boot} of the gateway"
    found = next((row for rows in _slices(log, number, only=True) for row in rows), None)
    nearest = decode(found[1]) if found is not None else None
    if found is not None and nearest is not None and found[0] == number:
        return "did not come here: its number is that of {}/{}/{}".format(*name_of(nearest, number, one.own))
    if nearest is not None and nearest.boot < boot:
        return f"did not come here: number {number} came before boot {boot} of the gateway"
    for entry in Ledger(log.state).things.get(OTHERS, ()):
        if entry.reason == DAMAGED and entry.first <= number <= entry.last:
            return "came here, and was damaged"
    return _freed(one, by_number=True) if number < log.first else "came here, and was damaged or thinned out"


def _why_not(one: TracedLog, named: Id) -> str:
    """What the marks say of one that is not there; empty if nothing."""
    thing, boot, sequence = named
    boots = Marks(one.log.state).things.get(thing)
    if not boots:
        return ""
    last = boots.get(boot, 0)
    if not last:
        return f"nothing of boot {boot} came here; the last was {next(reversed(boots))}"
    if sequence > last:
        return f"did not come here: the last of boot {boot} is {last}"
    return _freed(one)


def _rule_says(rule: ReadRule, message: Message | None, topic: str, named: Id, log: Log | None) -> str:
    """log: the rules', if its marks can tell whether they saw it."""
    thing, boot, sequence = named
    seen = ""
    if log is not None:
        marks = Marks(log.state, marks_prefix(engine_name(rule.settings)))
        seen = "saw it: " if marks.sequence(thing, boot) >= sequence else "has not seen it: "
    if topic and not any(matches(filter_, topic) for filter_ in rule.plan.topics):
        return "no: " + " and ".join(f"FROM '{filter_}'" for filter_ in rule.plan.topics)
    if message is None:
        return f"{seen}its payload is not known any more" + (", and so what WHERE said" if topic else "")
    return seen + where_says(rule, message)


def _may_see(rule: ReadRule, source: str) -> bool:
    return any(comes_from(wanted, source) for wanted in rule.settings.source)


def _source(config: Config, thing: str, topic: str) -> str:
    """Where the messages of a thing come from; `boards` for a further client of whichever board."""
    gateway, _, name = thing.partition("/")
    if name and gateway == config.gateway.name:
        if name.startswith("rule/"):
            return name.replace("/", ":", 1)
        # what the gateway names itself came by a route to where it is
        for _, route in placed_routes(config):
            if {name, f"stream:{name}"} & {*route.to} and (
                not topic or matches(route.topic.replace(SENDER, "+"), topic)
            ):
                return route.source
    return f"board:{thing}" if any(board.name == thing for board in config.boards) else "boards"


def _as_it_came(record: Record, named: Id | None, came_ms: int) -> Message:
    """To the rules. named: None for what the gateway named after they had it."""
    reading = Reading(*named) if named is not None else None
    return Message(record.topic, record.payload, properties=record.properties, reading=reading, time_ms=came_ms)


def _message(record: Record) -> dict[str, Any]:
    payload = record.payload[:PAYLOAD_SHOWN_BYTES]
    return {"topic": record.topic, "payload": payload.decode(errors="replace"), "bytes": len(record.payload)}


def lines(told: Mapping[str, Any]) -> list[str]:
    """For people. told: what `trace` found, as JSON has it."""
    found = [f"{told['id']}: {told['why'] if 'why' in told else told['topic'] + '  ' + told['payload']}"]
    for log in told["logs"]:
        number = f"number {log['number']}, " if "number" in log else ""
        found.append(f"{log['log']}: {number}{log['why']}")
    if "ways" in told:
        ways = told["ways"]
        found += [f"  to {way['to']} by {way['by']}" for way in ways["ways"]] or [ways["nowhere"] or "no route"]
        found += [f"function {name}: {why}" for name, why in ways["functions"].items()]
    return found + [f"rule {name}: {why}" for name, why in told["rules"].items()]
