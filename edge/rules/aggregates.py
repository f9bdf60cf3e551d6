"""What each aggregate keeps while its window is open: a few slots in a list, never the events.

`add` is Python source, put into the generated loop: `s` the slots, `v` the argument (a number, or any value where
NUMERIC does not name the aggregate; never None), `t` its time in ms. `result` is an expression over `s`.
"""

import math
from typing import Any

COLLECTED_MAX = 1000
_GAMMA = 1.02  # buckets of a percentile grow by this: its result is within 1 %
_LOG_GAMMA = math.log(_GAMMA)

NUMERIC = {"avg", "sum", "min", "max", "stddev", "percentile"}

INIT: dict[str, tuple[Any, ...]] = {
    "count": (0,),
    "sum": (0, 0),
    "avg": (0, 0),
    "min": (None,),
    "max": (None,),
    "stddev": (0, 0.0, 0.0),
    "percentile": (None, None, None),
    "first": (None, None),
    "last": (None, None),
    "collect": (None,),
}


def parts(name: str, i: int) -> list[tuple[str, int]]:
    """An aggregate and what it keeps besides, which merges as aggregates of their own."""
    return [(name, i), ("min", i + 1), ("max", i + 2)] if name == "percentile" else [(name, i)]


def add_lines(name: str, i: int) -> list[str]:
    match name:
        case "count":
            return [f"s[{i}] += 1"]
        case "sum" | "avg":
            return [f"s[{i}] += v", f"s[{i + 1}] += 1"]
        case "min":
            return [f"if s[{i}] is None or v < s[{i}]: s[{i}] = v"]
        case "max":
            return [f"if s[{i}] is None or v > s[{i}]: s[{i}] = v"]
        case "stddev":  # Welford
            return [
                f"s[{i}] += 1",
                f"d = v - s[{i + 1}]",
                f"s[{i + 1}] += d / s[{i}]",
                f"s[{i + 2}] += d * (v - s[{i + 1}])",
            ]
        case "percentile":
            return [
                f"if s[{i}] is None: s[{i}] = {{}}",
                f"b = bucket(v); s[{i}][b] = s[{i}].get(b, 0) + 1",
                *add_lines("min", i + 1),
                *add_lines("max", i + 2),
            ]
        case "first":
            return [f"if s[{i}] is None or t < s[{i}]: s[{i}] = t; s[{i + 1}] = v"]
        case "last":
            return [f"if s[{i}] is None or t >= s[{i}]: s[{i}] = t; s[{i + 1}] = v"]
        case _:
            return [
                f"if s[{i}] is None: s[{i}] = []",
                f"if len(s[{i}]) < {COLLECTED_MAX}: s[{i}].append(v)",
                "else: count('collected_max')",
            ]


def result(name: str, i: int, share: str) -> str:
    match name:
        case "sum":
            return f"(s[{i}] if s[{i + 1}] else None)"
        case "avg":
            return f"(s[{i}] / s[{i + 1}] if s[{i + 1}] else None)"
        case "stddev":
            return f"((s[{i + 2}] / s[{i}]) ** 0.5 if s[{i}] else None)"
        case "percentile":
            return f"percentile(s[{i}], {share}, s[{i + 1}], s[{i + 2}])"
        case "first" | "last":
            return f"s[{i + 1}]"
        case "collect":
            return f"(s[{i}] or [])"
        case _:
            return f"s[{i}]"


def merge(name: str, i: int, s: list[Any], o: list[Any]) -> None:
    """Add the slots of `o`, which is the later of the two, to those of `s`."""
    if name in {"count", "sum", "avg"}:
        for at in range(i, i + len(INIT[name])):
            s[at] += o[at]
    elif o[i] is None:
        return
    elif s[i] is None:
        many = 1 if name == "percentile" else len(INIT[name])
        s[i : i + many] = o[i : i + many]
    elif name == "min":
        s[i] = min(s[i], o[i])
    elif name == "max":
        s[i] = max(s[i], o[i])
    elif name == "stddev":
        if n := s[i] + o[i]:
            d = o[i + 1] - s[i + 1]
            s[i + 2] += o[i + 2] + d * d * s[i] * o[i] / n
            s[i + 1] += d * o[i] / n
            s[i] = n
    elif name == "percentile":
        for key, many in o[i].items():
            s[i][key] = s[i].get(key, 0) + many
    elif name == "collect":
        s[i] = (s[i] + o[i])[:COLLECTED_MAX]
    elif (name == "first" and o[i] < s[i]) or (name == "last" and o[i] >= s[i]):
        s[i : i + 2] = o[i : i + 2]


def bucket(value: float) -> int:
    """Ordered as the values are: 0 for 0, positive for positive ones. From 1e-9 up to what a float holds."""
    size = abs(value)
    if size < 1e-9:
        return 0
    at = int(math.log(size * 1e9) / _LOG_GAMMA) + 1
    return at if value > 0 else -at


def percentile(buckets: dict[int, int] | None, share: float, least: float, most: float) -> float | None:
    """The value below which `share` of them are, within 1 %, and never outside of least … most, their extremes."""
    if not buckets:
        return None
    rank = share * (sum(buckets.values()) - 1)
    seen = 0
    for at in sorted(buckets):
        seen += buckets[at]
        if seen > rank:
            break
    if at == 0:
        return min(max(0.0, least), most)
    size = math.exp((abs(at) - 0.5) * _LOG_GAMMA) / 1e9
    return min(max(float(f"{size if at > 0 else -size:.6g}"), least), most)
