"""Makes models: from a Modelfile, or from another model under a new name.

A model is made in the folder that can be written to. What it is made from may be
anywhere in the library; its files are copied where that folder does not have them
yet. The name appears last, when every file is there.
"""

from collections.abc import AsyncGenerator

import msgspec
from msgspec import Struct

from engines.errors import ModelNotFound, RequestRefused
from engines.gguf.files.digests import DigestInvalid, parse_digest
from engines.gguf.files.folder import ModelFolder
from engines.gguf.files.importing import import_file
from engines.gguf.files.in_thread import in_thread
from engines.gguf.files.manifests import Layer, layer
from engines.gguf.files.model_file import ModelFile
from engines.gguf.files.names import ModelName, parse_name, shown
from engines.gguf.go_template.matching import check_template
from engines.gguf.library import Library
from engines.gguf.modelfile import Modelfile, read_modelfile
from engines.gguf.new_model import add_text, assembled, header_of, write_model
from engines.gguf.parameters import HAS_EFFECT
from engines.gguf.recipe import NOTHING, Recipe, recipe_of
from engines.protocol import Progress

_PROJECTOR = "clip"  # what such a file calls its architecture
_ORDER = [
    "model",
    "projector",
    "adapter",
    "template",
    "prompt",
    "system",
    "params",
    "messages",
    "license",
]


class _Base(Struct, frozen=True):
    """What a model is made from: layers that are in the folder, and what is in them."""

    layers: list[Layer]
    recipe: Recipe = NOTHING


class Create:
    """One making of one model."""

    def __init__(self, library: Library, name: str, modelfile: str) -> None:
        """Raises `RequestRefused` for what is wrong with the name or the Modelfile."""
        self._library = library
        self._folder = library.writable_folder()
        self._name: ModelName = parse_name(name)
        self._modelfile: Modelfile = read_modelfile(modelfile)
        self._folder.check_writable()

    async def steps(self) -> AsyncGenerator[Progress, None]:
        """Do it, and tell how far it is. Raises any `EngineError`."""
        yield Progress(status="gathering model components")
        bases = [await in_thread(self._base, source) for source in self._modelfile.sources]
        base = _Base([one for found in bases for one in found.layers], bases[0].recipe)
        if "model" not in {layer.kind for layer in base.layers}:
            raise RequestRefused("no FROM of the Modelfile names weights", param="modelfile")
        for name in self._modelfile.parameters:
            if name not in HAS_EFFECT:
                yield Progress(status=f"parameter {name} is kept and changes nothing here")
        if self._modelfile.template:
            for note in await in_thread(self._template_notes, base):
                yield Progress(status=note)
        had = {path.name for path in self._folder.blobs.glob("sha256-*")}
        layers = await in_thread(self._layers, base)
        for made in layers:
            word = "using existing" if made.digest.file_name in had else "creating new"
            yield Progress(status=f"{word} layer {made.digest}", digest=str(made.digest))
        manifest = await in_thread(assembled, self._folder, layers, self._settings(base))
        yield Progress(status="writing manifest")
        await in_thread(write_model, self._folder, self._name, manifest)
        yield Progress(status="success")

    def _base(self, source: str) -> _Base:
        if source.startswith("@"):
            return _Base([_blob_layer(self._folder, source[1:])])
        try:
            file = self._library.look_up(source)
        except ModelNotFound as error:
            if source.startswith((".", "/", "~")) or source.lower().endswith(".gguf"):
                raise RequestRefused(
                    f"FROM {shown(source)} is a file and no model: hand it over as a blob and say "
                    "FROM @sha256:…, as `penstock create` does",
                    param="modelfile",
                ) from None
            raise RequestRefused(f"FROM: {error.message}", param="modelfile") from None
        return _Base(brought(self._folder, file), recipe_of(file))

    def _template_notes(self, base: _Base) -> list[str]:
        """Check the TEMPLATE against the weights. Raises `RequestRefused` if nothing fits."""
        weights = next(layer for layer in base.layers if layer.kind == "model")
        header = header_of(self._folder, weights.digest)
        note = check_template(self._modelfile.template or "", header.chat_template)
        return [note] if note else []

    def _layers(self, base: _Base) -> list[Layer]:
        """What the model is made of: the base's layers, and ours instead where we have some."""
        file, made = self._modelfile, list[Layer]()

        def add(kind: str, content: bytes) -> None:
            made.append(add_text(self._folder, kind, content))

        replaced: set[str] = {"params"}
        for kind, text in (("template", file.template), ("system", file.system)):
            if text is not None:
                replaced |= {kind, "prompt"} if kind == "template" else {kind}
                if text:
                    add(kind, text.encode())
        if parameters := {**base.recipe.parameters, **file.parameters}:
            add("params", msgspec.json.encode(parameters))
        if file.messages:
            replaced.add("messages")
            add("messages", msgspec.json.encode(file.messages))
        for kind, texts in (("license", file.licenses),):
            replaced |= {kind} if texts else set()
            for text in texts:
                add(kind, text.encode())
        if file.adapters:
            replaced.add("adapter")
            made += [self._adapter(source) for source in file.adapters]
        layers = [layer for layer in base.layers if layer.kind not in replaced] + made
        order = {kind: place for place, kind in enumerate(_ORDER)}
        return sorted(layers, key=lambda layer: order.get(layer.kind, len(order)))

    def _adapter(self, source: str) -> Layer:
        if not source.startswith("@"):
            raise RequestRefused(
                f"ADAPTER {shown(source)} must be handed over as a blob: ADAPTER @sha256:…, as "
                "`penstock create` does",
                param="modelfile",
            )
        found = _stored(self._folder, source[1:])
        return layer("adapter", found.digest, found.size_bytes)

    def _settings(self, base: _Base) -> dict[str, object]:
        said = base.recipe.settings
        settings = {
            "renderer": self._modelfile.renderer or said.renderer,
            "parser": self._modelfile.parser or said.parser,
            "requires": self._modelfile.requires or said.requires,
        }
        return {name: value for name, value in settings.items() if value}


def copy_model(library: Library, source: str, target: str) -> None:
    """Give a model another name. Raises any `EngineError`."""
    folder, name = library.writable_folder(), parse_name(target, param="destination")
    folder.check_writable()
    file = library.look_up(source)
    layers = brought(folder, file)
    if file.manifest is None:
        write_model(folder, name, assembled(folder, layers, {}))
    else:
        write_model(folder, name, file.manifest)


def brought(folder: ModelFolder, file: ModelFile) -> list[Layer]:
    """The layers of a model, whose blobs are in `folder` from now on."""
    if file.manifest is None or file.folder is None:
        digest = import_file(folder, file.path)
        return [layer("model", digest, file.size_bytes)]
    for needed in file.manifest.all_layers:
        if not folder.has(needed):
            import_file(folder, file.folder.blob(needed.digest), needed.digest)
    return list(file.manifest.layers)


def _blob_layer(folder: ModelFolder, text: str) -> Layer:
    found = _stored(folder, text)
    header = header_of(folder, found.digest)
    kind = "projector" if header.architecture == _PROJECTOR else "model"
    return layer(kind, found.digest, found.size_bytes)


def _stored(folder: ModelFolder, text: str) -> Layer:
    """A blob that was handed over before."""
    try:
        digest = parse_digest(text)
    except DigestInvalid as error:
        raise RequestRefused(str(error), param="modelfile") from None
    path = folder.blob(digest)
    if not path.is_file():
        raise RequestRefused(f"there is no blob {digest}: hand it over first", param="modelfile")
    return layer("model", digest, path.stat().st_size)
