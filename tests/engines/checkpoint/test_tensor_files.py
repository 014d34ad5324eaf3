"""What is wrong with weight files is found in their headers, and named."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from engines.checkpoint.checkpoint_errors import CheckpointUnavailable, CheckpointUnsupported
from engines.checkpoint.tensor_files import INDEX, SINGLE, read_entries, read_header


def write(path: Path, header: Any, data: bytes = b"") -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def entry(begin: int, end: int, **changes: Any) -> dict[str, Any]:
    count = (end - begin) // 4
    return {"dtype": "F32", "shape": [count], "data_offsets": [begin, end], **changes}


def test_a_file_by_safetensors_itself_is_read(tmp_path: Path):
    weights = {"b": torch.zeros(3, 2), "a": torch.zeros(5, dtype=torch.bfloat16)}
    save_file(weights, tmp_path / SINGLE, metadata={"format": "pt"})

    entries = read_entries(tmp_path)

    assert {name: (each.dtype, each.shape) for name, each in entries.items()} == {
        "a": ("BF16", (5,)),
        "b": ("F32", (3, 2)),
    }


@pytest.mark.parametrize("kept", [0, 7, 8, 40, 100])
def test_a_file_that_was_cut_short_is_named(tmp_path: Path, kept: int):
    save_file({"a": torch.zeros(100)}, tmp_path / SINGLE)
    content = (tmp_path / SINGLE).read_bytes()
    (tmp_path / SINGLE).write_bytes(content[:kept])

    with pytest.raises(CheckpointUnavailable, match=r"model.safetensors .*download it again"):
        read_entries(tmp_path)


def test_a_file_that_is_too_long_is_named(tmp_path: Path):
    save_file({"a": torch.zeros(100)}, tmp_path / SINGLE)
    with (tmp_path / SINGLE).open("ab") as file:
        file.write(b"more")

    with pytest.raises(
        CheckpointUnavailable, match=r"404 bytes of weights, but its header says 400"
    ):
        read_entries(tmp_path)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"{broken", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        ([1, 2], "no JSON object"),
        ({"a": 3}, "expected dtype, shape and data_offsets"),
        ({"a": {"dtype": "F32", "shape": [1]}}, "expected dtype, shape and data_offsets"),
        ({"a": entry(0, 8, shape=[3])}, r"tensor 'a' is F32 \[3\], but its data_offsets"),
        ({"a": entry(0, 8, shape=[-2])}, "tensor 'a'"),
        ({"a": entry(0, 8, shape=["2"])}, "tensor 'a'"),
        ({"a": entry(0, 8, shape=[2.0])}, "tensor 'a'"),
        ({"a": entry(4, 8)}, "begins at byte 4, but the one before it ends at 0"),
        ({"a": entry(0, 8), "b": entry(4, 12)}, "begins at byte 4"),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path: Path, header: Any, message: str):
    write(tmp_path / SINGLE, header, bytes(12))

    with pytest.raises(CheckpointUnavailable, match=message):
        read_header(tmp_path / SINGLE)


def test_a_folder_with_pickles_only_is_refused_with_the_way_out(tmp_path: Path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"")

    with pytest.raises(CheckpointUnsupported, match=r"pytorch_model.bin .*pickle.*safetensors"):
        read_entries(tmp_path)


def test_a_folder_with_gguf_only_is_sent_to_the_other_engine(tmp_path: Path):
    (tmp_path / "model.gguf").write_bytes(b"")

    with pytest.raises(CheckpointUnsupported, match='kind = "gguf"'):
        read_entries(tmp_path)


def test_a_folder_without_weights_is_refused(tmp_path: Path):
    with pytest.raises(CheckpointUnavailable, match=f"{SINGLE} is missing, and so is {INDEX}"):
        read_entries(tmp_path)


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ({"a": "one.safetensors", "b": "two.safetensors"}, "two.safetensors is missing"),
        ({"a": "one.safetensors", "c": "one.safetensors"}, "'c' is in one.safetensors, which does"),
        ({"a": "../one.safetensors"}, "not the name of a safetensors file in this folder"),
        ({"a": "/etc/passwd"}, "not the name of a safetensors file in this folder"),
        ({}, "weight_map is {}; expected an object"),
        ([], "weight_map is .*; expected an object"),
    ],
)
def test_an_index_that_lies_is_refused(tmp_path: Path, places: Any, message: str):
    save_file({"a": torch.zeros(2)}, tmp_path / "one.safetensors")
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": places}))

    with pytest.raises(CheckpointUnavailable, match=message):
        read_entries(tmp_path)


def test_an_index_that_is_no_json_is_refused(tmp_path: Path):
    (tmp_path / INDEX).write_text("{")

    with pytest.raises(CheckpointUnavailable, match=f"{INDEX} is not valid JSON"):
        read_entries(tmp_path)
