"""Puts a model together out of blobs that are in a folder: layers, configuration, name."""

from collections.abc import Mapping, Sequence

import msgspec

from engines.errors import RequestRefused, Unavailable
from engines.gguf.file_format import read_file
from engines.gguf.files.digests import Digest, digest_of
from engines.gguf.files.folder import ModelFolder
from engines.gguf.files.manifests import CONFIG_TYPE, Layer, Manifest, layer, new_manifest
from engines.gguf.files.names import ModelName
from engines.gguf.header import GgufHeader, MalformedGguf, read_header

PROJECTOR = "clip"  # what a projector for pictures calls its architecture


def add_text(folder: ModelFolder, kind: str, content: bytes) -> Layer:
    """Put a small layer into the folder."""
    digest = digest_of(content)
    folder.put(content, digest)
    return layer(kind, digest, len(content))


def assembled(
    folder: ModelFolder, layers: Sequence[Layer], settings: Mapping[str, object]
) -> Manifest:
    """A manifest of layers whose blobs are there; its configuration is made and put there, too.

    Raises `RequestRefused` if the first model layer is no GGUF file."""
    weights = next(layer for layer in layers if layer.kind == "model")
    header = header_of(folder, weights.digest)
    for projector in (one for one in layers if one.kind == "projector"):
        _check_projector(folder, projector.digest)
    config = msgspec.json.encode(
        {
            "model_format": "gguf",
            "model_family": header.architecture,
            "model_families": [header.architecture],
            "model_type": size_name(header.num_parameters),
            "file_type": header.quantization.upper(),
            **settings,
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [str(layer.digest) for layer in layers]},
        }
    )
    digest = digest_of(config)
    folder.put(config, digest)
    described = Layer(media_type=CONFIG_TYPE, digest=digest, size_bytes=len(config))
    return new_manifest(described, layers)


def write_model(folder: ModelFolder, name: ModelName, manifest: Manifest) -> ModelName:
    """Give a manifest its name, if every blob is there; returns how that is spelled on disk."""
    with folder.pin(manifest.digests):
        missing = [layer for layer in manifest.all_layers if not folder.has(layer)]
        if missing:
            raise Unavailable(f"blob {missing[0].digest} has gone meanwhile: try again")
        return folder.write_manifest(name, manifest)


def header_of(folder: ModelFolder, digest: Digest) -> GgufHeader:
    """What a blob says of itself. Raises `RequestRefused` for one that is no model."""
    try:
        return read_header(folder.blob(digest))
    except MalformedGguf as error:
        raise RequestRefused(f"this is no GGUF model: {error.message}", param="model") from None
    except OSError as error:
        raise Unavailable(f"blob {digest} cannot be read: {error.strerror}") from None


def _check_projector(folder: ModelFolder, digest: Digest) -> None:
    try:
        said = read_file(folder.blob(digest)).scalars.get("general.architecture")
    except MalformedGguf as error:
        raise RequestRefused(f"this is no GGUF file: {error.message}", param="model") from None
    if said != PROJECTOR:
        raise RequestRefused(
            f"blob {digest} is no projector: its general.architecture is {said!r:.60}",
            param="model",
        )


def size_name(num_parameters: int) -> str:
    """`8.2B`, `494.03M`: a number of parameters as Ollama writes it."""
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if num_parameters >= unit:
            digits = 1 if name == "B" else 2
            return f"{num_parameters / unit:.{digits}f}{name}"
    return str(num_parameters)
