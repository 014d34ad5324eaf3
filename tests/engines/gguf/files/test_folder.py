"""A models folder: names, blobs, and when a blob goes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engines.errors import ModelNotFound, RequestRefused, Unavailable
from engines.gguf.files.digests import digest_of
from engines.gguf.files.folder import MAX_TEXT_BYTES, ModelFolder
from engines.gguf.files.manifests import CONFIG_TYPE, Layer, Manifest, layer, new_manifest
from engines.gguf.files.names import parse_name
from tests.engines.gguf.ollama_folder import everything, put_model

A, B = parse_name("a"), parse_name("b")


def keep(folder: ModelFolder, *contents: bytes) -> Manifest:
    """Put contents in as blobs; a manifest of them, not written yet."""
    for content in (b"{}", *contents):
        folder.put(content, digest_of(content))
    config = Layer(media_type=CONFIG_TYPE, digest=digest_of(b"{}"), size_bytes=2)
    return new_manifest(config, [layer("model", digest_of(c), len(c)) for c in contents])


def blobs(folder: ModelFolder) -> set[bytes]:
    return {path.read_bytes() for path in folder.blobs.glob("sha256-*")}


def test_a_name_is_written_found_read_and_removed(tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path / "models")
    manifest = keep(folder, b"one")

    folder.write_manifest(A, manifest)

    assert list(folder.names()) == [A]
    assert folder.find(A) == A
    assert folder.read(A) == manifest
    assert folder.has(manifest.layers[0])
    assert folder.check(manifest.layers[0])
    folder.remove(A)
    assert list(folder.names()) == []
    assert blobs(folder) == set()
    assert list(folder.manifests.iterdir()) == []
    with pytest.raises(ModelNotFound):
        folder.remove(A)


def test_a_blob_goes_with_the_last_name_that_needs_it(tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path)
    folder.write_manifest(A, keep(folder, b"shared", b"only a"))
    folder.write_manifest(B, keep(folder, b"shared", b"only b"))

    folder.remove(A)
    assert blobs(folder) == {b"{}", b"shared", b"only b"}

    folder.remove(B)
    assert blobs(folder) == set()


def test_a_name_that_stands_for_something_else_now_frees_what_it_was(tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path)
    folder.write_manifest(A, keep(folder, b"old", b"kept"))

    folder.write_manifest(A, keep(folder, b"new", b"kept"))

    assert blobs(folder) == {b"{}", b"new", b"kept"}


def test_a_pinned_blob_outlives_the_last_name(tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path)
    manifest = keep(folder, b"pulled again")
    folder.write_manifest(A, manifest)

    with folder.pin(manifest.digests):
        folder.remove(A)
        assert blobs(folder) == {b"{}", b"pulled again"}
        folder.write_manifest(A, manifest)

    folder.remove(A)
    assert blobs(folder) == set()


def test_the_pin_of_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path)
    manifest = keep(folder, b"weights")
    folder.write_manifest(A, manifest)
    code = (
        "import os, signal, sys; from pathlib import Path;"
        "from engines.gguf.files.folder import ModelFolder;"
        "from engines.gguf.files.digests import parse_digest;"
        "pin = ModelFolder(Path(sys.argv[1])).pin([parse_digest(sys.argv[2])]);"
        "pin.take(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path), str(digest_of(b"weights"))])
    assert ended.returncode == -9
    assert len(list((folder.blobs / ".pins").iterdir())) == 1

    folder.remove(A)

    assert blobs(folder) == set()
    assert list((folder.blobs / ".pins").iterdir()) == []


def test_no_blob_goes_while_a_manifest_cannot_be_read(tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path)
    folder.write_manifest(A, keep(folder, b"weights"))
    broken = folder.manifests / B.path
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"{ half")

    folder.remove(A)

    assert blobs(folder) == {b"{}", b"weights"}


def test_a_name_is_found_whatever_its_case_and_keeps_its_spelling(tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path)
    folder.write_manifest(parse_name("Me/Mine:Q4"), keep(folder, b"one"))

    spelled = folder.write_manifest(parse_name("me/mine:q4"), keep(folder, b"two"))

    assert spelled.display == "Me/Mine:Q4"
    assert [name.display for name in folder.names()] == ["Me/Mine:Q4"]
    assert blobs(folder) == {b"{}", b"two"}


def test_a_folder_that_is_only_read_is_left_as_it_is(tmp_path: Path) -> None:
    put_model(tmp_path, "registry.ollama.ai/library/a/latest", {"model": b"weights"})
    before = everything(tmp_path)
    folder = ModelFolder(tmp_path, is_writable=False)
    manifest = folder.read(A)

    for change in (
        lambda: folder.remove(A),
        lambda: folder.write_manifest(B, manifest),
        lambda: folder.put(b"x", digest_of(b"x")),
        lambda: folder.pin([]),
        lambda: folder.adopt(tmp_path / "x", digest_of(b"x")),
    ):
        with pytest.raises(RequestRefused, match="only read here"):
            change()

    assert everything(tmp_path) == before
    assert not (tmp_path / "blobs" / ".locks").exists()


def test_files_that_are_no_names_are_left_alone(tmp_path: Path) -> None:
    put_model(tmp_path, "registry.ollama.ai/library/a/latest", {"model": b"weights"})
    put_model(tmp_path, "registry.ollama.ai/library/a/.latest.tmp", {"model": b"half"})
    put_model(tmp_path, "registry.ollama.ai/library/a b/latest", {"model": b"odd"})
    put_model(tmp_path, "too/short/x", {"model": b"odd"})
    put_model(tmp_path, "much/too/long/for/x", {"model": b"odd"})
    os.mkfifo(tmp_path / "manifests" / "registry.ollama.ai" / "library" / "a" / "pipe")

    assert list(ModelFolder(tmp_path).names()) == [A]


def test_a_blob_of_another_length_does_not_count(tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path)
    manifest = keep(folder, b"weights")
    folder.blob(digest_of(b"weights")).write_bytes(b"weight")

    assert not folder.has(manifest.layers[0])
    folder.blob(digest_of(b"weights")).write_bytes(b"WEIGHTS")
    assert folder.has(manifest.layers[0])
    assert not folder.check(manifest.layers[0])


def test_a_small_layer_is_never_large(tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path)
    content = b"x" * (MAX_TEXT_BYTES + 1)
    folder.put(content, digest_of(content))

    with pytest.raises(Unavailable, match="missing or has over"):
        folder.text(layer("template", digest_of(content), 5))


def test_a_folder_that_cannot_be_made_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(Unavailable, match="cannot be made: Not a directory"):
        ModelFolder(tmp_path / "file" / "models").put(b"x", digest_of(b"x"))
