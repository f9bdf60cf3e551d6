"""A rule's text → its plan, by sqlglot: a child process (`python -m edge.rules.parse`), so that the runtime pays no
parser. stdin: a JSON list of texts; stdout: a JSON list of Answer."""

import difflib
import resource
import sys
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, NoReturn

import msgspec
from sqlglot import exp
from sqlglot.dialects.dialect import Dialect
from sqlglot.errors import ParseError, SqlglotError, TokenError
from sqlglot.parser import Parser as SqlParser
from sqlglot.tokens import Tokenizer as SqlTokenizer

from edge.errors import InputRejected
from edge.rules.plan import (
    AGGREGATES,
    FILTERS,
    JOIN_WINDOWS,
    SIDED,
    UNITS_MS,
    WINDOWS,
    Answer,
    Call,
    Column,
    Expression,
    Field,
    Join,
    Lookup,
    Mistake,
    Plan,
    Value,
    Window,
    has_aggregate,
    sides,
)
from edge.rules.regexps import Pattern
from edge.rules.times import parts as time_parts
from edge.rules.times import zone
from edge.rules.values import CASTS, CONTEXT, FUNCTIONS
from edge.rules.wording import JOINED, SHAPE, Word, beginning, line_and_column, stumbled, unreadable
from edge.topics import check_filter

TEXT_CHARS_MAX = 16_384
DEPTH_MAX = 60
_START = "start"
_CPU_S_MAX = 20
_MEMORY_BYTES_MAX = 1024 * 1024 * 1024
_PANES_MAX = 64

_SIGNS = {
    exp.Add: "+", exp.Sub: "-", exp.Mul: "*", exp.Div: "/", exp.Mod: "%",
    exp.LT: "<", exp.LTE: "<=", exp.GT: ">", exp.GTE: ">=", exp.EQ: "=", exp.NEQ: "<>",
    exp.And: "and", exp.Or: "or",
}  # fmt: skip
_CLAUSES = {"expressions", "from_", "joins", "where", "group", "having", "kind", "operation_modifiers"}

_LITERALS: dict[str, tuple[tuple[int, str, Callable[[str], object]], ...]] = {
    "regexp_matches": ((1, "a regular expression", Pattern),),
    "regexp_substr": ((1, "a regular expression", Pattern),),
    "regexp_replace": ((1, "a regular expression", Pattern),),
    "parse_time": ((0, "a form of time", time_parts), (2, "a time zone", zone)),
    "format_time": ((1, "a form of time", time_parts), (2, "a time zone", zone)),
    "time_to_epoch": ((1, "a form of time", time_parts),),
}
_LITERALS_ALLOWED = {
    "a regular expression": "Characters, . [a-z] \\d \\w \\s \\b ^ $ ( ) | and * + ? {m,n}; no look-around, no \\1",
    "a form of time": "Such as 'yyyy-MM-dd HH:mm:ss.SSS z'",
    "a time zone": "Such as 'UTC', 'Europe/Rome', '+01:00'",
}


class _Parser(SqlParser):
    """Every function is kept as it is written: what exists is said by our own tables."""

    FUNCTIONS: ClassVar[dict[str, Any]] = {}
    FUNCTION_PARSERS: ClassVar[dict[str, Any]] = {}
    NO_PAREN_FUNCTIONS: ClassVar[dict[Any, Any]] = {}
    NO_PAREN_FUNCTION_PARSERS: ClassVar[dict[str, Any]] = {
        name: parse for name, parse in SqlParser.NO_PAREN_FUNCTION_PARSERS.items() if name == "CASE"
    }

    def raise_error(self, message: str, *token: Any) -> None:
        at = (token and token[0]) or self._curr or self._prev
        try:
            super().raise_error(message, *token)
        except ParseError as error:
            if error.errors and at:
                error.errors[0][_START] = at.start
            raise


class _Sql(Dialect):
    Parser = _Parser

    class Tokenizer(SqlTokenizer):
        IDENTIFIERS: ClassVar[Any] = ['"', "`"]


class _Wrong(Exception):
    def __init__(self, at: Any, problem: str, allowed: str) -> None:
        super().__init__(problem)
        self.at, self.problem, self.allowed = at, problem, allowed


