"""Names as Ollama's clients write them: one without a tag means the tag `latest`.

A name of the policy is taken as it stands, with or without a tag. Where the policy has
a wildcard, the engine behind it knows which of the two spellings there is.
"""

from collections.abc import Generator
from contextlib import contextmanager

from gateway.call import Call
from gateway.errors import BadRequest, ModelUnknown
from gateway.gateway import Gateway
from gateway.listed_names import LATEST

MAX_NAME_CHARS = 1000
_MAX_SHOWN = 200


def named(model: str, name: str = "") -> str:
    """The one name of a body that may say it in either field. Raises `BadRequest`."""
    found = model or name
    if not found:
        raise BadRequest("model is required", param="model")
    if len(found) > MAX_NAME_CHARS:
        raise BadRequest(f"model has over {MAX_NAME_CHARS} characters", param="model")
    return found


async def public_name(gateway: Gateway, call: Call, name: str) -> str:
    """The spelling of `name` by which the policy, or an engine behind a wildcard, knows it."""
    name = await (call.serving or gateway).listed_name(name)
    if _is_listed(call, name):
        return name
    if not name.endswith(LATEST):
        return name + LATEST if _is_listed(call, name + LATEST) else name
    short = name.removesuffix(LATEST)
    if _is_listed(call, short):
        return short
    policy = call.policy.resolve(name)
    for target in policy.targets if policy is not None else ():
        engine = gateway.engines.get(target.engine)
        if target.model is None and engine is not None:
            info = await gateway.model_infos.find(engine, short)
            if info is not None:
                return info.name
    return name


@contextmanager
def in_ollamas_words(name: str) -> Generator[None, None, None]:
    """Let a model that is not there be named as the client named it, in words that it knows."""
    try:
        yield
    except ModelUnknown as error:
        error.message = f"model '{name[:_MAX_SHOWN]}' not found"
        raise


def _is_listed(call: Call, name: str) -> bool:
    found = call.policy.models.get(call.policy.aliases.get(name, name))
    return found is not None and "*" not in found.name
