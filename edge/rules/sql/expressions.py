"""Expressions of SQL → those of a plan: fields, literals, operators, functions."""

import difflib
from collections.abc import Callable
from typing import Any, NoReturn

from sqlglot import exp

from edge.rules.likes import pieces
from edge.rules.plan import AGGREGATES, FILTERS, SIDED, WINDOWS, Call, Expression, Field, Value, has_aggregate
from edge.rules.regexps import Pattern
from edge.rules.sql.source import Source
from edge.rules.times import parts as time_parts
from edge.rules.times import zone
from edge.rules.values import CASTS, CONTEXT, FUNCTIONS

DEPTH_MAX = 60
_OF_WHOLE = {"count", "first", "last", "collect"}  # aggregates that `*` makes sense for

_SIGNS = {
    exp.Add: "+", exp.Sub: "-", exp.Mul: "*", exp.Div: "/", exp.Mod: "%",
    exp.LT: "<", exp.LTE: "<=", exp.GT: ">", exp.GTE: ">=", exp.EQ: "=", exp.NEQ: "<>",
    exp.And: "and", exp.Or: "or",
}  # fmt: skip

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


class Wrong(Exception):
    def __init__(self, at: Any, problem: str, allowed: str) -> None:
        super().__init__(problem)
        self.at, self.problem, self.allowed = at, problem, allowed


