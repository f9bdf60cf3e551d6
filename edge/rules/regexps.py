"""Regular expressions whose cost is bounded whatever the pattern and the text: regexp_matches, _substr, _replace.

The dialect is the part of Java's (which AWS IoT and people know) that needs no looking back: no back-references, no
look-around, no possessive quantifiers. Classes such as `\\d`, and case, are ASCII's.

A pattern becomes a small program, at most PROGRAM_MAX instructions. It is run by backtracking that never tries the
same instruction at the same character twice, so one search costs at most instructions × characters; a call costs at
most STEPS_MAX, then it has no result. Patterns that the standard library's engine cannot be slow with (few
quantifiers, none within another, a short text) are given to it, as it is many times as fast.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

PATTERN_CHARS_MAX = 512
TEXT_CHARS_MAX = 1024
PROGRAM_MAX = 512
STEPS_MAX = 50_000
_NESTED_MAX = 20
_FAST_TEXT_MAX = 512

Spans = list[int]
"""Start and end of the match, then of each group; -1 where a group took no part."""

_SPACE = frozenset(" \t\n\r\f\v")
_DIGIT = frozenset("0123456789")
_WORD = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
_CLASSES = {"d": _DIGIT, "w": _WORD, "s": _SPACE}
_SIMPLE = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}
_ONE, _SPLIT, _SAVE, _AT, _DONE = range(5)


class _Node(NamedTuple):
    """kind: one, at, group, cat, or, repeat."""

    kind: str
    items: tuple[Any, ...]


class _Class:
    """A set of characters."""

    def __init__(self, *, fold: bool) -> None:
        self.chars: set[str] = set()
        self.ranges: list[tuple[str, str]] = []
        self.without: list[frozenset[str]] = []  # \D, \W, \S within it
        self.negated = False
        self._fold = fold

    def holds(self, char: str) -> bool:
        found = self._plain(char)
        if not found and self._fold and char.isascii():
            found = self._plain(char.lower()) or self._plain(char.upper())
        return found is not self.negated

    def _plain(self, char: str) -> bool:
        return (
            char in self.chars
            or any(low <= char <= high for low, high in self.ranges)
            or any(char not in others for others in self.without)
        )


class _Parser:
    """Text → tree. Raises ValueError saying what is not known."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0
        self.groups = 0
        self.fold = text.startswith("(?i)")
        if self.fold:
            self.at = 4

    def whole(self) -> _Node:
        node = self._either(0)
        if self.at < len(self.text):
            raise ValueError(f"')' at {self.at + 1} closes nothing")
        return node

    def _peek(self) -> str:
        return self.text[self.at] if self.at < len(self.text) else ""

    def _either(self, depth: int) -> _Node:
        if depth > _NESTED_MAX:
            raise ValueError("is nested too deeply")
        branches = [self._sequence(depth)]
        while self._peek() == "|":
            self.at += 1
            branches.append(self._sequence(depth))
        return branches[0] if len(branches) == 1 else _Node("or", tuple(branches))

    def _sequence(self, depth: int) -> _Node:
        items = []
        while self._peek() not in {"", "|", ")"}:
            items.append(self._repeated(self._atom(depth)))
        return _Node("cat", tuple(items))

    def _repeated(self, node: _Node) -> _Node:
        place, char = self.at, self._peek()
        if not char or char not in "*+?{":
            return node
        if char == "{":
            found = re.compile(r"\{(\d{1,4})(,(\d{0,4}))?\}").match(self.text, self.at)
            if found is None:
                raise ValueError(f"'{{' at {place + 1} begins no {{m,n}}")
            low = int(found[1])
            high = low if found[2] is None else int(found[3]) if found[3] else -1
            self.at = found.end()
            if high != -1 and high < low:
                raise ValueError(f"{found[0]} is the wrong way round")
        else:
            self.at += 1
            low, high = {"*": (0, -1), "+": (1, -1), "?": (0, 1)}[char]
        if node.kind == "at":
            raise ValueError(f"{char!r} at {place + 1} repeats nothing")
        lazy = self._peek() == "?"
        self.at += lazy
        if (after := self._peek()) and after in "*+?{":
            raise ValueError(f"{after!r} at {self.at + 1} follows a quantifier")
        return _Node("repeat", (node, low, high, lazy))

    def _atom(self, depth: int) -> _Node:
        char = self.text[self.at]
        self.at += 1
        if char == "(":
            return self._group(depth)
        if char == "[":
            return _Node("one", (self._class(),))
        if char in "^$":
            return _Node("at", (char,))
        if char in "*+?{":
            raise ValueError(f"{char!r} at {self.at} repeats nothing")
        one = _Class(fold=self.fold)
        if char == ".":
            one.chars, one.negated = {"\n"}, True
        elif char == "\\":
            if self._peek() in {"b", "B"}:
                self.at += 1
                return _Node("at", (self.text[self.at - 1],))
            self._escape(one)
        else:
            one.chars.add(char)
        return _Node("one", (one,))

    def _group(self, depth: int) -> _Node:
        number = -1
        if self.text.startswith("?:", self.at):
            self.at += 2
        elif self._peek() == "?":
            named = re.compile(r"\?P?<[A-Za-z_]\w*>", re.ASCII).match(self.text, self.at)
            if named is None:
                raise ValueError(f"'(?' at {self.at} begins what is not known: only (?:…), (?<name>…), a first (?i)")
            self.at = named.end()
            number = self.groups = self.groups + 1
        else:
            number = self.groups = self.groups + 1
        inner = self._either(depth + 1)
        if self._peek() != ")":
            raise ValueError("a '(' is not closed")
        self.at += 1
        return _Node("group", (inner, number))

    def _escape(self, into: _Class) -> str:
        """Adds what an escape stands for; returns the character, or '' for a class."""
        char = self._peek()
        self.at += 1
        if char.lower() in _CLASSES:
            if char.islower():
                into.chars |= _CLASSES[char]
            else:
                into.without.append(_CLASSES[char.lower()])
            return ""
        if char in {"x", "u"}:
            digits = self.text[self.at : self.at + (2 if char == "x" else 4)]
            self.at += len(digits)
            if len(digits) != (2 if char == "x" else 4) or not all(one in "0123456789abcdefABCDEF" for one in digits):
                raise ValueError(f"\\{char} is not followed by its digits")
            char = chr(int(digits, 16))
        elif char in _SIMPLE:
            char = _SIMPLE[char]
        elif not char or char.isalnum() or not char.isascii():
            raise ValueError(f"\\{char} is not known here")
        into.chars.add(char)
        return char

    def _class(self) -> _Class:
        found = _Class(fold=self.fold)
        if self._peek() == "^":
            found.negated = True
            self.at += 1
        first = True
        while first or self._peek() != "]":
            first = False
            if not self._peek():
                raise ValueError("a '[' is not closed")
            low = self._member(found)
            if self._peek() == "-" and self.text[self.at + 1 : self.at + 2] not in {"]", ""}:
                self.at += 1
                high = self._member(found)
                if not low or not high or high < low:
                    raise ValueError("a range in [] has no order")
                found.ranges.append((low, high))
        self.at += 1
        return found

    def _member(self, found: _Class) -> str:
        char = self.text[self.at]
        self.at += 1
        if char == "\\":
            return self._escape(found)
        if char == "[" or self.text.startswith("&&", self.at - 1):
            raise ValueError("sets within [] are not known; write \\[ or \\&")
        found.chars.add(char)
        return char


