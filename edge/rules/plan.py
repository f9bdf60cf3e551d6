"""A rule as understood: what the parser's child hands over, and all that the runtime knows of SQL."""

import msgspec

AGGREGATES = {
    "avg": 1,
    "min": 1,
    "max": 1,
    "sum": 1,
    "count": 1,
    "stddev": 1,
    "percentile": 2,
    "first": 1,
    "last": 1,
    "collect": 1,
}
"""Name to the number of arguments."""

FILTERS = {"changed": (1, 2), "unseen": (2, 2), "at_most": (1, 1), "every": (1, 1)}
"""What remembers something of the topic's last message; name to the least and most arguments. They stand in WHERE,
joined by AND, and see only what the other conditions let pass."""

WINDOWS = {"TUMBLINGWINDOW": 1, "HOPPINGWINDOW": 2, "SLIDINGWINDOW": 1, "SESSIONWINDOW": 1, "COUNTWINDOW": 1}
"""Name to the number of lengths."""

UNITS_MS = {"ms": 1, "ss": 1000, "mi": 60_000, "hh": 3_600_000, "dd": 86_400_000}


class Value(msgspec.Struct, frozen=True, tag="value"):
    """A literal."""

    value: str | int | float | bool | None


class Field(msgspec.Struct, frozen=True, tag="field"):
    """A JSON path into the payload; empty for the whole of it (`*`). side: in a join, which topic's payload."""

    path: tuple[str | int, ...]
    side: int = 0


class Call(msgspec.Struct, frozen=True, tag="call"):
    """A function or an operator; operators by their sign, `case` with (when, then)… and else last."""

    name: str
    args: tuple["Expression", ...] = ()


Expression = Value | Field | Call


class Window(msgspec.Struct, frozen=True):
    """kind: as in WINDOWS, lower case without `window`; size and step: ms, or messages for `count`."""

    kind: str
    size: int
    step: int


class Column(msgspec.Struct, frozen=True):
    """One output field; name '' for `*`, whose fields are all taken over."""

    name: str
    expression: Expression


class Join(msgspec.Struct, frozen=True):
    """A second topic. keys: what must be equal, first topic's and second's; on: what must hold besides of a pair;
    before: what each topic's messages must meet to be held. A call such as topic(2, b) has the side as last argument.
    """

    topic: str
    outer: bool
    keys: tuple[tuple[Expression, Expression], ...]
    on: Expression | None = None
    before: tuple[Expression | None, Expression | None] = (None, None)


class Plan(msgspec.Struct, frozen=True):
    """where: the conditions that remember nothing; filters: those that do, in their order; grouped: one row a group."""

    topic: str
    columns: tuple[Column, ...]
    where: Expression | None = None
    filters: tuple[Call, ...] = ()
    group: tuple[Expression, ...] = ()
    having: Expression | None = None
    window: Window | None = None
    join: Join | None = None

    @property
    def topics(self) -> tuple[str, ...]:
        """The filters of FROM and JOIN."""
        return (self.topic,) if self.join is None else (self.topic, self.join.topic)


class Mistake(msgspec.Struct, frozen=True):
    """What is wrong with a rule's text. line and column count from 1; allowed: what may stand there."""

    line: int
    column: int
    problem: str
    allowed: str


class Lookup(msgspec.Struct, frozen=True):
    """Where a rule's text names a table."""

    table: str
    line: int
    column: int


class Answer(msgspec.Struct, frozen=True):
    """The child's answer for one rule: one of the two. lookups: of the plan."""

    plan: Plan | None = None
    mistake: Mistake | None = None
    lookups: tuple[Lookup, ...] = ()


JOIN_WINDOWS = ("TUMBLINGWINDOW", "HOPPINGWINDOW")
SIDED = {"topic", "timestamp", "clientid", "get_mqtt_property", "get_user_properties"}
"""Functions of one message: in a join their last argument says of which."""


def sides(expression: Expression) -> frozenset[int]:
    """In a join: of which topics' messages it speaks."""
    match expression:
        case Field(path, side):
            return frozenset((side,)) if path else frozenset()
        case Call(name, args):
            if name in SIDED and args and isinstance(side_ := args[-1], Value):
                return frozenset((int(side_.value or 0),))
            return frozenset().union(*map(sides, args))
    return frozenset()


def has_aggregate(expression: Expression) -> bool:
    return isinstance(expression, Call) and (
        expression.name in AGGREGATES or any(has_aggregate(arg) for arg in expression.args)
    )
