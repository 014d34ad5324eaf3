"""Plain `*.gguf` files below a folder: a file's path without `.gguf` is the model's name.

A name is only ever looked up in the listing, never joined to a path, so no name
reaches outside. The listing is kept until a directory changes. Any thread may
call; the worst that two at once can do is scan twice.
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from msgspec import Struct

MAX_DEPTH = 8
MAX_DIRECTORIES = 4096
MAX_FILES = 20_000
# A directory changed just before the scan may change again within one tick of
# the file system's clock and keep its time; such a listing is not kept.
SETTLED_SECONDS = 2.0
# Ollama's own folders, which hold no plain files (engines/gguf/files/folder.py).
_NOT_PLAIN = frozenset({"blobs", "manifests"})
# llama.cpp finds the further parts of a model by the name of the first.
_FURTHER_PART = re.compile(r"-(?!0*1-of-)[0-9]{5}-of-[0-9]{5}\.gguf", re.IGNORECASE)


class _Listing(Struct, frozen=True):
    paths: Mapping[str, Path]
    directories: Mapping[Path, int]  # the mtime of each, in nanoseconds
    is_settled: bool


class PlainFiles:
    """The plain model files of one folder."""

    def __init__(self, folder: Path, *, now: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._now = now
        self._listing = _Listing({}, {}, is_settled=False)

    def paths(self) -> Mapping[str, Path]:
        """Every file that there is now, by its model's name."""
        if not self._listing.is_settled or _changed(self._listing.directories):
            self._listing = self._scan()
        return self._listing.paths

    def _scan(self) -> _Listing:
        started = self._now()
        paths: dict[str, Path] = {}
        directories: dict[Path, int] = {}
        for path in gguf_files(self._folder, directories):
            if len(paths) >= MAX_FILES:
                break
            name = path.relative_to(self._folder).with_suffix("").as_posix()
            if name.isprintable():
                paths[name] = path
        # With no directory to watch, nothing would tell when one appears.
        newest = max(directories.values(), default=float("inf")) / 1e9
        return _Listing(paths, directories, is_settled=newest + SETTLED_SECONDS < started)


def gguf_files(folder: Path, directories: dict[Path, int]) -> Iterator[Path]:
    """Every `*.gguf` below `folder`; fills `directories` with the ones looked into."""
    waiting = [(folder, 0)]
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
            if entry.name.startswith(".") or (depth == 0 and entry.name in _NOT_PLAIN):
                continue
            if entry.suffix.lower() == ".gguf":
                if not _FURTHER_PART.search(entry.name):
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
