"""One tree of SQL → one plan: SELECT, FROM, JOIN, WHERE, GROUP BY, HAVING."""

from collections.abc import Iterable
from typing import Any

from sqlglot import exp

from edge.errors import InputRejected
from edge.rules.plan import (
    AGGREGATES,
    FILTERS,
    JOIN_WINDOWS,
    SIDED,
    UNITS_MS,
    WINDOWS,
    Call,
    Column,
    Expression,
    Field,
    Join,
    Plan,
    Value,
    Window,
    has_aggregate,
    sides,
)
from edge.rules.sql.expressions import Expressions, Wrong
from edge.rules.sql.source import Source, shown, upper
from edge.rules.sql.wording import GROUPS, JOINED, SHAPE, meant, not_known
from edge.topics import check_heard

_PANES_MAX = 64
_FIRST_WORDS = {
    "limit": ("LIMIT", "FETCH", "TOP"), "locks": ("FOR",), "laterals": ("LATERAL",), "sample": ("TABLESAMPLE",),
    "pivots": ("PIVOT", "UNPIVOT"), "with_": ("WITH",),
}  # fmt: skip
_CLAUSES = {"expressions", "from_", "joins", "where", "group", "having", "kind", "operation_modifiers"}


class Clauses:
    """For one tree. expressions: what reads the expressions in it."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.expressions = Expressions(source)

    def plan(self, tree: exp.Select) -> Plan:
        for clause, value in tree.args.items():
            if value and clause not in _CLAUSES:
                raise Wrong(*self._not_known(clause, value))
        if not tree.expressions:
            raise Wrong(None, "names no column", SHAPE)
        source, joined = tree.args.get("from_"), tree.args.get("joins") or []
        if len(joined) > 1:
            raise Wrong(joined[1], "is a third topic", "Join two topics")
        if joined:
            return self._joined_plan(tree, source, joined[0])
        topic = self._topic(source.this if source is not None else None, source)
        group, window = self._group(tree.args.get("group"))
        columns = tuple(self._columns(tree.expressions))
        where, filters = self._where(tree.args.get("where"))
        group, having, grouped = self._grouped(tree, columns, group)
        if grouped or window:
            self._check_window(tree, window, columns, group, having)
        return Plan(topic, columns, where, filters, group, having, window)

    def _not_known(self, clause: str, value: Any) -> tuple[Any, str, str]:
        """Of a clause that rules have not: its first word, where it stands."""
        name = upper(clause.strip("_")).removesuffix("S")
        if at := self.source.last(*_FIRST_WORDS.get(clause, (name,))):
            return not_known(at, self.source.word_at(at))
        node = value if isinstance(value, exp.Expression) else value[0] if isinstance(value, list) else None
        return node, f"{name} is not known here", SHAPE

    def _grouped(
        self, tree: exp.Select, columns: tuple[Column, ...], group: tuple[Expression, ...]
    ) -> tuple[tuple[Expression, ...], Expression | None, bool]:
        """Group and HAVING with columns in place of their names; whether there is one row a group."""
        having_node = tree.args.get("having")
        names, side = {column.name: column.expression for column in columns}, -1 if self.expressions.sides else 0
        group = tuple(
            _replace(key, names, side) if isinstance(key, Field) and len(key.path) == 1 else key for key in group
        )
        self.expressions.by_column = True
        having = _replace(self.expressions.read(having_node.this), names, side) if having_node else None
        self.expressions.by_column = False
        for node, expressions in ((tree.args.get("group"), group), (having_node, (having,))):
            if any(expression is not None and -1 in sides(expression) for expression in expressions):
                raise Wrong(node, "holds a name that is no column's", "A column's name, or a field as a.c")
        grouped = bool(group or having or any(has_aggregate(column.expression) for column in columns))
        return group, having, grouped

    def _check_window(
        self,
        tree: exp.Select,
        window: Window | None,
        columns: tuple[Column, ...],
        group: tuple[Expression, ...],
        having: Expression | None,
    ) -> None:
        if window is None:
            windows = "GROUP BY …, one of " + ", ".join(sorted(WINDOWS))
            holding = [
                node for column, node in zip(columns, tree.expressions, strict=True) if has_aggregate(column.expression)
            ]
            if not holding and not tree.args.get("group"):
                allowed = f"WHERE for single messages; or {windows} before it"
                raise Wrong(self.source.last("HAVING"), "HAVING needs a window", allowed)
            raise Wrong(tree.args.get("group") or holding[0], "aggregates and GROUP BY need a window", windows)
        for column, node in zip(columns, tree.expressions, strict=True):
            self._check_grouped(column.expression, group, node)
        if having is not None:
            self._check_grouped(having, group, tree.args["having"])

    def _joined_plan(self, tree: exp.Select, source: Any, join: exp.Join) -> Plan:
        side, kind = str(join.args.get("side") or ""), str(join.args.get("kind") or "")
        on = join.args.get("on")
        extra = [name for name, value in join.args.items() if value and name not in {"this", "side", "kind", "on"}]
        if on is None or extra or (side, kind) not in {("", ""), ("", "INNER"), ("LEFT", ""), ("LEFT", "OUTER")}:
            named = " ".join(word for word in (side, kind, *extra) if word).upper() or "JOIN without ON"
            raise Wrong(join, f"{named} is not known here", JOINED)
        topics = []
        for place, one in enumerate((source.this if source is not None else None, join.this)):
            topics.append(self._topic(one, one, named=True))
            name = str(one.alias)
            if not name or name in self.expressions.sides:
                raise Wrong(one, "a joined topic needs a name of its own", JOINED)
            self.expressions.sides[name] = place
        self.expressions.by_column = True
        group, window = self._group(tree.args.get("group"))
        self.expressions.by_column = False
        if window is None or f"{window.kind.upper()}WINDOW" not in JOIN_WINDOWS:
            allowed = f"GROUP BY …, {' or '.join(JOIN_WINDOWS)}"
            raise Wrong(tree.args.get("group") or join, "a join needs a window with an end of its own", allowed)
        columns = tuple(self._columns(tree.expressions))
        where, filters = self._where(tree.args.get("where"))
        if filters:
            allowed = "Conditions on fields; thin out in a rule of its own, and join what it gives"
            raise Wrong(tree.args["where"], f"{filters[0].name}() remembers one topic's last message", allowed)
        group, having, grouped = self._grouped(tree, columns, group)
        if grouped:
            self._check_window(tree, window, columns, group, having)
        outer = side == "LEFT"
        keys: list[tuple[Expression, Expression]] = []
        pair: list[Expression] = []
        before: tuple[list[Expression], list[Expression]] = ([], [])
        for part in _parts(self.expressions.read(on)):
            match part:
                case Call("=", (left, right)) if {*map(sides, (left, right))} == {frozenset((0,)), frozenset((1,))}:
                    keys.append((left, right) if sides(left) == {0} else (right, left))
                case _ if sides(part) == {1} or (sides(part) == {0} and not outer):
                    before[min(sides(part))].append(part)
                case _:
                    pair.append(part)
            if has_aggregate(part):
                raise Wrong(on, "ON holds an aggregate", "Aggregates in HAVING")
        if not keys:
            raise Wrong(on, "ON sets nothing of the one topic equal to something of the other", JOINED)
        rest: list[Expression] = []
        for part in _parts(where):
            of = sides(part)
            (before[min(of)] if of == {0} or (of == {1} and not outer) else rest).append(part)
        ahead = (_all_of(before[0]), _all_of(before[1]))
        joined = Join(topics[1], outer, tuple(keys), _all_of(pair), ahead)
        return Plan(topics[0], columns, _all_of(rest), (), group, having, window, joined)

    def _topic(self, table: Any, place: Any, *, named: bool = False) -> str:
        if type(table) is not exp.Table or type(table.this) is not exp.Identifier:
            raise Wrong(place, "FROM names no topic filter", "FROM 'dt/+/temp', in quotes")
        allowed = {"this", "alias"} if named else {"this"}
        extra = [name for name, value in table.args.items() if value and name not in allowed]
        if "alias" in extra:
            name = str(table.alias)
            allowed_then = "then WHERE, GROUP BY, HAVING, or the end; a name of its own only where topics are joined"
            at = table.args["alias"]
            raise Wrong(at, f"{shown(name)} is not expected here", f"{meant(name)}FROM 'dt/+/temp', {allowed_then}")
        if extra:
            raise Wrong(*self._not_known(extra[0], table.args[extra[0]]))
        topic = str(table.this.this)
        try:
            check_heard(topic)
        except InputRejected as error:
            raise Wrong(place, str(error), "An MQTT topic filter, such as 'dt/+/temp'") from None
        return topic

    def _columns(self, nodes: list[Any]) -> Iterable[Column]:
        seen: set[str] = set()
        for place, node in enumerate(nodes, 1):
            if type(node) is exp.Star:
                if any(node.args.values()):
                    raise Wrong(node, "* with EXCEPT or REPLACE is not known", "* alone, or the fields by name")
                if self.expressions.sides:
                    raise Wrong(node, "* would hold whole payloads", "The fields by name: a.c, b.rh")
                yield Column("", Field(()))
                continue
            inner = node.this if type(node) is exp.Alias else node
            expression = self.expressions.read(inner)
            if type(node) is exp.Alias:
                name = str(node.alias)
            elif expression == Field(()):
                raise Wrong(node, "this * has no name", "* alone, or * AS name")
            elif isinstance(expression, Field):
                name = str(expression.path[-1])
            else:
                name = expression.name if isinstance(expression, Call) else f"column{place}"
            if name in seen:
                raise Wrong(node, f"two columns are called {name!r}", "Name one otherwise: … AS name")
            seen.add(name)
            yield Column(name, expression)

    def _group(self, node: Any) -> tuple[tuple[Expression, ...], Window | None]:
        if node is None:
            return (), None
        extra = [name for name, value in node.args.items() if value and name != "expressions"]
        if extra:
            at = self.source.last(upper(extra[0].partition("_")[0]))
            raise Wrong(at or node, f"GROUP BY {upper(extra[0].replace('_', ' '))} is not known here", GROUPS)
        if not node.expressions:
            raise Wrong(self.source.last("GROUP"), "something is missing after 'GROUP BY'", GROUPS)
        keys, window = [], None
        for one in node.expressions:
            if type(one) is exp.Anonymous and str(one.this).upper() in WINDOWS:
                if window is not None:
                    raise Wrong(one, "is a second window", "One window")
                window = self._window(one)
            elif type(one) is exp.Literal:
                raise Wrong(one, "GROUP BY by number is not known", "GROUP BY the expression itself, or its name")
            else:
                keys.append(self.expressions.read(one))
                if has_aggregate(keys[-1]):
                    raise Wrong(one, "an aggregate cannot be a group", "Fields and functions of them")
        return tuple(keys), window

    def _window(self, node: exp.Anonymous) -> Window:
        name = str(node.this).upper()
        kind = name.removesuffix("WINDOW").lower()
        args = list(node.expressions)
        if kind == "count":
            example = "COUNTWINDOW(100)"
        else:
            lengths = ", ".join(["10", "5"][: WINDOWS[name]])
            example = f"{name}(ss, {lengths}), the unit one of {', '.join(UNITS_MS)}"
            if not args:
                raise Wrong(node, f"{name} says no unit of time", example)
            unit = str(args[0].name) if type(args[0]) is exp.Column else ""
            if unit.lower() not in UNITS_MS:
                written = shown(self.source.word_at(self.source.start(args[0])))
                quoted = ": it stands without quotes" if str(args[0].name).lower() in UNITS_MS else ""
                raise Wrong(args[0], f"{written} is no unit of time{quoted}", example)
            args = args[1:]
        if len(args) != WINDOWS[name] or any(not (type(a) is exp.Literal and a.is_int) for a in args):
            raise Wrong(node, f"{name} takes {WINDOWS[name]} whole number(s)", example)
        numbers = [int(a.this) * (1 if kind == "count" else UNITS_MS[unit.lower()]) for a in args]
        size, step = numbers[0], numbers[-1]
        if not 0 < step <= size <= 400 * 86_400_000:
            raise Wrong(
                node, "its lengths do not fit", "More than 0, at most 400 days, a step no longer than the window"
            )
        if size > step * _PANES_MAX:
            raise Wrong(node, f"more than {_PANES_MAX} windows overlap", "A longer step")
        return Window(kind, size, step)

    def _where(self, node: Any) -> tuple[Expression | None, tuple[Call, ...]]:
        if node is None:
            return None, ()
        parts: list[Any] = []
        stack = [node.this]
        while stack:
            one = stack.pop()
            if type(one) is exp.And:
                stack += [one.args["expression"], one.this]
            elif type(one) is exp.Paren and type(one.this) is exp.And:
                stack.append(one.this)
            else:
                parts.append(one)
        plain: list[Expression] = []
        filters: list[Call] = []
        for one in parts:
            if type(one) is exp.Anonymous and str(one.this).lower() in FILTERS:
                filters.append(self._filter(one))
                continue
            expression = self.expressions.read(one)
            if has_aggregate(expression):
                raise Wrong(one, "WHERE holds an aggregate", "Aggregates in HAVING")
            plain.append(expression)
        return _all_of(plain), tuple(filters)

    def _filter(self, node: exp.Anonymous) -> Call:
        name = str(node.this).lower()
        args = tuple(self.expressions.read(arg) for arg in node.expressions)
        low, high = FILTERS[name]
        numbers = args[1:] if name in {"changed", "unseen"} else args
        fits = low <= len(args) <= high and not has_aggregate(Call("", args))
        if not fits or any(
            not (
                isinstance(n, Value)
                and isinstance(n.value, int if name == "every" else int | float)
                and not isinstance(n.value, bool)
                and n.value > 0
            )
            for n in numbers
        ):
            allowed = "changed(c), changed(c, 0.5), unseen(id, seconds), at_most(seconds), every(n), n a whole number"
            raise Wrong(node, f"{name}() has arguments that do not fit", allowed)
        return Call(name, args)

    def _check_grouped(self, expression: Expression, group: tuple[Expression, ...], node: Any) -> None:
        if expression in group or (isinstance(expression, Call) and expression.name in AGGREGATES):
            return
        match expression:
            case Field(path):
                name = ".".join(map(str, path)) or "*"
                raise Wrong(node, f"{name} is neither in GROUP BY nor in an aggregate", "Put it into one of the two")
            case Call(name) if name in SIDED:
                allowed = "Put it into GROUP BY, or use window_end()"
                raise Wrong(node, f"{expression.name}() is not the same for a whole group", allowed)
            case Call(_, args):
                for arg in args:
                    self._check_grouped(arg, group, node)


def _replace(expression: Expression, names: dict[str, Expression], side: int) -> Expression:
    """Put a column's expression where its name stands."""
    match expression:
        case Field((str(name),), of) if of == side and name in names:
            return names[name]
        case Call(name, args) if name not in AGGREGATES:
            return Call(name, tuple(_replace(arg, names, side) for arg in args))
    return expression


def _parts(condition: Expression | None) -> list[Expression]:
    """What AND joins, in its order."""
    found: list[Expression] = []
    stack = [condition] if condition is not None else []
    while stack:
        one = stack.pop()
        if isinstance(one, Call) and one.name == "and":
            stack += reversed(one.args)
        else:
            found.append(one)
    return found


def _all_of(conditions: list[Expression]) -> Expression | None:
    whole: Expression | None = None
    for condition in conditions:
        whole = condition if whole is None else Call("and", (whole, condition))
    return whole
