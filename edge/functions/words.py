"""The words of `exec`: a program and its arguments, some of which are files beside the gateway file.

Such a file (a relative path that names one) is the function's code: it is copied and watched as a Python file is, and
the program gets the copy's path. A program without a slash is looked for in PATH. A program by its absolute path is
watched, and runs where it lies; other absolute paths are arguments like any other, which need `read` to be read.
"""

import os
import shutil
from collections.abc import Sequence
from typing import Final

import msgspec

PATH: Final = "/usr/local/bin:/usr/bin:/bin"


class Word(msgspec.Struct, frozen=True):
    """text: as it stands in the gateway file. file: of the function's code, else empty; name: of its copy."""

    text: str
    file: str = ""
    name: str = ""


def words(given: Sequence[str], base: str) -> list[Word]:
    """base: the gateway file's folder."""
    found = []
    for place, text in enumerate(given):
        path = os.path.join(base, text)
        is_in_path = not place and "/" not in text
        if is_in_path or os.path.isabs(text) or not os.path.isfile(path):
            found.append(Word(text))
        else:
            name = "/".join("up" if part == ".." else part for part in os.path.normpath(text).split("/"))
            found.append(Word(text, path, name))
    return found


def program(text: str) -> str | None:
    """Where a program is that is looked for in PATH, or named by an absolute path."""
    return shutil.which(text, path=PATH)


def problem(given: Sequence[str], base: str) -> str:
    """What keeps the program from being run; empty for nothing."""
    text = given[0]
    if "/" not in text:
        if program(text):
            return ""
        beside = f"; for the file beside the gateway file write './{text}'"
        there = beside if os.path.isfile(os.path.join(base, text)) else ""
        return f"there is no program {text!r} in {PATH}{there}"
    path = os.path.join(base, text)
    if not os.path.isfile(path):
        return f"{path}: No such file"
    return "" if os.access(path, os.X_OK) else f"{path}: it may not be run as a program (chmod +x)"
