"""The `x-ratelimit-*` headers, as OpenAI sends them."""

from collections.abc import Mapping, Sequence
from urllib.parse import quote

from gateway.limits.rules import Rule
from gateway.store import Fill

_TRIPLETS = {"requests": ("requests",), "tokens": ("tokens", "input", "output")}


def limit_headers(rules: Sequence[Rule], fills: Sequence[Fill]) -> Mapping[str, str]:
    """Limit, remaining and reset of requests and of tokens; of several limits, the tightest.

    A header of our own says which limit of the policy that is.
    """
    headers: dict[str, str] = {}
    for noun, counted in _TRIPLETS.items():
        candidates = [
            (fill.remaining / rule.bucket.capacity, index)
            for index, (rule, fill) in enumerate(zip(rules, fills, strict=True))
            if rule.counts in counted and rule.bucket.kind == "rate" and rule.bucket.enforced
        ]
        if not candidates:
            continue
        _, index = min(candidates)
        rule, fill = rules[index], fills[index]
        headers[f"x-ratelimit-limit-{noun}"] = str(rule.bucket.limit)
        headers[f"x-ratelimit-remaining-{noun}"] = str(fill.remaining)
        headers[f"x-ratelimit-reset-{noun}"] = go_duration(fill.reset_ms)
        headers[f"x-penstock-limit-{noun}"] = f"{quote(rule.table)}.{rule.field}"
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
