"""Rules for tests, parsed in this process."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import msgspec

from edge.messages import Message
from edge.rules import journal
from edge.rules.rule import Rule
from edge.rules.sql.parse import parse


def rule(sql: str, **settings: Any) -> Rule:
    answer = parse(sql)
    assert answer.plan is not None, answer.mistake
    return Rule("r", answer.plan, **settings)


def rows(made: Rule, docs: list[Any], *, topic: str = "dt/b1/temp", now: int = 0) -> list[Any]:
    return [row for _, row in made.run([Message(topic, b"")] * len(docs), docs, now)]


def value(expression: str, doc: Any) -> Any:
    """What an expression gives for one payload."""
    (row,) = rows(rule(f"SELECT {expression} AS v FROM 'dt/#'"), [doc], now=1_000)
    return msgspec.json.decode(msgspec.json.encode(row))["v"]


@contextmanager
def small_journals(block: int) -> Iterator[None]:
    """Blocks of so many rows and, where that is few, new bases all the time."""
    few = block < journal.BLOCK
    with (
        patch.object(journal, "BLOCK", block),
        patch.object(journal, "CHANGES_MAX", 3 if few else journal.CHANGES_MAX),
        patch.object(journal, "BYTES_LEAST", 64 if few else journal.BYTES_LEAST),
    ):
        yield


def passes(condition: str, doc: Any) -> bool:
    return bool(rows(rule(f"SELECT * FROM 'dt/#' WHERE {condition}"), [doc]))
