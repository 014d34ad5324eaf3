"""The immutable, checked content of one policy directory."""

from gateway.policy.load import listed_plugins, load_policy
from gateway.policy.problems import PolicyInvalid
from gateway.policy.schema import (
    EnginePolicy,
    FallbackPolicy,
    LimitPolicy,
    ModelPolicy,
    Policy,
    PricePolicy,
    SamplingDefaults,
    TargetPolicy,
    TeamPolicy,
)
from gateway.policy.secrets import Secret, SecretMissing

__all__ = [
    "EnginePolicy",
    "FallbackPolicy",
    "LimitPolicy",
    "ModelPolicy",
    "Policy",
    "PolicyInvalid",
    "PricePolicy",
    "SamplingDefaults",
    "Secret",
    "SecretMissing",
    "TargetPolicy",
    "TeamPolicy",
    "listed_plugins",
    "load_policy",
]
