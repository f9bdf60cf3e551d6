"""What must hold of the rules' parser and of the code made from a plan, for any text and any payloads."""

import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from edge.errors import InputRejected
from edge.messages import Message
from edge.rules.payloads import decode_cbor
from edge.rules.plan import Answer, Plan
from edge.rules.rule import Row, Rule
from edge.rules.sql.parse import parse

TEXT_CHARS_MAX: Final = 2000  # a child of its own parses what is longer, and may end by it
PAYLOADS_MAX: Final = 64
_DIFFERS: Final = re.compile(rb"newuuid|rand|\d{18}", re.IGNORECASE)
"""What gives another row each time, or after a restart: whole numbers beyond 64 bits are stored as floats."""

_decode = msgspec.json.Decoder().decode


def rules(data: bytes) -> None:
    """data: a byte of choices, the rule's text up to a NUL, then a payload a line."""
    if len(data) < 2:
        return
    text, _, rest = data[1:].partition(b"\0")
    sql = text.decode("utf-8", "replace")[:TEXT_CHARS_MAX]
    answer = parse(sql)
    if answer.plan is None:
        mistake = answer.mistake
        assert mistake is not None
        assert mistake.line >= 1
        assert mistake.column >= 1
        assert mistake.problem
        assert mistake.allowed
        return
    assert msgspec.json.decode(msgspec.json.encode(answer), type=Answer) == answer
    docs = _docs(rest.split(b"\n")[:PAYLOADS_MAX])
    made = _rule(answer.plan, data[0])
    topics = [topic.replace("+", "b1").replace("#", "x") for topic in answer.plan.topics]
    middle = len(docs) // 2
    _run(made, docs[:middle], topics, 0)
    again = _rule(answer.plan, data[0])
    again.restore({name: raw for name, raw in made.state().items() if raw})
    assert again.counts.get("checkpoint_rejected", 0) == 0
    later = _run(made, docs[middle:], topics, middle), _run(again, docs[middle:], topics, middle)
    if not _DIFFERS.search(data):
        assert msgspec.json.encode(later[0]) == msgspec.json.encode(later[1])


def seed(sql: str, *payloads: str, choices: int = 1) -> bytes:
    return bytes((choices,)) + sql.encode() + b"\0" + "\n".join(payloads).encode()


def _rule(plan: Plan, choices: int) -> Rule:
    tables = {"sites": {"b1": {"room": "attic"}}}
    if choices & 1:
        return Rule("r", plan, time=("t",), lateness_ms=choices >> 1 & 7, keys_max=4, events_max=6, tables=tables)
    return Rule("r", plan, keys_max=4, events_max=6, tables=tables)


def _docs(payloads: Sequence[bytes]) -> list[Any]:
    found = []
    for payload in payloads:
        try:
            found.append(decode_cbor(payload) if payload[:1] >= b"\x80" else _decode(payload))
        except (ValueError, RecursionError, InputRejected):
            continue
    return found


def _run(made: Rule, docs: Sequence[Any], topics: Sequence[str], start: int) -> list[Any]:
    """In batches of three, topics in turn, a tick after each; then all that is open."""
    rows: list[Row] = []
    for at in range(0, len(docs), 3):
        part = docs[at : at + 3]
        messages = [Message(topics[(start + at + n) % len(topics)], b"x") for n in range(len(part))]
        rows += made.run(messages, part, 1000 * (start + at))
        rows += made.tick(1000 * (start + at))
    if start:
        rows += made.flush()
    return [row for _, row in rows]


SEEDS: Final = [
    seed("SELECT topic(2) AS b, c * 2 AS d FROM 'dt/+/t' WHERE c > -40 AND changed(c, 0.5)", '{"c":1}', '{"c":9}'),
    seed("SELECT a.b[0]['x y'] AS v, CASE WHEN a IS NULL THEN 1 ELSE upper(s) END AS u FROM 'x/#'", '{"a":{"b":[{}]}}'),
    seed(
        "SELECT g, avg(c) AS a, stddev(c), percentile(c, 0.9) AS p, collect(c) FROM 'x' "
        "GROUP BY g, TUMBLINGWINDOW(ms, 10) HAVING count(*) > 0",
        *(f'{{"t":{t},"g":"{"ab"[t % 2]}","c":{t * 1.5}}}' for t in range(0, 40, 3)),
    ),
    seed(
        "SELECT g, max(c), first(c), last(c) FROM 'x' GROUP BY g, SLIDINGWINDOW(ms, 10)",
        *(f'{{"t":{t * 7 % 31},"g":1,"c":{t}}}' for t in range(12)),
        choices=7,
    ),
    seed("SELECT count(*) FROM 'x' GROUP BY c, HOPPINGWINDOW(ss, 10, 5)", '{"c":[1]}', '{"c":true}', "3", "null"),
    seed("SELECT sum(c) FROM 'x' GROUP BY SESSIONWINDOW(ms, 5)", '{"t":1,"c":1e308}', '{"t":2,"c":1e308}', '{"t":99}'),
    seed("SELECT min(c) FROM 'x' GROUP BY COUNTWINDOW(2)", '{"c":"x"}', '{"c":7}', choices=0),
    seed(
        "SELECT topic(2, a) AS b, a.c AS c, b.rh FROM 'dt/+/t' AS a LEFT JOIN 'dt/+/h' AS b "
        "ON topic(2, a) = topic(2, b) AND b.rh > a.c GROUP BY TUMBLINGWINDOW(ms, 10)",
        *(f'{{"t":{t * 2},"c":{t},"rh":{t * t}}}' for t in range(12)),
    ),
    seed(
        "SELECT regexp_replace(s, '(a+)b', '$1') AS r, cast(c AS int), parse_time('yyyy', c) FROM 'x'",
        '{"s":"aab","c":"1"}',
        '{"c":5}',
    ),
    seed("SELECT * FROM 'x' WHERE unseen(c, 5) AND at_most(2) AND every(2) AND c / 0 = 1 OR s LIKE '%a_'", '{"c":1}'),
    seed("SELECT lookup('sites', topic(1), 'room') AS r, bitand(c, 7), encode(*, 'hex') FROM 'b1'", '{"c":1}'),
    seed("SELECT a FROM 'x' JOIN 'y' ON 1 = 1"),
    seed("SELECT ((((a)))) FROM 'x' WHERE NOT (a BETWEEN 1 AND 'b' AND a IN (1, NULL))", '{"a":1}', "[1]", '"x"'),
]
