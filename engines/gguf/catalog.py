"""What the model files on disk say about themselves; no model is loaded to find out.

Headers are read once for each version of a file. Any thread may call.
"""

from pathlib import Path
from typing import NamedTuple

import structlog

from engines.chat.template import ChatTemplate
from engines.errors import EngineError, ModelNotFound, Unavailable
from engines.gguf.adapter_file import Adapter, check_adapter
from engines.gguf.config import GgufConfig
from engines.gguf.file_format import read_file
from engines.gguf.files.folder import ModelFolder
from engines.gguf.files.hugging_face_cache import HuggingFaceCache
from engines.gguf.go_template.matching import TemplateChoice, chosen_template
from engines.gguf.header import GgufHeader, MalformedGguf, read_header
from engines.gguf.library import Library, ModelFile
from engines.gguf.native import has_mtmd
from engines.gguf.projector_file import check_projector
from engines.gguf.recipe import Recipe, recipe_of
from engines.protocol import Capability, ModelInfo

log = structlog.get_logger()

MAX_DEFAULT_CONTEXT_TOKENS = 8192
STARTER = "starter"


class Stamp(NamedTuple):
    """The same while a file is not changed."""

    path: Path
    size_bytes: int
    modified_ns: int
    inode: int


class Version(NamedTuple):
    """The same while neither a model's file nor what its name adds to it changes."""

    name: str  # as all spellings of it come down to
    path: Path
    size_bytes: int
    modified_ns: int
    inode: int
    digest: str | None  # of the manifest, where there is one
    others: tuple[Stamp, ...] = ()  # of the files that the policy adds to it


class Known(NamedTuple):
    """What the files of a model say."""

    version: Version
    header: GgufHeader
    recipe: Recipe
    template: TemplateChoice
    adapters: tuple[Adapter, ...]
    projector: Path | None
    info: ModelInfo

    @property
    def companions(self) -> tuple[Path, ...]:
        """The files that are loaded beside the weights."""
        paths = tuple(adapter.path for adapter in self.adapters)
        return paths if self.projector is None else (*paths, self.projector)


