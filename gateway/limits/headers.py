"""The `x-ratelimit-*` headers, as OpenAI sends them."""

import math
from collections.abc import Mapping, Sequence

from gateway.limits.rules import Rules
from gateway.store import Fill


def limit_headers(rules: Rules, fills: Sequence[Fill]) -> Mapping[str, str]:
    """Limit, remaining and reset of requests and of tokens; of several limits, the tightest.

    A header of our own says which limit of the policy that is.
    """
    headers: dict[str, str] = {}
    for noun, bursts in rules.shown:
        tightest, least = 0, math.inf
        for place, burst in bursts:
            if (share := fills[place].remaining / burst) < least:
                tightest, least = place, share
        headers |= rules.constant_headers[tightest]
        headers[f"x-ratelimit-remaining-{noun}"] = str(fills[tightest].remaining)
        headers[f"x-ratelimit-reset-{noun}"] = go_duration(fills[tightest].reset_ms)
    return headers


def go_duration(milliseconds: int) -> str:
    """A duration as Go prints it: `12ms`, `1.5s`, `6m0s`, `1h0m3s`."""
    if milliseconds <= 0:
        return "0s"
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    seconds = f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    if not minutes:
        return seconds
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{seconds}" if hours else f"{minutes}m{seconds}"
