"""What is wrong with a rule's text before it is a tree, in plain words: which word, and what is allowed there. Pure."""

import difflib
import re
from collections.abc import Sequence
from typing import Final

from edge.rules.sql.source import Word, shown, upper

SHAPE: Final = "SELECT columns FROM 'topic/filter' [WHERE …] [GROUP BY …, a window] [HAVING …]"
JOINED: Final = "FROM 'dt/+/temp' AS a INNER JOIN 'dt/+/hum' AS b ON topic(2, a) = topic(2, b), or LEFT JOIN"
ONE_RULE_EACH: Final = "One SELECT in a rule; a rule of its own for each further one"
_CONDITION: Final = "A condition such as c > 21.5 AND topic(2) = 'b1'"
GROUPS: Final = "GROUP BY fields and one window, such as GROUP BY id, TUMBLINGWINDOW(ss, 10)"
_ALLOWED: Final = {
    "SELECT": "Fields, functions, expressions, with commas between, each AS a name; then FROM 'topic/filter'",
    "FROM": "FROM 'dt/+/temp', in quotes; then WHERE, GROUP BY, HAVING, or the end",
    "JOIN": JOINED,
    "ON": JOINED,
    "WHERE": _CONDITION,
    "GROUP": GROUPS,
    "GROUP BY": GROUPS,
    "HAVING": _CONDITION,
}
_INSTEAD: Final = {
    "DISTINCT": "changed(c) or unseen(c, 60) in WHERE leave out what came before",
    "LIMIT": "at_most(5) or every(10) in WHERE leave messages out",
    "FETCH": "at_most(5) or every(10) in WHERE leave messages out",
    "TOP": "at_most(5) or every(10) in WHERE leave messages out",
    "ORDER": "Nothing: rows come in the order they are made in",
    "UNION": ONE_RULE_EACH,
    "EXCEPT": ONE_RULE_EACH,
    "INTERSECT": ONE_RULE_EACH,
}
_SIGNS: Final = {*"+-*/%=<>()[],.;!", "==", "<>", "!=", "<=", ">="}
_VALUES_STAND_THERE: Final = "Values themselves: 21.5, 'b1', TRUE; fields by their names"
_PATHS: Final = "Paths such as a.b, a[0].b, a['b c']"
_IN_PLACE_OF_SIGNS: Final = {
    "->": _PATHS, "->>": _PATHS, "#>": _PATHS, "#>>": _PATHS, "{": _PATHS,
    "?": _VALUES_STAND_THERE, "@": _VALUES_STAND_THERE, ":": _VALUES_STAND_THERE,
    "::": "cast(c AS int)", "||": "concat(a, b), or a + b",
    "&": "bitand(a, b)", "|": "bitor(a, b)", "^": "bitxor(a, b), power(a, b)", "~": "bitnot(a)",
}  # fmt: skip
_SIGNS_ALLOWED: Final = "+ - * / %, = <> < <= > >=, AND OR NOT, IN, BETWEEN, LIKE, IS NULL"
_KEYWORDS: Final = (
    "FROM", "WHERE", "GROUP", "HAVING", "JOIN", "INNER", "LEFT", "BETWEEN", "LIKE", "CASE", "WHEN", "THEN", "ELSE",
)  # fmt: skip
_CLAUSES: Final = {"FROM", "WHERE", "GROUP BY", "HAVING", "JOIN", "ON"}
_AFTER_A_FIELD: Final = {"FROM", "AS", "IN", "IS", "LIKE", "BETWEEN", "AND", "OR", "NOT"}
_OPEN: Final = {"'": "'", '"': '"', "`": "`", "/*": "*/"}
_SKIPPED: Final = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|\"[^\"]*\"|`[^`]*`", re.DOTALL)

Wrong = tuple[int, str, str]
"""Where, the problem, what is allowed."""


