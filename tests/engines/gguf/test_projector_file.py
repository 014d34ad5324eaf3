"""A projector that could end the process never reaches llama.cpp."""

from pathlib import Path

import pytest

from engines.gguf.byte_reader import MalformedGguf
from engines.gguf.projector_file import check_projector
from tests.engines.gguf.projector_files import write_projector
from tests.gguf_files import write_gguf


def test_a_projector_is_let_through(tmp_path: Path) -> None:
    check_projector(write_projector(tmp_path / "p.gguf"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("block_count", 0),
        ("block_count", 2**31),
        ("image_size", 0),
        ("image_size", 2**20),
        ("patch_size", 0),
        ("patch_size", 64),
        ("attention.head_count", 0),
        ("attention.head_count", 5),
        ("embedding_length", "wide"),
        ("projection_dim", True),
    ],
)
def test_numbers_that_no_projector_has_are_refused_by_name(
    tmp_path: Path, key: str, value: object
) -> None:
    path = write_projector(tmp_path / "p.gguf", **{f"clip.vision.{key}": value})

    with pytest.raises(MalformedGguf, match=rf"clip\.vision\.{key}"):
        check_projector(path)


def test_what_is_no_projector_for_pictures_is_refused(tmp_path: Path) -> None:
    deaf = write_projector(tmp_path / "p.gguf", **{"clip.has_vision_encoder": False})

    with pytest.raises(MalformedGguf, match="is a projector, but not for pictures"):
        check_projector(deaf)
    with pytest.raises(MalformedGguf, match="is no vision projector"):
        check_projector(write_gguf(tmp_path / "model.gguf"))
