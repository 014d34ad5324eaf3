"""The immutable, checked content of one policy directory."""

from gateway.policy.load import listed_plugins, load_policy
from gateway.policy.problems import PolicyInvalid
from gateway.policy.schema import (
    BreakerPolicy,
    CanaryPolicy,
    EnginePolicy,
    FallbackPolicy,
    HedgePolicy,
    LimitPolicy,
    MirrorPolicy,
    ModelPolicy,
    Policy,
    PricePolicy,
    RetryPolicy,
    SamplingDefaults,
    TargetPolicy,
    TeamPolicy,
)
from gateway.policy.secrets import Secret, SecretMissing

__all__ = [
    "BreakerPolicy",
    "CanaryPolicy",
    "EnginePolicy",
    "FallbackPolicy",
    "HedgePolicy",
    "LimitPolicy",
    "MirrorPolicy",
    "ModelPolicy",
    "Policy",
    "PolicyInvalid",
    "PricePolicy",
    "RetryPolicy",
    "SamplingDefaults",
    "Secret",
    "SecretMissing",
    "TargetPolicy",
    "TeamPolicy",
    "listed_plugins",
    "load_policy",
]
