"""Gives models other names, and brings those of other folders into the one that may be changed."""

from engines.gguf.files.folder import ModelFolder
from engines.gguf.files.importing import import_file
from engines.gguf.files.manifests import Layer, layer
from engines.gguf.files.model_file import ModelFile
from engines.gguf.files.names import parse_name
from engines.gguf.library import Library
from engines.gguf.new_model import assembled, write_model


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
