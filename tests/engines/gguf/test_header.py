"""What a model file says of its model: read where it can be true, refused by name where not."""

import struct
import tracemalloc
from pathlib import Path
from typing import Any

import gguf
import pytest

from engines.gguf.file_format import read_file
from engines.gguf.header import MalformedGguf, read_header
from tests.engines.gguf.gguf_bytes import (
    ARRAY,
    BOOL,
    FLOAT32,
    INT32,
    STRING,
    UINT32,
    UINT64,
    array,
    gguf_bytes,
    sound_metadata,
    tensor,
    value,
)
from tests.gguf_files import CHATML, write_gguf


def test_a_real_model_file_is_described(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "real.gguf", name="Real", context_tokens=256)

    header = read_header(path)

    assert header.architecture == "llama"
    assert header.name == "Real"
    assert header.num_blocks == 2
    assert header.context_tokens == 256
    assert header.embedding_length == 64
    assert header.quantization == "q8_0"
    assert header.chat_template == CHATML
    assert header.pooling_type is None
    assert not header.is_embedding_model
    assert header.size_bytes == path.stat().st_size


def test_the_counts_agree_with_the_reader_of_the_gguf_package(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "real.gguf", quantization="f16")
    theirs = gguf.GGUFReader(path)

    file, header = read_file(path), read_header(path)

    tokens = theirs.get_field("tokenizer.ggml.tokens")
    assert tokens is not None
    assert header.num_tokens == len(tokens.data)
    assert header.num_parameters == sum(int(tensor.n_elements) for tensor in theirs.tensors)
    assert [(t.name, t.size_bytes, file.data_offset + t.offset) for t in file.tensors] == [
        (t.name, int(t.n_bytes), int(t.data_offset)) for t in theirs.tensors
    ]


@pytest.mark.parametrize(
    ("pooling", "embeds"),
    [(gguf.PoolingType.LAST, True), (gguf.PoolingType.NONE, False), (gguf.PoolingType.RANK, True)],
)
def test_a_model_made_to_embed_says_so(
    tmp_path: Path, pooling: gguf.PoolingType, embeds: bool
) -> None:
    header = read_header(write_gguf(tmp_path / "embed.gguf", pooling=pooling))

    assert header.pooling_type == pooling.name.lower()
    assert header.is_embedding_model is embeds


def test_the_quantization_falls_back_to_the_type_of_most_tensor_bytes(save: Any) -> None:
    tensors = [tensor("token_embd.weight", kind=1), tensor("x", (32,), offset=256)]

    header = read_header(save(gguf_bytes(tensors=tensors)))

    assert header.quantization == "f16"


def test_empty_tokens_are_not_one_token_many_times(save: Any) -> None:
    metadata = sound_metadata() | {"tokenizer.ggml.tokens": array(STRING, ["a", "", "", ""])}

    assert read_header(save(gguf_bytes(metadata))).num_tokens == 4


def test_long_strings_are_left_out_of_the_shown_metadata(save: Any) -> None:
    metadata = sound_metadata() | {"general.license.text": value(STRING, "x" * 5000)}

    header = read_header(save(gguf_bytes(metadata)))

    assert "general.license.text" not in header.metadata
    assert header.metadata["general.name"] == "Tiny"


def test_a_vocabulary_of_150_000_tokens_costs_less_memory_than_its_file_is_long(
    tmp_path: Path,
) -> None:
    path = write_gguf(tmp_path / "large.gguf", extra_tokens=150_000)

    tracemalloc.start()
    header = read_header(path)
    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert header.num_tokens > 150_000
    assert most_bytes < path.stat().st_size


