"""How often a folder is looked at."""

from edge.functions.sandbox.pace import LEAST_S, REST_S, SOON_S, Pace


def test_one_where_nothing_stirs_is_looked_at_now_and_then() -> None:
    pace = Pace(0.1, 0.0)
    pace.looked(0.1, 10.0, took_s=0.0)
    assert pace.due_at == 10 + REST_S


def test_one_that_stirs_is_looked_at_soon_and_sooner_the_fuller_it_is() -> None:
    empty, full = Pace(0.0, 0.0), Pace(0.0, 0.0)
    empty.looked(0.0, 10.0, took_s=0.0)
    full.looked(0.0, 9.0, took_s=0.0)
    full.looked(0.9, 10.0, took_s=0.0)
    for pace in (empty, full):
        pace.stirred(10.001)
    assert (empty.due_at, full.due_at) == (10 + SOON_S, 10 + LEAST_S)


def test_one_that_grows_is_looked_at_before_it_could_be_full() -> None:
    pace = Pace(0.0, 0.0)
    pace.looked(0.2, 0.1, took_s=0.0)
    assert 0.1 < pace.due_at < 0.1 + 0.8 / 2
    pace.looked(0.6, 0.3, took_s=0.0)
    assert pace.due_at < 0.3 + 0.4 / 2
    pace.looked(0.999, 0.4, took_s=0.0)
    assert pace.due_at == 0.4 + LEAST_S


def test_one_that_takes_long_to_look_at_is_looked_at_more_seldom_while_it_does_not_grow() -> None:
    pace = Pace(0.0, 0.0)
    pace.looked(0.0, 1.0, took_s=0.02)
    pace.stirred(1.0)
    assert pace.due_at == 1.2


def test_one_that_may_grow_unseen_is_not_left_alone() -> None:
    pace = Pace(0.0, 0.0)
    pace.looked(0.0, 1.0, took_s=0.0, may_grow_unseen=True)
    assert pace.due_at == 1 + SOON_S