class Catalog:
    """The models that one engine can be asked for."""

    def __init__(self, models_dir: Path | None, config: GgufConfig) -> None:
        starter = Path(__file__).parents[1] / "starter" / "starter.gguf"
        named = {STARTER: starter} if starter.is_file() else {}
        self.library = Library(
            models_dir,
            named,
            is_writable=config.models_writable,
            also=_folders_of_ollama(config),
            cache=_cache(config),
        )
        self._config = config
        self._known: dict[str, Known] = {}
        self._refused: dict[str, Version] = {}

    def version(self, name: str) -> Version:
        """What tells this model from another that was put in its place; reads no header."""
        return self._version(self._spelled(name))

    def look_up(self, name: str) -> Known:
        """A model's header and recipe. Raises `Unavailable` for one that must not be loaded."""
        return self._read(self._spelled(name))

    def _spelled(self, name: str) -> ModelFile:
        """The model of this name, which must be spelled as it is listed; its tag `latest` may lack.

        The library knows more spellings. But a gateway's lists of who may use what are
        of names, and what they deny must not be had by another spelling.
        """
        file = self.library.look_up(name)
        self.check_spelling(name, file.name)
        return file

    @staticmethod
    def check_spelling(name: str, listed: str) -> None:
        """Raise `ModelNotFound` unless a name is spelled as it is listed."""
        if listed not in (name, f"{name}:latest"):
            raise ModelNotFound(name, f"there is no model {name!r} (it is listed as {listed!r})")

    def list(self) -> list[ModelInfo]:
        """Every model whose file can be read; the others are logged once."""
        infos: list[ModelInfo] = []
        for file in self.library.list():
            try:
                infos.append(self._read(file).info)
            except ModelNotFound:
                continue
            except EngineError as error:
                self._log_once(file, error)
        return infos

    def _read(self, file: ModelFile) -> Known:
        version = self._version(file)
        known = self._known.get(file.name)
        if known is None or known.version != version:
            try:
                header = read_header(file.path)
                recipe = recipe_of(file)
                adapters = self._adapters(file, recipe)
                projector = self._projector(file, recipe)
            except MalformedGguf as error:
                message = f"model {file.name!r} cannot be loaded: {error.message}"
                raise Unavailable(message) from error
            except OSError as error:
                raise Unavailable(
                    f"model {file.name!r} cannot be read: {error.strerror}"
                ) from error
            template = chosen_template(recipe.template, header.chat_template)
            if template.note or template.problem:
                reason = template.note or template.problem
                log.warning("model_template_replaced", model=file.name, reason=reason)
            able = capabilities(header, template.source)
            if projector is not None and Capability.CHAT in able:
                able |= {Capability.VISION}
            info = self._info(file, header, recipe, able)
            known = self._known[file.name] = Known(
                version, header, recipe, template, adapters, projector, info
            )
        return known

    def _adapters(self, file: ModelFile, recipe: Recipe) -> tuple[Adapter, ...]:
        """Those of the model's own name, then the policy's. Raises `MalformedGguf`."""
        adapters = (*map(Adapter, recipe.adapters), *self._added_adapters(file.name))
        if adapters:
            base = read_file(file.path)
            for adapter in adapters:
                check_adapter(adapter.path, base)
        return adapters

    def _projector(self, file: ModelFile, recipe: Recipe) -> Path | None:
        """What turns pictures into tokens; none where llama.cpp was built without vision."""
        added = self._config.own(file.name).projector
        found = Path(added).expanduser() if added else next(iter(recipe.projectors), None)
        if found is None:
            return None
        check_projector(found)
        if not has_mtmd():
            log.warning(
                "model_without_vision",
                model=file.name,
                hint="llama.cpp was built without it; run `python -m engines.gguf.build`",
            )
            return None
        return found

    def _version(self, file: ModelFile) -> Version:
        try:
            status = file.path.stat()
        except OSError as error:
            raise ModelNotFound(file.name) from error
        digest = str(file.manifest.digest) if file.manifest else None
        return Version(
            file.name,
            file.path,
            status.st_size,
            status.st_mtime_ns,
            status.st_ino,
            digest,
            tuple(map(_stamp, self._files_added(file.name))),
        )

    def _added_adapters(self, name: str) -> tuple[Adapter, ...]:
        files = self._config.own(name).adapters
        return tuple(Adapter(Path(file.path).expanduser(), file.scale) for file in files)

    def _files_added(self, name: str) -> tuple[Path, ...]:
        """What the policy adds to a model."""
        projector = self._config.own(name).projector
        paths = tuple(adapter.path for adapter in self._added_adapters(name))
        return paths if projector is None else (*paths, Path(projector).expanduser())

    def _info(
        self,
        file: ModelFile,
        header: GgufHeader,
        recipe: Recipe,
        able: frozenset[Capability],
    ) -> ModelInfo:
        longest = (
            recipe.configured(self._config.for_model(file.name)).context_tokens
            or MAX_DEFAULT_CONTEXT_TOKENS
        )
        return ModelInfo(
            name=file.name,
            capabilities=able,
            context_tokens=min(header.context_tokens, longest),
            loaded=False,
            size_bytes=file.size_bytes,
            parameters=header.num_parameters,
            family=header.architecture,
            quantization=header.quantization,
            modified_at=file.modified_at,
            digest=str(file.manifest.digest) if file.manifest else None,
        )

    def _log_once(self, file: ModelFile, error: EngineError) -> None:
        version = self._version(file)
        if self._refused.get(file.name) != version:
            self._refused[file.name] = version
            log.warning("model_refused", model=file.name, reason=error.message)


def _folders_of_ollama(config: GgufConfig) -> tuple[ModelFolder, ...]:
    if config.ollama_models_dir is None:
        return ()
    path = Path(config.ollama_models_dir).expanduser()
    return (ModelFolder(path, is_writable=config.ollama_models_writable),)


def _cache(config: GgufConfig) -> HuggingFaceCache | None:
    if config.hugging_face_cache_dir is None:
        return None
    return HuggingFaceCache(Path(config.hugging_face_cache_dir).expanduser())


def capabilities(header: GgufHeader, template_source: str | None) -> frozenset[Capability]:
    """What a model can do, as far as its header and its chat template give it away."""
    if header.pooling_type == "rank":
        return frozenset({Capability.RERANK})
    if header.is_embedding_model:
        return frozenset({Capability.EMBED})
    able = {
        Capability.COMPLETE,
        Capability.EMBED,
        Capability.JSON_SCHEMA,
        Capability.LOGPROBS,
    }
    if template_source:
        able.add(Capability.CHAT)
        try:
            template = ChatTemplate(template_source)
        except EngineError:
            return frozenset(able - {Capability.CHAT})
        if template.supports_tools:
            able.add(Capability.TOOLS)
        if template.can_think:
            able.add(Capability.REASONING)
    return frozenset(able)


def _stamp(path: Path) -> Stamp:
    try:
        status = path.stat()
    except OSError:
        return Stamp(path, -1, 0, 0)  # who reads it will say what is wrong
    return Stamp(path, status.st_size, status.st_mtime_ns, status.st_ino)
