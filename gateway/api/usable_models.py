"""The models that a caller may use: what every dialect's list of models is made of.

A policy's models and their aliases, as far as the caller's team and key may use
them; where the policy has a wildcard, also what its engines have, by their own
names.
"""

from collections.abc import Mapping, Sequence

import msgspec
import structlog
from msgspec import Struct

from engines.errors import EngineError
from engines.protocol import ModelInfo
from gateway.call import Call
from gateway.gateway import Gateway
from gateway.permission import may_use_model
from gateway.policy import ModelPolicy

log = structlog.get_logger()

EngineModels = Mapping[str, Mapping[str, ModelInfo]]  # engine -> its models by name


class UsableModel(Struct, frozen=True, kw_only=True):
    """A public name, and what the engines behind it say of their models."""

    name: str
    policy: ModelPolicy
    places: Sequence[tuple[str, ModelInfo]]  # each target's engine, if that knows it
    alias_of: str | None = None

    @property
    def infos(self) -> Sequence[ModelInfo]:
        """What each of them says."""
        return [info for _, info in self.places]


async def usable_models(gateway: Gateway, call: Call) -> Mapping[str, UsableModel]:
    """Each model and alias that the caller may use, by name."""
    engine_models = await _engine_models(gateway)
    found: dict[str, UsableModel] = {}
    for policy in _models(call, engine_models):
        if may_use_model(call, policy.name):
            places = _places(policy, engine_models)
            found[policy.name] = UsableModel(name=policy.name, policy=policy, places=places)
    for alias, name in call.policy.aliases.items():
        if name in found:
            found[alias] = msgspec.structs.replace(found[name], name=alias, alias_of=name)
    return found


def _models(call: Call, engine_models: EngineModels) -> Sequence[ModelPolicy]:
    """The policy's models, with what its engines have in the place of a wildcard."""
    listed = [model for name, model in call.policy.models.items() if "*" not in name]
    wildcards = [model for name, model in call.policy.models.items() if "*" in name]
    names = {
        name
        for wildcard in wildcards
        for target in wildcard.targets
        if target.model is None
        for name in engine_models.get(target.engine, ())
    }
    more = [call.policy.resolve(name) for name in sorted(names - {model.name for model in listed})]
    return [*listed, *(model for model in more if model and _is_there(model, engine_models))]


def _is_there(model: ModelPolicy, engine_models: EngineModels) -> bool:
    return any(model.name in engine_models.get(target.engine, ()) for target in model.targets)


def _places(policy: ModelPolicy, engine_models: EngineModels) -> Sequence[tuple[str, ModelInfo]]:
    return [
        (target.engine, info)
        for target in policy.targets
        if (info := engine_models.get(target.engine, {}).get(target.model or policy.name))
    ]


async def _engine_models(gateway: Gateway) -> EngineModels:
    found: dict[str, Mapping[str, ModelInfo]] = {}
    for name, engine in gateway.engines.items():
        try:
            found[name] = {info.name: info for info in await engine.models()}
        except EngineError as error:
            # The list is what can be asked for; that one engine is ill is no reason
            # to show none of the others' models.
            log.warning("engine_models_unknown", engine=name, error=error.code)
    return found
