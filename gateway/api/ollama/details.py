"""How Ollama describes a model: the same few fields in every list."""

import hashlib
from collections.abc import Sequence

from msgspec import UNSET, Struct, UnsetType

from engines.protocol import Capability, ModelInfo
from gateway.api.usable_models import UsableModel
from gateway.call import Call

# The kinds whose files have a format that Ollama has a word for.
_FORMATS = {"gguf": "gguf", "paged": "safetensors"}
_WORDS = (
    (Capability.TOOLS, "tools"),
    (Capability.VISION, "vision"),
    (Capability.REASONING, "thinking"),
)
_STEPS = ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K"))


class Details(Struct, frozen=True, kw_only=True):
    """What kind of model it is; what nobody knows is empty, as at Ollama."""

    parent_model: str = ""
    format: str
    family: str
    families: Sequence[str] | None
    parameter_size: str
    quantization_level: str
    context_length: int | UnsetType = UNSET


def details_of(kind: str, info: ModelInfo | None) -> Details:
    """The details of a model that an engine of this kind runs."""
    family = info.family if info is not None and info.family else ""
    return Details(
        format=_FORMATS.get(kind, ""),
        family=family,
        families=[family] if family else None,
        parameter_size=_in_words(info.parameters if info is not None else None),
        quantization_level=(info.quantization if info is not None else None) or "",
        context_length=info.context_tokens if info is not None and info.context_tokens else UNSET,
    )


def kind_of(call: Call, model: UsableModel) -> str:
    """The kind of the engine that is asked first."""
    return call.policy.engines[model.policy.targets[0].engine].kind


def digest_of(name: str, info: ModelInfo | None) -> str:
    """A model's id: of its manifest, or of what tells its file from another."""
    if info is not None and info.digest:
        return info.digest.removeprefix("sha256:")
    told = (name,) if info is None else (info.name, info.size_bytes, info.modified_at)
    return hashlib.sha256(repr(told).encode()).hexdigest()


def capabilities_of(infos: Sequence[ModelInfo]) -> list[str] | UnsetType:
    """What all of these can do in Ollama's words, if that is known of all of them.

    One that writes text is no embedding model, though it can embed, too.
    """
    if not infos or not all(info.capabilities for info in infos):
        return UNSET
    able = frozenset[Capability].intersection(*(info.capabilities for info in infos))
    if able & {Capability.CHAT, Capability.COMPLETE}:
        return ["completion", *(word for one, word in _WORDS if one in able)]
    return ["embedding"] if Capability.EMBED in able else []


def _in_words(parameters: int | None) -> str:
    """`8030261248` as "8.0B", as Ollama rounds."""
    if not parameters:
        return ""
    for size, letter in _STEPS:
        if parameters >= size:
            number = parameters / size
            # Of millions and less no part is told.
            return f"{number:.1f}{letter}" if size > 10**6 else f"{number:.2f}{letter}"
    return str(parameters)
