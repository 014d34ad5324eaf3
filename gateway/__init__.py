"""Serves APIs; decides who, what and where; knows no engine.

This is the public face for plugins: what they import comes from here, from
`gateway.endpoints`, `gateway.permission`, `gateway.policy` and `gateway.targets`.
"""

from gateway.call import NOBODY, Call, Principal, Role, Route, Target
from gateway.errors import (
    BadRequest,
    Forbidden,
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
    "Call",
    "Forbidden",
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