WRONG_METADATA: dict[str, tuple[str, bytes | None, str]] = {
    "no architecture": ("general.architecture", None, "missing"),
    "architecture is a number": ("general.architecture", value(UINT32, 1), "a string"),
    "architecture is a path": ("general.architecture", value(STRING, "../llama"), "../llama"),
    "architecture is empty": ("general.architecture", value(STRING, ""), "''"),
    "no blocks": ("llama.block_count", value(UINT32, 0), "1 to 512"),
    "a million blocks": ("llama.block_count", value(UINT32, 10**6), "1000000"),
    "2^32-1 blocks": ("llama.block_count", value(UINT32, 2**32 - 1), "4294967295"),
    "negative blocks": ("llama.block_count", value(INT32, -1), "-1"),
    "block count is a bool": ("llama.block_count", value(BOOL, 1), "True"),
    "block count is a string": ("llama.block_count", value(STRING, "2"), "1 to 512"),
    "block count is an array": ("llama.block_count", array(UINT32, [2]), "a single value"),
    "block count missing": ("llama.block_count", None, "missing"),
    "no width": ("llama.embedding_length", value(UINT32, 0), "embedding_length is 0"),
    "huge width": ("llama.embedding_length", value(UINT64, 2**63), "embedding_length"),
    "width that is not the weights'": ("llama.embedding_length", value(UINT32, 64), "(64, 4)"),
    "no context": ("llama.context_length", value(UINT32, 0), "context_length is 0"),
    "endless context": ("llama.context_length", value(UINT32, 2**32 - 1), "context_length"),
    "heads do not divide": ("llama.attention.head_count", value(UINT32, 5), "a divisor of"),
    "kv heads do not divide": ("llama.attention.head_count_kv", value(UINT32, 3), "head_count 4"),
    "too few heads in array": ("llama.attention.head_count", array(UINT32, [4]), "one for each"),
    "heads as reals": ("llama.attention.head_count", array(FLOAT32, [4.0, 4.0]), "for each block"),
    "experts used of none": ("llama.expert_used_count", value(UINT32, 2), "0 to 0"),
    "too many experts": ("llama.expert_count", value(UINT32, 5000), "0 to 1024"),
    "experts never used": ("llama.expert_count", value(UINT32, 8), "1 to 8"),
    "more predicted layers than layers": ("llama.nextn_predict_layers", value(UINT32, 3), "0 to 2"),
    "pooling unknown": ("llama.pooling_type", value(UINT32, 9), "0 to 4"),
    "negative epsilon": (
        "llama.attention.layer_norm_rms_epsilon",
        value(FLOAT32, -1.0),
        "at least 0",
    ),
    "epsilon not a number": (
        "llama.attention.layer_norm_rms_epsilon",
        value(FLOAT32, float("nan")),
        "finite",
    ),
    "rope base infinite": ("llama.rope.freq_base", value(FLOAT32, float("inf")), "finite"),
    "rope scaling unknown": ("llama.rope.scaling.type", value(STRING, "magic"), "magic"),
    "causal is a number": ("llama.attention.causal", value(UINT32, 1), "a bool"),
    "no vocabulary": ("tokenizer.ggml.tokens", None, "the model's vocabulary"),
    "empty vocabulary": ("tokenizer.ggml.tokens", array(STRING, []), "the model's vocabulary"),
    "a token twice": ("tokenizer.ggml.tokens", array(STRING, [*"abca"]), "3 differ"),
    "a token twice up to its NUL": (
        "tokenizer.ggml.tokens",
        array(STRING, ["a", "a\0b", "c", "d"]),
        "3 differ",
    ),
    "vocabulary of numbers": ("tokenizer.ggml.tokens", array(UINT32, [1] * 4), "array of string"),
    "vocabulary is a string": ("tokenizer.ggml.tokens", value(STRING, "abcd"), "an array"),
    "vocabulary that is not the weights'": ("tokenizer.ggml.tokens", array(STRING, ["a"]), "tok"),
    "too few scores": ("tokenizer.ggml.scores", array(FLOAT32, [0.0]), "as many as tokens, 4"),
    "too many types": ("tokenizer.ggml.token_type", array(INT32, [1] * 5), "as many as tokens, 4"),
    "types as bytes": ("tokenizer.ggml.token_type", array(0, [1] * 4), "array of int32"),
    "merges as numbers": ("tokenizer.ggml.merges", array(UINT32, [1]), "array of string"),
    "no tokenizer": ("tokenizer.ggml.model", None, "missing"),
    "template is a number": ("tokenizer.chat_template", value(UINT32, 3), "a string"),
    "template too long": ("tokenizer.chat_template", value(STRING, "x" * 2**21), "at most"),
    "part of a split model": ("split.count", value(UINT32, 3), "llama-gguf-split --merge"),
    "an adapter": ("general.type", value(STRING, "adapter"), "of type 'adapter'"),
    "a projector": ("general.architecture", value(STRING, "clip"), "vision projector"),
    "alignment 0": ("general.alignment", value(UINT32, 0), "a power of two"),
    "alignment 48": ("general.alignment", value(UINT32, 48), "a power of two"),
    "alignment 2^31": ("general.alignment", value(UINT32, 2**31), "a power of two"),
    "alignment is a string": ("general.alignment", value(STRING, "32"), "a uint32"),
    "alignment is an array": ("general.alignment", array(UINT32, [32]), "a uint32"),
    "text that is not UTF-8": ("general.name", value(STRING, b"\xff\xfe"), "valid UTF-8"),
    "a bool of 7": ("tokenizer.ggml.add_bos_token", value(BOOL, 7), "a bool, 0 or 1"),
    "an unknown type": ("general.x", struct.pack("<I", 13), "a number from 0 to 12"),
    "an array of arrays": ("general.x", array(ARRAY, [], 1), "a scalar or string type"),
    "an array that claims 2^60 items": ("general.x", array(UINT32, [], 2**60), "at most"),
    "an array past the end": ("general.x", array(UINT32, [], 10**6), "a file of at most"),
    "a string past the end": (
        "general.x",
        struct.pack("<IQ", STRING, 2**24),
        "the end of general.x",
    ),
    "a string of 2^64-1 bytes": ("general.x", struct.pack("<IQ", STRING, 2**64 - 1), "at most"),
    "strings of 2^63 bytes": (
        "general.x",
        array(STRING, [], 5) + struct.pack("<Q", 2**63),
        "string 0 of array 'general.x'",
    ),
    "a key with a NUL": ("general\0x", value(UINT32, 1), "without NUL"),
    "an empty key": ("", value(UINT32, 1), "at least one character"),
    "a key of 2000 bytes": ("k" * 2000, value(UINT32, 1), "at most 1024"),
}


@pytest.mark.parametrize("case", WRONG_METADATA)
def test_wrong_metadata_is_refused_by_name(case: str, save: Any) -> None:
    key, body, said = WRONG_METADATA[case]
    metadata = sound_metadata()
    if body is None:
        del metadata[key]
    else:
        metadata[key] = body

    with pytest.raises(MalformedGguf) as refused:
        read_header(save(gguf_bytes(metadata)))

    assert said in refused.value.message
    assert refused.value.message.startswith("model.gguf: ")
    assert refused.value.message.isprintable()
    assert len(refused.value.message) < 400
