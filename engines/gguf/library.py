"""Which model files there are, by name.

A model's name is the file's path below the models directory, without `.gguf`;
some files have a name of their own ("starter"). A name is only ever looked up
in the listing, never joined to a path, so no name reaches outside, and a name
that does not exist is answered alike wherever it points.

The listing is kept until a directory changes. Any thread may call; the worst
that two at once can do is scan twice.
"""

import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from msgspec import Struct

from engines.errors import ModelNotFound

MAX_DEPTH = 8
MAX_DIRECTORIES = 4096
MAX_FILES = 20_000
# A directory changed just before the scan may change again within one tick of
# the file system's clock and keep its time; such a listing is not kept.
SETTLED_SECONDS = 2.0


class ModelFile(Struct, frozen=True, kw_only=True):
    """A file that says it is a model; nobody has looked inside yet."""

    name: str
    path: Path
    size_bytes: int
    modified_at: float


class _Listing(Struct, frozen=True):
    paths: Mapping[str, Path]
    directories: Mapping[Path, int]  # the mtime of each, in nanoseconds
    is_settled: bool


class Library:
    """The model files of one directory, and a few that have names of their own."""

    def __init__(
        self,
        models_dir: Path | None,
        named: Mapping[str, Path],
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._models_dir = models_dir
        self._named = dict(named)
        self._now = now
        self._listing = _Listing({}, {}, is_settled=False)

    def find(self, name: str) -> Path:
        """The file of the model called `name`, links resolved, or raise `ModelNotFound`."""
        paths = self._paths()
        path = paths.get(name)
        file = None if path is None else _model_file(name, path)
        if file is not None:
            return file.path
        near = get_close_matches(name[:256], paths.keys() - {name}, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        shown = name if len(name) <= 100 else f"{name[:100]}…"
        raise ModelNotFound(name, f"there is no model {shown!r}{hint}")

    def list(self) -> Sequence[ModelFile]:
        """Every model file there is now, by name."""
        files = (_model_file(name, path) for name, path in sorted(self._paths().items()))
        return [file for file in files if file is not None]

    def _paths(self) -> Mapping[str, Path]:
        if self._models_dir is None:
            return self._named
        if not self._listing.is_settled or _changed(self._listing.directories):
            self._listing = self._scan(self._models_dir)
        return self._listing.paths

    def _scan(self, models_dir: Path) -> _Listing:
        started = self._now()
        paths: dict[str, Path] = {}
        directories: dict[Path, int] = {}
        for path in _gguf_files(models_dir, directories):
            if len(paths) >= MAX_FILES:
                break
            name = path.relative_to(models_dir).with_suffix("").as_posix()
            if name.isprintable():
                paths[name] = path
        # With no directory to watch, nothing would tell when one appears.
        newest = max(directories.values(), default=float("inf")) / 1e9
        is_settled = newest + SETTLED_SECONDS < started
        return _Listing(paths | self._named, directories, is_settled)


def _gguf_files(models_dir: Path, directories: dict[Path, int]) -> Iterator[Path]:
    """Every `*.gguf` below `models_dir`; fills `directories` with the ones looked into."""
    waiting = [(models_dir, 0)]
    seen: set[tuple[int, int]] = set()
    while waiting and len(directories) < MAX_DIRECTORIES:
        directory, depth = waiting.pop()
        try:
            status = directory.stat()
            # Links can make a directory its own descendant.
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            directories[directory] = status.st_mtime_ns
            entries = sorted(directory.iterdir())
        except OSError:
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.suffix.lower() == ".gguf":
                yield entry
            elif depth < MAX_DEPTH and entry.is_dir():
                waiting.append((entry, depth + 1))


def _changed(directories: Mapping[Path, int]) -> bool:
    for directory, modified_ns in directories.items():
        try:
            if directory.stat().st_mtime_ns != modified_ns:
                return True
        except OSError:
            return True
    return False


def _model_file(name: str, path: Path) -> ModelFile | None:
    """What is at `path`, None unless it is a regular file that may be read."""
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
