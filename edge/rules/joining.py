"""A plan over two topics → what takes a message of either side into a `Joining`, and what makes rows of its pairs."""

from typing import Any

from edge.rules.compiling import FUTURE_MS_MAX, Code, Tables, time_lines
from edge.rules.joins import Joining
from edge.rules.plan import SIDED, Call, Expression, Field, Plan, Value
from edge.topics import matches

_CATCH = "except (ArithmeticError, TypeError, ValueError, RecursionError): count('error')"


class _Sides(dict[str, int]):
    """Topic to 1 where the first filter takes it, plus 2 where the second does."""

    def __init__(self, topics: tuple[str, ...]) -> None:
        super().__init__()
        self._topics = topics

    def __missing__(self, topic: str) -> int:
        if len(self) >= 4096:
            self.clear()
        found = self[topic] = sum(1 << at for at, one in enumerate(self._topics) if matches(one, topic))
        return found


class JoinCode(Code):
    """Beside `run`: `hold0` and `hold1` for a message of each topic, `on` for a pair, `pairs` for a window's pairs."""

    def __init__(self, plan: Plan, memory: Joining, time: tuple[str | int, ...], tables: Tables) -> None:
        super().__init__(plan, memory, time, tables)
        assert plan.join is not None
        self._join, self._joining = plan.join, memory
        self._side: int | None = None  # whose message is looked at; None for a pair
        self._held: tuple[dict[Expression, int], dict[Expression, int]] = ({}, {})
        self._grouped = bool(plan.group or plan.having or self._aggregates)

    def build(self) -> Any:
        pairs, on = self._pairs(), self._on()
        lines = [*self._hold(0), *self._hold(1), *on, *pairs]
        lines += [
            "def run(messages, docs, now):",
            "    out = []",
            f"    latest = now + {FUTURE_MS_MAX}; at = max(now, memory.watermark)",
            "    for m, doc in zip(messages, docs):",
            "        try:",
        ]
        self._fields = {}
        late = self._memory.lateness_ms
        body = ["sides = SIDES[m.topic]", *time_lines(self._time, self._field(self._time) if self._time else "")]
        body += [
            "if t > memory.watermark:",
            f"    mark = memory.watermark = {'t if t <= now else max(memory.watermark, now)' if self._time else 't'}",
            f"    if mark - {late} >= memory.close_at: memory.close(mark - {late})",
            "if memory.is_late(t): continue",
            "if sides & 1: hold0(m, doc, t, now)",
            "if sides & 2: hold1(m, doc, t, now)",
        ]
        lines += [" " * 12 + line for line in self._loads() + body]
        lines += [
            f"        {_CATCH}",
            "    return out",
            "",
        ]
        if self._grouped:
            lines += self._emit()
        self._names["SIDES"] = _Sides(self._plan.topics)
        self._execute(lines)
        self._joining.pairs = self._names["pairs"]
        self._joining.on = self._names.get("on")
        self._joining.nothing = (None,) * (len(self._held[1]) + 1)
        if self._grouped:
            self._memory.emit = self._names["emit"]
        return self._names["run"]

    def _hold(self, side: int) -> list[str]:
        """What a message must meet, its key, and what is held of it."""
        self._side, self._fields = side, {}
        body = []
        before = self._join.before[side]
        if before is not None:
            body.append(f"if not {self._test(before)}: return")
        outer = side == 0 and self._join.outer
        parts = []
        for at, pair in enumerate(self._join.keys):
            body += [
                f"k{at} = {self._value(pair[side])}",
                f"if k{at}.__class__ not in SCALARS: count('group'); return",
                f"if k{at}.__class__ is bool: k{at} = (k{at},)",
            ]
            parts.append(f"k{at}")
        missing = " or ".join(f"{part} is None" for part in parts)
        body.append(f"key = ({''.join(f'{part}, ' for part in parts)})")
        body.append(f"if {missing}: {'key = None' if outer else 'return'}")
        values = "".join(f"memory.kept({self._value(leaf)}), " for leaf in self._held[side])
        body.append(f"memory.hold({side}, t, key, ({values}))")
        lines = [f"def hold{side}(m, doc, t, now):", *("    " + line for line in self._loads() + body)]
        self._side = None
        return lines

    def _on(self) -> list[str]:
        if self._join.on is None:
            return []
        test = self._test(self._join.on)
        return ["def on(a, b):", *self._unpack(4), f"    return {test}"]

    def _pairs(self) -> list[str]:
        plan = self._plan
        body = []
        self._windowed = True
        if plan.where is not None:
            body.append(f"if not {self._test(plan.where)}: continue")
        if self._grouped:
            body += self._key_lines()
            self._names["INIT"] = self._memory.init
            body += [
                "s = groups.get(key)",
                "if s is None:",
                f"    if len(groups) >= {self._memory.keys_max}: count('keys_max'); continue",
                "    s = groups[key] = INIT.copy()",
                "t = a_t if b_t is None or a_t > b_t else b_t",
                *self._adds(),
            ]
        else:
            body.append(f"yield {self._row()}")
        self._windowed = False
        if self._join.on is not None:
            self._test(self._join.on)  # so that what it needs is held, and stands in both unpackings
        return [
            "def pairs(found, start, end):",
            "    groups = {}",
            "    for pair in found:",
            "        if pair is None: yield None; continue",
            "        try:",
            "            a, b = pair",
            *self._unpack(12),
            *(" " * 12 + line for line in body),
            f"        {_CATCH}",
            "    for key, s in groups.items(): yield memory.row(key, s, start, end)",
        ]

    def _unpack(self, indent: int) -> list[str]:
        lines = []
        for name, held in zip("ab", self._held, strict=True):
            lines.append(" " * indent + f"{name}_t, {''.join(f'{name}{at}, ' for at in held.values())}= {name}")
        return lines

    def _value(self, expression: Expression) -> str:
        if self._emitting and expression in self._plan.group:
            return super()._value(expression)
        match expression:
            case Field(path, side) if path:
                if self._side is None:
                    return self._leaf(side, expression)
                return self._field(path)
            case Call(name, args) if name in SIDED:
                last = args[-1]
                assert isinstance(last, Value)
                if self._side is None:
                    return self._leaf(int(last.value or 0), expression)
                return super()._value(Call(name, args[:-1]))
        return super()._value(expression)

    def _leaf(self, side: int, expression: Expression) -> str:
        held = self._held[side]
        return f"{'ab'[side]}{held.setdefault(expression, len(held))}"
