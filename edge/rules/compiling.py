"""A plan → one Python function over a batch. Texts of the rule never become code: they are constants by number."""

import math
from operator import itemgetter
from typing import Any

from edge.rules.aggregates import INIT, NUMERIC, add_lines, bucket, parts, percentile, result
from edge.rules.plan import AGGREGATES, Call, Expression, Field, Plan, Value
from edge.rules.values import (
    FUNCTIONS,
    OPERATORS,
    encode_raw,
    get,
    is_null,
    is_undefined,
    mqtt_property,
    number,
    user_properties,
)
from edge.rules.windows import START, Memory

Tables = dict[str, dict[Any, dict[str, Any]]]

FUTURE_MS_MAX = 3_600_000
"""How far an event may be ahead of the gateway's clock. Windows do not close before that clock has passed their end:
one source whose clock is ahead waits for its own rows, and makes no other's late."""
_TOPICS_MAX = 4096  # remembered
_SIGNS = {"<": "<", "<=": "<=", ">": ">", ">=": ">=", "=": "=="}
_EXACT = 2**53


class _Level(dict[str, str | None]):
    """Topic to one of its levels, counted from 1; None where it has fewer. Forgotten when there are too many."""

    def __init__(self, place: int) -> None:
        super().__init__()
        self._place = place

    def __missing__(self, topic: str) -> str | None:
        if len(self) >= _TOPICS_MAX:
            self.clear()
        levels = topic.split("/")
        level = self[topic] = levels[self._place - 1] if self._place <= len(levels) else None
        return level


