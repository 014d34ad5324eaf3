from hypothesis import given
from hypothesis import strategies as st

from gateway.targets.retry_budget import MOST, RESERVE, RetryBudget


def test_a_new_model_may_retry_as_often_as_its_reserve():
    budget = RetryBudget()

    assert sum(budget.take(20) for _ in range(100)) == RESERVE


def test_five_requests_pay_for_one_further_attempt():
    budget = RetryBudget()
    while budget.take(20):
        pass

    for _ in range(5):
        budget.pay_in(20)

    assert budget.take(20)
    assert not budget.take(20)


def test_without_a_percentage_not_even_the_reserve_is_spent():
    budget = RetryBudget()
    budget.pay_in(0)

    assert not budget.has_left(0)
    assert not budget.take(0)
    assert budget.num_extra == 0


def test_quiet_hours_save_up_only_so_much():
    budget = RetryBudget()
    for _ in range(100_000):
        budget.pay_in(20)

    assert sum(budget.take(20) for _ in range(100_000)) == MOST


@given(
    steps=st.lists(st.sampled_from(["pay", "take", "take"]), max_size=400),
    percent=st.floats(min_value=0, max_value=20),
)
def test_further_attempts_never_exceed_their_share_and_the_reserve(steps, percent):
    budget = RetryBudget()

    for step in steps:
        budget.pay_in(percent) if step == "pay" else budget.take(percent)

        assert budget.num_extra <= budget.num_requests * percent / 100 + RESERVE + 1e-6
        assert budget.left >= 0
