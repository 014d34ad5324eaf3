"""What a model's name adds to its weights: parameters, a system message, a template.

It is read from the small layers of a manifest when a model is looked up. A
request gets what it does not say itself from here; what decides how a model is
loaded goes to its configuration.
"""

from collections.abc import Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

from engines.errors import RequestRefused, Unavailable
from engines.gguf.config import GgufConfig
from engines.gguf.files.folder import ModelFolder
from engines.gguf.files.manifests import Manifest
from engines.gguf.files.model_file import ModelFile
from engines.gguf.parameters import (
    Value,
    number_of,
    read_parameters,
    sampling_of,
    stops_of,
)
from engines.protocol import GenerateRequest, Message, Text

ROLES = ("system", "user", "assistant")
_MAX_MESSAGES = 10_000


class Said(Struct, frozen=True):
    """A MESSAGE of a Modelfile."""

    role: str
    content: str


class ModelSettings(Struct, frozen=True, kw_only=True):
    """The configuration layer, as far as anybody here reads it."""

    model_format: str = "gguf"
    model_family: str = ""
    model_families: list[str] | None = None
    model_type: str = ""
    file_type: str = ""
    renderer: str = ""
    parser: str = ""
    requires: str = ""


class Recipe(Struct, frozen=True, kw_only=True):
    """All that a name stands for besides weights; empty for a plain file."""

    parameters: Mapping[str, Value] = {}
    system: str = ""
    messages: tuple[Said, ...] = ()
    template: str = ""  # in Go's template language
    licenses: tuple[str, ...] = ()
    settings: ModelSettings = ModelSettings()
    adapters: tuple[Path, ...] = ()
    projectors: tuple[Path, ...] = ()

    def applied(self, request: GenerateRequest) -> GenerateRequest:
        """The request, with what it leaves to the model filled in."""
        changes: dict[str, object] = {}
        sampling = sampling_of(self.parameters, request.sampling)
        if sampling is not request.sampling:
            changes["sampling"] = sampling
        if not request.stop and (stops := stops_of(self.parameters)):
            changes["stop"] = stops
        if request.max_tokens is None and (most := number_of(self.parameters, "num_predict")):
            changes["max_tokens"] = most
        if request.messages and (self.system or self.messages):
            changes["messages"] = self._conversation(request)
        return msgspec.structs.replace(request, **changes) if changes else request

    def configured(self, config: GgufConfig) -> GgufConfig:
        """How to load: the operator's configuration bounds what a model may ask for."""
        changes: dict[str, int] = {}
        if context := number_of(self.parameters, "num_ctx"):
            changes["context_tokens"] = min(context, config.context_tokens or context)
        if (threads := number_of(self.parameters, "num_thread")) and config.num_threads is None:
            changes["num_threads"] = threads
        layers = self.parameters.get("num_gpu", -1)
        if isinstance(layers, int) and layers >= 0 and config.num_gpu_layers is None:
            changes["num_gpu_layers"] = layers
        if batch := number_of(self.parameters, "num_batch"):
            changes["max_batch_tokens"] = min(batch, config.max_batch_tokens)
        return msgspec.structs.replace(config, **changes) if changes else config

    def _conversation(self, request: GenerateRequest) -> list[Message]:
        messages = [*map(_message, self.messages), *request.messages]
        if self.system and request.messages[0].role not in ("system", "developer"):
            messages.insert(0, _message(Said("system", self.system)))
        return messages


NOTHING = Recipe()


def recipe_of(file: ModelFile) -> Recipe:
    """Read what a model's name adds. Raises `Unavailable` for layers that cannot be used."""
    if file.manifest is None or file.folder is None:
        return NOTHING
    try:
        return _read(file.name, file.manifest, file.folder)
    except (RequestRefused, msgspec.MsgspecError, RecursionError) as error:
        raise Unavailable(f"model {file.name!r} cannot be used: {error}") from None


def _read(name: str, manifest: Manifest, folder: ModelFolder) -> Recipe:
    parameters: dict[str, Value] = {}
    for layer in manifest.of_kind("params"):
        parameters |= read_parameters(folder.text(layer), f"model {name!r}")
    messages: list[Said] = []
    for layer in manifest.of_kind("messages"):
        messages += read_messages(folder.text(layer))
    settings = ModelSettings()
    if manifest.config is not None:
        settings = msgspec.json.decode(folder.text(manifest.config), type=ModelSettings)

    def texts(kind: str) -> list[str]:
        return [folder.text(layer).decode("utf-8", "replace") for layer in manifest.of_kind(kind)]

    def paths(kind: str) -> tuple[Path, ...]:
        return tuple(folder.blob(layer.digest) for layer in manifest.of_kind(kind))

    # "prompt" is what the template's media type was called at first.
    templates = [*texts("prompt"), *texts("template")]
    return Recipe(
        parameters=parameters,
        system="".join(texts("system")[-1:]),
        messages=tuple(messages),
        template="".join(templates[-1:]),
        licenses=tuple(texts("license")),
        settings=settings,
        adapters=paths("adapter"),
        projectors=paths("projector"),
    )


def read_messages(content: bytes) -> list[Said]:
    """A `messages` layer. Raises `RequestRefused`, or what msgspec raises."""
    messages = msgspec.json.decode(content, type=list[Said])
    if len(messages) > _MAX_MESSAGES:
        raise RequestRefused(f"it has {len(messages)} messages of at most {_MAX_MESSAGES}")
    for message in messages:
        if message.role not in ROLES:
            raise RequestRefused(f"a message has role {message.role!r:.50}, not one of {ROLES}")
    return messages


def _message(said: Said) -> Message:
    return Message(role=said.role, parts=(Text(said.content),))
