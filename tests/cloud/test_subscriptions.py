"""When the broker is asked for a filter, and when to let it go."""

from collections.abc import Iterable

from edge.cloud.subscriptions import Subscriptions


class Kept:
    def __init__(self) -> None:
        self.lists: list[list[str]] = []

    def __call__(self, filters: Iterable[str]) -> None:
        self.lists.append(list(filters))


def granted(*filters: str) -> Subscriptions:
    subscriptions = Subscriptions()
    subscriptions.add(filters)
    subscriptions.asked(1, filters)
    assert subscriptions.answered(1, [1] * len(filters)) == []
    return subscriptions


def test_a_wide_filter_stays_until_the_narrow_one_in_its_place_is_granted() -> None:
    subscriptions = granted("a/#")
    assert subscriptions.add(["a/b"]) == ["a/b"]
    subscriptions.drop(["a/#"])
    assert subscriptions.due() == []
    subscriptions.asked(2, ["a/b"])
    subscriptions.answered(2, [1])
    assert subscriptions.due() == ["a/#"]
    subscriptions.asked_to_let_go(3, ["a/#"])
    assert subscriptions.due() == []


def test_a_filter_whose_successor_is_refused_stays() -> None:
    subscriptions = granted("a/#")
    subscriptions.add(["a/b"])
    subscriptions.drop(["a/#"])
    subscriptions.asked(2, ["a/b"])
    assert subscriptions.answered(2, [0x87]) == [("a/b", 0x87)]
    assert subscriptions.due() == []


def test_a_filter_that_shares_no_topic_with_what_is_missing_goes_at_once() -> None:
    subscriptions = granted("a/#", "b/#")
    subscriptions.add(["a/b"])
    subscriptions.drop(["b/#"])
    assert subscriptions.due() == ["b/#"]


def test_a_filter_wanted_again_while_it_is_let_go_is_asked_for_again_and_stays() -> None:
    subscriptions = granted("a")
    subscriptions.drop(["a"])
    subscriptions.asked_to_let_go(2, ["a"])
    assert subscriptions.add(["a"]) == ["a"]
    subscriptions.asked(3, ["a"])
    subscriptions.let_go(2, [0])
    subscriptions.answered(3, [1])
    assert subscriptions.missing(session_present=True) == []
    subscriptions.drop(["a"])
    assert subscriptions.due() == ["a"]


def test_a_grant_that_comes_after_its_filter_was_dropped_makes_it_wanted_no_more() -> None:
    subscriptions = Subscriptions()
    subscriptions.add(["a"])
    subscriptions.asked(1, ["a"])
    subscriptions.drop(["a"])
    subscriptions.answered(1, [1])
    assert subscriptions.missing(session_present=False) == []


def test_what_was_not_let_go_when_the_connection_ended_is_told_again_if_the_session_lasts() -> None:
    for present in (True, False):
        subscriptions = granted("a", "b")
        subscriptions.drop(["a", "b"])
        subscriptions.asked_to_let_go(2, ["a", "b"])
        assert subscriptions.let_go(2, [0, 0x83]) == [("b", 0x83)]
        assert subscriptions.due() == []
        assert subscriptions.missing(session_present=present) == []
        assert subscriptions.due() == (["b"] if present else [])


def test_an_answer_without_codes_lets_all_go_as_mqtt_3_1_1_has_it() -> None:
    subscriptions = granted("a", "b")
    subscriptions.drop(["a", "b"])
    subscriptions.asked_to_let_go(2, ["a", "b"])
    assert subscriptions.let_go(2, ()) == []
    assert subscriptions.missing(session_present=True) == subscriptions.due() == []


def test_what_the_broker_may_hold_is_kept_before_it_is_asked_for_and_until_it_let_go() -> None:
    kept = Kept()
    subscriptions = Subscriptions(["old", "a"], kept)
    subscriptions.add(["a", "b"])
    assert kept.lists == [["a", "b", "old"]]
    assert subscriptions.missing(session_present=True) == ["a", "b"]
    assert subscriptions.due() == ["old"]
    subscriptions.asked_to_let_go(1, ["old"])
    subscriptions.asked(2, ["a", "b"])
    subscriptions.let_go(1, [0])
    subscriptions.answered(2, [1, 1])
    subscriptions.drop(["b"])
    assert kept.lists == [["a", "b", "old"], ["a", "b"]]
    subscriptions.missing(session_present=False)
    assert kept.lists[2:] == [["a"]]
