"""A rule's text by its words: where one stands, and how a part of it was written. Pure."""

from collections.abc import Sequence
from typing import Any

Word = tuple[int, str]
"""Where it begins, and itself as it is written."""

_LEADING = {"DATE", "DISTINCT", "EXISTS", "INTERVAL", "SELECT", "TIME", "TIMESTAMP"}
_FOLLOWING = {
    "AS",
    "FROM",
    "WHERE",
    "HAVING",
    "AND",
    "OR",
    "THEN",
    "ELSE",
    "END",
    "WHEN",
    "IS",
    "IN",
    "LIKE",
    "BETWEEN",
}


def upper(word: str) -> str:
    """`group  by` as `GROUP BY`."""
    return " ".join(word.upper().split())


def shown(word: str) -> str:
    return word[:40] if word[:1] in {"'", '"', "`"} else f"'{word[:40]}'"


class Source:
    """words: of the text, in its order. A node is one of the parser's."""

    def __init__(self, text: str, words: Sequence[Word]) -> None:
        self.text, self.words = text, words

    def last(self, *names: str) -> int:
        """Where the last of these words stands that is in no brackets, else the last at all; 0 if there is none."""
        found, depth, at_top = 0, 0, False
        for start, word in self.words:
            depth += (word in {"(", "["}) - (word in {")", "]"})
            if upper(word).split(" ")[0] in names and (not depth or not at_top):
                found, at_top = start, not depth
        return found

    def word_at(self, start: int) -> str:
        return next((word for at, word in self.words if at == start), "")

    def start(self, node: Any) -> int:
        """Of a node or what stands for one: a place in the text."""
        if isinstance(node, int):
            return node
        return min(self._metas(node, "start"), default=0)

    def line_and_column(self, node: Any) -> tuple[int, int]:
        return line_and_column(self.text, self.start(node))

    def written(self, node: Any) -> Word:
        """As it stands in the text, with the word before it that belongs to it."""
        starts = self._metas(node, "start")
        if not starts:
            return 0, "this"
        start, end = min(starts), max(self._metas(node, "end")) + 1
        before = [(at, word) for at, word in self.words if at < start]
        if len(before) > 1 and before[-1][1] == "(" and before[-2][1].isalpha() and len(before) > 2:
            start = before[-2][0]
        elif len(before) > 1 and upper(before[-1][1]) in _LEADING:
            start = before[-1][0]
        part = self.text[start:end]
        alone = self.word_at(start) == part
        for at, word in self.words:
            if at < end:
                continue
            closes = word == ")" and part.count("(") > part.count(")")
            if not closes and not (alone and word.isalpha() and upper(word) not in _FOLLOWING):
                break
            part = self.text[start : (end := at + len(word))]
        return start, shown(part)

    @staticmethod
    def _metas(node: Any, which: str) -> list[int]:
        return [one.meta[which] for one in node.walk() if which in one.meta] if node is not None else []


def line_and_column(text: str, at: int) -> tuple[int, int]:
    """From 1."""
    before = text[:at]
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
