"""The immutable, checked content of one policy directory."""

from gateway.policy.schema import (
    EnginePolicy,
    LimitPolicy,
    ModelPolicy,
    Policy,
    SamplingDefaults,
    TargetPolicy,
    TeamPolicy,
)

__all__ = [
    "EnginePolicy",
    "LimitPolicy",
    "ModelPolicy",
    "Policy",
    "SamplingDefaults",
    "TargetPolicy",
    "TeamPolicy",
]
