"""The structure of GGUF files: every lie is refused in words, in bounded time and memory."""

import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import gguf
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engines.gguf.byte_reader import MAX_ARRAY_ITEMS, MalformedGguf
from engines.gguf.file_format import read_file
from engines.gguf.header import read_header
from engines.gguf.tensor_types import TENSOR_TYPES
from tests.engines.gguf.gguf_bytes import (
    STRING,
    UINT32,
    array,
    gguf_bytes,
    packed,
    sound_metadata,
    tensor,
    value,
)


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
