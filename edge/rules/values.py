"""SQL's functions and operators on values from a payload.

None stands for what is missing, null or of the wrong kind; whatever is asked of it gives None again, as AWS IoT's
`Undefined` does. Texts that are written as numbers are numbers where one is wanted, as AWS IoT has it. No function
raises, none returns more than TEXT_CHARS_MAX characters, and the work of each grows with its arguments, not faster.
"""

import base64
import binascii
import hashlib
import math
import random
import re
from collections.abc import Callable
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any

import msgspec

from edge.messages import Message
from edge.rules.likes import like
from edge.rules.regexps import regexp_matches, regexp_replace, regexp_substr
from edge.rules.times import format_time, parse_time, time_to_epoch

TEXT_CHARS_MAX = 131_072
_EXACT = 2**53
_NUMBER_CHARS_MAX = 64
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_DIGITS = Context(prec=40)  # 16 before the point, 15 behind it


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


def decimal(value: Any) -> Any:
    """value where it is a number, or a text that is written as one."""
    if value.__class__ is str:
        if len(value) > _NUMBER_CHARS_MAX or _NUMBER.fullmatch(value) is None:
            return None
        digits = value[1:] if value[0] in "+-" else value
        value = int(value) if digits.isdecimal() else float(value)
    return number(value)


def get(value: Any, *path: str | int) -> Any:
    for step in path:
        if isinstance(value, dict) and isinstance(step, str):
            value = value.get(step)
        elif isinstance(value, list) and isinstance(step, int) and 0 <= step < len(value):
            value = value[step]
        else:
            return None
    return value


def pick(value: Any, step: Any) -> Any:
    """As AWS IoT's `get`: of an object, an array, or a character of a text, counted from 0."""
    if isinstance(value, str):
        return value[step] if step.__class__ is int and 0 <= step < len(value) else None
    return get(value, step)


def is_null(value: Any, path: tuple[str | int, ...]) -> bool:
    """Whether a null stands at the path; where nothing stands there is none."""
    return get(value, *path) is None and not is_undefined(value, path)


def is_undefined(value: Any, path: tuple[str | int, ...]) -> bool:
    """Whether nothing stands at the path, not even a null."""
    holder, last = get(value, *path[:-1]), path[-1]
    if isinstance(holder, dict):
        return last not in holder
    return not (isinstance(holder, list) and isinstance(last, int) and 0 <= last < len(holder))


