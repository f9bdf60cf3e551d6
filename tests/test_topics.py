import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import InputRejected
from edge.topics import TopicTree, check_filter, check_topic, covers, matches, meet, overlap

LEVELS = st.sampled_from(["a", "b", "", "$s", "é"])
TOPICS = st.lists(LEVELS, min_size=1, max_size=4).map("/".join).filter(bool)
FILTERS = st.builds(
    lambda levels, tail: "/".join([*levels, *tail]),
    st.lists(st.one_of(LEVELS, st.just("+")), max_size=3),
    st.sampled_from([["#"], ["a"], ["+"]]),
)


@pytest.mark.parametrize(
    ("topic_filter", "topic", "taken"),
    [
        ("sport/tennis/#", "sport/tennis", True),  # MQTT 5.0, 4.7.1.2
        ("sport/tennis/#", "sport/tennis/player1/ranking", True),
        ("sport/#", "sport", True),
        ("#", "sport", True),
        ("sport/+", "sport", False),  # 4.7.1.3
        ("sport/+", "sport/", True),
        ("+/+", "/finance", True),
        ("/+", "/finance", True),
        ("+", "/finance", False),
        ("#", "$SYS/a", False),  # 4.7.2
        ("+/monitor", "$SYS/monitor", False),
        ("$SYS/#", "$SYS/a", True),
        ("a/b", "a/B", False),
    ],
)
def test_filters_take_what_the_standard_says(topic_filter: str, topic: str, *, taken: bool) -> None:
    assert matches(topic_filter, topic) is taken


@pytest.mark.parametrize("topic", ["", "a/+", "#", "a\0b", "\ud800", "x" * 65_536])
def test_a_topic_that_may_not_be_published_to_is_refused(topic: str) -> None:
    with pytest.raises(InputRejected):
        check_topic(topic)


@pytest.mark.parametrize("topic_filter", ["", "a#", "#/a", "a/+b", "++", "a\0", "\udfff", "é" * 32_768])
def test_a_filter_that_is_not_valid_is_refused(topic_filter: str) -> None:
    with pytest.raises(InputRejected):
        check_filter(topic_filter)


@given(st.lists(st.tuples(FILTERS, st.integers(0, 3)), max_size=8), st.data(), TOPICS)
def test_a_tree_finds_what_asking_every_filter_would(
    entries: list[tuple[str, int]], data: st.DataObject, topic: str
) -> None:
    tree: TopicTree[int] = TopicTree()
    for entry in entries:
        tree.add(*entry)
    gone = data.draw(st.lists(st.sampled_from(entries), unique=True)) if entries else []
    for entry in gone:
        tree.remove(*entry)
    left = set(entries) - set(gone)
    assert set(tree) == left
    assert sorted(tree.match(topic)) == sorted({value for one, value in left if matches(one, topic)})


@given(FILTERS, FILTERS, TOPICS)
def test_filters_that_take_the_same_topic_overlap(one: str, other: str, topic: str) -> None:
    assert overlap(one, other) == overlap(other, one)
    if matches(one, topic) and matches(other, topic):
        assert overlap(one, other)


def test_filters_that_share_no_topic_do_not_overlap() -> None:
    assert not overlap("a/+", "b/#")
    assert not overlap("a/b", "a/b/c")
    assert not overlap("+/x", "$aws/x")
    assert overlap("a/b/#", "a/b")


@given(FILTERS, FILTERS, TOPICS)
def test_where_two_filters_meet_are_the_topics_of_both(one: str, other: str, topic: str) -> None:
    met = meet(one, other)
    assert (met is not None and matches(met, topic)) == (matches(one, topic) and matches(other, topic))
    if met is not None:
        check_filter(met)


def test_which_filter_is_where_two_meet() -> None:
    assert meet("a/#", "+/b") == "a/b"
    assert meet("a/#", "a") == meet("a", "#") == "a"
    assert meet("+/#", "#") == "+/#"
    assert meet("#", "$SYS/x") is None


@given(FILTERS, FILTERS, TOPICS)
def test_a_filter_that_covers_another_takes_all_it_takes(one: str, other: str, topic: str) -> None:
    if covers(one, other) and matches(other, topic):
        assert matches(one, topic)


def test_which_filters_cover_which() -> None:
    assert covers("dt/#", "dt/+")
    assert covers("dt/#", "dt")
    assert covers("dt/+", "dt/x")
    assert covers("dt/x", "dt/x")
    assert not covers("dt/+", "dt/#")
    assert not covers("dt/+", "+/x")
    assert not covers("dt/x", "dt/x/y")
    assert not covers("#", "$SYS/x")