class Pattern:
    """Raises ValueError for what is not in the dialect."""

    def __init__(self, text: str) -> None:
        if len(text) > PATTERN_CHARS_MAX:
            raise ValueError(f"is longer than {PATTERN_CHARS_MAX} characters")
        parser = _Parser(text)
        tree = parser.whole()
        self._program: list[tuple[int, Any, int]] = []
        self._emit(_Node("group", (tree, 0)))
        self._program.append((_DONE, None, 0))
        self._slots = 2 * (parser.groups + 1)
        self._fast: re.Pattern[str] | None = None
        self._anchored = _starts_at_the_start(tree)
        self._degree = _degree(tree) + (not self._anchored)
        if self._degree <= 2 and not any(odd in text for odd in _OTHERWISE_READ):
            flags = re.ASCII | (re.IGNORECASE if parser.fold else 0)
            self._fast = re.compile(text[4:] if parser.fold else text, flags)

    def _add(self, kind: int, value: Any = None, other: int = 0) -> int:
        if len(self._program) >= PROGRAM_MAX:
            raise ValueError("is too large, with its repetitions written out")
        self._program.append((kind, value, other))
        return len(self._program) - 1

    def _emit(self, node: _Node) -> None:
        match node:
            case _Node("one", (one,)):
                self._add(_ONE, one)
            case _Node("at", (what,)):
                self._add(_AT, what)
            case _Node("group", (inner, number)):
                if number >= 0:
                    self._add(_SAVE, 2 * number)
                self._emit(inner)
                if number >= 0:
                    self._add(_SAVE, 2 * number + 1)
            case _Node("cat", items):
                for item in items:
                    self._emit(item)
            case _Node("or", branches):
                ends = []
                for branch in branches[:-1]:
                    split = self._add(_SPLIT)
                    self._emit(branch)
                    ends.append(self._add(_SPLIT))
                    self._program[split] = (_SPLIT, split + 1, len(self._program))
                self._emit(branches[-1])
                for end in ends:
                    self._program[end] = (_SPLIT, len(self._program), -1)
            case _Node("repeat", (inner, low, high, lazy)):
                for _ in range(low):
                    self._emit(inner)
                if high == -1:
                    split = self._add(_SPLIT)
                    self._emit(inner)
                    self._add(_SPLIT, split, -1)
                    self._aim(split, lazy=lazy)
                else:
                    splits = []
                    for _ in range(high - low):
                        splits.append(self._add(_SPLIT))
                        self._emit(inner)
                    for split in splits:
                        self._aim(split, lazy=lazy)

    def _aim(self, split: int, *, lazy: bool) -> None:
        """Into the loop first, or past it first."""
        into, past = split + 1, len(self._program)
        self._program[split] = (_SPLIT, past, into) if lazy else (_SPLIT, into, past)

    def search(self, text: str, start: int, steps: list[int]) -> Spans | None:
        """The first match from `start`. steps: what is left, brought up to date; ValueError when it is used up."""
        fast = self._fast
        if fast is not None and (self._degree <= 1 or len(text) <= _FAST_TEXT_MAX):
            found = fast.search(text, start)
            return None if found is None else [place for pair in found.regs for place in pair]
        tried: set[int] = set()
        for at in range(start, 1 if self._anchored else len(text) + 1):
            spans = self._run(text, at, tried, steps)
            if spans is not None:
                return spans
        return None

    def _run(self, text: str, start: int, tried: set[int], steps: list[int]) -> Spans | None:
        program, width, left = self._program, len(text) + 1, steps[0]
        spans = [-1] * self._slots
        stack: list[tuple[int, int, int]] = [(0, start, -1)]  # instruction, character, or what to put back: -2 - slot
        while stack:
            step, at, old = stack.pop()
            if step < 0:
                spans[-2 - step] = old
                continue
            while True:
                left -= 1
                if left < 0:
                    steps[0] = 0
                    raise ValueError("costs too much")
                spot = step * width + at
                if spot in tried:
                    break
                tried.add(spot)
                kind, value, other = program[step]
                if kind == _ONE:
                    if at < width - 1 and value.holds(text[at]):
                        step, at = step + 1, at + 1
                        continue
                    break
                if kind == _SPLIT:
                    if other >= 0:
                        stack.append((other, at, -1))
                    step = value
                elif kind == _SAVE:
                    stack.append((-2 - value, 0, spans[value]))
                    spans[value] = at
                    step += 1
                elif kind == _AT:
                    if not _ANCHORS[value](text, at):
                        break
                    step += 1
                else:
                    steps[0] = left
                    return spans
        steps[0] = left
        return None


