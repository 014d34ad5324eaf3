"""The corpus of lies: each file is either read or refused in words, in bounded time and memory."""

import os
import struct
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engines.gguf.file_format import MAX_ARRAY_ITEMS, read_file
from engines.gguf.header import MalformedGguf, read_header
from engines.gguf.tensor_types import TENSOR_TYPES
from tests.gguf_files import CHATML, write_gguf

UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY, UINT64 = 4, 5, 6, 7, 8, 9, 10
LAYOUTS = {0: "<B", 1: "<b", 4: "<I", 5: "<i", 6: "<f", 7: "<B", 10: "<Q", 12: "<d"}


def packed(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data)) + data


def value(value_type: int, content: Any) -> bytes:
    """A metadata value as bytes, its type first."""
    if value_type == STRING:
        return struct.pack("<I", STRING) + packed(content)
    return struct.pack("<I", value_type) + struct.pack(LAYOUTS[value_type], content)


def array(item_type: int, items: list[Any], length: int | None = None) -> bytes:
    head = struct.pack("<IIQ", ARRAY, item_type, len(items) if length is None else length)
    if item_type == STRING:
        return head + b"".join(packed(item) for item in items)
    return head + b"".join(struct.pack(LAYOUTS[item_type], item) for item in items)


def tensor(
    name: str | bytes, shape: tuple[int, ...] = (32, 4), kind: int = 0, offset: int = 0
) -> bytes:
    sizes = struct.pack(f"<{len(shape)}Q", *shape)
    return packed(name) + struct.pack("<I", len(shape)) + sizes + struct.pack("<IQ", kind, offset)


def sound_metadata() -> dict[str, bytes]:
    return {
        "general.architecture": value(STRING, "llama"),
        "general.name": value(STRING, "Tiny"),
        "llama.block_count": value(UINT32, 2),
        "llama.embedding_length": value(UINT32, 32),
        "llama.context_length": value(UINT32, 128),
        "llama.attention.head_count": value(UINT32, 4),
        "llama.attention.head_count_kv": value(UINT32, 2),
        "llama.attention.layer_norm_rms_epsilon": value(FLOAT32, 1e-5),
        "tokenizer.ggml.model": value(STRING, "gpt2"),
        "tokenizer.ggml.tokens": array(STRING, ["a", "b", "c", "d"]),
        "tokenizer.ggml.token_type": array(INT32, [1, 1, 1, 1]),
        "tokenizer.ggml.scores": array(FLOAT32, [0.0] * 4),
    }


def gguf_bytes(
    metadata: dict[str, bytes] | None = None,
    tensors: list[bytes] | None = None,
    *,
    version: int = 3,
    num_tensors: int | None = None,
    num_keys: int | None = None,
    data: bytes = bytes(512),
    alignment: int = 32,
) -> bytes:
    metadata = sound_metadata() if metadata is None else metadata
    tensors = [tensor("token_embd.weight")] if tensors is None else tensors
    head = b"GGUF" + struct.pack(
        "<IQQ",
        version,
        len(tensors) if num_tensors is None else num_tensors,
        len(metadata) if num_keys is None else num_keys,
    )
    head += b"".join(packed(key) + body for key, body in metadata.items()) + b"".join(tensors)
    return head + bytes(-len(head) % alignment) + data


@pytest.fixture
def save(tmp_path: Path) -> Callable[[bytes], Path]:
    def save(content: bytes) -> Path:
        path = tmp_path / "model.gguf"
        path.write_bytes(content)
        return path

    return save


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


def test_the_block_sizes_are_those_of_the_gguf_package() -> None:
    theirs = {
        int(kind): (kind.name.lower(), *sizes)
        for kind, sizes in gguf.constants.GGML_QUANT_SIZES.items()
        if kind.name not in ("Q8_1", "Q8_K")
    }

    ours = {
        number: (kind.name, kind.block_items, kind.block_bytes)
        for number, kind in TENSOR_TYPES.items()
    }

    assert theirs.items() <= ours.items()


