"""What tokens cost, in whole numbers.

A price is for a million tokens, in whatever unit the policy's budgets are in. One
token is priced in millionths of millionths (pico), a call in millionths, rounded
up, so that no call that costs something is free.
"""

from engines.protocol import Usage
from gateway.policy import PricePolicy

PICO_PER_MICRO = 1_000_000
MICRO = 1_000_000


def pico_price(per_million: float) -> int:
    """The price of one token."""
    return round(per_million * PICO_PER_MICRO)


def in_micro_units(amount: float) -> int:
    """An amount of the policy's, as it is counted."""
    return round(amount * MICRO)


def cost_in_micro_units(price: PricePolicy | None, usage: Usage) -> int:
    """What a call cost; a model without a price costs nothing."""
    if price is None:
        return 0
    cached = price.input if price.cached is None else price.cached
    num_cached = min(usage.cached_tokens, usage.prompt_tokens)  # more would be a refund
    pico = (
        (usage.prompt_tokens - num_cached) * pico_price(price.input)
        + num_cached * pico_price(cached)
        + usage.completion_tokens * pico_price(price.output)
    )
    return -(-pico // PICO_PER_MICRO)