class Code:
    """Writes the source of one rule. `source` is what was written, for people."""

    def __init__(self, plan: Plan, memory: Memory, time: tuple[str | int, ...], tables: Tables) -> None:
        self._plan = plan
        self._memory = memory
        self._time = time
        self._names: dict[str, Any] = {
            "number": number,
            "get": get,
            "NUM": frozenset((int, float)),
            "SCALARS": frozenset((int, float, str, bool, type(None))),
            "memory": memory,
            "count": memory.count,
            "bucket": bucket,
            "percentile": percentile,
            "tables": tables,
            "lookup": lambda table, key, column: tables.get(table, {}).get(str(key), {}).get(column),
            "START": START,
            "mqtt_property": mqtt_property,
            "user_properties": user_properties,
            "encode_raw": encode_raw,
        }
        self._fields: dict[tuple[str | int, ...], str] = {}
        self._constants = 0
        self._emitting = False
        self._windowed = False  # whether `start` and `end` of a window are there
        self._aggregates: dict[Call, int] = {}
        self._by_argument: dict[Expression, list[Call]] = {}
        if plan.window is not None:
            for expression in [column.expression for column in plan.columns] + [plan.having]:
                self._find(expression)
            for call in self._aggregates:
                self._by_argument.setdefault(call.args[0], []).append(call)

    def _find(self, expression: Expression | None) -> None:
        if isinstance(expression, Call):
            if expression.name in AGGREGATES:
                if expression not in self._aggregates:
                    self._aggregates[expression] = len(self._memory.init)
                    self._memory.layout.extend(parts(expression.name, len(self._memory.init)))
                    self._memory.init.extend(INIT[expression.name])
            else:
                for arg in expression.args:
                    self._find(arg)

    def build(self) -> Any:
        """The function `run(messages, docs, now) -> [(message or None, row)]`."""
        body = self._body()
        lines = ["def run(messages, docs, now):", "    out = []"]
        if self._plan.window is not None:
            lines += ["    last = memory.last_start; group = memory.last_group; mark = memory.watermark"]
        tumbling = self._plan.window is not None and self._memory.kind == "tumbling"
        if self._plan.window is not None and tumbling:
            lines += [f"    end = last + {self._plan.window.size}"]
            lines += ["    changed = memory.changed; close_at = memory.close_at; by_topic = memory.by_topic"]
        if self._time:
            lines += [f"    latest = now + {FUTURE_MS_MAX}"]
        elif self._plan.window is not None:
            lines += ["    at = now if now > mark else mark"]
        else:
            lines += ["    at = now"]
        lines += [*self._columns(), "        try:"]
        lines += [" " * 12 + line for line in body]
        lines += ["        except (ArithmeticError, TypeError, ValueError, RecursionError): count('error')"]
        if tumbling:
            lines += ["    memory.last_start = last; memory.last_group = group; memory.watermark = mark"]
            lines += ["    memory.by_topic = by_topic"]
        lines += ["    return out", ""]
        if self._plan.window is not None:
            lines += self._emit()
        self._execute(lines)
        if self._plan.window is not None:
            self._memory.emit = self._names["emit"]
        return self._names["run"]

    def _execute(self, lines: list[str]) -> None:
        self.source = "\n".join(lines)
        exec(compile(self.source, "<rule>", "exec"), self._names)  # noqa: S102 made from the checked plan only

    def _columns(self) -> list[str]:
        """The head of the loop. Fields of the payload itself are taken out of the whole batch at once: as a rule they
        are all there, and where one is not, of each document on its own."""
        nested, plain = self._nested(), self._plain()
        if not plain:
            head = ["    for m, doc in zip(messages, docs):" if nested else "    for m in messages:"]
        else:
            fields = ", ".join(plain)
            gets = ", ".join(f"doc.get({key})" for key in plain.values())
            nothing = ", ".join("None" for _ in plain)
            if len(plain) > 1:
                fields, gets, nothing = f"({fields})", f"({gets})", f"({nothing})"
            self._names["GET"] = itemgetter(*(self._names[key] for key in plain.values()))
            doc, docs = ("doc, ", "docs, ") if nested else ("", "")
            head = [
                "    try: columns = [*map(GET, docs)]",
                "    except (LookupError, TypeError):",
                f"        columns = [{gets} if doc.__class__ is dict else {nothing} for doc in docs]",
                f"    for m, {doc}{fields} in zip(messages, {docs}columns):",
            ]
        return head + [" " * 8 + line for line in nested]

    def _plain(self) -> dict[str, str]:
        """The fields of the payload itself that were asked for: variable to the constant of its name."""
        return {name: self._constant(path[0]) for path, name in self._fields.items() if _is_plain(path)}

    def _nested(self) -> list[str]:
        """The other fields, out of `doc`."""
        lines = []
        for path, name in self._fields.items():
            if not path:
                lines.append(f"{name} = doc")
            elif not _is_plain(path):
                lines.append(f"{name} = get(doc, {', '.join(self._constant(step) for step in path)})")
        return lines

    def _loads(self) -> list[str]:
        """All fields that were asked for, out of `doc`."""
        lines, plain = self._nested(), self._plain()
        if plain:
            lines.append(f"if doc.__class__ is dict: {'; '.join(f'{n} = doc.get({k})' for n, k in plain.items())}")
            lines.append(f"else: {' = '.join(plain)} = None")
        return lines

    def _body(self) -> list[str]:
        plan, memory = self._plan, self._memory
        lines = []
        if plan.where is not None:
            lines.append(f"if not {self._test(plan.where)}: continue")
        if plan.window is not None or any(call.name in {"unseen", "at_most"} for call in plan.filters):
            lines += time_lines(self._time, self._field(self._time) if self._time else "")
        for place, call in enumerate(plan.filters):
            memory.add_filter()
            self._names[f"D{place}"] = memory.changed_filters[place]
            lines += self._filter(place, call)
        if plan.window is None:
            return [*lines, f"out.append((m, {self._row()}))"]
        if plan.window.kind != "count":
            ahead = f"mark - {memory.lateness_ms}" if memory.lateness_ms else "mark"
            advance = "t if t <= now else max(mark, now)" if self._time else "t"
            if plan.window.kind == "tumbling":
                lines += [
                    "if t > mark:",
                    f"    mark = {advance}",
                    f"    if {ahead} >= close_at: memory.close({ahead}); last = end = START",
                ]
            else:
                lines += [
                    "if t > mark:",
                    f"    mark = memory.watermark = {advance}",
                    f"    if {ahead} >= memory.close_at: memory.close({ahead})",
                ]
        size = plan.window.size
        if plan.window.kind == "tumbling" and self._by_topic():
            lines += [
                "if not last <= t < end:",
                f"    start = t // {size} * {size}",
                f"    if start + {size} <= mark - {memory.lateness_ms}: count('late'); continue",
                f"    group = memory.group_of(start); last = start; end = start + {size}",
                "    changed = memory.changed; close_at = memory.close_at; by_topic = {}",
                "s = by_topic.get(m.topic)",
                "if s is None:",
                *("    " + line for line in self._key_lines()),
                "    s = group.get(key)",
                "    if s is None:",
                "        s = memory.new(group, key)",
                "        if s is None: continue",
                "    changed[key] = None",
                f"    if len(by_topic) >= {_TOPICS_MAX}: by_topic.clear()",
                "    by_topic[m.topic] = s",
                *self._adds(),
            ]
            return lines
        lines += self._key_lines()
        if plan.window.kind == "tumbling":
            lines += [
                "if not last <= t < end:",
                f"    start = t // {size} * {size}",
                f"    if start + {size} <= mark - {memory.lateness_ms}: count('late'); continue",
                f"    group = memory.group_of(start); last = start; end = start + {size}",
                "    changed = memory.changed; close_at = memory.close_at",
                "s = group.get(key)",
                "if s is None:",
                "    s = memory.new(group, key)",
                "    if s is None: continue",
                "changed[key] = None",
                *self._adds(),
            ]
        elif plan.window.kind == "sliding":
            self._names["INIT"] = memory.init
            lines += [
                f"if t < mark - {memory.lateness_ms}: count('late'); continue",
                "s = INIT.copy()",
                *self._adds(),
                "memory.slide(t, key, s, out)",
            ]
        else:
            lines.append("found = memory.slots_for(t, key)")
            lines.append("for s in found:")
            lines += ["    " + line for line in self._adds() or ["pass"]]
            if plan.window.kind == "count":
                lines.append("if found: memory.full(key, out)")
        return lines

    def _by_topic(self) -> bool:
        """Whether a message's topic says its group. Then it is looked up by it; the group is marked as changed when a
        topic is first met in a window, or first since `state`, which makes the loop begin anew."""
        return bool(self._plan.group) and all(isinstance(k, Call) and k.name == "topic" for k in self._plan.group)

    def _key_lines(self) -> list[str]:
        """The group's key, of scalars."""
        lines = []
        keys = [self._value(key) for key in self._plan.group]
        if not self._by_topic():
            for at, key in enumerate(keys):
                lines.append(f"g{at} = {key}")
                lines.append(f"if g{at}.__class__ not in SCALARS: count('group'); continue")
            keys = [f"g{at}" for at in range(len(keys))]
        lines.append(f"key = {keys[0]}" if len(keys) == 1 else f"key = ({''.join(f'{key}, ' for key in keys)})")
        return lines

    def _adds(self) -> list[str]:
        lines = []
        for argument, calls in self._by_argument.items():
            every = [call for call in calls if call.name == "count" and argument == Field(())]
            lines += [line for call in every for line in add_lines(call.name, self._aggregates[call])]
            others = [call for call in calls if call not in every]
            if not others:
                continue
            loose = [call for call in others if call.name not in NUMERIC]
            lines.append(f"v = {self._value(argument)}")
            if loose:
                if any(call.name != "count" for call in loose):
                    lines.append("if v.__class__ is not float: v = memory.kept(v)")
                lines.append("if v is not None:")
                for call in loose:
                    lines += ["    " + line for line in add_lines(call.name, self._aggregates[call])]
            if strict := [call for call in others if call.name in NUMERIC]:
                lines.append(
                    f"if v.__class__ is not float and (v.__class__ is not int or not -{_EXACT} <= v <= {_EXACT}): "
                    "v = number(v)"
                )
                lines.append("if v is not None:")
                for call in strict:
                    lines += ["    " + line for line in add_lines(call.name, self._aggregates[call])]
        return lines

    def _emit(self) -> list[str]:
        self._emitting = True
        lines = ["def emit(key, s, start, end):"]
        if self._plan.having is not None:
            lines.append(f"    if not {self._test(self._plan.having)}: return None")
        return [*lines, f"    return {self._row()}"]

    def _row(self) -> str:
        parts = []
        for column in self._plan.columns:
            if not column.name:
                whole = self._field(())
                parts.append(f"**({whole} if {whole}.__class__ is dict else {{}})")
            else:
                parts.append(f"{self._constant(column.name)}: {self._value(column.expression)}")
        if len(parts) == 1 and parts[0].startswith("**"):
            return self._field(())
        return "{" + ", ".join(parts) + "}"

    def _filter(self, place: int, call: Call) -> list[str]:
        key = "m.topic"
        if call.name == "every":
            return [f"if not memory.every({place}, {key}, {self._value(call.args[0])}): continue"]
        if call.name == "at_most":
            return [f"if not memory.unseen({place}, {key}, t, {self._value(call.args[0])} * 1000): continue"]
        lines = [f"v = {self._value(call.args[0])}"]
        if call.name == "unseen":
            lines += ["if v.__class__ not in SCALARS: count('group'); continue"]
            ms = f"{self._value(call.args[1])} * 1000"
            return [*lines, f"if not memory.unseen({place}, ({key}, v), t, {ms}): continue"]
        table = f"R{place}"
        self._names[table] = self._memory.remembered[place]
        lines += [f"was = {table}.get({key})"]
        same = "v == was and v.__class__ is was.__class__"
        if len(call.args) == 1:
            lines += ["if v is None or v.__class__ not in SCALARS: continue", "v = memory.kept(v)"]
            lines += ["if v is None: continue"]
        else:
            delta = call.args[1]
            assert isinstance(delta, Value)
            assert isinstance(delta.value, int | float)
            same = f"{self._constant(-delta.value)} < v - was < {self._constant(delta.value)}"
            lines += ["if v.__class__ is not float and v.__class__ not in NUM: continue"]
        return [
            *lines,
            "if was is None:",
            f"    memory.remember({place}, {key}, v)",
            "else:",
            f"    if {same}: continue",
            f"    {table}[{key}] = v; D{place}[{key}] = None",
        ]

    # Expressions

    def _constant(self, value: Any) -> str:
        """Numbers and nothing else are written out; any text is a name bound to it."""
        if value is None or value is True or value is False:
            return str(value)
        if value.__class__ in {int, float} and math.isfinite(value):
            return f"({value!r})" if value < 0 else repr(value)
        name = f"K{self._constants}"
        self._constants += 1
        self._names[name] = value
        return name

    def _field(self, path: tuple[str | int, ...]) -> str:
        return self._fields.setdefault(path, f"f{len(self._fields)}")

    def _value(self, expression: Expression) -> str:
        if self._emitting and expression in self._plan.group:
            at = self._plan.group.index(expression)
            return "key" if len(self._plan.group) == 1 else f"key[{at}]"
        match expression:
            case Value(value):
                return self._constant(value)
            case Field(path):
                return self._field(path)
            case Call(name, args) if name in AGGREGATES:
                share = self._constant(args[1].value) if len(args) > 1 and isinstance(args[1], Value) else ""
                return result(name, self._aggregates[expression], share)
            case Call("topic", args):
                wanted = args[0].value if args and isinstance(args[0], Value) else 0
                if not wanted:
                    return "m.topic"
                self._names.setdefault(f"L{int(wanted)}", _Level(int(wanted)))
                return f"L{int(wanted)}[m.topic]"
            case Call("timestamp"):
                return "now"
            case Call("clientid"):
                return '(m.reading.thing if m.reading is not None else "n/a")'
            case Call("get_mqtt_property", (wanted_property,)):
                return f"mqtt_property(m, {self._value(wanted_property)})"
            case Call("get_user_properties", (wanted_property,)):
                return f"user_properties(m, {self._value(wanted_property)})"
            case Call("isnull" | "isundefined", (Field((_, *_) as path),)) if (
                not self._emitting and not self._plan.join
            ):
                work = is_null if expression.name == "isnull" else is_undefined
                return f"{self._constant(work)}({self._field(())}, {self._constant(path)})"
            case Call("encode", (Field(()), form)):
                return f"encode_raw(m.payload, {self._value(form)})"
            case Call("window_start"):
                return "start" if self._emitting or self._windowed else "None"
            case Call("window_end"):
                return "end" if self._emitting or self._windowed else "None"
            case Call("case", args):
                text = ""
                for at in range(0, len(args) - 1, 2):
                    text += f"{self._value(args[at + 1])} if {self._test(args[at])} else "
                return f"({text}{self._value(args[-1])})"
            case Call("lookup", args):
                return f"lookup({', '.join(self._value(arg) for arg in args)})"
            case Call(name, args):
                work = OPERATORS[name] if name in OPERATORS else FUNCTIONS[name][2]
                return f"{self._constant(work)}({', '.join(self._value(arg) for arg in args)})"

    def _test(self, expression: Expression) -> str:
        """An expression that is true exactly where SQL's is true: what is unknown counts as false."""
        match expression:
            case Value(value):
                return str(value is True)
            case Call("and", args):
                return "(" + " and ".join(self._test(one) for one in _spine(expression)) + ")"
            case Call("or", args):
                return "(" + " or ".join(self._test(one) for one in args) + ")"
            case Call(name, (Field(), Value(value)) as args) if name in _SIGNS and not self._emitting:
                left, right = self._value(args[0]), self._constant(value)
                if isinstance(value, int | float) and not isinstance(value, bool):
                    real = f"({left}.__class__ is float or {left}.__class__ in NUM)"
                    plain = f"{left} {_SIGNS[name]} {right}"
                    if name == "=":
                        return f"({real} and {plain})"
                    written = f"{left}.__class__ is str and {self._constant(OPERATORS[name])}({left}, {right}) is True"
                    return f"({plain} if {real} else {written})"
                if isinstance(value, str):
                    return f"({left}.__class__ is str and {left} {_SIGNS[name]} {right})"
        return f"({self._value(expression)} is True)"


def _is_plain(path: tuple[str | int, ...]) -> bool:
    return len(path) == 1 and isinstance(path[0], str)


def time_lines(time: tuple[str | int, ...], field: str) -> list[str]:
    """`t` in ms: the field's event time, at most `latest`, or the time of arrival, `at`. That stands still where the
    clock was put back, so that nothing is late by it."""
    if not time:
        return ["t = at"]
    return [
        f"t = {field}",
        "if t.__class__ is not int:",
        "    t = number(t)",
        "    if t is None: count('no_time'); continue",
        "    t = int(t)",
        f"if not -{_EXACT} <= t <= latest: count('no_time' if t <= latest else 'future'); continue",
    ]


def _spine(expression: Expression) -> list[Expression]:
    parts: list[Expression] = []
    while isinstance(expression, Call) and expression.name == "and":
        parts.append(expression.args[1])
        expression = expression.args[0]
    return [expression, *reversed(parts)]
