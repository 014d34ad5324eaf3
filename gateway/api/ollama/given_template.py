"""Renders a prompt with the template that a request brings, in the place of the model's own."""

import msgspec

from engines.abilities import OtherTemplates
from engines.protocol import GenerateRequest
from gateway import pipeline
from gateway.call import Call
from gateway.errors import BadRequest, unknown_as
from gateway.gateway import Gateway


async def with_template(
    gateway: Gateway, call: Call, template: str, asked: GenerateRequest
) -> GenerateRequest:
    """The request with a prompt in the place of its messages. Raises `Refusal`, `EngineError`."""
    # Before anything is loaded for it.
    await pipeline.authorize(gateway, call, asked.model)
    assert call.model is not None
    target = call.model.targets[0]
    engine = gateway.engines[target.engine]
    if not isinstance(engine, OtherTemplates):
        raise BadRequest(
            "this model's engine takes no template from a request: create a model with this "
            "TEMPLATE, or send the rendered prompt with raw: true",
            param="template",
        )
    own = msgspec.structs.replace(asked, model=target.model or call.model.name)
    with unknown_as(asked.model):
        prompt = await engine.rendered_with(template, own)
    return msgspec.structs.replace(asked, messages=(), prompt=prompt)
