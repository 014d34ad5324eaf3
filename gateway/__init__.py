"""Serves APIs; decides who, what and where; knows no engine.

This is the public face for plugins: what they import comes from here, from
`gateway.endpoints`, `gateway.permission`, `gateway.policy` and `gateway.targets`.
"""

from gateway.call import NOBODY, Call, Principal, Role, Route, Target
from gateway.errors import (
    BadRequest,
    BudgetSpent,
    Forbidden,
    LimitsUnavailable,
    ModelUnknown,
    Problem,
    RateLimited,
    Refusal,
    Unauthenticated,
)
from gateway.hookspecs import hookimpl

__all__ = [
    "NOBODY",
    "BadRequest",
    "BudgetSpent",
    "Call",
    "Forbidden",
    "LimitsUnavailable",
    "ModelUnknown",
    "Principal",
    "Problem",
    "RateLimited",
    "Refusal",
    "Role",
    "Route",
    "Target",
    "Unauthenticated",
    "hookimpl",
]
