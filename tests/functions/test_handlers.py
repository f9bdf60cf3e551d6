"""The worker's own words for topics, which it has so as not to load the gateway's, say what the gateway's say."""

from collections.abc import Callable

from hypothesis import example, given
from hypothesis import strategies as st

from edge import topics
from edge.errors import InputRejected
from edge.functions import handlers

LEVEL = st.sampled_from(["a", "b", "", "+", "#", "$s", "a+", "\0", "\ud800"])
TEXT = st.lists(LEVEL, min_size=1, max_size=4).map("/".join)


def refuses(check: Callable[[str], None], text: str) -> bool:
    try:
        check(text)
    except (InputRejected, ValueError):
        return True
    return False


@given(text=TEXT)
@example(text="x" * 65_535)
@example(text="x" * 65_536)
def test_the_same_topics_may_be_published_to(text: str) -> None:
    assert refuses(handlers.check_topic, text) is refuses(topics.check_topic, text)


@given(topic_filter=TEXT.filter(lambda text: not refuses(topics.check_filter, text)), topic=TEXT)
def test_the_same_topics_are_taken_by_a_filter(topic_filter: str, topic: str) -> None:
    if not refuses(topics.check_topic, topic):
        assert handlers.matches(topic_filter, topic) is topics.matches(topic_filter, topic)


@given(topic_filter=TEXT)
@example(topic_filter="ü" * 32_768)
def test_the_same_filters_may_be_subscribed_to(topic_filter: str) -> None:
    registry = handlers.Registry()
    assert refuses(lambda text: registry.on(text, print), topic_filter) is refuses(topics.check_filter, topic_filter)
