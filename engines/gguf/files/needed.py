"""Which blobs the manifests of a folder need, for whoever removes those that none needs.

What cannot be read may need any blob, so nothing here is passed over: a disk that
is not mounted, a file that another user owns, a manifest of a kind that nobody here
knows. Hidden files are no manifests: those of a write that was cut off, or a
system's own.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from engines.errors import Unavailable
from engines.gguf.files.digests import Digest
from engines.gguf.files.manifests import MAX_MANIFEST_BYTES, digests_named

_DEPTH = 4  # HOST/NAMESPACE/MODEL/TAG


class Unsure(Exception):
    """What the file at `path` needs cannot be told, because of `reason`."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


def needed_by_manifests(manifests: Path) -> set[Digest]:
    """Every blob that a manifest names, whatever its own name is. Raises `Unsure`."""
    needed: set[Digest] = set()
    for path in _leaves(manifests, 0):
        needed |= _named(path)
    return needed


def _named(path: Path) -> frozenset[Digest]:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_MANIFEST_BYTES + 1)
        return digests_named(raw, str(path))
    except FileNotFoundError:
        return frozenset()  # removed since, by Ollama maybe
    except OSError as error:
        raise Unsure(path, error.strerror or str(error)) from None
    except Unavailable as error:
        raise Unsure(path, error.message) from None


def _leaves(folder: Path, depth: int) -> Iterator[Path]:
    """The files that have the depth of manifests. Raises `Unsure`."""
    for entry in entries(folder):
        if entry.name.startswith("."):
            continue
        mode = _mode(entry)
        if stat.S_ISDIR(mode) and depth + 1 < _DEPTH:
            yield from _leaves(entry, depth + 1)
        elif stat.S_ISREG(mode) and depth + 1 == _DEPTH:
            yield entry


def entries(folder: Path) -> list[Path]:
    """What is in a folder, nothing if there is none. Raises `Unsure`."""
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise Unsure(folder, error.strerror or str(error)) from None


def _mode(path: Path) -> int:
    """What there is, links resolved: 0 if it has gone. Raises `Unsure`, for dead links too."""
    try:
        return path.stat().st_mode
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not os.path.lexists(path):
            return 0
        raise Unsure(path, error.strerror or str(error)) from None
