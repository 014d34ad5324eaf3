"""Says what a model cannot do before it is asked, where its engine knows."""

from engines.protocol import Capability, GenerateRequest, ModelInfo
from gateway.api.ollama.options import Options
from gateway.call import Call
from gateway.errors import BadRequest
from gateway.gateway import Gateway
from gateway.permission import may_use_model

NUM_CTX_HEADER = "x-penstock-num-ctx"


async def known_of(gateway: Gateway, call: Call, name: str) -> ModelInfo | None:
    """What the engine of the model's first target says of it; None if it is not to be known."""
    policy = call.policy.resolve(name)
    if policy is None or not may_use_model(call, policy.name):
        return None
    target = policy.targets[0]
    engine = gateway.engines.get(target.engine)
    if engine is None:
        return None
    return await gateway.model_infos.find(engine, target.model or policy.name)


async def check_abilities(
    gateway: Gateway, call: Call, asked: GenerateRequest, options: Options
) -> None:
    """Raises `BadRequest` if the model cannot think and is told to.

    A context that is longer than the model's is not refused: nothing is ever cut to fit,
    so all that can happen is that a prompt is refused. How long it is, is in a header."""
    thinks = asked.reasoning_effort not in (None, "none")
    if not thinks and options.num_ctx is None:
        return
    info = await known_of(gateway, call, asked.model)
    if info is None:
        return
    if thinks and Capability.REASONING not in info.capabilities and info.capabilities:
        raise BadRequest(f'"{asked.model[:200]}" does not support thinking', param="think")
    if info.context_tokens and (options.num_ctx or 0) > info.context_tokens:
        call.response_headers[NUM_CTX_HEADER] = str(info.context_tokens)