def _at_end(text: str, at: int) -> bool:
    return at == len(text) or (at == len(text) - 1 and text[at] == "\n")


def _at_edge(text: str, at: int) -> bool:
    before, after = at > 0 and text[at - 1] in _WORD, at < len(text) and text[at] in _WORD
    return before is not after


_ANCHORS: dict[str, Callable[[str, int], bool]] = {
    "^": lambda _, at: at == 0,
    "$": _at_end,
    "b": _at_edge,
    "B": lambda text, at: bool(text) and not _at_edge(text, at),
}


def _starts_at_the_start(node: _Node) -> bool:
    match node:
        case _Node("cat", (first, *_)):
            return _starts_at_the_start(first)
        case _Node("group", (inner, _)):
            return _starts_at_the_start(inner)
        case _Node("or", branches):
            return all(map(_starts_at_the_start, branches))
    return node == _Node("at", ("^",))


def _degree(node: _Node) -> int:
    """The power of the text's length that backtracking may cost at one place to start; 9 for what may cost more."""
    match node:
        case _Node("cat", items):
            return sum(map(_degree, items))
        case _Node("group", (inner, _)):
            return _degree(inner)
        case _Node("or", branches):
            return 1 if len(branches) <= 16 and not any(map(_degree, branches)) else 9
        case _Node("repeat", (inner, low, high, _)):
            if inner.kind == "one":
                return int(low != high)
            if inner.kind == "repeat":
                return 9
            return 0 if low == high and not _degree(inner) else 9
    return 0


