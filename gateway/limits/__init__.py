"""What the plugin `rate_limits` stands on: rules, estimates, prices, headers.

A rule is one line of limits.toml for one subject; the store counts it.
"""

from gateway.limits.caps import longest_answer, output_left
from gateway.limits.estimates import Estimate, Estimates, count_prompt
from gateway.limits.headers import go_duration, limit_headers
from gateway.limits.local import LocalLimits
from gateway.limits.looking import look, rules_to_look_at
from gateway.limits.prices import cost_in_micro_units
from gateway.limits.refusals import never_fits, refusal_of, why_refused
from gateway.limits.rules import Rule, RuleBook, Rules, capped_estimate, demands_of, used_of
from gateway.limits.waiting import WaitingLines

__all__ = [
    "Estimate",
    "Estimates",
    "LocalLimits",
    "Rule",
    "RuleBook",
    "Rules",
    "WaitingLines",
    "capped_estimate",
    "cost_in_micro_units",
    "count_prompt",
    "demands_of",
    "go_duration",
    "limit_headers",
    "longest_answer",
    "look",
    "never_fits",
    "output_left",
    "refusal_of",
    "rules_to_look_at",
    "used_of",
    "why_refused",
]
