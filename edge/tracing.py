"""What became of one reading: looked for in all logs at the asking, so that it costs nothing before.

ID is THING/BOOT/SEQUENCE, as receivers get it. A thing may have slashes: the rows of a rule are GATEWAY/rule/NAME.
"""

import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from edge.config import RULES, Config
from edge.errors import InputRejected
from edge.explaining import explain_topic, where_says
from edge.functions.functions import FOLDER as FUNCTIONS
from edge.functions.functions import INBOX
from edge.log import Log
from edge.outbox.clock import Clock
from edge.outbox.intent import count_intent
from edge.outbox.lanes import Lanes, Sent
from edge.outbox.ledger import Ledger
from edge.outbox.marks import Marks
from edge.outbox.record import Record, decode, encode
from edge.outbox.report import CURSOR, Folder, held
from edge.outbox.stream import Stream
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
    named: Id, config: Config, rules: Sequence[ReadRule], logs: Sequence[TracedLog]
) -> Iterator[dict[str, Any] | None]:
    """None now and then while it looks, then what it found."""
    thing, boot, sequence = named
    places: list[dict[str, Any]] = []
    record: Record | None = None
    for one in logs:
        found = yield from _find(one, named)
        if found is None:
            if (why := _why_not(one.log, named)) or one.name != RULES:
                places.append({"log": one.name, "held": False, "why": why or "nothing of this thing came here"})
            continue
        number, record = found
        places.append({"log": one.name, "held": True, "number": number, "why": _state(one, number, thing)})
        if stamp := Clock(one.log.state, 0, "").unix_ms(record.boot, record.taken_ms):
            places[-1]["taken_ms"] = stamp
    told: dict[str, Any] = {"id": f"{thing}/{boot}/{sequence}", "logs": places}
    source = _source(config, thing)
    if record is None:
        told["why"] = "its record is held nowhere any more, or never came: what its topic was is not known"
    else:
        told |= _message(record)
        sender = "" if "/" in thing else thing
        told["ways"] = explain_topic(config, rules, source, sender, record.topic)
    took = {one.name: one.log for one in logs}.get(RULES)
    told["rules"] = {
        rule.settings.name: _rule_says(rule, record, named, source, took) for rule in rules if _may_see(rule, source)
    }
    yield told


def _find(one: TracedLog, named: Id) -> Generator[None, None, tuple[int, Record] | None]:
    thing, boot, sequence = named
    log = one.log
    by_number = thing == one.own or (one.name == RULES and "/rule/" in thing)
    number = sequence if by_number else log.first
    needle = encode(named)
    while rows := log.read(number, records_max=1 if by_number else SLICE_RECORDS, bytes_max=SLICE_BYTES):
        for number, data in rows:
            if by_number:
                record = decode(data) if number == sequence else None
                mine = record is not None and record.boot == boot and (record.reading or (one.own, 0, 0))[0] == thing
                return (number, record) if record is not None and mine else None
            if data.endswith(needle) and (record := decode(data)) is not None and record.reading == named:
                return number, record
        number += 1
        yield None
    return None


def _state(one: TracedLog, number: int, thing: str) -> str:
    if not one.export:
        return "kept here; nothing exports it"
    if one.sent.is_settled(number, thing):
        return f"taken by {one.export}"
    return f"waits for {one.export}"


def _why_not(log: Log, named: Id) -> str:
    """What marks and ledger say of one that is not held; empty if nothing."""
    thing, boot, sequence = named
    ledger = Ledger(log.state)
    count_intent(log, ledger)
    for entry in ledger.things.get(thing, ()):
        if entry.boot == boot and entry.first <= sequence <= entry.last:
            whole = entry.count == entry.last - entry.first + 1
            among = "" if whole else f", perhaps: {entry.count} of {entry.first} to {entry.last}"
            return f"shed: {entry.reason}{among}"
    boots = Marks(log.state).things.get(thing)
    if not boots:
        return ""
    last = boots.get(boot, 0)
    if not last:
        return f"nothing of boot {boot} came here; the last was {next(reversed(boots))}"
    if sequence > last:
        return f"did not come here: the last of boot {boot} is {last}"
    return "came here and went on, and its place is free again"


def _rule_says(rule: ReadRule, record: Record | None, named: Id, source: str, log: Log | None) -> str:
    thing, boot, sequence = named
    seen = ""
    if log is not None:
        marks = Marks(log.state, marks_prefix(engine_name(rule.settings)))
        seen = "saw it: " if marks.sequence(thing, boot) >= sequence else "has not seen it: "
    if record is None:
        return f"{seen}its payload is not known any more"
    if not any(matches(topic, record.topic) for topic in rule.plan.topics):
        return "no: " + " and ".join(f"FROM '{topic}'" for topic in rule.plan.topics)
    return seen + where_says(rule, record.topic, record.payload)


def _may_see(rule: ReadRule, source: str) -> bool:
    wanted = rule.settings.source
    return source in wanted or (source.startswith("board:") and "boards" in wanted)


def _source(config: Config, thing: str) -> str:
    """Where the messages of a thing come from; `boards` for a further client of whichever board."""
    gateway, _, rule = thing.partition("/rule/")
    if rule and gateway == config.gateway.name:
        return f"rule:{rule}"
    return f"board:{thing}" if any(board.name == thing for board in config.boards) else "boards"


def _message(record: Record) -> dict[str, Any]:
    payload = record.payload[:PAYLOAD_SHOWN_BYTES]
    return {"topic": record.topic, "payload": payload.decode(errors="replace"), "bytes": len(record.payload)}


def lines(told: Mapping[str, Any]) -> list[str]:
    """For people. told: what `trace` found, as JSON has it."""
    found = [f"{told['id']}: {told['why'] if 'why' in told else told['topic'] + '  ' + told['payload']}"]
    for log in told["logs"]:
        number = f"number {log['number']}, " if log["held"] else ""
        found.append(f"{log['log']}: {number}{log['why']}")
    if "ways" in told:
        ways = told["ways"]
        found += [f"  to {way['to']} by {way['by']}" for way in ways["ways"]] or [ways["nowhere"] or "no route"]
        found += [f"function {name}: {why}" for name, why in ways["functions"].items()]
    return found + [f"rule {name}: {why}" for name, why in told["rules"].items()]
