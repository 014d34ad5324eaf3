from pathlib import Path

import pytest

from gateway.call import Call
from gateway.policy import FallbackPolicy, ModelPolicy, Policy, TargetPolicy, TeamPolicy


@pytest.fixture
def policy() -> Policy:
    """A small policy: one model with one target and one fallback, one team that may use all."""
    model = ModelPolicy(
        name="chat-small",
        targets=[TargetPolicy(engine="gpu0", model="a")],
        fallbacks=[FallbackPolicy(engine="overflow", model="b", on=["overloaded", "unavailable"])],
    )
    return Policy(
        directory=Path("policies/test"),
        digest="0" * 64,
        plugins=[],
        tables={},
        engines={},
        models={"chat-small": model},
        teams={"me": TeamPolicy(name="me", models=["*"], endpoints=["*"])},
        limits={},
        aliases={},
    )


@pytest.fixture
def call(policy: Policy) -> Call:
    """A call that nobody has touched yet."""
    return Call(id="req_test", endpoint="openai.chat", policy=policy)
