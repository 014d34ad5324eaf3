"""Serves APIs; decides who, what and where; knows no engine.

This is the public face for plugins: what they import comes from here, from
`gateway.endpoints`, from `gateway.policy` and from `gateway.targets`.
"""

from gateway.call import NOBODY, Call, Principal, Route, Target
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
    "Route",
    "Target",
    "Unauthenticated",
    "hookimpl",
]
