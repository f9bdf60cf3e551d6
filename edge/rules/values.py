"""SQL's functions and operators on values from a payload.

None stands for what is missing, null or of the wrong kind; whatever is asked of it gives None again, as AWS IoT's
`Undefined` does. No function raises, and none returns more than TEXT_CHARS_MAX characters.
"""

import base64
import binascii
import hashlib
import math
from collections.abc import Callable
from typing import Any

TEXT_CHARS_MAX = 131_072
_EXACT = 2**53


def number(value: Any) -> Any:
    """value where it is a number that can be reckoned with; whole numbers beyond 2**53 as floats."""
    if value.__class__ is float:
        return value if math.isfinite(value) else None
    if value.__class__ is int:
        if -_EXACT <= value <= _EXACT:
            return value
        try:
            return float(value)
        except OverflowError:
            return None
    return None


def get(value: Any, *path: str | int) -> Any:
    for step in path:
        if isinstance(value, dict) and isinstance(step, str):
            value = value.get(step)
        elif isinstance(value, list) and isinstance(step, int) and 0 <= step < len(value):
            value = value[step]
        else:
            return None
    return value


def _reckon(work: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def reckoned(left: Any, right: Any) -> Any:
        left, right = number(left), number(right)
        if left is None or right is None:
            return None
        try:
            return number(work(left, right))
        except (ArithmeticError, ValueError):
            return None

    return reckoned


def _divide(left: Any, right: Any) -> Any:
    whole = left / right
    if left.__class__ is int and right.__class__ is int and left % right == 0:
        return left // right
    return whole


def add(left: Any, right: Any) -> Any:
    if isinstance(left, str) and isinstance(right, str):
        return concat(left, right)
    return _add(left, right)


_add = _reckon(lambda a, b: a + b)


def _same_kind(left: Any, right: Any) -> bool:
    numbers = (int, float)
    if isinstance(left, bool) or isinstance(right, bool):
        return isinstance(left, bool) and isinstance(right, bool)
    return (isinstance(left, numbers) and isinstance(right, numbers)) or (
        isinstance(left, str) and isinstance(right, str)
    )


def _compare(work: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool | None]:
    def compared(left: Any, right: Any) -> bool | None:
        return work(left, right) if _same_kind(left, right) else None

    return compared


def equal(left: Any, right: Any) -> bool | None:
    if left is None or right is None:
        return None
    if isinstance(left, bool) is not isinstance(right, bool):
        return False
    try:
        return bool(left == right)
    except RecursionError:
        return None


def unequal(left: Any, right: Any) -> bool | None:
    same = equal(left, right)
    return None if same is None else not same


def negate(value: Any) -> bool | None:
    return None if not isinstance(value, bool) else not value


def both(left: Any, right: Any) -> bool | None:
    if left is False or right is False:
        return False
    return True if left is True and right is True else None


def either(left: Any, right: Any) -> bool | None:
    if left is True or right is True:
        return True
    return False if left is False and right is False else None


def within(value: Any, *choices: Any) -> bool | None:
    if value is None:
        return None
    return any(equal(value, choice) is True for choice in choices)


def between(value: Any, low: Any, high: Any) -> bool | None:
    return both(OPERATORS[">="](value, low), OPERATORS["<="](value, high))


def like(text: Any, pattern: Any) -> bool | None:
    """SQL's LIKE: `%` any run, `_` any character. Costs at most the product of the two lengths."""
    if not isinstance(text, str) or not isinstance(pattern, str):
        return None
    at = spot = 0
    star, mark = -1, 0
    while at < len(text):
        if spot < len(pattern) and pattern[spot] == "%":
            star, mark = spot, at
            spot += 1
        elif spot < len(pattern) and pattern[spot] in {"_", text[at]}:
            at += 1
            spot += 1
        elif star >= 0:
            mark += 1
            at, spot = mark, star + 1
        else:
            return False
    return pattern[spot:].strip("%") == ""


def concat(*parts: Any) -> str | None:
    texts = [text_of(part) for part in parts]
    if any(text is None for text in texts):
        return None
    whole = "".join(text for text in texts if text is not None)
    return whole if len(whole) <= TEXT_CHARS_MAX else None


def text_of(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return None if number(value) is None else repr(number(value))


def to_number(value: Any) -> Any:
    if isinstance(value, str) and len(value) <= 64:
        try:
            return number(int(value) if value.strip().lstrip("+-").isdecimal() else float(value))
        except ValueError:
            return None
    return number(value)


def _on_text(work: Callable[..., Any]) -> Callable[..., Any]:
    def worked(text: Any, *rest: Any) -> Any:
        if not isinstance(text, str) or any(not isinstance(one, str) for one in rest):
            return None
        return work(text, *rest)

    return worked


def _on_number(work: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def worked(value: Any) -> Any:
        value = number(value)
        if value is None:
            return None
        try:
            return number(work(value))
        except (ArithmeticError, ValueError):
            return None

    return worked


def substring(text: Any, start: Any, end: Any = None) -> str | None:
    """As AWS IoT has it: from start (from 0) up to, without, end."""
    if not isinstance(text, str) or start.__class__ is not int or start < 0:
        return None
    if end is not None and (end.__class__ is not int or end < 0):
        return None
    return text[start:end]


def _replace(text: str, old: str, new: str) -> str | None:
    if not old or text.count(old) * max(0, len(new) - len(old)) + len(text) > TEXT_CHARS_MAX:
        return None
    return text.replace(old, new)


def _round(value: Any, digits: Any = 0) -> Any:
    value = number(value)
    if value is None or digits.__class__ is not int or not 0 <= digits <= 15:
        return None
    return round(value, digits) if digits else round(value)


def encode(value: Any, form: Any) -> str | None:
    if not isinstance(value, str) or form not in {"base64", "hex"}:
        return None
    raw = value.encode("utf-8", "replace")
    return base64.b64encode(raw).decode() if form == "base64" else raw.hex()


def decode(value: Any, form: Any) -> str | None:
    if not isinstance(value, str) or form not in {"base64", "hex"}:
        return None
    try:
        raw = base64.b64decode(value, validate=True) if form == "base64" else bytes.fromhex(value)
        return raw.decode()
    except (binascii.Error, ValueError):
        return None


def _digest(name: str) -> Callable[[str], str]:
    return lambda text: hashlib.new(name, text.encode("utf-8", "replace"), usedforsecurity=False).hexdigest()


def nanvl(value: Any, other: Any) -> Any:
    return other if number(value) is None else value


def coalesce(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _power(left: Any, right: Any) -> float:
    return float(left) ** float(right) if left >= 0 or float(right).is_integer() else math.nan


OPERATORS: dict[str, Callable[..., Any]] = {
    "+": add,
    "-": _reckon(lambda a, b: a - b),
    "*": _reckon(lambda a, b: a * b),
    "/": _reckon(_divide),
    "%": _reckon(math.fmod),
    "<": _compare(lambda a, b: a < b),
    "<=": _compare(lambda a, b: a <= b),
    ">": _compare(lambda a, b: a > b),
    ">=": _compare(lambda a, b: a >= b),
    "=": equal,
    "<>": unequal,
    "not": negate,
    "and": both,
    "or": either,
    "in": within,
    "between": between,
    "like": like,
    "is null": lambda value: value is None,
    "neg": _on_number(lambda value: -value),
}

FUNCTIONS: dict[str, tuple[int, int, Callable[..., Any]]] = {
    "abs": (1, 1, _on_number(abs)),
    "ceil": (1, 1, _on_number(math.ceil)),
    "floor": (1, 1, _on_number(math.floor)),
    "trunc": (1, 1, _on_number(math.trunc)),
    "round": (1, 2, _round),
    "sign": (1, 1, _on_number(lambda value: (value > 0) - (value < 0))),
    "sqrt": (1, 1, _on_number(math.sqrt)),
    "exp": (1, 1, _on_number(math.exp)),
    "ln": (1, 1, _on_number(math.log)),
    "log": (1, 1, _on_number(math.log10)),
    "sin": (1, 1, _on_number(math.sin)),
    "cos": (1, 1, _on_number(math.cos)),
    "tan": (1, 1, _on_number(math.tan)),
    "power": (2, 2, _reckon(_power)),
    "mod": (2, 2, _reckon(math.fmod)),
    "upper": (1, 1, _on_text(str.upper)),
    "lower": (1, 1, _on_text(str.lower)),
    "length": (1, 1, _on_text(len)),
    "trim": (1, 1, _on_text(str.strip)),
    "ltrim": (1, 1, _on_text(str.lstrip)),
    "rtrim": (1, 1, _on_text(str.rstrip)),
    "startswith": (2, 2, _on_text(str.startswith)),
    "endswith": (2, 2, _on_text(str.endswith)),
    "indexof": (2, 2, _on_text(str.find)),
    "replace": (3, 3, _on_text(_replace)),
    "substring": (2, 3, substring),
    "concat": (1, 32, concat),
    "md5": (1, 1, _on_text(_digest("md5"))),
    "sha256": (1, 1, _on_text(_digest("sha256"))),
    "encode": (2, 2, encode),
    "decode": (2, 2, decode),
    "get": (2, 2, get),
    "to_number": (1, 1, to_number),
    "to_string": (1, 1, text_of),
    "nanvl": (2, 2, nanvl),
    "coalesce": (1, 32, coalesce),
    "isundefined": (1, 1, lambda value: value is None),
    "isnull": (1, 1, lambda value: value is None),
}
"""Name to the least and most arguments and what does it."""

CONTEXT = {"topic": (0, 1), "timestamp": (0, 0), "window_start": (0, 0), "window_end": (0, 0), "lookup": (3, 3)}
"""What looks beside the payload; name to the least and most arguments."""