class Expressions:
    """Of one rule.

    sides: in a join, each topic's name and side. lookups: the tables that are named, and where. by_column: whether a
    column's name may stand in place of a field.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.sides: dict[str, int] = {}
        self.lookups: list[tuple[str, Any]] = []
        self.by_column = False

    def read(self, node: Any, depth: int = 0) -> Expression:
        if depth > DEPTH_MAX:
            raise Wrong(node, "is nested too deeply", f"At most {DEPTH_MAX} levels")
        deeper = depth + 1
        kind = type(node)
        if kind in _SIGNS:
            return Call(_SIGNS[kind], (self.read(node.this, deeper), self.read(node.expression, deeper)))
        if kind is exp.Paren:
            return self.read(node.this, deeper)
        if kind is exp.Literal:
            return self._literal(node)
        if kind is exp.Boolean:
            return Value(bool(node.this))
        if kind is exp.Null:
            return Value(None)
        if kind is exp.Neg:
            inner = self.read(node.this, deeper)
            if isinstance(inner, Value) and isinstance(inner.value, int | float):
                return Value(-inner.value)
            return Call("neg", (inner,))
        if kind is exp.Star:
            return Field(())
        if kind in {exp.Column, exp.Dot, exp.Bracket, exp.Identifier}:
            return self._field(node, deeper)
        if kind is exp.Not:
            return Call("not", (self.read(node.this, deeper),))
        if kind is exp.Is and type(node.expression) in {exp.Null, exp.Boolean}:
            this = self.read(node.this, deeper)
            if type(node.expression) is exp.Null:
                return Call("is null", (this,))
            return Call("=", (this, Value(bool(node.expression.this))))
        if kind is exp.In and node.expressions:
            return Call("in", tuple(self.read(one, deeper) for one in (node.this, *node.expressions)))
        if kind is exp.Between and node.args.get("symmetric") is not None:
            at = self.source.last("SYMMETRIC", "ASYMMETRIC")
            raise Wrong(at, f"{self.source.word_at(at).upper()} is not known here", "c BETWEEN low AND high")
        if kind is exp.Between:
            ends = (node.this, node.args["low"], node.args["high"])
            return Call("between", tuple(self.read(one, deeper) for one in ends))
        if kind is exp.Like:
            return self._like(node, None, deeper)
        if kind is exp.Escape and type(node.this) is exp.Like:
            return self._like(node.this, node.expression, deeper)
        if kind is exp.Case:
            return self._case(node, deeper)
        if kind is exp.Anonymous:
            return self._call(node, deeper)
        allowed = "Fields, literals, + - * / %, comparisons, AND OR NOT, IN, BETWEEN, LIKE, IS NULL, CASE, functions"
        at, written = self.source.written(node)
        raise Wrong(at, f"{written} is not known here", allowed)

    def _like(self, node: exp.Like, escape: Any, depth: int) -> Call:
        args = [self.read(node.this, depth), self.read(node.expression, depth)]
        mark, pattern = "", args[1].value if isinstance(args[1], Value) else None
        if escape is not None:
            if not (type(escape) is exp.Literal and escape.is_string and len(str(escape.this)) == 1):
                raise Wrong(escape, "ESCAPE takes one character in quotes", "c LIKE '5!%' ESCAPE '!'")
            mark = str(escape.this)
            args.append(Value(mark))
        if isinstance(pattern, str):
            try:
                pieces(pattern, mark)
            except ValueError as error:
                raise Wrong(node.expression, f"the pattern {error}", "% for any text, _ for one character") from None
        call = Call("like", tuple(args))
        return Call("not", (call,)) if node.args.get("negate") else call

    def _literal(self, node: exp.Literal) -> Value:
        if node.is_string:
            return Value(str(node.this))
        try:
            return Value(int(node.this) if node.is_int else float(node.this))
        except ValueError:
            raise Wrong(node, "is no number", "A number such as 21.5") from None

    def _field(self, node: Any, depth: int) -> Field:
        path = tuple(self._path(node, depth))
        if not self.sides:
            return Field(path)
        side = self.sides.get(str(path[0]))
        if side is not None and len(path) > 1:
            return Field(path[1:], side)
        if self.by_column and len(path) == 1 and side is None:
            return Field(path, -1)
        first, second = self.sides
        name = ".".join(map(str, path))
        raise Wrong(node, f"{name} is a field of neither {first} nor {second}", f"{first}.{name} or {second}.{name}")

    def _path(self, node: Any, depth: int) -> list[str | int]:
        if depth > DEPTH_MAX:
            raise Wrong(node, "is nested too deeply", f"At most {DEPTH_MAX} levels")
        kind = type(node)
        if kind is exp.Identifier:
            return [str(node.this)]
        if kind is exp.Column and type(node.this) is exp.Star:
            raise Wrong(node, f"{self.source.written(node)[1]} is not known here", "* alone, or fields by name: a.b")
        if kind is exp.Column:
            return [str(part.name) for part in node.parts]
        if kind is exp.Dot and type(node.expression) is exp.Identifier:
            return [*self._path(node.this, depth + 1), str(node.expression.this)]
        if kind is exp.Bracket and len(node.expressions) == 1:
            index = node.expressions[0]
            if type(index) is exp.Literal and (index.is_string or index.is_int):
                step = str(index.this) if index.is_string else int(index.this)
                return [*self._path(node.this, depth + 1), step]
        raise Wrong(node, "is no path into the payload", "Paths such as a.b, a[0].b, a['b c']")

    def _case(self, node: exp.Case, depth: int) -> Call:
        args: list[Expression] = []
        for branch in node.args["ifs"]:
            condition = self.read(branch.this, depth)
            if node.this is not None:
                condition = Call("=", (self.read(node.this, depth), condition))
            args += [condition, self.read(branch.args["true"], depth)]
        default = node.args.get("default")
        args.append(self.read(default, depth) if default is not None else Value(None))
        return Call("case", tuple(args))

    def _call(self, node: exp.Anonymous, depth: int) -> Call:
        name = str(node.this).lower()
        nodes = list(node.expressions)
        if name == "cast":
            nodes = self._cast(node, nodes)
        side = self._side(node, name, nodes) if self.sides and name in SIDED else None
        args = tuple(self.read(arg, depth) for arg in nodes)
        if name in AGGREGATES:
            low = high = AGGREGATES[name]
            if any(has_aggregate(arg) for arg in args):
                raise Wrong(node, f"{name}() holds another aggregate", "Fields and functions of them")
            if args[:1] == (Field(()),) and name not in _OF_WHOLE:
                allowed = f'{name}(c); for payloads that are bare numbers payload = "csv", columns = ["c"]'
                raise Wrong(node, f"{name}(*) names no field", allowed)
        elif name in CONTEXT:
            low, high = CONTEXT[name]
        elif name in FUNCTIONS:
            low, high = FUNCTIONS[name][:2]
        else:
            self._unknown(node, name)
        if not low <= len(args) <= high:
            wanted = str(low) if low == high else f"{low} to {high}"
            raise Wrong(node, f"{name}() has {len(args)} argument(s)", f"It takes {wanted}")
        whole = isinstance(args[0], Value) and isinstance(args[0].value, int) and args[0].value > 0 if args else True
        if name == "topic" and not whole:
            raise Wrong(node, "topic() takes a level counted from 1", "topic() or topic(2)")
        if name == "percentile" and not (
            isinstance(args[1], Value) and isinstance(args[1].value, int | float) and 0 <= args[1].value <= 1
        ):
            raise Wrong(node, "percentile() takes a share from 0 to 1", "percentile(c, 0.95)")
        if name == "lookup" and not all(isinstance(a, Value) and isinstance(a.value, str) for a in (args[0], args[2])):
            raise Wrong(node, "lookup() takes a table's name, a key and a column's name", "lookup('sites', id, 'room')")
        if name == "lookup":
            self.lookups.append((str(nodes[0].this), node))
        self._check_literals(node, name, args)
        if self.sides and name not in AGGREGATES and Field(()) in args:
            raise Wrong(node, "* would hold whole payloads", "The fields by name: a.c, b.rh")
        return Call(name, args if side is None else (*args, Value(side)))

    def _cast(self, node: Any, nodes: list[Any]) -> list[Any]:
        """`cast(x AS int)` as AWS IoT has it, `cast(x, 'bigint')` as eKuiper does."""
        if len(nodes) == 1 and type(nodes[0]) is exp.Alias:
            nodes = [nodes[0].this, exp.Literal.string(str(nodes[0].alias))]
        kind = nodes[1] if len(nodes) == 2 else None
        if type(kind) is not exp.Literal or not kind.is_string or str(kind.this).lower() not in CASTS:
            raise Wrong(node, "cast() does not say into what", f"cast(c AS one of {', '.join(sorted(CASTS))})")
        return [nodes[0], exp.Literal.string(str(kind.this).lower())]

    def _check_literals(self, node: Any, name: str, args: tuple[Expression, ...]) -> None:
        """Patterns, formats and zones must stand in the rule itself, so that what is wrong with them is told now."""
        for place, what, check in _LITERALS.get(name, ()):
            if place >= len(args):
                continue
            literal = args[place]
            text = literal.value if isinstance(literal, Value) else None
            if not isinstance(text, str):
                raise Wrong(node, f"{name}() takes {what} that stands in the rule", "A text in quotes")
            try:
                check(text)
            except (ValueError, RecursionError) as error:
                raise Wrong(node, f"{name}() has {what} that is not known: {error}", _LITERALS_ALLOWED[what]) from None

    def _side(self, node: Any, name: str, nodes: list[Any]) -> int:
        """Takes the topic's name off the arguments."""
        last = nodes[-1] if nodes else None
        side = self.sides.get(str(last.name)) if type(last) is exp.Column and len(last.parts) == 1 else None
        if side is None:
            first, second = self.sides
            example = f"{name}({'2, ' if name == 'topic' else 'name, ' if name.startswith('get_') else ''}"
            raise Wrong(node, f"{name}() does not say of which topic", f"{example}{first}) or {example}{second})")
        nodes.pop()
        return side

    def _unknown(self, node: Any, name: str) -> NoReturn:
        if name in FILTERS:
            raise Wrong(
                node, f"{name}() remembers the last message", "In WHERE only, joined by AND, not within NOT or OR"
            )
        if name.upper() in WINDOWS:
            raise Wrong(node, f"{name.upper()} is a window", "In GROUP BY only")
        known = sorted({*AGGREGATES, *CONTEXT, *FUNCTIONS, *FILTERS, *(w.lower() for w in WINDOWS)})
        near = difflib.get_close_matches(name, known, 1)
        raise Wrong(node, f"{name}() is no function", f"Did you mean {near[0]}()?" if near else ", ".join(known))
