"""Names and files: what is found, what never is."""

import os
import time
from pathlib import Path

import pytest

from engines.errors import ModelNotFound
from engines.gguf.files import plain
from engines.gguf.library import Library

LONG_AGO = 1_000_000_000.0


def put(path: Path, content: bytes = b"GGUF") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def names(library: Library) -> list[str]:
    return [file.name for file in library.list()]


def settle(directory: Path) -> None:
    for found in (directory, *directory.rglob("*")):
        if found.is_dir():
            os.utime(found, (LONG_AGO, LONG_AGO))


def test_a_name_is_the_path_below_the_directory_without_its_ending(tmp_path: Path) -> None:
    small = put(tmp_path / "small.gguf", b"GGUF1234")
    put(tmp_path / "acme" / "chat" / "v1.5.gguf")
    put(tmp_path / "LOUD.GGUF")
    put(tmp_path / "notes.txt")
    put(tmp_path / "half.gguf.part")
    put(tmp_path / ".hidden.gguf")
    put(tmp_path / ".git" / "deep.gguf")
    library = Library(tmp_path, {})

    files = {file.name: file for file in library.list()}

    assert list(files) == ["LOUD", "acme/chat/v1.5", "small"]
    assert files["small"].path == small.resolve()
    assert files["small"].size_bytes == 8
    assert abs(files["small"].modified_at - time.time()) < 60
    assert library.find("acme/chat/v1.5") == (tmp_path / "acme/chat/v1.5.gguf").resolve()


def test_files_with_names_of_their_own_are_listed_too_and_win(tmp_path: Path) -> None:
    put(tmp_path / "models" / "starter.gguf")
    own = put(tmp_path / "package" / "weights.gguf")
    library = Library(tmp_path / "models", {"starter": own})

    assert names(library) == ["starter"]
    assert library.find("starter") == own.resolve()
    assert Library(None, {"starter": own}).find("starter") == own.resolve()


def test_a_name_almost_right_is_answered_with_the_nearest(tmp_path: Path) -> None:
    put(tmp_path / "qwen3-8b.gguf")

    with pytest.raises(ModelNotFound) as refused:
        Library(tmp_path, {}).find("qwen3-8")

    assert refused.value.message == "there is no model 'qwen3-8' (did you mean 'qwen3-8b'?)"
    assert refused.value.model == "qwen3-8"


@pytest.mark.parametrize(
    "name",
    ["../secret", "/etc/passwd", "{outside}", "sub/../../secret", "..", "", "a\0b", "x" * 10_000],
)
def test_a_name_that_points_outside_is_answered_like_any_unknown_name(
    tmp_path: Path, name: str
) -> None:
    secret = put(tmp_path / "secret.gguf")
    (tmp_path / "models" / "sub").mkdir(parents=True)
    library = Library(tmp_path / "models", {})
    name = name.replace("{outside}", str(secret.with_suffix("")))

    with pytest.raises(ModelNotFound) as refused:
        library.find(name)

    message = refused.value.message
    assert message.startswith("there is no model ")
    assert len(message) < 200
    secret.unlink()
    with pytest.raises(ModelNotFound) as again:
        library.find(name)
    assert again.value.message == message


def test_links_to_files_are_resolved(tmp_path: Path) -> None:
    blob = put(tmp_path / "blobs" / "sha256-abc")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "linked.gguf").symlink_to(blob)

    assert Library(tmp_path / "models", {}).find("linked") == blob.resolve()


def test_what_is_no_regular_file_is_not_a_model(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    (tmp_path / "zeros.gguf").symlink_to("/dev/zero")
    (tmp_path / "dangling.gguf").symlink_to(tmp_path / "gone")
    (tmp_path / "loop.gguf").symlink_to(tmp_path / "loop.gguf")
    (tmp_path / "folder.gguf").mkdir()
    library = Library(tmp_path, {"device": Path("/dev/zero")})

    assert names(library) == []
    for name in ("pipe", "zeros", "dangling", "loop", "folder", "device"):
        with pytest.raises(ModelNotFound):
            library.find(name)


def test_directories_that_contain_themselves_are_walked_once(tmp_path: Path) -> None:
    put(tmp_path / "a" / "model.gguf")
    (tmp_path / "a" / "again").symlink_to(tmp_path)

    assert names(Library(tmp_path, {})) == ["a/model"]


def test_files_too_deep_are_left_alone(tmp_path: Path) -> None:
    deepest = tmp_path.joinpath(*["d"] * plain.MAX_DEPTH)
    put(deepest / "seen.gguf")
    put(deepest / "d" / "unseen.gguf")

    assert [name.rpartition("/")[2] for name in names(Library(tmp_path, {}))] == ["seen"]


def test_a_directory_that_is_not_there_has_no_models(tmp_path: Path) -> None:
    library = Library(tmp_path / "later", {})
    assert names(library) == []

    put(tmp_path / "later" / "new.gguf")

    assert names(library) == ["new"]


def test_an_unchanged_directory_is_not_scanned_again(tmp_path: Path) -> None:
    put(tmp_path / "sub" / "one.gguf")
    settle(tmp_path)
    library = Library(tmp_path, {})
    assert names(library) == ["sub/one"]

    put(tmp_path / "sub" / "unseen.gguf")
    settle(tmp_path)  # as if nothing had changed

    assert names(library) == ["sub/one"]


def test_a_new_file_is_seen_at_the_next_look(tmp_path: Path) -> None:
    put(tmp_path / "sub" / "one.gguf")
    settle(tmp_path)
    library = Library(tmp_path, {})
    assert names(library) == ["sub/one"]

    put(tmp_path / "sub" / "two.gguf")

    assert names(library) == ["sub/one", "sub/two"]


def test_a_listing_made_right_after_a_change_is_not_kept(tmp_path: Path) -> None:
    put(tmp_path / "one.gguf")
    settle(tmp_path)
    library = Library(tmp_path, {}, now=lambda: LONG_AGO + 1)
    assert names(library) == ["one"]

    put(tmp_path / "two.gguf")
    settle(tmp_path)  # the same tick of the file system's clock

    assert names(library) == ["one", "two"]


def test_a_file_that_grew_in_place_has_its_new_size(tmp_path: Path) -> None:
    path = put(tmp_path / "one.gguf", b"GGUF")
    settle(tmp_path)
    library = Library(tmp_path, {})
    assert library.list()[0].size_bytes == 4

    with path.open("ab") as file:
        file.write(b"more")

    assert library.list()[0].size_bytes == 8


def test_a_deleted_file_is_gone_even_before_the_next_scan(tmp_path: Path) -> None:
    path = put(tmp_path / "one.gguf")
    library = Library(None, {"one": path})
    assert names(library) == ["one"]

    path.unlink()

    assert names(library) == []
    with pytest.raises(ModelNotFound):
        library.find("one")
