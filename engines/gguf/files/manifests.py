"""What a model is made of: a manifest names its layers by digest.

The format is Docker's image manifest, version 2, schema 2, with the media types
that Ollama gives to layers. A manifest comes from a registry or from a folder
that others write to, so `read_manifest` believes none of it: digests are
digests, sizes are sizes, and there is an end to how many.
"""

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from engines.errors import Unavailable
from engines.gguf.files.digests import Digest, DigestInvalid, digest_of, parse_digest

MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
_LAYER_TYPE = "application/vnd.ollama.image."

MAX_MANIFEST_BYTES = 4 * 1024 * 1024
MAX_LAYERS = 4096
MAX_LAYER_BYTES = 2**46


class Layer(Struct, frozen=True, kw_only=True):
    """One file of a model."""

    media_type: str
    digest: Digest
    size_bytes: int

    @property
    def kind(self) -> str:
        """`model`, `template`, `system`, `params` …: the last word of Ollama's media types."""
        if not self.media_type.startswith(_LAYER_TYPE):
            return ""
        return self.media_type.removeprefix(_LAYER_TYPE)


class Manifest(Struct, frozen=True, kw_only=True):
    """A model's layers, in order; `raw` is the manifest as it was served."""

    config: Layer | None
    layers: tuple[Layer, ...]
    raw: bytes

    @property
    def digest(self) -> Digest:
        """What Ollama shows as the model's ID."""
        return digest_of(self.raw)

    @property
    def size_bytes(self) -> int:
        """All layers together."""
        return sum(layer.size_bytes for layer in self.all_layers)

    @property
    def all_layers(self) -> tuple[Layer, ...]:
        """The layers and then the configuration, each digest once: what a pull must fetch."""
        layers = (*self.layers, self.config) if self.config else self.layers
        return tuple({layer.digest: layer for layer in layers}.values())

    @property
    def digests(self) -> frozenset[Digest]:
        """Every blob that the model needs."""
        return frozenset(layer.digest for layer in self.all_layers)

    def of_kind(self, kind: str) -> list[Layer]:
        """The layers of one kind, in order."""
        return [layer for layer in self.layers if layer.kind == kind]


def layer(kind: str, digest: Digest, size_bytes: int) -> Layer:
    """A layer of one of Ollama's kinds."""
    return Layer(media_type=_LAYER_TYPE + kind, digest=digest, size_bytes=size_bytes)


def new_manifest(config: Layer, layers: Sequence[Layer]) -> Manifest:
    """A manifest of ours, as it will be written."""
    raw = msgspec.json.encode(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": _written(config),
            "layers": [_written(layer) for layer in layers],
        }
    )
    return Manifest(config=config, layers=tuple(layers), raw=raw)


def read_manifest(raw: bytes, whose: str) -> Manifest:
    """Check a manifest. Raises `Unavailable` that says whose it is and what is wrong."""
    if len(raw) > MAX_MANIFEST_BYTES:
        raise _invalid(whose, f"it has over {MAX_MANIFEST_BYTES} bytes")
    try:
        said = msgspec.json.decode(raw, type=_Manifest)
        layers = tuple(_checked(layer) for layer in said.layers)
        config = _checked(said.config) if said.config is not None else None
    except (msgspec.MsgspecError, DigestInvalid, ValueError, RecursionError) as error:
        raise _invalid(whose, str(error)) from None
    if said.schema_version != 2:
        raise _invalid(whose, f"schemaVersion is {said.schema_version}, not 2")
    if said.manifests is not None:
        raise _invalid(whose, "it is an index of manifests and no model's own")
    if not layers or len(layers) > MAX_LAYERS:
        raise _invalid(whose, f"it has {len(layers)} layers, not 1 to {MAX_LAYERS}")
    return Manifest(config=config, layers=layers, raw=raw)


def digests_named(raw: bytes, whose: str) -> frozenset[Digest]:
    """Every digest in a manifest, also of a model that nothing here can run.

    Raises `Unavailable` for what may name more than is understood."""
    try:
        said = msgspec.json.decode(raw, type=_AnyManifest)
        layers = [*(said.layers or ()), *([said.config] if said.config is not None else ())]
        digests = frozenset(parse_digest(layer.digest) for layer in layers)
    except (msgspec.MsgspecError, DigestInvalid, RecursionError) as error:
        raise _invalid(whose, str(error)) from None
    if not digests or said.manifests is not None or len(raw) > MAX_MANIFEST_BYTES:
        raise _invalid(whose, "it is no manifest of one model")
    return digests


class _Layer(Struct, frozen=True):
    digest: str
    size: int
    media_type: str = msgspec.field(name="mediaType", default="")


class _Manifest(Struct, frozen=True):
    schema_version: int = msgspec.field(name="schemaVersion", default=0)
    config: _Layer | None = None
    layers: list[_Layer] = []
    manifests: list[msgspec.Raw] | None = None


class _AnyManifest(Struct, frozen=True):
    """What Ollama writes for models that run elsewhere, too: they may have no layers."""

    config: _Layer | None = None
    layers: list[_Layer] | None = None
    manifests: msgspec.Raw | None = None


def _checked(said: _Layer) -> Layer:
    if not 0 <= said.size <= MAX_LAYER_BYTES:
        raise ValueError(f"layer {said.digest:.100} has a size of {said.size}")
    return Layer(media_type=said.media_type, digest=parse_digest(said.digest), size_bytes=said.size)


def _written(layer: Layer) -> dict[str, object]:
    return {"mediaType": layer.media_type, "digest": str(layer.digest), "size": layer.size_bytes}


def _invalid(whose: str, reason: str) -> Unavailable:
    return Unavailable(f"the manifest of {whose} cannot be used: {reason}")
