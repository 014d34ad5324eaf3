"""Blobs go only when it is sure that nothing needs them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog

from engines.gguf.files.digests import digest_of
from engines.gguf.files.folder import ModelFolder
from engines.gguf.files.manifests import layer, new_manifest
from engines.gguf.files.names import parse_name
from engines.gguf.files.needed import needed_by_manifests

SHARED = b"shared weights"
A, B = parse_name("a"), parse_name("b")


@pytest.fixture
def folder(tmp_path: Path) -> ModelFolder:
    """The model `a`, whose blob others may need."""
    folder = ModelFolder(tmp_path)
    folder.put(SHARED, digest_of(SHARED))
    shared = layer("model", digest_of(SHARED), len(SHARED))
    folder.write_manifest(A, new_manifest(shared, [shared]))
    return folder


def _dead_link(folder: ModelFolder, path: Path) -> None:
    path.symlink_to("/nowhere/at/all")


def _loop(folder: ModelFolder, path: Path) -> None:
    path.symlink_to(path)


def _half(folder: ModelFolder, path: Path) -> None:
    path.write_bytes(folder.read(A).raw[:-20])


def _index(folder: ModelFolder, path: Path) -> None:
    path.write_text(json.dumps({"schemaVersion": 2, "manifests": [], "config": None}))


def _empty(folder: ModelFolder, path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("make", [_dead_link, _loop, _half, _index, _empty])
def test_nothing_goes_while_a_manifest_cannot_be_read_and_the_log_names_it(
    folder: ModelFolder, make: Callable[[ModelFolder, Path], None]
) -> None:
    path = folder.manifests / B.path
    path.parent.mkdir(parents=True)
    make(folder, path)

    with structlog.testing.capture_logs() as logged:
        folder.remove(A)
        assert not folder.discard([digest_of(SHARED)])

    assert folder.blob(digest_of(SHARED)).exists()
    assert {entry["file"] for entry in logged} == {str(path)}
    path.unlink()
    assert folder.discard([digest_of(SHARED)])
    assert not folder.blob(digest_of(SHARED)).exists()


def test_nothing_goes_while_a_folder_of_manifests_is_not_mounted(folder: ModelFolder) -> None:
    (folder.manifests / "registry.example.com").symlink_to("/nowhere/at/all")

    folder.remove(A)

    assert folder.blob(digest_of(SHARED)).exists()


@pytest.mark.parametrize("path", ["h.example.com/a.b/c/d", "h/n/m/a tag", f"h/n/{'m' * 200}/t"])
def test_a_manifest_whose_path_is_no_name_needs_its_blobs_too(
    folder: ModelFolder, path: str
) -> None:
    (folder.manifests / path).parent.mkdir(parents=True)
    (folder.manifests / path).write_bytes(folder.read(A).raw)

    folder.remove(A)

    assert folder.blob(digest_of(SHARED)).exists()


def test_a_name_beyond_those_that_are_listed_needs_its_blobs_too(
    folder: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write_manifest(parse_name("z"), folder.read(A))
    folder.put(b"other", digest_of(b"other"))
    other = layer("model", digest_of(b"other"), 5)
    folder.write_manifest(B, new_manifest(other, [other]))
    monkeypatch.setattr("engines.gguf.files.folder.MAX_NAMES", 1)

    folder.remove(A)

    assert folder.blob(digest_of(SHARED)).exists()


def test_a_model_of_a_kind_that_is_not_run_here_needs_what_it_names(folder: ModelFolder) -> None:
    config = {"digest": str(digest_of(SHARED)), "size": 5, "mediaType": "x"}
    path = folder.manifests / B.path
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"schemaVersion": 2, "config": config, "layers": None}))

    assert needed_by_manifests(folder.manifests) == {digest_of(SHARED)}


def test_what_was_no_manifest_holds_nothing(folder: ModelFolder) -> None:
    (folder.manifests / A.path).with_name(".latest.0123").write_bytes(b"half of a wri")
    (folder.manifests / ".DS_Store").write_bytes(b"...")
    (folder.manifests / "notes.txt").write_bytes(b"...")

    folder.remove(A)

    assert not folder.blob(digest_of(SHARED)).exists()


def test_nothing_goes_while_a_pin_cannot_be_read(folder: ModelFolder) -> None:
    pin = folder.pin([digest_of(b"another")])
    with pin:
        (written,) = (folder.blobs / ".pins").iterdir()
        written.write_text("sha256:00\n")
        folder.remove(A)

    assert folder.blob(digest_of(SHARED)).exists()


def test_what_was_handed_over_is_not_forgotten_before_it_could_go(folder: ModelFolder) -> None:
    folder.put(b"sent", digest_of(b"sent"))
    folder.note_handed_over(digest_of(b"sent"))
    broken = folder.manifests / B.path
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"{")

    folder.forget_handed_over(-10.0)
    assert folder.blob(digest_of(b"sent")).exists()
    broken.unlink()
    folder.forget_handed_over(-10.0)

    assert not folder.blob(digest_of(b"sent")).exists()
