"""Models and calls for the tests of routing, and where such a call would go."""

from collections.abc import Callable

from engines.protocol import GenerateRequest
from gateway.policy import ModelPolicy, TargetPolicy
from plugins.routing import Routing
from tests.gateway.targets.stage import StageOfTargets
from tests.plugins.policies import call_of, policy_of


def weighted(**weights: float) -> list[TargetPolicy]:
    return [TargetPolicy(engine=engine, weight=weight) for engine, weight in weights.items()]


def model_of(
    targets: list[TargetPolicy], sticky: str | None = None, **fields: object
) -> ModelPolicy:
    return ModelPolicy(name="chat-small", targets=targets, sticky=sticky, **fields)


def routing_of(draw: Callable[[], float] = lambda: 0.0) -> tuple[Routing, StageOfTargets]:
    stage = StageOfTargets({})
    return Routing(stage, draw=draw), stage


async def engines_of(
    model: ModelPolicy,
    *requests: GenerateRequest,
    routing: Routing | None = None,
    drawn: float = 0.0,
    session: str = "",
    **call_fields: object,
) -> list[str]:
    """The engines of a call's route, in their order."""
    call = call_of(policy_of(models=[model]), *requests, **call_fields)
    call.session = session
    route = await (routing or routing_of(lambda: drawn)[0]).route(call)
    assert route is not None
    return [target.engine for target in route.targets]


async def engine_of(
    model: ModelPolicy, *requests: GenerateRequest, key: str | None = None, **fields: object
) -> str:
    return (await engines_of(model, *requests, key_id=key, **fields))[0]
