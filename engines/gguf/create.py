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
from engines.gguf.copying import brought
from engines.gguf.files.importing import import_file
from engines.gguf.files.in_thread import in_thread
from engines.gguf.files.manifests import Layer, layer
from engines.gguf.files.names import ModelName, parse_name, shown
from engines.gguf.go_template.matching import check_syntax, check_template
from engines.gguf.handed_over import blob_layer, files_of, kind_of, stored_blob
from engines.gguf.library import Library
from engines.gguf.modelfile import Modelfile, read_modelfile
from engines.gguf.new_model import add_text, assembled, header_of, write_model
from engines.gguf.new_weights import NewWeights
from engines.gguf.parameters import HAS_EFFECT
from engines.gguf.quantizing import quantization_named
from engines.gguf.recipe import NOTHING, Recipe, recipe_of
from engines.gguf.registry.download import HowToFetch
from engines.modelfile_text import Instruction
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
        modelfile: str | Sequence[Instruction],
        *,
        quantize: str | None = None,
        how: HowToFetch | None = None,
    ) -> None:
        """Raises `RequestRefused` for what is wrong with the name or the Modelfile."""
        self._library = library
        self._folder = library.writable_folder()
        self._name: ModelName = parse_name(name)
        self._modelfile: Modelfile = read_modelfile(modelfile)
        check_syntax(self._modelfile.template or "")
        self._quantization = quantization_named(quantize) if quantize else None
        self._how = how or HowToFetch()
        self._files, self._sources = files_of(self._modelfile.sources)
        self._folder.check_writable()

    def missing(self) -> dict[str, ModelNotFound]:
        """The models that FROM names and that are not there, to be pulled first, and why not."""
        missing: dict[str, ModelNotFound] = {}
        for source in self._sources:
            if not source.startswith("@") and not _is_path(source):
                try:
                    self._library.look_up(source)
                except ModelNotFound as error:
                    missing[source] = error
        return missing

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
        for note in await in_thread(self._notes, base):
            yield Progress(status=note)
        adapters: list[Layer] = []
        async with aclosing(self._adapters(base)) as more:
            async for step in more:
                if isinstance(step, Layer):
                    adapters.append(step)
                else:
                    yield step
        layers = await in_thread(self._layers, base, adapters)
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
        self._folder.forget_handed_over(_UNNEEDED_SECONDS)
        return {path.name for path in self._folder.blobs.glob("sha256-*")}

    def _base(self) -> _Base:
        for digest in self._files.values():
            stored_blob(self._folder, str(digest))
        bases = [self._based_on(source) for source in self._sources]
        if not bases:
            return _Base([])
        layers = [one for found in bases for one in found.layers]
        weights = next((found.weights for found in bases if found.weights is not None), None)
        return _Base(layers, bases[0].recipe, weights)

    def _based_on(self, source: str) -> _Base:
        if source.startswith("@"):
            found = blob_layer(self._folder, source[1:])
            is_model = found.kind == "model"
            return _Base([found], weights=self._folder.blob(found.digest) if is_model else None)
        try:
            file = self._library.look_up(source)
        except ModelNotFound as error:
            if _is_path(source):
                raise RequestRefused(
                    f"FROM {shown(source)} is a file and no model: hand it over as a blob and say "
                    "FROM @sha256:…, as `penstock create` does",
                    param="modelfile",
                ) from None
            raise RequestRefused(f"FROM: {error.message}", param="modelfile") from None
        layers = brought(self._folder, file, leave_weights=self._quantization is not None)
        return _Base(layers, recipe_of(file), file.path)

    def _notes(self, base: _Base) -> list[str]:
        """What to tell of parameters and the template. Raises `RequestRefused` if none fits."""
        notes = [
            f"parameter {name} is kept and changes nothing here"
            for name in self._modelfile.parameters
            if name not in HAS_EFFECT
        ]
        if self._modelfile.template:
            weights = next(layer for layer in base.layers if layer.kind == "model")
            header = header_of(self._folder, weights.digest)
            notes.append(check_template(self._modelfile.template, header.chat_template))
        return [note for note in notes if note]

    def _layers(self, base: _Base, adapters: Sequence[Layer]) -> list[Layer]:
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
        if adapters:
            replaced.add("adapter")
            made += adapters
        layers = [layer for layer in base.layers if layer.kind not in replaced] + made
        order = {kind: place for place, kind in enumerate(_ORDER)}
        return sorted(layers, key=lambda layer: order.get(layer.kind, len(order)))

    async def _adapters(self, base: _Base) -> AsyncGenerator[Progress | Layer, None]:
        """The layers of all ADAPTERs; one that PEFT wrote is converted."""
        files, others = files_of(self._modelfile.adapters)
        for source in others:
            yield await in_thread(self._adapter, source)
        if not files:
            return
        for digest in files.values():
            await in_thread(stored_blob, self._folder, str(digest))
        weights = next(layer for layer in base.layers if layer.kind == "model")
        new = NewWeights(self._folder, self._how)
        async with aclosing(new.adapter(files, self._folder.blob(weights.digest))) as steps:
            async for step in steps:
                yield step
        assert new.digest is not None
        yield layer("adapter", new.digest, self._folder.blob(new.digest).stat().st_size)

    def _adapter(self, source: str) -> Layer:
        if not source.startswith("@"):
            raise RequestRefused(
                f"ADAPTER {shown(source)} must be handed over as a blob: ADAPTER @sha256:…, as "
                "`penstock create` does",
                param="modelfile",
            )
        found = stored_blob(self._folder, source[1:])
        if kind_of(self._folder, found) != "adapter":
            raise RequestRefused(
                f"ADAPTER {found.digest} is no adapter: a GGUF file whose general.type is "
                "adapter, or PEFT's two files by their names",
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


def _is_path(source: str) -> bool:
    return source.startswith((".", "/", "~")) or source.lower().endswith(".gguf")


def _with_weights(base: _Base, weights: Layer) -> _Base:
    others = [layer for layer in base.layers if layer.kind != "model"]
    return _Base([weights, *others], base.recipe)
