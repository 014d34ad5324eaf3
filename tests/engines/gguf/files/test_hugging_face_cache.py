"""GGUF files of a Hugging Face cache, found where other programs put them."""

import hashlib
from pathlib import Path

import pytest

from engines.gguf.files.hugging_face_cache import HuggingFaceCache, quantization_of

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def put(cache: Path, repository: str, file: str, content: bytes, commit: str = COMMIT) -> Path:
    """One file as huggingface-hub keeps it."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    blob = folder / "blobs" / hashlib.sha256(content).hexdigest()
    link = folder / "snapshots" / commit / file
    for path in (blob, link, folder / "refs" / "main"):
        path.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(content)
    link.symlink_to(blob)
    (folder / "refs" / "main").write_text(COMMIT)
    return blob


def test_files_are_models_named_by_repository_and_quantization(tmp_path: Path) -> None:
    put(tmp_path, "Org/Tiny-GGUF", "tiny-q4_k_m.gguf", b"1")
    put(tmp_path, "Org/Tiny-GGUF", "tiny.Q8_0.gguf", b"2")
    put(tmp_path, "Org/Tiny-GGUF", "old-Q2_K.gguf", b"3", commit="f" * 40)
    put(tmp_path, "Org/Tiny-GGUF", "README.md", b"4")
    put(tmp_path, "Org/Parts", "big-Q4_0-00001-of-00002.gguf", b"5")
    put(tmp_path, "Org/Parts", "big-Q4_0-00002-of-00002.gguf", b"6")

    paths = HuggingFaceCache(tmp_path).paths()

    assert {name: path.read_bytes() for name, path in paths.items()} == {
        "hf.co/Org/Tiny-GGUF:Q4_K_M": b"1",
        "hf.co/Org/Tiny-GGUF:Q8_0": b"2",
        "hf.co/Org/Parts:Q4_0": b"5",
    }


def test_two_files_of_one_quantization_both_have_a_name(tmp_path: Path) -> None:
    put(tmp_path, "Org/Two", "base-Q4_0.gguf", b"1")
    put(tmp_path, "Org/Two", "chat-Q4_0.gguf", b"2")

    assert sorted(HuggingFaceCache(tmp_path).paths()) == [
        "hf.co/Org/Two:Q4_0",
        "hf.co/Org/Two:chat-Q4_0",
    ]


def test_a_broken_cache_is_an_empty_one(tmp_path: Path) -> None:
    put(tmp_path, "Org/Bad", "x-Q4_0.gguf", b"1")
    (tmp_path / "models--Org--Bad" / "refs" / "main").write_text("../../../..")

    assert HuggingFaceCache(tmp_path).paths() == {}
    assert HuggingFaceCache(tmp_path / "nowhere").paths() == {}


def test_a_blob_is_found_by_its_digest(tmp_path: Path) -> None:
    blob = put(tmp_path, "Org/Tiny", "x-Q4_0.gguf", b"1")
    cache = HuggingFaceCache(tmp_path)

    assert cache.blob(blob.name) == blob
    assert cache.blob("0" * 64) is None


@pytest.mark.parametrize(
    ("file", "quantization"),
    [
        ("Qwen3-8B-Q4_K_M.gguf", "Q4_K_M"),
        ("sub/model.q8_0.gguf", "Q8_0"),
        ("m-UD-IQ2_XXS.gguf", "UD-IQ2_XXS"),
        ("m-BF16-00001-of-00002.gguf", "BF16"),
        ("gpt-oss-20b-MXFP4.gguf", "MXFP4"),
        ("Qwen3-8B.gguf", None),
        ("tinyllama.gguf", None),
    ],
)
def test_a_quantization_is_read_off_a_files_name(file: str, quantization: str | None) -> None:
    assert quantization_of(file) == quantization
