import pytest

from gateway.policy import BreakerPolicy
from gateway.targets.target_breaker import MAX_CALLERS, TargetBreaker, Ticket

RULES = BreakerPolicy(failures=3, open_seconds=5, max_open_seconds=20)


def let_in(breaker: TargetBreaker, caller: str, now: float = 0.0) -> Ticket:
    ticket = breaker.enter(now, caller)
    assert ticket is not None
    return ticket


def fail(
    breaker: TargetBreaker, caller: str, now: float = 0.0, *, is_doubtful: bool = True
) -> bool:
    return breaker.failed(let_in(breaker, caller, now), now, RULES, is_doubtful=is_doubtful)


def answer(breaker: TargetBreaker, caller: str, now: float = 0.0) -> None:
    breaker.completed(breaker.answered(let_in(breaker, caller, now)))


def closed_to_bad(now: float = 0.0) -> TargetBreaker:
    breaker = TargetBreaker()
    assert [fail(breaker, "bad", now) for _ in range(3)] == [False, False, True]
    return breaker


def test_what_may_be_one_callers_doing_closes_the_target_to_that_caller_alone():
    breaker = closed_to_bad()

    assert not breaker.admits(4.9, "bad")
    assert breaker.enter(4.9, "bad") is None
    assert breaker.seconds_left(4.0, "bad") == 1.0
    assert breaker.admits(0.0, "good")
    assert breaker.admits(0.0)
    assert breaker.seconds_left(0.0, "good") == 0.0
    assert (breaker.state(0.0), breaker.num_kept_out(0.0), breaker.failures) == ("closed", 1, 3)


def test_the_caller_that_was_kept_out_is_let_in_again_one_call_at_a_time():
    breaker = closed_to_bad()

    probe = let_in(breaker, "bad", 5.0)
    assert not breaker.admits(5.0, "bad")
    assert breaker.admits(5.0, "good")
    assert breaker.failed(probe, 5.0, RULES, is_doubtful=True)
    assert breaker.seconds_left(5.0, "bad") == 10.0  # twice as long

    answer(breaker, "bad", 15.0)
    assert breaker.num_kept_out(15.0) == 0
    assert breaker.admits(15.0, "bad")


def test_a_second_caller_that_fails_too_shows_that_it_is_the_target():
    breaker = closed_to_bad()

    assert fail(breaker, "good")

    assert breaker.state(0.0) == "open"
    assert not breaker.admits(0.0, "anyone")


def test_failures_of_several_callers_count_like_any_in_a_row():
    breaker = TargetBreaker()

    assert [fail(breaker, caller) for caller in ("a", "b", "a", "c")] == [False] * 3 + [True]


def test_an_answer_to_anyone_clears_the_target_of_suspicion():
    breaker = closed_to_bad()
    answer(breaker, "good")

    assert not fail(breaker, "good")

    assert breaker.state(0.0) == "closed"
    assert not breaker.admits(0.0, "bad")


def test_what_is_the_targets_own_failure_closes_it_to_everyone():
    breaker = TargetBreaker()

    opened = [fail(breaker, "one", is_doubtful=False) for _ in range(3)]

    assert opened == [False, False, True]
    assert not breaker.admits(0.0, "other")


def test_a_probe_whose_request_may_be_bad_lets_another_caller_probe():
    breaker = TargetBreaker()
    for _ in range(3):
        fail(breaker, "one", is_doubtful=False)

    assert not fail(breaker, "bad", 5.0)
    assert breaker.state(5.0) == "half_open"
    answer(breaker, "good", 5.0)

    assert breaker.state(5.0) == "closed"


def test_a_probe_that_fails_for_a_second_caller_opens_it_again():
    breaker = TargetBreaker()
    for _ in range(3):
        fail(breaker, "one", is_doubtful=False)

    fail(breaker, "a", 5.0)
    assert fail(breaker, "b", 5.0)

    assert breaker.seconds_left(5.0) == 10.0


def test_a_probe_without_a_verdict_leaves_its_place_to_the_next():
    breaker = closed_to_bad()

    breaker.let_go(let_in(breaker, "bad", 5.0))

    assert breaker.admits(5.0, "bad")


def test_no_failures_mean_that_it_never_opens():
    breaker = TargetBreaker()
    never = BreakerPolicy(failures=0)

    for _ in range(10):
        breaker.failed(let_in(breaker, "bad"), 0.0, never, is_doubtful=True)

    assert breaker.admits(0.0, "bad")
    assert breaker.failures == 0


@pytest.mark.parametrize("num_callers", [MAX_CALLERS + 10])
def test_so_many_callers_are_remembered_and_no_more(num_callers: int) -> None:
    breaker = TargetBreaker()
    for number in range(num_callers):
        ticket = breaker.enter(0.0, number)
        if ticket is not None:
            breaker.failed(ticket, 0.0, BreakerPolicy(failures=1000), is_doubtful=True)

    assert len(breaker._own) == MAX_CALLERS
