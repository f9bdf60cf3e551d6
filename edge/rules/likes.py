"""SQL's LIKE, whose cost grows with the text alone: `%` any run of characters, `_` any one.

A pattern is cut at its `%`. What stands before the first and after the last is compared at its place; of what stands
between, each piece is looked for from where the one before it ended, and the first that is found will do. A piece
without `_` is found by `str.find`; one with it by the shift-and algorithm, whose every step looks at one character and
moves all places of the piece at once.
"""

from typing import Any, NamedTuple

PATTERN_CHARS_MAX = 1024
_REMEMBERED_MAX = 256
_REMEMBERED_CHARS_MAX = 128


class _Piece(NamedTuple):
    """What stands between two `%`. text: with any character in place of a `_`; open: where those are; shifts: for the
    search, a character to the places it may stand at, the last being `ends`."""

    text: str
    open: tuple[int, ...]
    shifts: dict[str, int]
    anything: int
    ends: int

    def stands_at(self, text: str, at: int) -> bool:
        if not self.open:
            return text.startswith(self.text, at)
        if len(text) - at < len(self.text):
            return False
        start = 0
        for place in (*self.open, len(self.text)):
            if not text.startswith(self.text[start:place], at + start):
                return False
            start = place + 1
        return True

    def find(self, text: str, at: int, end: int) -> int:
        """Where it first ends between at and end, or -1."""
        if not self.open:
            found = text.find(self.text, at, end)
            return found if found < 0 else found + len(self.text)
        state, ends, anything, places = 0, self.ends, self.anything, self.shifts.get
        for place in range(at, end):
            state = (state << 1 | 1) & places(text[place], anything)
            if state & ends:
                return place + 1
        return -1


_Pieces = tuple[_Piece, ...]
_remembered: dict[tuple[str, str], _Pieces] = {}


def pieces(pattern: str, escape: str = "") -> _Pieces:
    """Cut at `%`. escape: the character after which `%`, `_` and itself stand for themselves. Raises ValueError."""
    made = _remembered.get((pattern, escape))
    if made is None:
        made = _cut(pattern, escape)
        if len(pattern) <= _REMEMBERED_CHARS_MAX:
            if len(_remembered) >= _REMEMBERED_MAX:
                _remembered.clear()
            _remembered[pattern, escape] = made
    return made


def _cut(pattern: str, escape: str) -> _Pieces:
    if len(pattern) > PATTERN_CHARS_MAX:
        raise ValueError(f"is longer than {PATTERN_CHARS_MAX} characters")
    if len(escape) > 1:
        raise ValueError(f"{escape[:8]!r} is more than one character")
    found: list[_Piece] = []
    chars: list[str] = []
    places: list[int] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == escape:
            if pattern[at : at + 1] not in {"%", "_", escape}:
                raise ValueError(f"after {escape!r} stands neither %, _ nor {escape!r}")
            chars.append(pattern[at])
            at += 1
        elif char == "%":
            found.append(_piece(chars, places))
            chars, places = [], []
        else:
            if char == "_":
                places.append(len(chars))
            chars.append(char)
    return (*found, _piece(chars, places))


def _piece(chars: list[str], places: list[int]) -> _Piece:
    anything = sum(1 << place for place in places)
    shifts: dict[str, int] = {}
    if places:
        for place, char in enumerate(chars):
            if not anything >> place & 1:
                shifts[char] = shifts.get(char, anything) | 1 << place
    return _Piece("".join(chars), tuple(places), shifts, anything, 1 << len(chars) >> 1)


def like(text: Any, pattern: Any, escape: Any = "") -> bool | None:
    """Whether the whole text is of that form. None where a pattern is none, or longer than PATTERN_CHARS_MAX."""
    if not isinstance(text, str) or not isinstance(pattern, str) or not isinstance(escape, str):
        return None
    try:
        first, *between = pieces(pattern, escape)
    except ValueError:
        return None
    if not first.stands_at(text, 0):
        return False
    if not between:
        return len(text) == len(first.text)
    last = between.pop()
    at, end = len(first.text), len(text) - len(last.text)
    if end < at or not last.stands_at(text, end):
        return False
    for piece in between:
        at = piece.find(text, at, end)
        if at < 0:
            return False
    return True
