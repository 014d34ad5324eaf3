import pytest

from gateway.targets.rest import MAX_REST_SECONDS, UNTOLD_SECONDS, Rest


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [(7.0, 7.0), (None, UNTOLD_SECONDS), (3600.0, MAX_REST_SECONDS), (0.0, 0.0)],
)
def test_a_target_rests_as_long_as_it_asks_for_within_bounds(
    retry_after: float | None, seconds: float
) -> None:
    rest = Rest()

    assert rest.begin(100.0, retry_after) is (seconds > 0)
    assert rest.seconds_left(100.0) == seconds
    assert rest.seconds_left(100.0 + seconds) == 0


def test_a_second_refusal_makes_a_rest_longer_and_never_shorter() -> None:
    rest = Rest()
    rest.begin(100.0, 10.0)

    assert not rest.begin(101.0, None)
    assert rest.seconds_left(101.0) == 9.0
    assert not rest.begin(105.0, 10.0)
    assert rest.seconds_left(105.0) == 10.0


def test_only_an_answer_to_what_began_after_it_ends_a_rest() -> None:
    rest = Rest()
    before = rest.number
    rest.begin(100.0, 10.0)

    assert not rest.answered(before, 101.0)
    assert rest.seconds_left(101.0) == 9.0
    assert rest.answered(rest.number, 101.0)
    assert rest.seconds_left(101.0) == 0
    assert not rest.answered(rest.number, 101.0), "it had ended already"
