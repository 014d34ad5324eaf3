import pytest

from engines.errors import ModelNotFound, Unavailable
from engines.pool.back_off import MAX_SECONDS, BackOff


def held_until(back_off: BackOff, now: float) -> float:
    """Seconds from `now` on for which callers are told the reason."""
    try:
        back_off.check("a", now)
    except Unavailable as error:
        assert "out of memory" in error.message
        assert error.retry_after is not None
        return error.retry_after
    return 0.0


def test_the_first_failure_may_be_tried_again_and_then_ever_later() -> None:
    back_off, now, waits = BackOff(), 0.0, []
    for _ in range(9):
        back_off.failed("a", Unavailable("out of memory"), now)
        wait = held_until(back_off, now)
        waits.append(wait)
        now += wait

    assert waits == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]


def test_the_reason_is_told_with_how_often_and_when_next() -> None:
    back_off = BackOff()
    for _ in range(4):
        back_off.failed("a", Unavailable("no memory"), 0.0)

    with pytest.raises(Unavailable, match=r"no memory \(failed 4 times, next try in 3 s\)"):
        back_off.check("a", 1.0)
    back_off.check("b", 1.0)


def test_who_did_well_for_long_begins_anew() -> None:
    back_off = BackOff()
    for now in (0.0, 0.0, 0.0, MAX_SECONDS + 3.0):
        back_off.failed("a", Unavailable("out of memory"), now)

    assert held_until(back_off, MAX_SECONDS + 3.0) == 0.0


def test_what_a_caller_can_change_is_not_held_back() -> None:
    back_off = BackOff()
    for _ in range(5):
        back_off.failed("a", ModelNotFound("a"), 0.0)

    back_off.check("a", 0.0)


def test_another_file_of_the_name_is_tried_at_once() -> None:
    back_off = BackOff()
    for _ in range(5):
        back_off.failed("a", Unavailable("no memory"), 0.0)

    back_off.forget("a")

    back_off.check("a", 0.0)
