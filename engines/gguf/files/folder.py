"""One models folder in Ollama's layout, which Ollama may be using at the same time.

    manifests/HOST/NAMESPACE/MODEL/TAG    a manifest: which blobs a name stands for
    blobs/sha256-HEX                      a blob, named by what is in it

Nothing here changes a blob: one appears whole under its name, by a rename, and
goes when no name needs it. What decides that is read and acted on under one lock
(`blobs/.locks/folder`), which every process of ours takes. Blobs that a pull will
need are pinned: by a file in `blobs/.pins` that is locked for as long as the pull
lives (engines/gguf/files/file_lock.py), so that kill -9 leaves no pin that holds.
`blobs/.handed-over` notes what clients have sent, which goes if no model is made of it.
"""

import contextlib
import os
import stat
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

import structlog

from engines.errors import ModelNotFound, RequestRefused, Unavailable
from engines.gguf.files.digests import Digest, DigestInvalid, digest_of_file, parse_digest
from engines.gguf.files.file_lock import FileLock
from engines.gguf.files.manifests import MAX_MANIFEST_BYTES, Layer, Manifest, read_manifest
from engines.gguf.files.names import ModelName, name_of_path, shown
from engines.gguf.files.needed import Unsure, entries, needed_by_manifests
from engines.gguf.files.writing import make_folder, sync_folder, write_whole

log = structlog.get_logger()

MAX_NAMES = 20_000
_HANDED_OVER = ".handed-over"
MAX_TEXT_BYTES = 4 * 1024 * 1024  # of a template, a license, a configuration


