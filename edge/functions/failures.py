"""What is told of an exception, bounded whatever it holds."""

import linecache
from collections import deque
from types import TracebackType
from typing import Final

from edge.functions.wire import MESSAGE_CHARACTERS_MAX, NAME_CHARACTERS_MAX, TRACEBACK_CHARACTERS_MAX

_FRAMES_MAX: Final = 20
_CHAIN_MAX: Final = 4
_LINE_CHARACTERS_MAX: Final = 200
_OUR_PACKAGE: Final = __name__.rpartition(".")[0]


def describe(error: BaseException) -> tuple[str, str, str]:
    """Class, text and traceback, each within the wire's bounds, none with a lone surrogate. Raises nothing, but for
    MemoryError."""
    lines: list[str] = []
    _tell(error, lines, _CHAIN_MAX)
    trace = _clean("\n".join(lines), 2 * TRACEBACK_CHARACTERS_MAX)
    if len(trace) > TRACEBACK_CHARACTERS_MAX:  # its end says most
        trace = "…" + trace[1 - TRACEBACK_CHARACTERS_MAX :]
    return _name(error), _text(error), trace


def _name(error: BaseException) -> str:
    return _clean(type(error).__qualname__, NAME_CHARACTERS_MAX)


def _text(error: BaseException) -> str:
    """The exception's own words. Its __str__ is the function's code, and may do anything."""
    try:
        if isinstance(error, SystemExit):
            return f"the code called exit({_clean(repr(error.code), 100)})"
        return _clean(str(error), MESSAGE_CHARACTERS_MAX)
    except MemoryError:
        raise
    except BaseException:  # noqa: BLE001 - even sys.exit within __str__
        return "its text cannot be had"


def _clean(text: str, characters_max: int) -> str:
    """Cut to what the wire takes; a lone surrogate becomes its escape."""
    text = text[:characters_max]
    if not text.isascii():
        text = text.encode("utf-8", "backslashreplace").decode()[:characters_max]
    return text


def _tell(error: BaseException, lines: list[str], more: int) -> None:
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None and more:
        _tell(before, lines, more - 1)
        lines.append("")
        lines.append("which led to:" if error.__cause__ is None else "which is the cause of:")
        lines.append("")
    _frames(error.__traceback__, lines)
    if isinstance(error, SyntaxError) and isinstance(error.text, str):
        lines.append(f'  File "{error.filename!s:.200}", line {error.lineno}')
        lines.append(f"    {error.text[:_LINE_CHARACTERS_MAX].strip()}")
    text = _text(error)
    lines.append(f"{_name(error)}: {text}" if text else _name(error))
    for note in list(getattr(error, "__notes__", ()))[:3]:
        if isinstance(note, str):
            lines.append(note[:MESSAGE_CHARACTERS_MAX])
    if isinstance(error, BaseExceptionGroup) and more:
        for inner in error.exceptions[:3]:
            lines.append("")
            lines.append("within it:")
            _tell(inner, lines, more - 1)


def _frames(trace: TracebackType | None, lines: list[str]) -> None:
    """The innermost frames, but for those of the worker itself."""
    frames: deque[tuple[str, int, str]] = deque(maxlen=_FRAMES_MAX)
    passed = 0
    while trace is not None:
        code = trace.tb_frame.f_code
        name = trace.tb_frame.f_globals.get("__name__", "")
        if not (isinstance(name, str) and name.startswith((_OUR_PACKAGE, "importlib._bootstrap"))):
            frames.append((code.co_filename, trace.tb_lineno or 0, code.co_name))
            passed += 1
        trace = trace.tb_next
    if frames:
        lines.append("Traceback, the innermost call last:")
    if passed > len(frames):
        lines.append(f"  … {passed - len(frames)} more")
    for file, number, name in frames:
        lines.append(f'  File "{file[:_LINE_CHARACTERS_MAX]}", line {number}, in {name[:_LINE_CHARACTERS_MAX]}')
        if source := linecache.getline(file, number)[:_LINE_CHARACTERS_MAX].strip():
            lines.append(f"    {source}")
