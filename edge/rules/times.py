"""Times as texts and back, by the patterns that AWS IoT and Java write: `yyyy-MM-dd'T'HH:mm:ss.SSSZ`."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any

_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_TOKEN = re.compile(r"''|'(?:[^']|'')*'|([A-Za-z])\1*|[^A-Za-z']+")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LETTERS = "yYuMdHhKkmsSaEeDzZXQ"
PATTERN_CHARS_MAX = 128
_TEXT_CHARS_MAX = 128
_MS_MAX = 253_402_300_799_999  # the end of the year 9999

Part = tuple[str, int, str]
"""A letter and how many of it, or '' and the text that stands for itself."""


def parts(pattern: str) -> tuple[Part, ...]:
    """Raises ValueError for what is no such pattern."""
    if len(pattern) > PATTERN_CHARS_MAX:
        raise ValueError(f"is longer than {PATTERN_CHARS_MAX} characters")
    found: list[Part] = []
    at = 0
    while at < len(pattern):
        token = _TOKEN.match(pattern, at)
        if token is None:
            raise ValueError("a quote is not closed")
        at, text = token.end(), token[0]
        if token[1] is None:
            plain = "'" if text == "''" else text[1:-1].replace("''", "'") if text[0] == "'" else text
            found.append(("", 0, plain))
        elif token[1] not in _LETTERS:
            raise ValueError(f"{token[1]!r} is no field of a time; there are {' '.join(_LETTERS)}; texts in quotes")
        else:
            found.append((token[1], len(text), ""))
    return tuple(found)


def zone(name: str) -> tzinfo:
    """`UTC`, `Europe/Rome`, `+01:00`, `UTC+1`. Raises ValueError."""
    if name in {"Z", "UTC", "GMT", ""}:
        return UTC
    shift = re.fullmatch(r"(?:UTC|GMT)?([+-])(\d{1,2})(?::?(\d{2}))?", name)
    if shift is not None and int(shift[2]) <= 18 and int(shift[3] or 0) < 60:
        away = timedelta(hours=int(shift[2]), minutes=int(shift[3] or 0))
        return timezone(-away if shift[1] == "-" else away)
    from zoneinfo import ZoneInfo  # reads the system's table: only where a rule names a zone

    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError):
        raise ValueError(f"{name!r} is no time zone that is known here") from None


_remembered: dict[tuple[str, str], Any] = {}


def _once(work: Callable[[str], Any], text: str) -> Any:
    """What a pattern or a zone means, remembered: there are as many as rules have."""
    key = (work.__name__, text)
    if key not in _remembered:
        if len(_remembered) >= 256:
            _remembered.clear()
        _remembered[key] = work(text)
    return _remembered[key]


def parse_time(pattern: Any, ms: Any, zone_name: Any = "UTC") -> str | None:
    """AWS IoT's name for it: Unix time in ms → text."""
    if not isinstance(pattern, str) or not isinstance(zone_name, str) or ms.__class__ not in {int, float}:
        return None
    if not -62_135_596_800_000 <= ms <= _MS_MAX:
        return None
    try:
        when = (_EPOCH + timedelta(milliseconds=int(ms))).astimezone(_once(zone, zone_name))
        return "".join(plain or _written(letter, many, when) for letter, many, plain in _once(parts, pattern))
    except (ValueError, OverflowError):
        return None


def format_time(ms: Any, pattern: Any, zone_name: Any = "UTC") -> str | None:
    """eKuiper's name for it."""
    return parse_time(pattern, ms, zone_name)


