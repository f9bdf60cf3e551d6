from collections.abc import Iterator, Sequence
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.loops import Node, find_loop
from edge.topics import matches

# With these levels, and one more at the end, every set of topics that the filters below take has a topic in it.
LEVELS = ("a", "b", "c")
TOPICS = tuple("/".join(levels) for levels in [(x,) for x in LEVELS] + [(x, y) for x in LEVELS for y in LEVELS])
FILTERS = st.sampled_from(["a", "b", "a/+", "+/b", "+/+", "a/b", "b/a", "a/#", "b/#", "#"])
NAMES = ("function:f", "function:g", "rule:r", "stream:batch")
PLACES = ("cloud", "broker", "boards")
TARGETS = (*NAMES[:2], "stream:batch", "stream:plain", *PLACES)
EXPORTS = {"stream:plain": "cloud"}

Routes = Sequence[tuple[str, str, Sequence[str]]]


def some(of: Sequence[str]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(of), max_size=2, unique=True).map(tuple)


def filters(most: int) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(FILTERS, max_size=most, unique=True).map(tuple)


NODES = st.tuples(
    st.builds(Node, st.just("function:f"), st.just(()), filters(2), filters(2), st.just(()), some(["function:g"])),
    st.builds(Node, st.just("function:g"), st.just(()), filters(1), filters(1), st.just(()), some(["function:f"])),
    st.builds(Node, st.just("rule:r"), some(["function:f", *PLACES]), filters(1), filters(1), some(TARGETS)),
    st.builds(Node, st.just("stream:batch"), st.just(()), st.none(), FILTERS.map(lambda one: (one,)), some(["broker"])),
)
ROUTES = st.lists(st.tuples(st.sampled_from([*NAMES[:3], *PLACES]), FILTERS, some(TARGETS)), max_size=4)


def takes(node: Node, topic: str) -> bool:
    return node.hears is None or any(matches(one, topic) for one in node.hears)


def reached(nodes: Sequence[Node], routes: Routes, node: Node) -> Iterator[str]:
    """Who gets something of what a node says, message by message."""
    yield from node.invokes
    for topic in TOPICS:
        if not any(matches(one, topic) for one in node.says):
            continue
        sources, targets = {node.name}, set(node.to)
        while True:
            more = {to for source, one, ends in routes if source in sources and matches(one, topic) for to in ends}
            more = targets | more
            back = {EXPORTS.get(name, name) for name in more} & {"cloud", "broker"}
            if more == targets and back <= sources:
                break
            targets, sources = more, sources | back
        yield from (one.name for one in nodes if one.name in targets and takes(one, topic))
        yield from (one.name for one in nodes if sources & set(one.sources) and takes(one, topic))


@settings(max_examples=400, deadline=None)
@given(NODES, ROUTES)
def test_a_loop_is_found_where_some_message_comes_round_and_nowhere_else(nodes: Sequence[Node], routes: Routes) -> None:
    feeds = {node.name: set(reached(nodes, routes, node)) for node in nodes}
    everybody = dict(feeds)
    for _ in nodes:
        everybody = {name: {more for one in fed for more in feeds[one] | {one}} for name, fed in everybody.items()}
    loop = find_loop(nodes, routes, EXPORTS)
    assert (loop is not None) == any(name in fed for name, fed in everybody.items())
    if loop is not None:
        steps = loop.steps
        assert steps[-1].other.name == steps[0].node.name
        assert all(one.other.name == two.node.name for one, two in pairwise(steps))
        assert all(step.other.name in feeds[step.node.name] for step in steps)
