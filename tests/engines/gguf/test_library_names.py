"""Names of manifests and caches in the library, beside plain files."""

from pathlib import Path

import pytest

from engines.errors import ModelNotFound, Unavailable
from engines.gguf.files.folder import ModelFolder
from engines.gguf.files.hugging_face_cache import HuggingFaceCache
from engines.gguf.library import Library
from tests.engines.gguf.files.test_hugging_face_cache import put as put_in_cache
from tests.engines.gguf.ollama_folder import everything, put_blob, put_model

LIBRARY = "registry.ollama.ai/library"


@pytest.fixture
def ollama(tmp_path: Path) -> Path:
    folder = tmp_path / "ollama"
    put_model(folder, f"{LIBRARY}/tiny/latest", {"model": b"GGUF tiny", "system": b"be kind"})
    put_model(folder, f"{LIBRARY}/tiny/Q8", {"model": b"GGUF tiny q8"})
    put_model(folder, "hf.co/Org/Repo/Q4_0", {"model": b"GGUF repo"})
    return folder


def test_an_ollama_folder_is_served_as_it_stands_without_a_byte_copied(
    ollama: Path, tmp_path: Path
) -> None:
    before = everything(ollama)
    library = Library(tmp_path / "ours", {}, also=[ModelFolder(ollama, is_writable=False)])

    assert [file.name for file in library.list()] == [
        "hf.co/Org/Repo:Q4_0",
        "tiny:Q8",
        "tiny:latest",
    ]
    found = library.look_up("tiny")
    assert found.name == "tiny:latest"
    assert found.path.parent == (ollama / "blobs").resolve()
    assert found.path.read_bytes() == b"GGUF tiny"
    assert found.size_bytes == len(b"GGUF tinybe kind") + 46
    assert everything(ollama) == before
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize(
    "spelling", ["tiny:q8", "TINY:Q8", "library/tiny:Q8", f"{LIBRARY}/tiny:Q8"]
)
def test_every_spelling_of_a_name_leads_to_the_one_that_is_listed(
    ollama: Path, spelling: str
) -> None:
    library = Library(ollama, {})

    assert library.look_up(spelling).name == "tiny:Q8"


def test_a_plain_file_goes_before_a_name_of_the_same_spelling(ollama: Path) -> None:
    (ollama / "tiny.gguf").write_bytes(b"GGUF plain")
    library = Library(ollama, {})

    assert library.find("tiny").read_bytes() == b"GGUF plain"
    assert library.find("tiny:latest").read_bytes() == b"GGUF tiny"
    assert [file.name for file in library.list()][1:] == ["tiny", "tiny:Q8", "tiny:latest"]


def test_our_own_folder_goes_before_ollamas(ollama: Path, tmp_path: Path) -> None:
    put_model(tmp_path / "ours", f"{LIBRARY}/tiny/latest", {"model": b"GGUF ours"})
    library = Library(tmp_path / "ours", {}, also=[ModelFolder(ollama, is_writable=False)])

    assert library.find("tiny").read_bytes() == b"GGUF ours"
    assert len([file for file in library.list() if file.name == "tiny:latest"]) == 1


def test_a_model_with_a_missing_blob_says_so_and_is_not_listed(ollama: Path) -> None:
    digest, _ = put_blob(ollama, b"be kind")
    (ollama / "blobs" / digest.replace(":", "-")).unlink()
    library = Library(ollama, {})

    with pytest.raises(Unavailable, match=f"'tiny:latest' is incomplete: blob {digest}"):
        library.find("tiny")
    assert [file.name for file in library.list()] == ["hf.co/Org/Repo:Q4_0", "tiny:Q8"]


def test_a_manifest_that_points_outside_is_refused(ollama: Path) -> None:
    path = put_model(ollama, f"{LIBRARY}/evil/latest", {"model": b"GGUF"})
    digest, _ = put_blob(ollama, b"GGUF")
    path.write_text(path.read_text().replace(digest, "sha256:../../../../etc/passwd"))
    library = Library(ollama, {})

    with pytest.raises(Unavailable, match="is not sha256:"):
        library.find("evil")


def test_a_manifest_without_weights_is_no_model(ollama: Path) -> None:
    put_model(ollama, f"{LIBRARY}/words/latest", {"system": b"be kind"})

    with pytest.raises(Unavailable, match="has no layer that is a GGUF model"):
        Library(ollama, {}).find("words")


def test_files_of_a_hugging_face_cache_are_used_in_place(tmp_path: Path) -> None:
    blob = put_in_cache(tmp_path / "hub", "Org/Tiny-GGUF", "tiny-Q4_0.gguf", b"GGUF cached")
    library = Library(tmp_path / "ours", {}, cache=HuggingFaceCache(tmp_path / "hub"))

    assert [file.name for file in library.list()] == ["hf.co/Org/Tiny-GGUF:Q4_0"]
    assert library.find("hf.co/org/tiny-gguf:q4_0") == blob.resolve()


@pytest.mark.parametrize("name", ["../tiny", "tiny:../Q8", "blobs/x", "a/b/c/d", "tiny\0"])
def test_a_name_that_is_none_is_answered_like_any_unknown_one(ollama: Path, name: str) -> None:
    with pytest.raises(ModelNotFound, match="there is no model"):
        Library(ollama, {}).find(name)


def test_an_unknown_tag_is_answered_with_the_nearest_name(ollama: Path) -> None:
    with pytest.raises(ModelNotFound) as refused:
        Library(ollama, {}).find("tiny:Q9")

    assert refused.value.message == "there is no model 'tiny:Q9' (did you mean 'tiny:Q8'?)"


def test_links_in_the_blobs_folder_are_followed(tmp_path: Path) -> None:
    put_model(tmp_path / "disk", f"{LIBRARY}/tiny/latest", {"model": b"GGUF"})
    (tmp_path / "models").mkdir()
    for name in ("blobs", "manifests"):
        (tmp_path / "models" / name).symlink_to(tmp_path / "disk" / name)

    assert Library(tmp_path / "models", {}).find("tiny").read_bytes() == b"GGUF"
