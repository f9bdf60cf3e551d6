"""Reads the README's console blocks as a person would: `$ ` before a command, anything else is output.

An HTML comment on the line before a block says how it is run by tests/test_readme.py:
`<!-- run: 900s -->` it may take that long (60 s otherwise); `<!-- run: no -->` it is not run.
"""

import re
from typing import NamedTuple

LIMIT_S = 60
_MARK = re.compile(r"<!-- run: (?:(?P<limit_s>\d+)s|no) -->$")


class Command(NamedTuple):
    """One command with its place in the README. limit_s: how long it may take."""

    line: int
    text: str
    limit_s: int

    @property
    def background(self) -> bool:
        return self.text.endswith("&")


class Block(NamedTuple):
    """A fenced block: its language, the line after the fence, its lines, and the mark before it ('' for none)."""

    language: str
    line: int
    lines: list[str]
    mark: str


def blocks(text: str) -> list[Block]:
    """All fenced blocks. Raises ValueError for a fence that is never closed and a mark that stands before no block."""
    found: list[Block] = []
    mark, current = "", None
    for number, line in enumerate(text.splitlines(), 1):
        if current is not None:
            if line.strip() == "```":
                found.append(current)
                current = None
            else:
                current.lines.append(line)
        elif line.startswith("```"):
            current, mark = Block(line[3:].strip(), number + 1, [], mark), ""
        elif line.startswith("<!-- run:"):
            mark = line.strip()
        elif line.strip() and mark:
            raise ValueError(f"line {number}: {mark} stands before no block")
    if current is not None:
        raise ValueError(f"line {current.line}: the block is never closed")
    return found


def commands(text: str) -> list[Command]:
    """The commands that are run, in order; a line that ends with a backslash goes on in the next."""
    found = []
    for block in blocks(text):
        if block.language != "console":
            continue
        limit_s = _limit_s(block)
        if limit_s is None:
            continue
        lines = iter(enumerate(block.lines, block.line))
        for number, line in lines:
            if line.startswith("$ "):
                command = line[2:].strip()
                while command.endswith("\\"):
                    command = command[:-1] + next(lines)[1].strip()
                found.append(Command(number, command, limit_s))
    return found


def _limit_s(block: Block) -> int | None:
    """None: the block is not run."""
    if not block.mark:
        return LIMIT_S
    read = _MARK.match(block.mark)
    if read is None:
        raise ValueError(f"line {block.line}: {block.mark} is neither '<!-- run: 900s -->' nor '<!-- run: no -->'")
    return int(read["limit_s"]) if read["limit_s"] else None
