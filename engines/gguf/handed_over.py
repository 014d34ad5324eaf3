"""What a Modelfile names by digest: files that were handed over before, and what they are."""

from collections.abc import Sequence

from engines.errors import RequestRefused
from engines.gguf.file_format import read_file
from engines.gguf.files.digests import Digest, DigestInvalid, parse_digest
from engines.gguf.files.folder import ModelFolder
from engines.gguf.files.manifests import Layer, layer
from engines.gguf.header import MalformedGguf
from engines.gguf.new_model import PROJECTOR, header_of
from engines.gguf.new_weights import MAX_FILES, check_file_name


def files_of(sources: Sequence[str]) -> tuple[dict[str, Digest], list[str]]:
    """The named files of a folder (`@sha256:… NAME`), and the sources that are none.

    A GGUF file is whole by itself: its name means nothing."""
    files: dict[str, Digest] = {}
    others: list[str] = []
    for source in sources:
        text, space, name = source.partition(" ")
        if not source.startswith("@") or not space:
            others.append(source)
            continue
        name = name.strip().strip('"')
        check_file_name(name)
        if name.lower().endswith(".gguf"):
            others.append(text)
        else:
            files[name] = _digest(text[1:])
    if len(files) > MAX_FILES:
        raise RequestRefused(f"the Modelfile names {len(files)} files", param="modelfile")
    return files, others


def blob_layer(folder: ModelFolder, text: str) -> Layer:
    """A layer of weights, or of a projector. Raises `RequestRefused` for what is neither."""
    found = stored_blob(folder, text)
    kind = kind_of(folder, found)
    if kind == "model":
        header_of(folder, found.digest)  # raises for one that must not be loaded
    return layer(kind, found.digest, found.size_bytes)


def kind_of(folder: ModelFolder, blob: Layer) -> str:
    """What a blob says it is: weights, a projector for pictures, an adapter."""
    try:
        said = read_file(folder.blob(blob.digest)).scalars
    except MalformedGguf as error:
        raise RequestRefused(
            f"this is no GGUF model: {error.message}; the files of a checkpoint are named behind "
            "their digests, as in FROM @sha256:… model.safetensors",
            param="modelfile",
        ) from None
    if said.get("general.architecture") == PROJECTOR:
        return "projector"
    return "adapter" if said.get("general.type") == "adapter" else "model"


def stored_blob(folder: ModelFolder, text: str) -> Layer:
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