def _written(letter: str, many: int, when: datetime) -> str:
    match letter:
        case "y" | "Y" | "u":
            year = when.isocalendar().year if letter == "Y" else when.year
            return f"{year % 100:02}" if many == 2 else f"{year:0{many}}"
        case "M":
            name = _MONTHS[when.month - 1]
            return name if many >= 4 else name[:3] if many == 3 else f"{when.month:0{many}}"
        case "E":
            name = _DAYS[when.weekday()]
            return name if many >= 4 else name[:3]
        case "S":
            return f"{when.microsecond:06}".ljust(many, "0")[:many]
        case "a":
            return "AM" if when.hour < 12 else "PM"
        case "z":
            return when.tzname() or "UTC"
        case "Z" | "X":
            return _offset(when, "" if letter == "Z" and many == 1 else ":", zulu=letter == "X")
    number = {
        "d": when.day, "H": when.hour, "h": when.hour % 12 or 12, "K": when.hour % 12, "k": when.hour or 24,
        "m": when.minute, "s": when.second, "e": when.isoweekday(), "D": when.timetuple().tm_yday,
        "Q": (when.month + 2) // 3,
    }[letter]  # fmt: skip
    return f"{number:0{many}}"


def _offset(when: datetime, colon: str, *, zulu: bool) -> str:
    minutes = round((when.utcoffset() or timedelta()).total_seconds() / 60)
    if zulu and not minutes:
        return "Z"
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}{colon}{abs(minutes) % 60:02}"


def time_to_epoch(text: Any, pattern: Any) -> int | None:
    """Text → Unix time in ms; without a zone in it, UTC."""
    if not isinstance(text, str) or not isinstance(pattern, str) or len(text) > _TEXT_CHARS_MAX:
        return None
    try:
        return _read(text.strip(), _once(parts, pattern))
    except (ValueError, OverflowError):
        return None


_NUMBERS = {"d": "day", "H": "hour", "k": "hour", "h": "half", "K": "half", "m": "minute", "s": "second"}
_ZONE = re.compile(r"(?:UTC|GMT)?[+-]\d{1,2}(?::?\d{2})?|[A-Za-z][A-Za-z_/+-]*")


def _read(text: str, pattern: tuple[Part, ...]) -> int:
    at, found, where = 0, {"year": 1970, "month": 1, "day": 1}, ""
    after = ""
    for place, (letter, many, plain) in enumerate(pattern):
        if not letter:
            if not text.startswith(plain, at):
                raise ValueError("another text stands there")
            at += len(plain)
        elif letter in "zZX":
            word = _ZONE.match(text, at)
            if word is None:
                raise ValueError("no zone stands there")
            at, where = word.end(), word[0]
        elif letter == "a":
            after = text[at : at + 2].upper()
            at += 2
        elif letter == "E" or (letter == "M" and many >= 3):
            names = _MONTHS if letter == "M" else _DAYS
            rest = text[at:].lower()
            width = 3 if many < 4 else 99
            number = next((n for n, name in enumerate(names) if rest.startswith(name.lower()[:width])), -1)
            if number < 0:
                raise ValueError("no name stands there")
            at += len(names[number]) if many >= 4 else 3
            if letter == "M":
                found["month"] = number + 1
        else:
            packed = place + 1 < len(pattern) and pattern[place + 1][0] != ""
            digits = re.compile(rf"\d{{{many if packed else 1},{many if packed else 9}}}", re.ASCII).match(text, at)
            if digits is None:
                raise ValueError("no number stands there")
            at, value = digits.end(), int(digits[0])
            if letter in "yuY":
                found["year"] = value + 2000 if many == 2 and value < 100 else value
            elif letter == "M":
                found["month"] = value
            elif letter == "S":
                found["microsecond"] = int(digits[0][:6].ljust(6, "0"))
            elif letter in _NUMBERS:
                found[_NUMBERS[letter]] = value
            else:
                raise ValueError(f"{letter} does not give a time")
    if at != len(text):
        raise ValueError("more stands there")
    if "half" in found:
        found["hour"] = found.pop("half") % 12 + (12 if after == "PM" else 0)
    if found.get("hour") == 24:
        found["hour"] = 0
    when = datetime(**found, tzinfo=_once(zone, where))
    return (when - _EPOCH) // timedelta(milliseconds=1)