_OTHERWISE_READ = ("(?<", "--", "||", "~~")
"""What the standard library's engine reads otherwise, or warns of."""

_patterns: dict[str, Pattern] = {}


def pattern(text: str) -> Pattern:
    """Compiled once. Raises ValueError for what is not in the dialect."""
    made = _patterns.get(text)
    if made is None:
        if len(_patterns) >= 1024:
            _patterns.clear()
        made = _patterns[text] = Pattern(text)
    return made


def _bounded(work: Callable[..., Any]) -> Callable[..., Any]:
    def worked(text: Any, *rest: Any) -> Any:
        if not isinstance(text, str) or len(text) > TEXT_CHARS_MAX or any(not isinstance(one, str) for one in rest):
            return None
        try:
            return work(text, *rest)
        except ValueError:
            return None

    return worked


@_bounded
def regexp_matches(text: str, regexp: str) -> Any:
    """Whether the text holds a match."""
    return pattern(regexp).search(text, 0, [STEPS_MAX]) is not None


@_bounded
def regexp_substr(text: str, regexp: str) -> Any:
    """The first match."""
    spans = pattern(regexp).search(text, 0, [STEPS_MAX])
    return None if spans is None else text[spans[0] : spans[1]]


@_bounded
def regexp_replace(text: str, regexp: str, new: str) -> Any:
    """Each match replaced; `$1` in what replaces it stands for its first group, `\\$` for a dollar."""
    made, steps, parts, at, size = pattern(regexp), [STEPS_MAX], list[str](), 0, 0
    done = 0
    while at <= len(text):
        spans = made.search(text, at, steps)
        if spans is None:
            break
        steps[0] -= 1 + len(text) // 16  # what a search may cost beside its steps
        if steps[0] < 0:
            return None
        start, end = spans[0], spans[1]
        parts += [text[done:start], _expanded(new, text, spans)]
        size += len(parts[-1]) + len(parts[-2])
        if size > 16 * TEXT_CHARS_MAX:
            return None
        done = end
        at = end if end > start else end + 1
    parts.append(text[done:])
    return "".join(parts)


def _expanded(new: str, text: str, spans: Spans) -> str:
    if "$" not in new and "\\" not in new:
        return new

    def part(found: re.Match[str]) -> str:
        if found[1] is None:
            return found[0][-1:]
        number = 2 * int(found[1])
        if number >= len(spans):
            raise ValueError("there is no such group")
        return text[spans[number] : spans[number + 1]] if spans[number] >= 0 else ""

    return re.sub(r"\$(\d)|\\.", part, new, flags=re.DOTALL)
