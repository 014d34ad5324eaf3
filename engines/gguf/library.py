"""Which models there are, by name, wherever their files are.

In this order: files that have a name of their own ("starter"), plain `*.gguf`
files of the models folder, names of that folder in Ollama's layout, those of a
folder that is Ollama's own, and files of a Hugging Face cache. A plain file's
name is its path without `.gguf`; all others are spelled like Ollama's, with the
tag "latest" where none is given and no difference between cases.

A name leads to a path by being looked up, or by parts that are letters and
digits (engines/gguf/files/names.py): none reaches outside, and one that does not
exist is answered alike wherever it points. Any thread may call.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

import msgspec

from engines.errors import ModelNotFound, RequestRefused, Unavailable
from engines.gguf.files.folder import ModelFolder
from engines.gguf.files.hugging_face_cache import HuggingFaceCache
from engines.gguf.files.model_file import ModelFile, model_file
from engines.gguf.files.names import ModelName, parse_name, shown
from engines.gguf.files.plain import PlainFiles

_NO_MODEL_LAYER = "has no layer that is a GGUF model"


class Library:
    """The models of one engine; `folder` is where new ones are put, None if nowhere."""

    def __init__(
        self,
        models_dir: Path | None,
        named: Mapping[str, Path],
        *,
        is_writable: bool = True,
        also: Sequence[ModelFolder] = (),
        cache: HuggingFaceCache | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        own = ModelFolder(models_dir, is_writable=is_writable) if models_dir is not None else None
        self.folder = own
        self.folders = (*((own,) if own else ()), *also)
        self.cache = cache
        self._plain = PlainFiles(models_dir, now=now) if models_dir is not None else None
        self._named = dict(named)

    def find(self, name: str) -> Path:
        """The weights of the model called `name`, links resolved, or raise `ModelNotFound`."""
        return self.look_up(name).path

    def look_up(self, name: str) -> ModelFile:
        """The model called `name`, or raise `ModelNotFound` with the nearest name.

        Raises `Unavailable` for a name whose files are missing or broken."""
        path = self._paths().get(name)
        found = model_file(name, path) if path is not None else self._by_ollama_name(name)
        if found is None:
            raise self._not_found(name)
        return found

    def listed_name(self, name: str) -> str | None:
        """How the model that `name` means is listed, None if there is none; reads no file."""
        if name in self._paths():
            return name
        try:
            parsed = parse_name(name)
        except RequestRefused:
            return None
        place = self.place_of(parsed)
        return place[1].display if place is not None else self._cached(parsed)

    def list(self) -> Sequence[ModelFile]:
        """Every model whose files are there, by name."""
        files = {name: model_file(name, path) for name, path in self._paths().items()}
        for folder in self.folders:
            for name in folder.names():
                if name.display not in files:
                    files[name.display] = _or_none(lambda f=folder, n=name: _of_manifest(f, n))
        if self.cache is not None:
            for name, path in self.cache.paths().items():
                files.setdefault(name, model_file(name, path))
        return [file for _, file in sorted(files.items()) if file is not None]

    def place_of(self, name: ModelName) -> tuple[ModelFolder, ModelName] | None:
        """The folder that has a manifest of this name, and how it is spelled there."""
        for folder in self.folders:
            if (spelled := folder.find(name)) is not None:
                return folder, spelled
        return None

    def writable_folder(self) -> ModelFolder:
        """Where new models go. Raises `RequestRefused` where there is no such place."""
        for folder in self.folders:
            if folder.is_writable:
                return folder
        raise RequestRefused(
            "this engine has no models folder to write to: its policy sets no models_dir, or says "
            "models_writable = false"
        )

    def _by_ollama_name(self, text: str) -> ModelFile | None:
        try:
            name = parse_name(text)
        except RequestRefused:
            return None
        place = self.place_of(name)
        if place is not None:
            return _of_manifest(*place)
        if self.cache is not None and (cached := self._cached(name)) is not None:
            return model_file(cached, self.cache.paths()[cached])
        return None

    def _cached(self, name: ModelName) -> str | None:
        """The name as the Hugging Face cache spells it, None if it is not there."""
        folded, paths = name.display.lower(), self.cache.paths() if self.cache is not None else {}
        return next((cached for cached in paths if cached.lower() == folded), None)

    def _paths(self) -> Mapping[str, Path]:
        """The files that a name leads to as it is written."""
        plain = self._plain.paths() if self._plain is not None else {}
        return {**plain, **self._named}

    def _not_found(self, name: str) -> ModelNotFound:
        known = [*self._paths(), *(n.display for folder in self.folders for n in folder.names())]
        near = get_close_matches(name[:256], [other for other in known if other != name], n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        return ModelNotFound(name, f"there is no model {shown(name)}{hint}")


def _of_manifest(folder: ModelFolder, name: ModelName) -> ModelFile | None:
    manifest = folder.read(name)
    weights = manifest.of_kind("model")
    if not weights:
        raise Unavailable(f"model {name.display!r} {_NO_MODEL_LAYER}")
    missing = [layer for layer in manifest.all_layers if not folder.has(layer)]
    if missing:
        raise Unavailable(
            f"model {name.display!r} is incomplete: blob {missing[0].digest} is missing or has "
            "another length; pull it again"
        )
    found = model_file(name.display, folder.blob(weights[0].digest))
    if found is None:
        return None
    return msgspec.structs.replace(
        found,
        size_bytes=manifest.size_bytes,
        modified_at=(folder.manifests / name.path).stat().st_mtime,
        manifest=manifest,
        folder=folder,
    )


def _or_none(look: Callable[[], ModelFile | None]) -> ModelFile | None:
    try:
        return look()
    except (ModelNotFound, Unavailable, OSError):
        return None
