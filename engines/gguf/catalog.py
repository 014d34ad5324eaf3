"""What the model files on disk say about themselves; no model is loaded to find out.

Headers are read once for each version of a file. Any thread may call.
"""

from pathlib import Path
from typing import NamedTuple

import structlog

from engines.chat.template import ChatTemplate
from engines.errors import EngineError, ModelNotFound, Unavailable
from engines.gguf.config import GgufConfig
from engines.gguf.header import GgufHeader, MalformedGguf, read_header
from engines.gguf.library import Library, ModelFile
from engines.protocol import Capability, ModelInfo

log = structlog.get_logger()

MAX_DEFAULT_CONTEXT_TOKENS = 8192
STARTER = "starter"


class Version(NamedTuple):
    """The same while a file is not replaced or written to."""

    path: Path
    size_bytes: int
    modified_ns: int
    inode: int


class _Known(NamedTuple):
    version: Version
    header: GgufHeader
    info: ModelInfo


class Catalog:
    """The models that one engine can be asked for."""

    def __init__(self, models_dir: Path | None, config: GgufConfig) -> None:
        starter = Path(__file__).parents[1] / "starter" / "starter.gguf"
        self._library = Library(models_dir, {STARTER: starter} if starter.is_file() else {})
        self._config = config
        self._known: dict[str, _Known] = {}
        self._refused: dict[str, Version] = {}

    def find(self, name: str) -> Path:
        """A model's file. Raises `ModelNotFound`."""
        return self._library.find(name)

    def version(self, name: str) -> Version:
        """What tells this model's file from another that was put in its place."""
        path = self.find(name)
        return _version(name, path)

    def header(self, name: str) -> GgufHeader:
        """What a model's file says. Raises `Unavailable` for one that must not be loaded."""
        return self._read(name, self.find(name)).header

    def info(self, name: str) -> ModelInfo:
        """A model as `Engine.models` shows it, not loaded."""
        return self._read(name, self.find(name)).info

    def list(self) -> list[ModelInfo]:
        """Every model whose file can be read; the others are logged once."""
        infos: list[ModelInfo] = []
        for file in self._library.list():
            try:
                infos.append(self._read(file.name, file.path).info)
            except ModelNotFound:
                continue
            except EngineError as error:
                self._log_once(file, error)
        return infos

    def _read(self, name: str, path: Path) -> _Known:
        version = _version(name, path)
        known = self._known.get(name)
        if known is None or known.version != version:
            try:
                header = read_header(path)
            except MalformedGguf as error:
                message = f"model {name!r} cannot be loaded: {error.message}"
                raise Unavailable(message) from error
            except OSError as error:
                raise Unavailable(f"model {name!r} cannot be read: {error.strerror}") from error
            known = _Known(version, header, self._info(name, version, header))
            self._known[name] = known
        return known

    def _info(self, name: str, version: Version, header: GgufHeader) -> ModelInfo:
        longest = self._config.context_tokens or MAX_DEFAULT_CONTEXT_TOKENS
        return ModelInfo(
            name=name,
            capabilities=capabilities(header),
            context_tokens=min(header.context_tokens, longest),
            loaded=False,
            size_bytes=version.size_bytes,
            parameters=header.num_parameters,
            family=header.architecture,
            quantization=header.quantization,
            modified_at=version.modified_ns / 1e9,
        )

    def _log_once(self, file: ModelFile, error: EngineError) -> None:
        version = _version(file.name, file.path)
        if self._refused.get(file.name) != version:
            self._refused[file.name] = version
            log.warning("model_refused", model=file.name, reason=error.message)


def capabilities(header: GgufHeader) -> frozenset[Capability]:
    """What a model can do, as far as its header gives it away."""
    if header.is_embedding_model:
        return frozenset({Capability.EMBED})
    able = {
        Capability.COMPLETE,
        Capability.EMBED,
        Capability.JSON_SCHEMA,
        Capability.LOGPROBS,
    }
    if header.chat_template:
        able.add(Capability.CHAT)
        try:
            template = ChatTemplate(header.chat_template)
        except EngineError:
            return frozenset(able - {Capability.CHAT})
        if template.supports_tools:
            able.add(Capability.TOOLS)
        if template.can_think:
            able.add(Capability.REASONING)
    return frozenset(able)


def _version(name: str, path: Path) -> Version:
    try:
        status = path.stat()
    except OSError as error:
        raise ModelNotFound(name) from error
    return Version(path, status.st_size, status.st_mtime_ns, status.st_ino)
