"""Policies and calls built by hand, for tests of the plugins that read them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engines.protocol import GenerateRequest
from gateway import Call, Principal
from gateway.policy import LimitPolicy, ModelPolicy, Policy, TargetPolicy, TeamPolicy

TARGETS = (TargetPolicy(engine="gpu0"),)


def policy_of(
    *,
    models: Sequence[ModelPolicy] = (ModelPolicy(name="chat-small", targets=TARGETS),),
    teams: Sequence[TeamPolicy] = (TeamPolicy(name="search", models=["*"], endpoints=["*"]),),
    limits: Sequence[LimitPolicy] = (),
    tables: Mapping[str, Any] | None = None,
) -> Policy:
    return Policy(
        directory=Path("policies/test"),
        digest="0" * 64,
        plugins=(),
        tables=tables or {},
        engines={},
        models={model.name: model for model in models},
        teams={team.name: team for team in teams},
        limits={limit.name: limit for limit in limits},
        aliases={alias: model.name for model in models for alias in model.aliases},
    )


def call_of(
    policy: Policy,
    *requests: GenerateRequest,
    team: str = "search",
    model: str | None = "chat-small",
    endpoint: str = "openai.chat",
    key_id: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Call:
    return Call(
        id="req_1",
        endpoint=endpoint,
        policy=policy,
        headers=headers or {},
        principal=Principal(name="laptop", team=team, key_id=key_id),
        model=policy.resolve(model) if model is not None else None,
        requests=requests,
    )
