"""A file that says it is a model; nobody has looked inside yet."""

import os
import stat
from pathlib import Path

from msgspec import Struct

from engines.gguf.files.folder import ModelFolder
from engines.gguf.files.manifests import Manifest


class ModelFile(Struct, frozen=True, kw_only=True):
    """A model's weights, and what else its name stands for.

    `manifest` and `folder` are None for a file that is a model all by itself.
    """

    name: str  # the one way of spelling it that all others lead to
    path: Path
    size_bytes: int
    modified_at: float
    manifest: Manifest | None = None
    folder: ModelFolder | None = None


def model_file(name: str, path: Path) -> ModelFile | None:
    """What is at `path`, links resolved; None unless it is a regular file that may be read."""
    try:
        resolved = path.resolve(strict=True)
        status = resolved.stat()
    except (OSError, RuntimeError):
        return None
    if not stat.S_ISREG(status.st_mode) or not os.access(resolved, os.R_OK):
        return None
    return ModelFile(
        name=name, path=resolved, size_bytes=status.st_size, modified_at=status.st_mtime
    )
