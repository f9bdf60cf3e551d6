"""Reads the README's console blocks as a person would: `$ ` before a command, anything else is output.

An HTML comment on the line before a block says how it is run by tests/test_readme.py:
`<!-- run: 900s -->` it may take that long (60 s otherwise); `<!-- run: no -->` it is not run;
`<!-- shows: edge try | words | more words -->` the command that begins so prints these. Several may stand there.
"""

import re
from typing import NamedTuple

LIMIT_S = 60
_MARK = re.compile(r"<!-- run: (?:(?P<limit_s>\d+)s|no) -->$")


class Command(NamedTuple):
    """One command with its place in the README. limit_s: how long it may take; shows: some of what it prints."""

    line: int
    text: str
    limit_s: int
    shows: tuple[str, ...] = ()

    @property
    def background(self) -> bool:
        return self.text.endswith("&")


class Block(NamedTuple):
    """A fenced block: its language, the line after the fence, its lines, and the marks before it."""

    language: str
    line: int
    lines: list[str]
    marks: list[str]


def blocks(text: str) -> list[Block]:
    """All fenced blocks. Raises ValueError for a fence that is never closed and a mark that stands before no block."""
    found: list[Block] = []
    marks, current = list[str](), None
    for number, line in enumerate(text.splitlines(), 1):
        if current is not None:
            if line.strip() == "```":
                found.append(current)
                current = None
            else:
                current.lines.append(line)
        elif line.startswith("```"):
            current, marks = Block(line[3:].strip(), number + 1, [], marks), []
        elif line.startswith(("<!-- run:", "<!-- shows:")):
            marks.append(line.strip())
        elif line.strip() and marks:
            raise ValueError(f"line {number}: {marks[-1]} stands before no block")
    if current is not None:
        raise ValueError(f"line {current.line}: the block is never closed")
    return found


def commands(text: str) -> list[Command]:
    """The commands that are run, in order; a line that ends with a backslash goes on in the next."""
    found = []
    for block in blocks(text):
        if block.language != "console":
            continue
        limit_s, shows = _limit_s(block), _shows(block)
        if limit_s is None:
            continue
        lines = iter(enumerate(block.lines, block.line))
        for number, line in lines:
            if line.startswith("$ "):
                command = line[2:].strip()
                while command.endswith("\\"):
                    command = command[:-1] + next(lines)[1].strip()
                begun = next((beginning for beginning in shows if command.startswith(beginning)), "")
                found.append(Command(number, command, limit_s, shows.pop(begun, ())))
        if shows:
            raise ValueError(f"line {block.line}: no command begins with {next(iter(shows))!r}")
    return found


def _limit_s(block: Block) -> int | None:
    """None: the block is not run."""
    limit_s: int | None = LIMIT_S
    for mark in block.marks:
        if mark.startswith("<!-- run:"):
            read = _MARK.match(mark)
            if read is None:
                raise ValueError(f"line {block.line}: {mark} is neither '<!-- run: 900s -->' nor '<!-- run: no -->'")
            limit_s = int(read["limit_s"]) if read["limit_s"] else None
    return limit_s


def _shows(block: Block) -> dict[str, tuple[str, ...]]:
    """How a command begins → what it prints."""
    found = {}
    for mark in block.marks:
        if mark.startswith("<!-- shows:"):
            command, *words = (part.strip() for part in mark.removeprefix("<!-- shows:").removesuffix("-->").split("|"))
            if not command or not all(words) or not words:
                raise ValueError(f"line {block.line}: {mark} is not '<!-- shows: a command | what it prints -->'")
            found[command] = tuple(words)
    return found