def _reckon(work: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def reckoned(left: Any, right: Any) -> Any:
        left, right = decimal(left), decimal(right)
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
    if isinstance(left, str) or isinstance(right, str):
        return concat(left, right)
    return _add(left, right)


_add = _reckon(lambda a, b: a + b)


def _comparable(left: Any, right: Any) -> tuple[Any, Any] | None:
    """Both as numbers, as texts or as truths."""
    if isinstance(left, bool) or isinstance(right, bool):
        return (left, right) if isinstance(left, bool) and isinstance(right, bool) else None
    if isinstance(left, str) and isinstance(right, str):
        return left, right
    left = decimal(left) if isinstance(left, str) else left
    right = decimal(right) if isinstance(right, str) else right
    numbers = (int, float)
    return (left, right) if isinstance(left, numbers) and isinstance(right, numbers) else None


def _compare(work: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool | None]:
    def compared(left: Any, right: Any) -> bool | None:
        both_ = _comparable(left, right)
        return None if both_ is None else work(*both_)

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


def concat(*parts: Any) -> str | list[Any] | None:
    """Of texts one text; where an array is among them, an array of all that they hold."""
    if any(isinstance(part, list) for part in parts):
        return _joined(parts)
    texts = [text_of(part) for part in parts]
    if any(text is None for text in texts):
        return None
    whole = "".join(text for text in texts if text is not None)
    return whole if len(whole) <= TEXT_CHARS_MAX else None


def _joined(parts: tuple[Any, ...]) -> list[Any] | None:
    whole: list[Any] = []
    size = 0
    for part in parts:
        text = _json_text(part)
        size += len(text or "")
        if part is None or text is None or size > TEXT_CHARS_MAX:
            return None
        whole += part if isinstance(part, list) else [part]
    return whole


def text_of(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return None if number(value) is None else repr(number(value))


def to_number(value: Any) -> Any:
    """Spaces around it do not count."""
    if isinstance(value, str) and len(value) > _NUMBER_CHARS_MAX:
        return None
    return decimal(value.strip() if isinstance(value, str) else value)


def _on_text(work: Callable[..., Any]) -> Callable[..., Any]:
    def worked(text: Any, *rest: Any) -> Any:
        if not isinstance(text, str) or any(not isinstance(one, str) for one in rest):
            return None
        return work(text, *rest)

    return worked


def _on_number(work: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def worked(value: Any) -> Any:
        value = decimal(value)
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


def _bounded(text: str) -> str | None:
    return text if len(text) <= TEXT_CHARS_MAX else None


def _replace(text: str, old: str, new: str) -> str | None:
    if not old or text.count(old) * max(0, len(new) - len(old)) + len(text) > TEXT_CHARS_MAX:
        return None
    return text.replace(old, new)


def _round(value: Any, digits: Any = 0) -> Any:
    """A half away from zero, as the number is written."""
    value = decimal(value)
    if value is None or digits.__class__ is not int or not 0 <= digits <= 15:
        return None
    if value.__class__ is int or abs(value) >= _EXACT:
        return value
    if not digits:
        return _nearest(value)
    return float(Decimal(repr(value)).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP, _DIGITS))


def _nearest(value: float) -> int:
    """A half away from zero."""
    size = abs(value)
    whole = math.floor(size)
    whole += size - whole >= 0.5
    return whole if value >= 0 else -whole


def encode_raw(payload: bytes, form: Any) -> str | None:
    """Of a whole payload, `encode(*, 'base64')`: whatever its bytes are."""
    if form not in ("base64", "hex") or len(payload) > TEXT_CHARS_MAX // (2 if form == "hex" else 4 / 3):
        return None
    return base64.b64encode(payload).decode() if form == "base64" else payload.hex()


def mqtt_property(message: Message, name: Any) -> str | None:
    """As AWS IoT names them."""
    properties = message.properties
    if properties is None:
        return None
    match name:
        case "content_type":
            return properties.content_type
        case "response_topic":
            return properties.response_topic
        case "format_indicator":
            return "UTF8_DATA" if properties.payload_is_utf8 else "UNSPECIFIED_BYTES"
        case "correlation_data" if properties.correlation_data is not None:
            return properties.correlation_data.decode("utf-8", "replace")
    return None


def user_properties(message: Message, name: Any) -> list[str] | None:
    """All values of that name."""
    found = [value for key, value in (message.properties.user if message.properties is not None else ()) if key == name]
    return found or None


def encode(value: Any, form: Any) -> str | None:
    if not isinstance(value, str) or form not in ("base64", "hex"):
        return None
    return encode_raw(value.encode("utf-8", "replace"), form)


def decode(value: Any, form: Any) -> str | None:
    if not isinstance(value, str) or form not in ("base64", "hex"):
        return None
    try:
        raw = base64.b64decode(value, validate=True) if form == "base64" else bytes.fromhex(value)
        return raw.decode()
    except (binascii.Error, ValueError):
        return None


def _digest(name: str) -> Callable[[str], str]:
    return lambda text: hashlib.new(name, text.encode("utf-8", "replace"), usedforsecurity=False).hexdigest()


def nanvl(value: Any, other: Any) -> Any:
    unfit = value is None or (isinstance(value, float) and not math.isfinite(value))
    return other if unfit else value


def coalesce(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _power(left: Any, right: Any) -> float:
    return float(left) ** float(right) if left >= 0 or float(right).is_integer() else math.nan


def _pad(*, left: bool) -> Callable[[Any, Any], str | None]:
    """As AWS IoT has it: so many spaces are added."""

    def padded(value: Any, many: Any) -> str | None:
        text = text_of(value)
        if text is None or many.__class__ is not int or not 0 <= many <= TEXT_CHARS_MAX - len(text):
            return None
        return " " * many + text if left else text + " " * many

    return padded


def _whole(value: Any) -> int | None:
    """What bits can be counted of: a whole number of at most 64 bits."""
    if value.__class__ is float and value.is_integer() and abs(value) <= _EXACT:
        value = int(value)
    return value if value.__class__ is int and -(2**63) <= value < 2**64 else None


def _on_bits(work: Callable[..., Any]) -> Callable[..., Any]:
    def worked(*values: Any) -> Any:
        whole = [_whole(value) for value in values]
        return None if None in whole else work(*whole)

    return worked


def character(code: Any) -> str | None:
    """Of its number; the halves of surrogate pairs are none."""
    code = _whole(code)
    return chr(code) if code is not None and 0 <= code < 0x110000 and not 0xD800 <= code < 0xE000 else None


def _trunc(value: Any, digits: Any = 0) -> Any:
    value = decimal(value)
    if value is None or digits.__class__ is not int or not 0 <= digits <= 15:
        return None
    scale = 10**digits
    try:
        return number(math.trunc(value * scale) / scale if digits else math.trunc(value))
    except (OverflowError, ValueError):
        return None


def new_uuid() -> str:
    """A random one: version 4 (RFC 9562, 5.4)."""
    bits = random.SystemRandom().getrandbits(128) & ~(0xF << 76 | 0x3 << 62) | 0x4 << 76 | 0x2 << 62
    text = f"{bits:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def split_value(text: Any, separator: Any, place: Any) -> str | None:
    if not isinstance(text, str) or not isinstance(separator, str) or not separator or place.__class__ is not int:
        return None
    found: list[str] = text.split(separator)
    return found[place] if 0 <= place < len(found) else None


def _hex_to_number(text: str) -> int | None:
    try:
        return int(text, 16) if 0 < len(text) <= 16 else None
    except ValueError:
        return None


def _array_contains(values: Any, wanted: Any) -> bool | None:
    return any(equal(one, wanted) is True for one in values) if isinstance(values, list) else None


CASTS = {
    "int": "int", "integer": "int", "bigint": "int", "decimal": "decimal", "float": "decimal", "double": "decimal",
    "string": "string", "boolean": "boolean", "bool": "boolean",
}  # fmt: skip
"""What cast() makes, by the names that AWS IoT and eKuiper have for it."""


def cast(value: Any, kind: Any) -> Any:
    """None for what cannot be made into it. To int it is rounded, a half away from zero."""
    match CASTS.get(kind) if isinstance(kind, str) else None:
        case "string":
            if isinstance(value, list | dict):
                return _json_text(value)
            return text_of(value)
        case "boolean":
            if isinstance(value, str):
                return {"true": True, "false": False}.get(value.strip().lower())
            return value if isinstance(value, bool) else None if number(value) is None else number(value) != 0
        case "decimal":
            found = int(value) if isinstance(value, bool) else to_number(value)
            return None if found is None else float(found)
        case "int":
            found = int(value) if isinstance(value, bool) else to_number(value)
            if found.__class__ is float:
                found = _nearest(found)
            return number(found)
    return None


def _json_text(value: Any) -> str | None:
    try:
        text = msgspec.json.encode(value)
    except (ValueError, TypeError, RecursionError):
        return None
    return text.decode() if len(text) <= TEXT_CHARS_MAX else None


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
    "trunc": (1, 2, _trunc),
    "round": (1, 2, _round),
    "sign": (1, 1, _on_number(lambda value: (value > 0) - (value < 0))),
    "sqrt": (1, 1, _on_number(math.sqrt)),
    "exp": (1, 1, _on_number(math.exp)),
    "ln": (1, 1, _on_number(math.log)),
    "log": (1, 1, _on_number(math.log10)),
    "sin": (1, 1, _on_number(math.sin)),
    "cos": (1, 1, _on_number(math.cos)),
    "tan": (1, 1, _on_number(math.tan)),
    "asin": (1, 1, _on_number(math.asin)),
    "acos": (1, 1, _on_number(math.acos)),
    "atan": (1, 1, _on_number(math.atan)),
    "atan2": (2, 2, _reckon(math.atan2)),
    "sinh": (1, 1, _on_number(math.sinh)),
    "cosh": (1, 1, _on_number(math.cosh)),
    "tanh": (1, 1, _on_number(math.tanh)),
    "cot": (1, 1, _on_number(lambda value: 1 / math.tan(value))),
    "radians": (1, 1, _on_number(math.radians)),
    "degrees": (1, 1, _on_number(math.degrees)),
    "pi": (0, 0, lambda: math.pi),
    "rand": (0, 0, random.random),
    "power": (2, 2, _reckon(_power)),
    "mod": (2, 2, _reckon(math.fmod)),
    "remainder": (2, 2, _reckon(math.fmod)),
    "bitand": (2, 2, _on_bits(lambda a, b: a & b)),
    "bitor": (2, 2, _on_bits(lambda a, b: a | b)),
    "bitxor": (2, 2, _on_bits(lambda a, b: a ^ b)),
    "bitnot": (1, 1, _on_bits(lambda a: ~a)),
    "hex2dec": (1, 1, _on_text(_hex_to_number)),
    "dec2hex": (1, 1, _on_bits(lambda a: f"{a & 0xFFFF_FFFF_FFFF_FFFF:x}")),
    "upper": (1, 1, _on_text(lambda text: _bounded(text.upper()))),
    "lower": (1, 1, _on_text(lambda text: _bounded(text.lower()))),
    "length": (1, 1, _on_text(len)),
    "trim": (1, 1, _on_text(str.strip)),
    "ltrim": (1, 1, _on_text(str.lstrip)),
    "rtrim": (1, 1, _on_text(str.rstrip)),
    "lpad": (2, 2, _pad(left=True)),
    "rpad": (2, 2, _pad(left=False)),
    "chr": (1, 1, character),
    "numbytes": (1, 1, _on_text(lambda text: len(text.encode("utf-8", "replace")))),
    "split_value": (3, 3, split_value),
    "regexp_matches": (2, 2, regexp_matches),
    "regexp_replace": (3, 3, regexp_replace),
    "regexp_substr": (2, 2, regexp_substr),
    "startswith": (2, 2, _on_text(str.startswith)),
    "endswith": (2, 2, _on_text(str.endswith)),
    "indexof": (2, 2, _on_text(str.find)),
    "replace": (3, 3, _on_text(_replace)),
    "substring": (2, 3, substring),
    "concat": (1, 32, concat),
    **{name: (1, 1, _on_text(_digest(name))) for name in ("md5", "sha1", "sha224", "sha256", "sha384", "sha512")},
    "encode": (2, 2, encode),
    "decode": (2, 2, decode),
    "get": (2, 2, pick),
    "get_or_default": (1, 2, coalesce),
    "element_at": (2, 2, get),
    "cardinality": (1, 1, lambda values: len(values) if isinstance(values, list) else None),
    "array_contains": (2, 2, _array_contains),
    "keys": (1, 1, lambda value: list(value) if isinstance(value, dict) else None),
    "cast": (2, 2, cast),
    "parse_time": (2, 3, parse_time),
    "format_time": (2, 3, format_time),
    "time_to_epoch": (2, 2, time_to_epoch),
    "newuuid": (0, 0, new_uuid),
    "to_number": (1, 1, to_number),
    "to_string": (1, 1, text_of),
    "nanvl": (2, 2, nanvl),
    "coalesce": (1, 32, coalesce),
    "isundefined": (1, 1, lambda value: value is None),
    "isnull": (1, 1, lambda value: value is None),
}
"""Name to the least and most arguments and what does it."""

CONTEXT = {
    "topic": (0, 1), "timestamp": (0, 0), "clientid": (0, 0),
    "get_mqtt_property": (1, 1), "get_user_properties": (1, 1),
    "window_start": (0, 0), "window_end": (0, 0), "lookup": (3, 3),
}  # fmt: skip
"""What looks beside the payload; name to the least and most arguments."""
