"""Makes models: from a Modelfile, or from another model under a new name.

A model is made in the folder that can be written to. What it is made from may be
anywhere in the library; its files are copied where that folder does not have them
yet. The name appears last, when every file is there.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path

import msgspec
from msgspec import Struct

from engines.errors import ModelNotFound, RequestRefused
from engines.gguf.file_format import read_file
from engines.gguf.files.digests import Digest, DigestInvalid, parse_digest
from engines.gguf.files.folder import ModelFolder
from engines.gguf.files.importing import import_file
from engines.gguf.files.in_thread import in_thread
from engines.gguf.files.manifests import Layer, layer
from engines.gguf.files.model_file import ModelFile
from engines.gguf.files.names import ModelName, parse_name, shown
from engines.gguf.go_template.matching import check_template
from engines.gguf.header import MalformedGguf
from engines.gguf.library import Library
from engines.gguf.modelfile import Modelfile, read_modelfile
from engines.gguf.new_model import add_text, assembled, header_of, write_model
from engines.gguf.new_weights import MAX_FILES, NewWeights, check_file_name
from engines.gguf.parameters import HAS_EFFECT
from engines.gguf.quantizing import quantization_named
from engines.gguf.recipe import NOTHING, Recipe, recipe_of
from engines.gguf.registry.download import HowToFetch
from engines.protocol import Progress

_PROJECTOR = "clip"  # what such a file calls its architecture
_UNNEEDED_SECONDS = 86_400.0  # so long stays what was handed over and no model was made of
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
    weights: Path | None = None  # where the model layer's file is, whose layer may be left out


class Create:
    """One making of one model."""

    def __init__(
        self,
        library: Library,
        name: str,
        modelfile: str,
        *,
        quantize: str | None = None,
        how: HowToFetch | None = None,
    ) -> None:
        """Raises `RequestRefused` for what is wrong with the name or the Modelfile."""
        self._library = library
        self._folder = library.writable_folder()
        self._name: ModelName = parse_name(name)
        self._modelfile: Modelfile = read_modelfile(modelfile)
        self._quantization = quantization_named(quantize) if quantize else None
        self._how = how or HowToFetch()
        self._files, self._sources = _files_of(self._modelfile.sources)
        self._folder.check_writable()

    async def steps(self) -> AsyncGenerator[Progress, None]:
        """Do it, and tell how far it is. Raises any `EngineError`."""
        yield Progress(status="gathering model components")
        had = await in_thread(self._gathered_before)
        base = await in_thread(self._base)
        async with aclosing(self._weights(base)) as steps:
            async for step in steps:
                if isinstance(step, Layer):
                    base = _with_weights(base, step)
                else:
                    yield step
        if "model" not in {layer.kind for layer in base.layers}:
            raise RequestRefused("no FROM of the Modelfile names weights", param="modelfile")
        for name in self._modelfile.parameters:
            if name not in HAS_EFFECT:
                yield Progress(status=f"parameter {name} is kept and changes nothing here")
        if self._modelfile.template:
            for note in await in_thread(self._template_notes, base):
                yield Progress(status=note)
        layers = await in_thread(self._layers, base)
        for made in layers:
            word = "using existing" if made.digest.file_name in had else "creating new"
            yield Progress(status=f"{word} layer {made.digest}", digest=str(made.digest))
        manifest = await in_thread(assembled, self._folder, layers, self._settings(base))
        yield Progress(status="writing manifest")
        await in_thread(write_model, self._folder, self._name, manifest)
        yield Progress(status="success")

    async def _weights(self, base: _Base) -> AsyncGenerator[Progress | Layer, None]:
        """Convert and quantize what is to be; the layer that was made comes last."""
        new = NewWeights(self._folder, self._how)
        if self._files:
            steps = new.converted(self._files, self._name.display, self._quantization)
        elif self._quantization and base.weights is not None:
            steps = new.quantized(base.weights, self._quantization)
        else:
            return
        async with aclosing(steps):
            async for step in steps:
                yield step
        digest = new.digest
        if digest is None:
            assert base.weights is not None
            digest = await in_thread(import_file, self._folder, base.weights)
        yield layer("model", digest, self._folder.blob(digest).stat().st_size)

    def _gathered_before(self) -> set[str]:
        """The blobs that are there already; those that nobody needs any more go."""
        self._folder.forget_unneeded(_UNNEEDED_SECONDS)
        return {path.name for path in self._folder.blobs.glob("sha256-*")}

    def _base(self) -> _Base:
        for digest in self._files.values():
            _stored(self._folder, str(digest))
        bases = [self._based_on(source) for source in self._sources]
        if not bases:
            return _Base([])
        layers = [one for found in bases for one in found.layers]
        weights = next((found.weights for found in bases if found.weights is not None), None)
        return _Base(layers, bases[0].recipe, weights)

    def _based_on(self, source: str) -> _Base:
        if source.startswith("@"):
            found = _blob_layer(self._folder, source[1:])
            is_model = found.kind == "model"
            return _Base([found], weights=self._folder.blob(found.digest) if is_model else None)
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
        layers = brought(self._folder, file, leave_weights=self._quantization is not None)
        return _Base(layers, recipe_of(file), file.path)

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
        if _kind_of(self._folder, found) != "adapter":
            raise RequestRefused(
                f"ADAPTER {found.digest} is no adapter: a GGUF file whose general.type is "
                "adapter, as llama.cpp's convert_lora_to_gguf.py makes them",
                param="modelfile",
            )
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


def brought(folder: ModelFolder, file: ModelFile, *, leave_weights: bool = False) -> list[Layer]:
    """The layers of a model, whose blobs are in `folder` from now on; weights may be left out."""
    if file.manifest is None or file.folder is None:
        if leave_weights:
            return []
        digest = import_file(folder, file.path)
        return [layer("model", digest, file.size_bytes)]
    layers = [one for one in file.manifest.layers if not (leave_weights and one.kind == "model")]
    for needed in [*layers, *([file.manifest.config] if file.manifest.config else [])]:
        if not folder.has(needed):
            import_file(folder, file.folder.blob(needed.digest), needed.digest)
    return layers


def _with_weights(base: _Base, weights: Layer) -> _Base:
    others = [layer for layer in base.layers if layer.kind != "model"]
    return _Base([weights, *others], base.recipe)


def _files_of(sources: Sequence[str]) -> tuple[dict[str, Digest], list[str]]:
    """The named files of a checkpoint (`@sha256:… NAME`), and the sources that are none."""
    files: dict[str, Digest] = {}
    others: list[str] = []
    for source in sources:
        text, space, name = source.partition(" ")
        if not source.startswith("@") or not space:
            others.append(source)
            continue
        name = name.strip().strip('"')
        check_file_name(name)
        files[name] = _digest(text[1:])
    if files and len(files) > MAX_FILES:
        raise RequestRefused(f"the Modelfile names {len(files)} files", param="modelfile")
    if len(files) == 1 and next(iter(files)).lower().endswith(".gguf"):
        return {}, [f"@{next(iter(files.values()))}", *others]
    return files, others


def _blob_layer(folder: ModelFolder, text: str) -> Layer:
    found = _stored(folder, text)
    kind = _kind_of(folder, found)
    if kind == "model":
        header_of(folder, found.digest)  # raises for one that must not be loaded
    return layer(kind, found.digest, found.size_bytes)


def _kind_of(folder: ModelFolder, blob: Layer) -> str:
    """What a blob says it is: weights, a projector for pictures, an adapter."""
    try:
        said = read_file(folder.blob(blob.digest)).scalars
    except MalformedGguf as error:
        raise RequestRefused(
            f"this is no GGUF model: {error.message}; the files of a checkpoint are named behind "
            "their digests, as in FROM @sha256:… model.safetensors",
            param="modelfile",
        ) from None
    if said.get("general.architecture") == _PROJECTOR:
        return "projector"
    return "adapter" if said.get("general.type") == "adapter" else "model"


def _stored(folder: ModelFolder, text: str) -> Layer:
    """A blob that was handed over before."""
    digest = _digest(text)
    path = folder.blob(digest)
    if not path.is_file():
        raise RequestRefused(f"there is no blob {digest}: hand it over first", param="modelfile")
    return layer("model", digest, path.stat().st_size)


def _digest(text: str) -> Digest:
    try:
        return parse_digest(text)
    except DigestInvalid as error:
        raise RequestRefused(str(error), param="modelfile") from None
