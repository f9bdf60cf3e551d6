import pytest

from edge.config import ConnectionSettings
from edge.topic_bounds import TopicBounds

AWS = ConnectionSettings(host="a1-ats.iot.eu-west-1.amazonaws.com").topic_bounds
OTHER = ConnectionSettings(host="broker.example").topic_bounds


def levels(count: int) -> str:
    return "/".join("x" * count)


@pytest.mark.parametrize(
    ("bounds", "topic", "wrong"),
    [
        (OTHER, levels(128), None),
        (OTHER, levels(129), ("topic_levels", "129 levels, at most 128")),
        (OTHER, "x" * 65_535, None),
        (AWS, levels(8), None),
        (AWS, levels(9), ("topic_levels", "9 levels, at most 8")),
        (AWS, "é" * 128, None),
        (AWS, "é" * 128 + "x", ("topic_bytes", "257 bytes, at most 256")),
        (AWS, f"$aws/rules/save/{levels(8)}", None),
        (AWS, f"$aws/rules/save/{levels(9)}", ("topic_levels", "9 levels, at most 8")),
        (AWS, f"$aws/things/{'t' * 128}/shadow/name/{'n' * 64}/update/accepted" + "/x" * 3 + "y" * 100, None),
        (AWS, f"$aws/{levels(300)}", ("topic_levels", "301 levels, at most 128")),
    ],
)
def test_a_topic_is_held_to_what_its_broker_takes(
    bounds: TopicBounds, topic: str, wrong: tuple[str, str] | None
) -> None:
    assert bounds.wrong(topic) == wrong


def test_the_file_says_otherwise_where_a_broker_takes_more_or_less() -> None:
    given = ConnectionSettings(host="a1.iot.eu-west-1.amazonaws.com", topic_levels_max=3, topic_bytes_max=9)
    assert given.topic_bounds.wrong("a/b/c") is None
    assert given.topic_bounds.wrong("a/b/c/d") == ("topic_levels", "4 levels, at most 3")
    assert given.topic_bounds.wrong("a/b/345678") == ("topic_bytes", "10 bytes, at most 9")