@pytest.mark.parametrize(
    ("pooling", "embeds"),
    [(gguf.PoolingType.LAST, True), (gguf.PoolingType.NONE, False), (gguf.PoolingType.RANK, False)],
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


def test_long_strings_are_left_out_of_the_shown_metadata(save: Any) -> None:
    metadata = sound_metadata() | {"general.license.text": value(STRING, "x" * 5000)}

    header = read_header(save(gguf_bytes(metadata)))

    assert "general.license.text" not in header.metadata
    assert header.metadata["general.name"] == "Tiny"


def test_a_vocabulary_of_150_000_tokens_is_read_in_a_third_of_a_second(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "large.gguf", extra_tokens=150_000)

    seconds = min(timed(lambda: read_header(path)) for _ in range(3))

    assert seconds < 0.3


def timed(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


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


WRONG_TENSORS: dict[str, tuple[list[bytes], str]] = {
    "none": ([], "has no tensors"),
    "no name": ([tensor("")], "at least one character"),
    "a name of 64 bytes": ([tensor("n" * 64)], "at most 63"),
    "a name with a NUL": ([tensor("a\0b")], "without NUL"),
    "a name twice": ([tensor("a"), tensor("a", offset=512)], "not used before"),
    "no dimensions": ([tensor("a", ())], "1 to 4"),
    "five dimensions": ([tensor("a", (32, 1, 1, 1, 1))], "1 to 4"),
    "a size of 0": ([tensor("a", (32, 0))], "positive sizes"),
    "a negative size": ([tensor("a", (32, 2**64 - 4))], "below 2^63"),
    "a product over 2^63": ([tensor("a", (2**32, 2**32))], "below 2^63"),
    "a product that wraps to 0": ([tensor("a", (2**32, 2**32, 2**32, 2))], "below 2^63"),
    "a type removed long ago": ([tensor("a", kind=4)], "a ggml type"),
    "a type out of range": ([tensor("a", kind=2**31)], "a ggml type"),
    "a row that is no whole block": ([tensor("a", (33, 4), kind=8)], "a multiple of 32"),
    "an offset that is not aligned": ([tensor("a", offset=5)], "expected 0"),
    "an offset past the end": ([tensor("a", offset=2**63)], "expected 0"),
    "two in one place": ([tensor("a"), tensor("b")], "expected 512"),
    "a gap": ([tensor("a"), tensor("b", offset=1024)], "expected 512"),
    "an end past the file": ([tensor("a", (32, 400))], "cut off or lies"),
    "an embedding of another shape": ([tensor("token_embd.weight", (32, 2))], "(32, 4)"),
}


@pytest.mark.parametrize("case", WRONG_TENSORS)
def test_wrong_tensors_are_refused_by_name(case: str, save: Any) -> None:
    tensors, said = WRONG_TENSORS[case]

    with pytest.raises(MalformedGguf) as refused:
        read_header(save(gguf_bytes(tensors=tensors)))

    assert said in refused.value.message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "a file of at most 0"),
        (b"GGU", "a file of at most 3"),
        (b"GGML" + bytes(100), "this is no GGUF file"),
        (gguf_bytes(version=0), "2 or 3"),
        (gguf_bytes(version=1), "2 or 3"),
        (gguf_bytes(version=4), "2 or 3"),
        (gguf_bytes(version=3 << 24), "big-endian"),
        (gguf_bytes(num_tensors=2**63), "the number of tensors"),
        (gguf_bytes(num_tensors=2), "tensor 1"),
        (gguf_bytes(num_keys=2**64 - 1), "the number of metadata keys"),
        (gguf_bytes(num_keys=13), "tensor 0"),
    ],
)
def test_a_wrong_start_is_refused(content: bytes, said: str, save: Any) -> None:
    with pytest.raises(MalformedGguf) as refused:
        read_header(save(content))

    assert said in refused.value.message


def test_version_2_and_a_wider_alignment_are_read(save: Any) -> None:
    metadata = sound_metadata() | {"general.alignment": value(UINT32, 64)}

    file = read_file(save(gguf_bytes(metadata, version=2, alignment=64)))

    assert (file.version, file.alignment, file.data_offset % 64) == (2, 64, 0)


def test_a_duplicate_key_is_refused(save: Any) -> None:
    twice = packed("general.name") + value(STRING, "Other")
    content = gguf_bytes(num_keys=13)
    cut = content.index(packed("token_embd.weight"))

    with pytest.raises(MalformedGguf, match="not there before"):
        read_header(save(content[:cut] + twice + content[cut:]))


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null", "/", "/no/such/file.gguf"])
def test_what_is_no_regular_file_is_refused(path: str) -> None:
    with pytest.raises(MalformedGguf):
        read_header(Path(path))


def test_a_fifo_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")

    with pytest.raises(MalformedGguf, match="not a regular file"):
        read_header(tmp_path / "pipe.gguf")


def test_every_truncation_is_refused(save: Any) -> None:
    content = gguf_bytes()

    for length in range(len(content)):
        with pytest.raises(MalformedGguf):
            read_header(save(content[:length]))


def test_every_flipped_bit_is_read_or_refused(save: Any) -> None:
    content = gguf_bytes()
    header_bytes = content.index(packed("token_embd.weight")) + 70
    refused = 0

    for position in range(header_bytes):
        for bit in (0, 3, 7):
            flipped = bytearray(content)
            flipped[position] ^= 1 << bit
            try:
                read_header(save(bytes(flipped)))
            except MalformedGguf:
                refused += 1

    assert refused > header_bytes


@settings(
    max_examples=300, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    edits=st.lists(
        st.tuples(
            st.integers(0, 900),
            st.sampled_from([b"\0" * 8, b"\xff" * 8, b"\xff" * 4, b"\0\0\0\x80", b"\x01"])
            | st.binary(min_size=1, max_size=16),
        ),
        min_size=1,
        max_size=6,
    ),
    tail=st.binary(max_size=64),
)
def test_any_overwritten_file_is_read_or_refused(
    edits: list[tuple[int, bytes]], tail: bytes, save: Any
) -> None:
    content = bytearray(gguf_bytes())
    for position, replacement in edits:
        content[position : position + len(replacement)] = replacement
    path = save(bytes(content) + tail)

    tracemalloc.start()
    try:
        read_header(path)
    except MalformedGguf as refused:
        assert refused.message.isprintable()
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    assert peak < 2_000_000


@pytest.mark.slow
def test_the_largest_lie_about_strings_ends_soon_and_small(tmp_path: Path) -> None:
    metadata = sound_metadata() | {"general.x": array(STRING, [], MAX_ARRAY_ITEMS)}
    content = gguf_bytes(metadata, data=bytes(2**27))
    path = tmp_path / "hollow.gguf"
    path.write_bytes(content)
    program = (
        "import resource, sys, pathlib; from engines.gguf.header import read_header\n"
        "resource.setrlimit(resource.RLIMIT_AS, (400 << 20, 400 << 20))\n"
        "try: read_header(pathlib.Path(sys.argv[1]))\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )

    ended = subprocess.run(
        [sys.executable, "-c", program, path], capture_output=True, text=True, timeout=20
    )

    assert ended.returncode == 0, ended.stderr
    assert "MalformedGguf" in ended.stdout
