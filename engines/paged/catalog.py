"""Which model folders there are, by name; no weight is read to find out.

A name is looked up, never joined to a path: below the models folder, in the
HuggingFace cache (`org/name`), or the starter model's. Only the one model that
the policy itself names may be a path.
"""

import os
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path

import structlog

from engines import starter
from engines.chat.template import ChatTemplate
from engines.errors import EngineError, ModelNotFound
from engines.paged.checkpoint import Checkpoint
from engines.paged.config import PagedConfig
from engines.protocol import Capability, ModelInfo

log = structlog.get_logger()

MAX_DEPTH = 2  # models/org/name
MAX_FOLDERS = 4096


class Catalog:
    """The folders that one engine may load. Any thread may call."""

    def __init__(self, models_dir: Path | None, config: PagedConfig) -> None:
        self._models_dir = models_dir
        self._config = config
        self._infos: dict[Path, tuple[int, ModelInfo]] = {}

    @property
    def only(self) -> str | None:
        """The name of the one model, where the policy names it."""
        model = self._config.model
        if model is None:
            return None
        return Path(model).name if _is_path(model) else model

    def find(self, name: str) -> Path:
        """The folder of a model. Raises `ModelNotFound`."""
        if self.only is not None:
            if name in (self.only, self._config.model):
                return self._policy_folder()
            raise ModelNotFound(
                name, f"there is no model {name!r}: this engine has {self.only!r} only"
            )
        folder = self._all().get(name) or _cached(name)
        if folder is None:
            near = get_close_matches(name, self._all(), n=1)
            hint = f": did you mean {near[0]!r}?" if near else ""
            raise ModelNotFound(name, f"there is no model {name!r}{hint}")
        return folder

    def checkpoint(self, name: str) -> Checkpoint:
        """A model's files, checked as far as that needs no weights. Raises `EngineError`."""
        return Checkpoint(self.find(name))

    def info(self, name: str) -> ModelInfo:
        """What a model is. Raises `EngineError`."""
        folder = self.find(name)
        written = (folder / "config.json").stat().st_mtime_ns
        known = self._infos.get(folder)
        if known is None or known[0] != written:
            known = (written, _info(name, Checkpoint(folder), self._config))
            self._infos[folder] = known
        return known[1]

    def list(self) -> list[ModelInfo]:
        """Every model whose files can be read; why another cannot is logged."""
        names = [self.only] if self.only is not None else sorted(self._all())
        infos: list[ModelInfo] = []
        for name in names:
            try:
                infos.append(self.info(name))
            except (EngineError, OSError) as error:
                log.warning("model_unreadable", model=name, error=str(error))
        return infos

    def _policy_folder(self) -> Path:
        model = self._config.model or ""
        if _is_path(model):
            return Path(model).expanduser()
        found = self._all().get(model) or _cached(model)
        if found is None:
            raise ModelNotFound(
                model,
                f"there is no model {model!r} below {self._models_dir}, nor in the HuggingFace "
                "cache: put its folder there, or write the folder's path",
            )
        return found

    def _all(self) -> dict[str, Path]:
        found = {starter.NAME: starter.SAFETENSORS_DIR}
        root = self._models_dir
        if root is not None and root.is_dir():
            folders = _folders(root, MAX_DEPTH)
            for folder, _ in zip(folders, range(MAX_FOLDERS), strict=False):
                if (folder / "config.json").is_file():
                    found[folder.relative_to(root).as_posix()] = folder
        return found


def _is_path(model: str) -> bool:
    return model.startswith(("/", "~", "./", "../"))


def _folders(root: Path, depth: int) -> Iterator[Path]:
    try:
        entries = sorted(entry for entry in root.iterdir() if entry.is_dir())
    except OSError:
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        yield entry
        if depth > 1:
            yield from _folders(entry, depth - 1)


def _cached(name: str) -> Path | None:
    """Where the HuggingFace cache has a model's main revision."""
    org, slash, model = name.partition("/")
    parts = (org, model)
    if not slash or any(not part or part.startswith(".") or "/" in part for part in parts):
        return None
    home = os.environ.get("HF_HUB_CACHE") or (
        Path(os.environ.get("HF_HOME", "~/.cache/huggingface")) / "hub"
    )
    folder = Path(home).expanduser() / f"models--{org}--{model}"
    try:
        revision = (folder / "refs" / "main").read_text().strip()
    except OSError:
        return None
    snapshot = folder / "snapshots" / revision
    return snapshot if revision.isalnum() and (snapshot / "config.json").is_file() else None


def _info(name: str, checkpoint: Checkpoint, config: PagedConfig) -> ModelInfo:
    capabilities = set(checkpoint.capabilities)
    if Capability.CHAT in capabilities:
        template = ChatTemplate.from_tokenizer_config(checkpoint.tokenizer_config)
        if template.supports_tools:
            capabilities.add(Capability.TOOLS)
        if template.can_think:
            capabilities.add(Capability.REASONING)
    capabilities.add(Capability.EMBED)
    is_dummy = config.load_format == "dummy"
    return ModelInfo(
        name=name,
        capabilities=frozenset(capabilities),
        context_tokens=context_tokens(checkpoint, config),
        loaded=False,
        size_bytes=None if is_dummy else checkpoint.size_bytes,
        parameters=checkpoint.num_parameters,
        family=checkpoint.family,
        quantization=None if is_dummy else checkpoint.dtype,
        modified_at=(checkpoint.folder / "config.json").stat().st_mtime,
    )


def context_tokens(checkpoint: Checkpoint, config: PagedConfig) -> int:
    """Tokens that one sequence may have: as the policy says, as far as the model goes."""
    if config.context_tokens is None:
        return checkpoint.context_tokens
    return min(config.context_tokens, checkpoint.context_tokens)