class ModelFolder:
    """Reads and, if it `is_writable`, changes one folder; any thread of any process may."""

    def __init__(self, path: Path, *, is_writable: bool = True) -> None:
        self.path = path
        self.is_writable = is_writable
        self.manifests = path / "manifests"
        self.blobs = path / "blobs"

    def names(self) -> Iterator[ModelName]:
        """Every name that has a manifest, in order; files with other names are left alone."""
        num_names = 0
        for parts in _leaves(self.manifests, ()):
            name = name_of_path(parts)
            if name is not None:
                yield name
                num_names += 1
            if num_names >= MAX_NAMES:
                return

    def find(self, name: ModelName) -> ModelName | None:
        """The name as it is spelled on disk, None if it is not there."""
        if _is_file(self.manifests / name.path):
            return name
        return next((found for found in self.names() if found.folded == name.folded), None)

    def read(self, name: ModelName) -> Manifest:
        """The manifest of a name. Raises `ModelNotFound`, or `Unavailable` for a broken one."""
        path = self.manifests / name.path
        raw = _read_bounded(path, MAX_MANIFEST_BYTES)
        if raw is None:
            raise ModelNotFound(name.display, f"there is no model {shown(name.display)}")
        return read_manifest(raw, f"model {name.display!r}")

    def blob(self, digest: Digest) -> Path:
        """Where the blob of this digest is, or would be."""
        return self.blobs / digest.file_name

    def has(self, layer: Layer) -> bool:
        """Whether the layer's blob is there, as long as it must be."""
        try:
            status = self.blob(layer.digest).stat()
        except OSError:
            return False
        return stat.S_ISREG(status.st_mode) and status.st_size == layer.size_bytes

    def text(self, layer: Layer) -> bytes:
        """A small layer's content. Raises `Unavailable` if it is missing, changed or not small."""
        content = _read_bounded(self.blob(layer.digest), MAX_TEXT_BYTES)
        if content is None:
            raise Unavailable(
                f"blob {layer.digest} is missing or has over {MAX_TEXT_BYTES} bytes; "
                "pull the model again"
            )
        return content

    def write_manifest(self, name: ModelName, manifest: Manifest) -> ModelName:
        """Let `name` stand for `manifest` from now on, and say how the name is spelled on disk.

        Blobs that it stood for before and nothing else needs are removed."""
        self.check_writable()
        with _locked(self.blobs):
            spelled = self.find(name) or name
            path = self.manifests / spelled.path
            before = self._read_or_none(spelled)
            make_folder(path.parent)
            write_whole(path, manifest.raw)
            if before is not None:
                self._collect(before.digests)
        return spelled

    def remove(self, name: ModelName) -> None:
        """Remove a name, and the blobs that no name needs any more. Raises `ModelNotFound`."""
        self.check_writable()
        with _locked(self.blobs):
            path = self.manifests / name.path
            manifest = self._read_or_none(name)
            try:
                path.unlink()
            except FileNotFoundError:
                raise ModelNotFound(
                    name.display, f"there is no model {shown(name.display)}"
                ) from None
            self._remove_empty(path.parent)
            if manifest is not None:
                self._collect(manifest.digests)

    def discard(self, digests: Iterable[Digest]) -> bool:
        """Remove those of these blobs that no name and no pull needs; False if that is unsure."""
        with _locked(self.blobs):
            return self._collect(digests)

    def note_handed_over(self, digest: Digest) -> None:
        """Remember that this blob came from a client, who may never make a model of it."""
        notes = self.blobs / _HANDED_OVER
        make_folder(notes)
        (notes / digest.file_name).touch()

    def forget_handed_over(self, older_than_seconds: float) -> None:
        """Remove the blobs that clients handed over so long ago, but for those that are needed.

        All other blobs stay: they may be Ollama's."""
        latest = time.time() - older_than_seconds
        for note in _entries(self.blobs / _HANDED_OVER):
            with contextlib.suppress(DigestInvalid, FileNotFoundError):
                if note.stat().st_mtime < latest and self.discard([parse_digest(note.name)]):
                    note.unlink()

    def pin(self, digests: Iterable[Digest]) -> "Pin":
        """What keeps these blobs, there or yet to come, whatever names are removed meanwhile.

        Those that no name needs at the end stay, as what a pull has fetched so far
        does: the next one may go on from there."""
        self.check_writable()
        return Pin(self.blobs, digests)

    def adopt(self, partial: Path, digest: Digest) -> Path:
        """Give a finished file its name; whoever calls has checked what is in it.

        The file must be on this file system, and is on disk before it has the name."""
        self.check_writable()
        handle = os.open(partial, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        path = self.blob(digest)
        partial.replace(path)
        sync_folder(self.blobs)
        return path

    def put(self, content: bytes, digest: Digest) -> None:
        """Write a small blob, whose digest the caller has computed, unless it is there."""
        self.check_writable()
        make_folder(self.blobs)
        path = self.blob(digest)
        if not (_is_file(path) and path.stat().st_size == len(content)):
            write_whole(path, content)

    def check_writable(self) -> None:
        """Raise `RequestRefused` for a folder that is only read."""
        if not self.is_writable:
            raise RequestRefused(
                f"the models folder {str(self.path)!r} is only read here; "
                "`models_writable`, or of a folder of Ollama's `ollama_models_writable`, says so",
                param="model",
            )

    def check(self, layer: Layer) -> bool:
        """Whether a blob is what its name says, read whole."""
        return self.has(layer) and digest_of_file(self.blob(layer.digest)) == layer.digest

    def _read_or_none(self, name: ModelName) -> Manifest | None:
        try:
            return self.read(name)
        except (ModelNotFound, Unavailable):
            return None

    def _collect(self, digests: Iterable[Digest]) -> bool:
        """Remove those of `digests` that no manifest and no pin names; the lock is held.

        Where something cannot be read that may need them, all stay, and False is returned."""
        try:
            needed = _pinned(self.blobs) | needed_by_manifests(self.manifests)
        except Unsure as unsure:
            log.warning("blobs_kept", file=str(unsure.path), reason=unsure.reason)
            return False
        for digest in set(digests) - needed:
            self.blob(digest).unlink(missing_ok=True)
        return True

    def _remove_empty(self, folder: Path) -> None:
        while folder != self.manifests:
            try:
                folder.rmdir()
            except OSError:
                return
            folder = folder.parent


class Pin:
    """Keeps blobs between `take` and `release`, or inside of `with`; both may block shortly."""

    def __init__(self, blobs: Path, digests: Iterable[Digest]) -> None:
        self._blobs = blobs
        self._text = "\n".join(map(str, digests))
        self._path = blobs / ".pins" / uuid.uuid4().hex
        self._lock = FileLock(self._path)

    def take(self) -> None:
        """From now on the blobs stay."""
        with _locked(self._blobs):
            with contextlib.suppress(Unsure):
                _pinned(self._blobs)  # removes those of the dead
            self._lock.try_take()
            self._path.write_text(self._text)

    def release(self) -> None:
        """From now on they may go; nothing happens if they were not kept."""
        self._lock.release(remove=True)

    def __enter__(self) -> "Pin":
        self.take()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _pinned(blobs: Path) -> set[Digest]:
    """What is kept by pulls that live; the lock is held. Raises `Unsure`."""
    pinned: set[Digest] = set()
    for path in entries(blobs / ".pins"):
        with _sure_of(path):
            lock = FileLock(path)
            if lock.try_take():  # whoever held it is dead
                lock.release(remove=True)
                continue
            pinned |= {parse_digest(line) for line in path.read_text().splitlines()}
    return pinned


@contextlib.contextmanager
def _sure_of(pin: Path) -> Iterator[None]:
    """Raise `Unsure` for a pin that cannot be read; one that has gone keeps nothing."""
    try:
        yield
    except FileNotFoundError:
        pass
    except (DigestInvalid, OSError, Unavailable) as error:
        raise Unsure(pin, str(error)) from None


def _locked(blobs: Path) -> FileLock:
    return FileLock(blobs / ".locks" / "folder")


def _leaves(folder: Path, parts: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The files four levels down, as the parts of their paths."""
    for entry in _entries(folder):
        if entry.name.startswith("."):
            continue
        below = (*parts, entry.name)
        if len(below) < 4 and entry.is_dir():
            yield from _leaves(entry, below)
        elif len(below) == 4 and _is_file(entry):
            yield below


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def _read_bounded(path: Path, max_bytes: int) -> bytes | None:
    """A regular file's content; None if there is none, or it is longer."""
    if not _is_file(path):
        return None
    try:
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except OSError:
        return None
    return content if len(content) <= max_bytes else None
