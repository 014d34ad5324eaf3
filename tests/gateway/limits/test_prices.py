from hypothesis import given
from hypothesis import strategies as st

from engines.protocol import Usage
from gateway.limits import cost_in_micro_units
from gateway.limits.prices import pico_price
from gateway.policy import PricePolicy


def test_a_call_is_priced_by_the_million_tokens() -> None:
    price = PricePolicy(input=0.15, output=0.6, cached=0.075)
    usage = Usage(prompt_tokens=1_000_000, cached_tokens=400_000, completion_tokens=2_000_000)

    assert cost_in_micro_units(price, usage) == 90_000 + 30_000 + 1_200_000


def test_cached_tokens_cost_as_much_as_others_unless_the_price_says_otherwise() -> None:
    usage = Usage(prompt_tokens=100, cached_tokens=100)

    assert cost_in_micro_units(PricePolicy(input=2.0), usage) == 200
    assert cost_in_micro_units(PricePolicy(input=2.0, cached=0.0), usage) == 0


def test_more_cached_tokens_than_there_are_in_the_prompt_are_no_refund() -> None:
    usage = Usage(prompt_tokens=10, cached_tokens=100_000)

    assert cost_in_micro_units(PricePolicy(input=3.0, cached=0.3), usage) == 3


def test_a_model_without_a_price_costs_nothing() -> None:
    assert cost_in_micro_units(None, Usage(prompt_tokens=10**9)) == 0


def test_no_call_that_costs_something_is_free() -> None:
    assert cost_in_micro_units(PricePolicy(input=0.01), Usage(prompt_tokens=1)) == 1


@given(st.integers(0, 10**7), st.integers(0, 10**7), st.floats(0, 1000), st.floats(0, 1000))
def test_a_cost_is_exact_to_a_millionth(prompt: int, output: int, i: float, o: float) -> None:
    cost = cost_in_micro_units(
        PricePolicy(input=i, output=o), Usage(prompt_tokens=prompt, completion_tokens=output)
    )

    exact = prompt * pico_price(i) + output * pico_price(o)
    assert 0 <= cost * 1_000_000 - exact < 1_000_000