def parse(text: str) -> Answer:
    """One rule's text. Never raises."""
    words: list[Word] = []
    try:
        if len(text) > TEXT_CHARS_MAX:
            raise _Wrong(None, f"is longer than {TEXT_CHARS_MAX} characters", "Split it into several rules")
        words = _words(text)
        if (wrong := beginning(words)) is not None:
            return _mistake(text, *wrong)
        trees = _trees(text)
        if len(trees) != 1 or type(trees[0]) is not exp.Select:
            raise _Wrong(None, "is not one SELECT", SHAPE)
        reader = _Reader()
        plan = reader.plan(trees[0])
        lookups = tuple(Lookup(name, *_place(text, node)) for name, node in reader.lookups)
        return Answer(plan=plan, lookups=lookups)
    except _Wrong as error:
        line, column = _place(text, error.at)
        return Answer(mistake=Mistake(line, column, error.problem, error.allowed))
    except ParseError as error:
        first = error.errors[0] if error.errors else {}
        return _mistake(text, *stumbled(words, int(first.get(_START) or 0), str(first.get("description"))))
    except (TokenError, SqlglotError):
        return _mistake(text, *unreadable(text))
    except (RecursionError, MemoryError):
        return Answer(mistake=Mistake(1, 1, "is nested too deeply", f"At most {DEPTH_MAX} levels"))


def _mistake(text: str, at: int, problem: str, allowed: str) -> Answer:
    return Answer(mistake=Mistake(*line_and_column(text, at), problem, allowed))


def _words(text: str) -> list[Word]:
    return [(token.start, text[token.start : token.end + 1]) for token in _Sql().tokenize(text)]


def _trees(text: str) -> list[Any]:
    """The parser is not ours: what it stumbles over is no SQL either."""
    try:
        return [tree for tree in _Sql().parse(text) if tree is not None]
    except (AttributeError, TypeError, ValueError, LookupError, AssertionError) as error:
        raise _Wrong(None, "is no SQL", SHAPE) from error


def _place(text: str, node: Any) -> tuple[int, int]:
    starts = [one.meta["start"] for one in node.walk() if "start" in one.meta] if node is not None else []
    return line_and_column(text, min(starts, default=0))


def _written(node: Any) -> str:
    """About as it is in the text."""
    try:
        return f"'{node.sql()[:40]}'"
    except (SqlglotError, AttributeError, TypeError, ValueError, LookupError, AssertionError):
        return "this"


