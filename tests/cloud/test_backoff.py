from hypothesis import given
from hypothesis import strategies as st

from edge.cloud.backoff import Backoff

fractions = st.floats(0, 1, exclude_max=True)


@given(st.lists(fractions, min_size=1, max_size=20), st.floats(0.01, 10), st.floats(10, 100))
def test_every_delay_is_within_the_bounds(chances: list[float], min_s: float, max_s: float) -> None:
    backoff = Backoff(min_s, max_s, iter(chances * 3).__next__)
    for _ in chances:
        assert min_s / 2 <= backoff.next_s() <= max_s


def test_the_ceiling_doubles_up_to_the_maximum() -> None:
    backoff = Backoff(1, 10, lambda: 0.999999)
    assert [round(backoff.next_s()) for _ in range(6)] == [1, 2, 4, 8, 10, 10]


def test_what_lasted_longer_than_the_next_delay_starts_over() -> None:
    backoff = Backoff(1, 10, lambda: 0.999999)
    for _ in range(3):
        backoff.next_s()
    assert not backoff.lasted(7.9)
    assert round(backoff.next_s()) == 8
    assert backoff.lasted(10)
    assert round(backoff.next_s()) == 1
