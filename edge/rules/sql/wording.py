"""What is wrong with a rule's text before it is a tree, in plain words: which word, and what is allowed there. Pure."""

import re
from collections.abc import Sequence
from typing import Final

SHAPE: Final = "SELECT columns FROM 'topic/filter' [WHERE …] [GROUP BY …, a window] [HAVING …]"
JOINED: Final = "FROM 'dt/+/temp' AS a INNER JOIN 'dt/+/hum' AS b ON topic(2, a) = topic(2, b), or LEFT JOIN"
_CONDITION: Final = "A condition such as c > 21.5 AND topic(2) = 'b1'"
_ALLOWED: Final = {
    "SELECT": "Fields, functions, expressions, with commas between, each AS a name; then FROM 'topic/filter'",
    "FROM": "FROM 'dt/+/temp', in quotes; then WHERE, GROUP BY, HAVING, or the end",
    "JOIN": JOINED,
    "ON": JOINED,
    "WHERE": _CONDITION,
    "GROUP": "GROUP BY fields and one window, such as GROUP BY id, TUMBLINGWINDOW(ss, 10)",
    "HAVING": _CONDITION,
}
_AFTER_A_FIELD: Final = {"FROM", "AS", "IN", "IS", "LIKE", "BETWEEN", "AND", "OR", "NOT"}
_OPEN: Final = {"'": "'", '"': '"', "`": "`", "/*": "*/"}
_SKIPPED: Final = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|\"[^\"]*\"|`[^`]*`", re.DOTALL)

Word = tuple[int, str]
"""Where it begins, and itself as it is written."""
Wrong = tuple[int, str, str]
"""Where, the problem, what is allowed."""


def line_and_column(text: str, at: int) -> tuple[int, int]:
    """From 1."""
    before = text[:at]
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


def beginning(words: Sequence[Word]) -> Wrong | None:
    """What can be told by the first words."""
    if not words:
        return 0, "is not one SELECT: it is empty", SHAPE
    at, first = words[0]
    if first.upper() != "SELECT":
        return at, f"is not one SELECT: it begins with {_shown(first)}", SHAPE
    if len(words) > 1 and words[1][1].upper() == "FROM":
        return words[1][0], "names no column before FROM", SHAPE
    if len(words) > 2 and words[1][1].upper() == "VALUE":
        following = words[2][1]
        if (following[0].isalnum() or following[0] in "_'\"`") and following.upper() not in _AFTER_A_FIELD:
            allowed = f"SELECT {following[:40]} …: a row is always an object; a field of that name is value AS name"
            return words[1][0], "SELECT VALUE is not known here", allowed
    return None


def stumbled(words: Sequence[Word], at: int, description: str) -> Wrong:
    """The parser did over the word at `at`. description: the parser's own, which nobody is shown."""
    index = next((index for index, (start, _) in enumerate(words) if start >= at), len(words) - 1)
    word = _shown(words[index][1])
    clause = next((name for _, one in reversed(words[:index]) if (name := one.upper()) in _ALLOWED), "")
    is_last = index == len(words) - 1
    if is_last and words[index][1].upper() in _ALLOWED:
        clause = words[index][1].upper()
    wanted = re.fullmatch(r"Expecting ([()\[\],A-Z]+)", description)
    if wanted is None and not description.startswith("Required"):
        problem = f"{word} is not expected here"
    else:
        side = "after" if is_last else "before"
        problem = f"{wanted[1] if wanted else 'something'} is missing {side} {word}"
    return words[index][0], problem, _ALLOWED.get(clause, SHAPE)


def unreadable(text: str) -> Wrong:
    """The words themselves could not be told apart."""
    rest = _SKIPPED.sub(lambda match: " " * len(match[0]), text)
    found = [(at, opening) for opening in _OPEN if (at := rest.find(opening)) >= 0]
    if not found:
        return 0, "holds what cannot be read", SHAPE
    at, opening = min(found)
    return at, f"{opening} is opened here and not closed", f"{_OPEN[opening]} at the end of it"


def _shown(word: str) -> str:
    return word[:40] if word[:1] in {"'", '"', "`"} else f"'{word[:40]}'"