def beginning(words: Sequence[Word]) -> Wrong | None:
    """What can be told by the first words."""
    if not words:
        return 0, "is not one SELECT: it is empty", SHAPE
    at, first = words[0]
    if first.upper() != "SELECT":
        return at, f"is not one SELECT: it begins with {shown(first)}", SHAPE
    if len(words) > 1 and words[1][1].upper() == "FROM":
        return words[1][0], "names no column before FROM", SHAPE
    if len(words) > 2 and words[1][1].upper() == "VALUE":
        following = words[2][1]
        if (following[0].isalnum() or following[0] in "_'\"`") and following.upper() not in _AFTER_A_FIELD:
            allowed = f"SELECT {following[:40]} …: a row is always an object; a field of that name is value AS name"
            return words[1][0], "SELECT VALUE is not known here", allowed
    return None


def between(words: Sequence[Word]) -> Wrong | None:
    """What can be told by each word and the next: signs that are not known, commas with nothing beside them, a second
    statement. The parser lets some of it pass, and of the rest shows what it took it for."""
    clause = "SELECT"
    for (at, word), (following_at, following) in zip(words, [*words[1:], (-1, "")], strict=True):
        clause = upper(word) if upper(word) in _ALLOWED else clause
        if word not in _SIGNS and word[0].isascii() and not (word[0].isalnum() or word[0] in "_'\"`$"):
            return at, f"{shown(word)} is not known here", _IN_PLACE_OF_SIGNS.get(word, _SIGNS_ALLOWED)
        if word == ";" and following not in {"", ";"}:
            return following_at, f"{shown(following)} begins a second statement", ONE_RULE_EACH
        if word in {",", "(", "["} or upper(word) in {"SELECT", "GROUP BY"}:
            if word == "," and not following:
                return at, "something is missing after ','", _ALLOWED[clause]
            if following == "," or (word == "," and (following in {")", "]", ";"} or upper(following) in _CLAUSES)):
                return following_at, f"something is missing before {shown(following)}", _ALLOWED[clause]
    return None


def not_known(at: int, word: str) -> Wrong:
    """A word that SQL has, and rules have not."""
    return at, f"{upper(word)} is not known here", _INSTEAD.get(upper(word).split(" ")[0], SHAPE)


def meant(word: str) -> str:
    """`Did you mean WHERE? `, or nothing."""
    if not word.isalpha() or upper(word) in _KEYWORDS:
        return ""
    near = difflib.get_close_matches(word.upper(), _KEYWORDS, 1, 0.75)
    return f"Did you mean {near[0]}? " if near else ""


def stumbled(words: Sequence[Word], at: int, description: str) -> Wrong:
    """The parser did over the word at `at`. description: the parser's own, which nobody is shown."""
    index = next((index for index, (start, _) in enumerate(words) if start >= at), len(words) - 1)
    case = description == "Expected END after CASE"  # it names the last word of it
    index += case and index < len(words) - 1
    is_last = index == len(words) - 1 and not (case and words[index][0] > at)
    word = shown(words[index][1])
    clause = next((name for _, one in reversed(words[:index]) if (name := upper(one)) in _ALLOWED), "")
    if is_last and upper(words[index][1]) in _ALLOWED:
        clause = upper(words[index][1])
    allowed = _ALLOWED.get(clause, SHAPE)
    side = "after" if is_last else "before"
    if case:
        return words[index][0], f"END is missing {side} {word}", "CASE WHEN c > 30 THEN 'hot' ELSE 'cold' END"
    wanted = re.fullmatch(r"Expecting ([()\[\],A-Z]+)", description)
    if wanted is not None or description.startswith("Required"):
        return words[index][0], f"{wanted[1] if wanted else 'something'} is missing {side} {word}", allowed
    for start, one in (words[index - 1], words[index]):
        if hint := meant(one):
            return start, f"{shown(one)} is not expected here", hint + allowed
    return words[index][0], f"{word} is not expected here", allowed


def unreadable(text: str) -> Wrong:
    """The words themselves could not be told apart."""
    rest = _SKIPPED.sub(lambda match: " " * len(match[0]), text)
    found = [(at, opening) for opening in _OPEN if (at := rest.find(opening)) >= 0]
    if not found:
        return 0, "holds what cannot be read", SHAPE
    at, opening = min(found)
    return at, f"{opening} is opened here and not closed", f"{_OPEN[opening]} at the end of it"
