"""A rule's text → its plan, by sqlglot: a child process (`python -m edge.rules.sql.parse`), so that the runtime pays no
parser. stdin: a JSON list of texts; stdout: a JSON list of Answer."""

import resource
import sys
from typing import Any, ClassVar

import msgspec
from sqlglot import exp
from sqlglot.dialects.dialect import Dialect
from sqlglot.errors import ParseError, SqlglotError, TokenError
from sqlglot.parser import Parser as SqlParser
from sqlglot.tokens import Tokenizer as SqlTokenizer

from edge.rules.plan import Answer, Lookup, Mistake
from edge.rules.sql.clauses import Clauses
from edge.rules.sql.expressions import DEPTH_MAX, Wrong
from edge.rules.sql.source import Source, Word, line_and_column
from edge.rules.sql.wording import ONE_RULE_EACH, SHAPE, beginning, between, not_known, stumbled, unreadable

TEXT_CHARS_MAX = 16_384
_START = "start"
_CPU_S_MAX = 20
_MEMORY_BYTES_MAX = 1024 * 1024 * 1024


class _Parser(SqlParser):
    """Every function is kept as it is written: what exists is said by our own tables."""

    FUNCTIONS: ClassVar[dict[str, Any]] = {}
    FUNCTION_PARSERS: ClassVar[dict[str, Any]] = {}
    NO_PAREN_FUNCTIONS: ClassVar[dict[Any, Any]] = {}
    NO_PAREN_FUNCTION_PARSERS: ClassVar[dict[str, Any]] = {
        name: parse for name, parse in SqlParser.NO_PAREN_FUNCTION_PARSERS.items() if name == "CASE"
    }

    def raise_error(self, message: str, *token: Any) -> None:
        at = (token and token[0]) or self._curr or self._prev
        try:
            super().raise_error(message, *token)
        except ParseError as error:
            if error.errors and at:
                error.errors[0][_START] = at.start
            raise


class _Sql(Dialect):
    Parser = _Parser

    class Tokenizer(SqlTokenizer):
        IDENTIFIERS: ClassVar[Any] = ['"', "`"]


def parse(text: str) -> Answer:
    """One rule's text. Never raises."""
    words: list[Word] = []
    source = Source(text, words)
    try:
        if len(text) > TEXT_CHARS_MAX:
            raise Wrong(None, f"is longer than {TEXT_CHARS_MAX} characters", "Split it into several rules")
        words += _words(text)
        if (wrong := beginning(words) or between(words)) is not None:
            return _mistake(text, *wrong)
        trees = _trees(text)
        if len(trees) != 1:
            raise Wrong(None, "is not one SELECT", ONE_RULE_EACH)
        if type(trees[0]) is not exp.Select:
            at = source.last("UNION", "EXCEPT", "INTERSECT")
            raise Wrong(*not_known(at, source.word_at(at))) if at else Wrong(None, "is not one SELECT", SHAPE)
        clauses = Clauses(source)
        plan = clauses.plan(trees[0])
        lookups = tuple(Lookup(name, *source.line_and_column(node)) for name, node in clauses.expressions.lookups)
        return Answer(plan=plan, lookups=lookups)
    except Wrong as error:
        return _mistake(text, source.start(error.at), error.problem, error.allowed)
    except ParseError as error:
        first = error.errors[0] if error.errors else {}
        return _mistake(text, *stumbled(words, int(first.get(_START) or 0), str(first.get("description"))))
    except (TokenError, SqlglotError):
        return _mistake(text, *unreadable(text))
    except (RecursionError, MemoryError):
        return Answer(mistake=Mistake(1, 1, "is nested too deeply", f"At most {DEPTH_MAX} levels"))


def _mistake(text: str, at: int, problem: str, allowed: str) -> Answer:
    return Answer(mistake=Mistake(*line_and_column(text, at), problem, allowed))


def _words(text: str) -> list[Word]:
    return [(token.start, text[token.start : token.end + 1]) for token in _Sql().tokenize(text)]


def _trees(text: str) -> list[Any]:
    """The parser is not ours: what it stumbles over is no SQL either."""
    try:
        return [tree for tree in _Sql().parse(text) if tree is not None]
    except (AttributeError, TypeError, ValueError, LookupError, AssertionError) as error:
        raise Wrong(None, "is no SQL", SHAPE) from error


def main() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S_MAX, _CPU_S_MAX))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES_MAX, _MEMORY_BYTES_MAX))
    texts = msgspec.json.decode(sys.stdin.buffer.read(), type=list[str])
    sys.stdout.buffer.write(msgspec.json.encode([parse(text) for text in texts]))


if __name__ == "__main__":
    main()