class _Reader:
    """One tree → one plan."""

    def __init__(self) -> None:
        self._names: dict[str, int] = {}  # in a join: each topic's name and side
        self.lookups: list[tuple[str, Any]] = []  # the tables that are named, and where
        self._by_column = False  # whether a column's name may stand in place of a field

    def plan(self, tree: exp.Select) -> Plan:
        for clause, value in tree.args.items():
            if value and clause not in _CLAUSES:
                node = value if isinstance(value, exp.Expression) else value[0] if isinstance(value, list) else None
                raise _Wrong(node, f"{clause.rstrip('_').upper()} is not known here", SHAPE)
        if not tree.expressions:
            raise _Wrong(None, "names no column", SHAPE)
        source, joined = tree.args.get("from_"), tree.args.get("joins") or []
        if len(joined) > 1:
            raise _Wrong(joined[1], "is a third topic", "Join two topics")
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

    def _grouped(
        self, tree: exp.Select, columns: tuple[Column, ...], group: tuple[Expression, ...]
    ) -> tuple[tuple[Expression, ...], Expression | None, bool]:
        """Group and HAVING with columns in place of their names; whether there is one row a group."""
        having_node = tree.args.get("having")
        names, side = {column.name: column.expression for column in columns}, -1 if self._names else 0
        group = tuple(
            _replace(key, names, side) if isinstance(key, Field) and len(key.path) == 1 else key for key in group
        )
        self._by_column = True
        having = _replace(self.expression(having_node.this), names, side) if having_node else None
        self._by_column = False
        for node, expressions in ((tree.args.get("group"), group), (having_node, (having,))):
            if any(expression is not None and -1 in sides(expression) for expression in expressions):
                raise _Wrong(node, "holds a name that is no column's", "A column's name, or a field as a.c")
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
            raise _Wrong(
                tree.args.get("group") or tree.expressions[0],
                "aggregates and GROUP BY need a window",
                "GROUP BY …, one of " + ", ".join(sorted(WINDOWS)),
            )
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
            raise _Wrong(join, f"{named} is not known here", JOINED)
        topics = []
        for place, one in enumerate((source.this if source is not None else None, join.this)):
            topics.append(self._topic(one, one, named=True))
            name = str(one.alias)
            if not name or name in self._names:
                raise _Wrong(one, "a joined topic needs a name of its own", JOINED)
            self._names[name] = place
        self._by_column = True
        group, window = self._group(tree.args.get("group"))
        self._by_column = False
        if window is None or f"{window.kind.upper()}WINDOW" not in JOIN_WINDOWS:
            allowed = f"GROUP BY …, {' or '.join(JOIN_WINDOWS)}"
            raise _Wrong(tree.args.get("group") or join, "a join needs a window with an end of its own", allowed)
        columns = tuple(self._columns(tree.expressions))
        where, filters = self._where(tree.args.get("where"))
        if filters:
            allowed = "Conditions on fields; thin out in a rule of its own, and join what it gives"
            raise _Wrong(tree.args["where"], f"{filters[0].name}() remembers one topic's last message", allowed)
        group, having, grouped = self._grouped(tree, columns, group)
        if grouped:
            self._check_window(tree, window, columns, group, having)
        outer = side == "LEFT"
        keys: list[tuple[Expression, Expression]] = []
        pair: list[Expression] = []
        before: tuple[list[Expression], list[Expression]] = ([], [])
        for part in _parts(self.expression(on)):
            match part:
                case Call("=", (left, right)) if {*map(sides, (left, right))} == {frozenset((0,)), frozenset((1,))}:
                    keys.append((left, right) if sides(left) == {0} else (right, left))
                case _ if sides(part) == {1} or (sides(part) == {0} and not outer):
                    before[min(sides(part))].append(part)
                case _:
                    pair.append(part)
            if has_aggregate(part):
                raise _Wrong(on, "ON holds an aggregate", "Aggregates in HAVING")
        if not keys:
            raise _Wrong(on, "ON sets nothing of the one topic equal to something of the other", JOINED)
        rest: list[Expression] = []
        for part in _parts(where):
            of = sides(part)
            (before[min(of)] if of == {0} or (of == {1} and not outer) else rest).append(part)
        ahead = (_all_of(before[0]), _all_of(before[1]))
        joined = Join(topics[1], outer, tuple(keys), _all_of(pair), ahead)
        return Plan(topics[0], columns, _all_of(rest), (), group, having, window, joined)

    def _topic(self, table: Any, place: Any, *, named: bool = False) -> str:
        if type(table) is not exp.Table or type(table.this) is not exp.Identifier:
            raise _Wrong(place, "FROM names no topic filter", "FROM 'dt/+/temp', in quotes")
        allowed = {"this", "alias"} if named else {"this"}
        extra = [name for name, value in table.args.items() if value and name not in allowed]
        if extra:
            raise _Wrong(place, f"FROM holds more than one topic filter ({extra[0]})", "FROM 'dt/+/temp', in quotes")
        topic = str(table.this.this)
        try:
            check_filter(topic)
        except InputRejected as error:
            raise _Wrong(place, str(error), "An MQTT topic filter, such as 'dt/+/temp'") from None
        return topic

    def _columns(self, nodes: list[Any]) -> Iterable[Column]:
        seen: set[str] = set()
        for place, node in enumerate(nodes, 1):
            if type(node) is exp.Star:
                if any(node.args.values()):
                    raise _Wrong(node, "* with EXCEPT or REPLACE is not known", "* alone, or the fields by name")
                if self._names:
                    raise _Wrong(node, "* would hold whole payloads", "The fields by name: a.c, b.rh")
                yield Column("", Field(()))
                continue
            inner = node.this if type(node) is exp.Alias else node
            expression = self.expression(inner)
            if type(node) is exp.Alias:
                name = str(node.alias)
            elif isinstance(expression, Field):
                name = str(expression.path[-1])
            else:
                name = expression.name if isinstance(expression, Call) else f"column{place}"
            if name in seen:
                raise _Wrong(node, f"two columns are called {name!r}", "Name one otherwise: … AS name")
            seen.add(name)
            yield Column(name, expression)

    def _group(self, node: Any) -> tuple[tuple[Expression, ...], Window | None]:
        if node is None:
            return (), None
        extra = [name for name, value in node.args.items() if value and name != "expressions"]
        if extra:
            raise _Wrong(node, f"GROUP BY {extra[0]} is not known", "GROUP BY expressions and one window")
        keys, window = [], None
        for one in node.expressions:
            if type(one) is exp.Anonymous and str(one.this).upper() in WINDOWS:
                if window is not None:
                    raise _Wrong(one, "is a second window", "One window")
                window = self._window(one)
            elif type(one) is exp.Literal:
                raise _Wrong(one, "GROUP BY by number is not known", "GROUP BY the expression itself, or its name")
            else:
                keys.append(self.expression(one))
                if has_aggregate(keys[-1]):
                    raise _Wrong(one, "an aggregate cannot be a group", "Fields and functions of them")
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
            unit = str(args[0].name) if args and type(args[0]) is exp.Column else ""
            if unit.lower() not in UNITS_MS:
                raise _Wrong(node, f"{unit or 'nothing'!r} is no unit of time", example)
            args = args[1:]
        if len(args) != WINDOWS[name] or any(not (type(a) is exp.Literal and a.is_int) for a in args):
            raise _Wrong(node, f"{name} takes {WINDOWS[name]} whole number(s)", example)
        numbers = [int(a.this) * (1 if kind == "count" else UNITS_MS[unit.lower()]) for a in args]
        size, step = numbers[0], numbers[-1]
        if not 0 < step <= size <= 400 * 86_400_000:
            raise _Wrong(
                node, "its lengths do not fit", "More than 0, at most 400 days, a step no longer than the window"
            )
        if size > step * _PANES_MAX:
            raise _Wrong(node, f"more than {_PANES_MAX} windows overlap", "A longer step")
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
            expression = self.expression(one)
            if has_aggregate(expression):
                raise _Wrong(one, "WHERE holds an aggregate", "Aggregates in HAVING")
            plain.append(expression)
        return _all_of(plain), tuple(filters)

    def _filter(self, node: exp.Anonymous) -> Call:
        name = str(node.this).lower()
        args = tuple(self.expression(arg) for arg in node.expressions)
        low, high = FILTERS[name]
        numbers = args[1:] if name in {"changed", "unseen"} else args
        fits = low <= len(args) <= high and not has_aggregate(Call("", args))
        if not fits or any(
            not (isinstance(n, Value) and isinstance(n.value, int | float) and n.value > 0) for n in numbers
        ):
            allowed = "changed(c), changed(c, 0.5), unseen(id, seconds), at_most(seconds), every(n)"
            raise _Wrong(node, f"{name}() has arguments that do not fit", allowed)
        return Call(name, args)

    def _check_grouped(self, expression: Expression, group: tuple[Expression, ...], node: Any) -> None:
        if expression in group or (isinstance(expression, Call) and expression.name in AGGREGATES):
            return
        match expression:
            case Field(path):
                name = ".".join(map(str, path)) or "*"
                raise _Wrong(node, f"{name} is neither in GROUP BY nor in an aggregate", "Put it into one of the two")
            case Call(name) if name in SIDED:
                allowed = "Put it into GROUP BY, or use window_end()"
                raise _Wrong(node, f"{expression.name}() is not the same for a whole group", allowed)
            case Call(_, args):
                for arg in args:
                    self._check_grouped(arg, group, node)

    def expression(self, node: Any, depth: int = 0) -> Expression:
        if depth > DEPTH_MAX:
            raise _Wrong(node, "is nested too deeply", f"At most {DEPTH_MAX} levels")
        deeper = depth + 1
        kind = type(node)
        if kind in _SIGNS:
            return Call(_SIGNS[kind], (self.expression(node.this, deeper), self.expression(node.expression, deeper)))
        if kind is exp.Paren:
            return self.expression(node.this, deeper)
        if kind is exp.Literal:
            return self._literal(node)
        if kind is exp.Boolean:
            return Value(bool(node.this))
        if kind is exp.Null:
            return Value(None)
        if kind is exp.Neg:
            inner = self.expression(node.this, deeper)
            if isinstance(inner, Value) and isinstance(inner.value, int | float):
                return Value(-inner.value)
            return Call("neg", (inner,))
        if kind is exp.Star:
            return Field(())
        if kind in {exp.Column, exp.Dot, exp.Bracket, exp.Identifier}:
            return self._field(node, deeper)
        if kind is exp.Not:
            return Call("not", (self.expression(node.this, deeper),))
        if kind is exp.Is and type(node.expression) in {exp.Null, exp.Boolean}:
            this = self.expression(node.this, deeper)
            if type(node.expression) is exp.Null:
                return Call("is null", (this,))
            return Call("=", (this, Value(bool(node.expression.this))))
        if kind is exp.In and node.expressions:
            return Call("in", tuple(self.expression(one, deeper) for one in (node.this, *node.expressions)))
        if kind is exp.Between:
            ends = (node.this, node.args["low"], node.args["high"])
            return Call("between", tuple(self.expression(one, deeper) for one in ends))
        if kind is exp.Like:
            call = Call("like", (self.expression(node.this, deeper), self.expression(node.expression, deeper)))
            return Call("not", (call,)) if node.args.get("negate") else call
        if kind is exp.Case:
            return self._case(node, deeper)
        if kind is exp.Anonymous:
            return self._call(node, deeper)
        allowed = "Fields, literals, + - * / %, comparisons, AND OR NOT, IN, BETWEEN, LIKE, IS NULL, CASE, functions"
        raise _Wrong(node, f"{_written(node)} is not known here", allowed)

    def _literal(self, node: exp.Literal) -> Value:
        if node.is_string:
            return Value(str(node.this))
        try:
            return Value(int(node.this) if node.is_int else float(node.this))
        except ValueError:
            raise _Wrong(node, "is no number", "A number such as 21.5") from None

    def _field(self, node: Any, depth: int) -> Field:
        path = tuple(self._path(node, depth))
        if not self._names:
            return Field(path)
        side = self._names.get(str(path[0]))
        if side is not None and len(path) > 1:
            return Field(path[1:], side)
        if self._by_column and len(path) == 1 and side is None:
            return Field(path, -1)
        first, second = self._names
        name = ".".join(map(str, path))
        raise _Wrong(node, f"{name} is a field of neither {first} nor {second}", f"{first}.{name} or {second}.{name}")

    def _path(self, node: Any, depth: int) -> list[str | int]:
        if depth > DEPTH_MAX:
            raise _Wrong(node, "is nested too deeply", f"At most {DEPTH_MAX} levels")
        kind = type(node)
        if kind is exp.Identifier:
            return [str(node.this)]
        if kind is exp.Column:
            return [str(part.name) for part in node.parts]
        if kind is exp.Dot and type(node.expression) is exp.Identifier:
            return [*self._path(node.this, depth + 1), str(node.expression.this)]
        if kind is exp.Bracket and len(node.expressions) == 1:
            index = node.expressions[0]
            if type(index) is exp.Literal and (index.is_string or index.is_int):
                step = str(index.this) if index.is_string else int(index.this)
                return [*self._path(node.this, depth + 1), step]
        raise _Wrong(node, "is no path into the payload", "Paths such as a.b, a[0].b, a['b c']")

    def _case(self, node: exp.Case, depth: int) -> Call:
        args: list[Expression] = []
        for branch in node.args["ifs"]:
            condition = self.expression(branch.this, depth)
            if node.this is not None:
                condition = Call("=", (self.expression(node.this, depth), condition))
            args += [condition, self.expression(branch.args["true"], depth)]
        default = node.args.get("default")
        args.append(self.expression(default, depth) if default is not None else Value(None))
        return Call("case", tuple(args))

    def _call(self, node: exp.Anonymous, depth: int) -> Call:
        name = str(node.this).lower()
        nodes = list(node.expressions)
        if name == "cast":
            nodes = self._cast(node, nodes)
        side = self._side(node, name, nodes) if self._names and name in SIDED else None
        args = tuple(self.expression(arg, depth) for arg in nodes)
        if name in AGGREGATES:
            low = high = AGGREGATES[name]
            if any(has_aggregate(arg) for arg in args):
                raise _Wrong(node, f"{name}() holds another aggregate", "Fields and functions of them")
        elif name in CONTEXT:
            low, high = CONTEXT[name]
        elif name in FUNCTIONS:
            low, high = FUNCTIONS[name][:2]
        else:
            self._unknown(node, name)
        if not low <= len(args) <= high:
            wanted = str(low) if low == high else f"{low} to {high}"
            raise _Wrong(node, f"{name}() has {len(args)} argument(s)", f"It takes {wanted}")
        whole = isinstance(args[0], Value) and isinstance(args[0].value, int) and args[0].value > 0 if args else True
        if name == "topic" and not whole:
            raise _Wrong(node, "topic() takes a level counted from 1", "topic() or topic(2)")
        if name == "percentile" and not (
            isinstance(args[1], Value) and isinstance(args[1].value, int | float) and 0 <= args[1].value <= 1
        ):
            raise _Wrong(node, "percentile() takes a share from 0 to 1", "percentile(c, 0.95)")
        if name == "lookup" and not all(isinstance(a, Value) and isinstance(a.value, str) for a in (args[0], args[2])):
            raise _Wrong(
                node, "lookup() takes a table's name, a key and a column's name", "lookup('sites', id, 'room')"
            )
        if name == "lookup":
            self.lookups.append((str(nodes[0].this), node))
        self._check_literals(node, name, args)
        if self._names and name not in AGGREGATES and Field(()) in args:
            raise _Wrong(node, "* would hold whole payloads", "The fields by name: a.c, b.rh")
        return Call(name, args if side is None else (*args, Value(side)))

    def _cast(self, node: Any, nodes: list[Any]) -> list[Any]:
        """`cast(x AS int)` as AWS IoT has it, `cast(x, 'bigint')` as eKuiper does."""
        if len(nodes) == 1 and type(nodes[0]) is exp.Alias:
            nodes = [nodes[0].this, exp.Literal.string(str(nodes[0].alias))]
        kind = nodes[1] if len(nodes) == 2 else None
        if type(kind) is not exp.Literal or not kind.is_string or str(kind.this).lower() not in CASTS:
            raise _Wrong(node, "cast() does not say into what", f"cast(c AS one of {', '.join(sorted(CASTS))})")
        return [nodes[0], exp.Literal.string(str(kind.this).lower())]

    def _check_literals(self, node: Any, name: str, args: tuple[Expression, ...]) -> None:
        """Patterns, formats and zones must stand in the rule itself, so that what is wrong with them is told now."""
        for place, what, check in _LITERALS.get(name, ()):
            if place >= len(args):
                continue
            literal = args[place]
            text = literal.value if isinstance(literal, Value) else None
            if not isinstance(text, str):
                raise _Wrong(node, f"{name}() takes {what} that stands in the rule", "A text in quotes")
            try:
                check(text)
            except (ValueError, RecursionError) as error:
                raise _Wrong(node, f"{name}() has {what} that is not known: {error}", _LITERALS_ALLOWED[what]) from None

    def _side(self, node: Any, name: str, nodes: list[Any]) -> int:
        """Takes the topic's name off the arguments."""
        last = nodes[-1] if nodes else None
        side = self._names.get(str(last.name)) if type(last) is exp.Column and len(last.parts) == 1 else None
        if side is None:
            first, second = self._names
            example = f"{name}({'2, ' if name == 'topic' else 'name, ' if name.startswith('get_') else ''}"
            raise _Wrong(node, f"{name}() does not say of which topic", f"{example}{first}) or {example}{second})")
        nodes.pop()
        return side

    def _unknown(self, node: Any, name: str) -> NoReturn:
        if name in FILTERS:
            raise _Wrong(
                node, f"{name}() remembers the last message", "In WHERE only, joined by AND, not within NOT or OR"
            )
        if name.upper() in WINDOWS:
            raise _Wrong(node, f"{name.upper()} is a window", "In GROUP BY only")
        known = sorted({*AGGREGATES, *CONTEXT, *FUNCTIONS, *FILTERS, *(w.lower() for w in WINDOWS)})
        near = difflib.get_close_matches(name, known, 1)
        raise _Wrong(node, f"{name}() is no function", f"Did you mean {near[0]}()?" if near else ", ".join(known))


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


def main() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S_MAX, _CPU_S_MAX))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES_MAX, _MEMORY_BYTES_MAX))
    texts = msgspec.json.decode(sys.stdin.buffer.read(), type=list[str])
    sys.stdout.buffer.write(msgspec.json.encode([parse(text) for text in texts]))


if __name__ == "__main__":
    main()
