"""Reads the outside of a GGUF file: metadata and where each tensor lies, never the weights.

Whatever the file claims, reading costs bounded time and memory: every count and
length has a cap, and byte_reader.py makes nothing before it has the bytes for it.
What is let through is what llama.cpp's own reader takes, or less. The file is
read, not mapped: a mapped file that someone truncates meanwhile would end the
process.

What the metadata means for a model is the business of header.py.
"""

import math
import os
import stat
import struct
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from engines.gguf.byte_reader import MAX_ARRAY_ITEMS, MAX_STRING_BYTES, ByteReader, MalformedGguf
from engines.gguf.tensor_types import TENSOR_TYPES, TensorType

MAX_METADATA_KEYS = 4096
MAX_TENSORS = 65_536
MAX_KEY_BYTES = 1024
MAX_TENSOR_NAME_BYTES = 63  # llama.cpp's GGML_MAX_NAME, less the final NUL
MAX_KEPT_ITEMS = 1024  # arrays longer than this are counted and skipped
MAX_ALIGNMENT = 2**20
MAX_DIMENSIONS = 4

TOKENS = "tokenizer.ggml.tokens"

_STRING, _ARRAY = 8, 9
_SCALARS = {
    0: ("uint8", struct.Struct("<B")),
    1: ("int8", struct.Struct("<b")),
    2: ("uint16", struct.Struct("<H")),
    3: ("int16", struct.Struct("<h")),
    4: ("uint32", struct.Struct("<I")),
    5: ("int32", struct.Struct("<i")),
    6: ("float32", struct.Struct("<f")),
    7: ("bool", struct.Struct("<B")),
    10: ("uint64", struct.Struct("<Q")),
    11: ("int64", struct.Struct("<q")),
    12: ("float64", struct.Struct("<d")),
}

Scalar = bool | int | float | str


class Array(Struct, frozen=True):
    """A metadata array; `items` is None when it has strings or is too long to keep.

    `num_distinct` is counted for the vocabulary only.
    """

    item_type: str
    length: int
    items: tuple[int | float, ...] | None = None
    num_distinct: int | None = None


class Tensor(Struct, frozen=True):
    """Where one tensor lies; `offset` counts from the start of the tensor data."""

    name: str
    shape: tuple[int, ...]
    type: TensorType
    offset: int
    size_bytes: int


class GgufFile(Struct, frozen=True, kw_only=True):
    """A file whose structure is sound; what it says may still make no sense."""

    name: str
    version: int
    scalars: Mapping[str, Scalar]
    arrays: Mapping[str, Array]
    tensors: tuple[Tensor, ...]
    alignment: int
    data_offset: int
    size_bytes: int


def read_file(path: Path) -> GgufFile:
    """Read the metadata and the tensor table of `path`, or raise `MalformedGguf`."""
    try:
        # Without O_NONBLOCK, opening a FIFO would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise MalformedGguf(f"{path.name}: cannot be opened: {_reason(error)}") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise MalformedGguf(f"{path.name}: is not a regular file")
        return _read(ByteReader(descriptor, path.name, status.st_size))
    except OSError as error:
        raise MalformedGguf(f"{path.name}: cannot be read: {_reason(error)}") from None
    finally:
        os.close(descriptor)


def _reason(error: OSError | ValueError) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def _read(reader: ByteReader) -> GgufFile:
    magic = reader.take(4, "the magic number")
    if magic != b"GGUF":
        reader.fail("the magic number", magic, "b'GGUF': this is no GGUF file")
    version = reader.u32("the version")
    if version & 0xFFFF == 0 and version:
        reader.fail("the version", version, "2 or 3: this looks like a big-endian file")
    if version not in (2, 3):
        reader.fail("the version", version, "2 or 3")
    num_tensors = reader.count("the number of tensors", MAX_TENSORS)
    num_keys = reader.count("the number of metadata keys", MAX_METADATA_KEYS)
    scalars, arrays = _read_metadata(reader, num_keys)
    alignment = _alignment(reader, scalars, arrays)
    tensors = _read_tensors(reader, num_tensors, alignment)
    data_offset = _padded(reader.position, alignment)
    if tensors:
        last = tensors[-1]
        end = data_offset + last.offset + last.size_bytes
        if end > reader.size_bytes:
            reader.fail(
                f"the end of tensor {last.name!r}",
                f"byte {end}",
                f"at most the file's size, {reader.size_bytes} bytes: the file is cut off or lies",
            )
    return GgufFile(
        name=reader.name,
        version=version,
        scalars=scalars,
        arrays=arrays,
        tensors=tensors,
        alignment=alignment,
        data_offset=data_offset,
        size_bytes=reader.size_bytes,
    )


def _read_metadata(reader: ByteReader, num_keys: int) -> tuple[dict[str, Scalar], dict[str, Array]]:
    scalars: dict[str, Scalar] = {}
    arrays: dict[str, Array] = {}
    for number in range(num_keys):
        key = reader.name_string(f"metadata key {number}", MAX_KEY_BYTES)
        if key in scalars or key in arrays:
            reader.fail(f"metadata key {number}", key, "a key that was not there before")
        value_type = reader.u32(f"the type of {key!r}")
        if value_type == _ARRAY:
            arrays[key] = _read_array(reader, key)
        elif value_type == _STRING:
            scalars[key] = reader.string(key, MAX_STRING_BYTES)
        elif value_type in _SCALARS:
            scalars[key] = _read_scalar(reader, key, value_type)
        else:
            reader.fail(f"the type of {key!r}", value_type, "a number from 0 to 12")
    return scalars, arrays


def _read_scalar(reader: ByteReader, key: str, value_type: int) -> Scalar:
    type_name, layout = _SCALARS[value_type]
    value: int | float = layout.unpack(reader.take(layout.size, key))[0]
    if type_name != "bool":
        return value
    if value not in (0, 1):
        reader.fail(key, value, "a bool, 0 or 1")
    return bool(value)


def _read_array(reader: ByteReader, key: str) -> Array:
    item_type = reader.u32(f"the item type of {key!r}")
    length = reader.count(f"the length of array {key!r}", MAX_ARRAY_ITEMS)
    if item_type == _STRING:
        if key == TOKENS:
            return Array("string", length, num_distinct=reader.count_distinct(length, key))
        reader.skip_strings(length, key)
        return Array("string", length)
    if item_type not in _SCALARS:
        reader.fail(f"the item type of {key!r}", item_type, "a scalar or string type")
    type_name, layout = _SCALARS[item_type]
    if length > MAX_KEPT_ITEMS:
        reader.skip(length * layout.size, f"array {key!r}")
        return Array(type_name, length)
    packed = reader.take(length * layout.size, f"array {key!r}")
    return Array(type_name, length, tuple(item for (item,) in layout.iter_unpack(packed)))


def _alignment(
    reader: ByteReader, scalars: Mapping[str, Scalar], arrays: Mapping[str, Array]
) -> int:
    if "general.alignment" in arrays:
        reader.fail("general.alignment", "an array", "a uint32")
    value = scalars.get("general.alignment", 32)
    if isinstance(value, bool) or not isinstance(value, int):
        reader.fail("general.alignment", value, "a uint32")
    if not 1 <= value <= MAX_ALIGNMENT or value & (value - 1):
        reader.fail("general.alignment", value, f"a power of two up to {MAX_ALIGNMENT}")
    return value


def _read_tensors(reader: ByteReader, num_tensors: int, alignment: int) -> tuple[Tensor, ...]:
    tensors: list[Tensor] = []
    seen: set[str] = set()
    expected_offset = 0
    for number in range(num_tensors):
        tensor = _read_tensor(reader, number)
        if tensor.name in seen:
            reader.fail(f"the name of tensor {number}", tensor.name, "a name not used before")
        # llama.cpp takes tensors only in file order without gaps, so none can overlap.
        if tensor.offset != expected_offset:
            reader.fail(f"the offset of tensor {tensor.name!r}", tensor.offset, expected_offset)
        seen.add(tensor.name)
        expected_offset = _padded(tensor.offset + tensor.size_bytes, alignment)
        tensors.append(tensor)
    return tuple(tensors)


def _read_tensor(reader: ByteReader, number: int) -> Tensor:
    name = reader.name_string(f"the name of tensor {number}", MAX_TENSOR_NAME_BYTES)
    num_dimensions = reader.u32(f"the dimensions of tensor {name!r}")
    if not 1 <= num_dimensions <= MAX_DIMENSIONS:
        reader.fail(f"the dimensions of tensor {name!r}", num_dimensions, "1 to 4")
    shape = tuple(reader.u64(f"the shape of tensor {name!r}") for _ in range(num_dimensions))
    num_items = math.prod(shape)
    if not 0 < num_items < 2**63:
        reader.fail(f"the shape of tensor {name!r}", shape, "positive sizes, product below 2^63")
    type_number = reader.u32(f"the type of tensor {name!r}")
    kind = TENSOR_TYPES.get(type_number)
    if kind is None:
        reader.fail(f"the type of tensor {name!r}", type_number, "a ggml type that models use")
    if shape[0] % kind.block_items:
        reader.fail(
            f"the row length of tensor {name!r}",
            shape[0],
            f"a multiple of {kind.block_items}, the block of {kind.name}",
        )
    offset = reader.u64(f"the offset of tensor {name!r}")
    return Tensor(name, shape, kind, offset, num_items // kind.block_items * kind.block_bytes)


def _padded(position: int, alignment: int) -> int:
    return (position + alignment - 1) & ~(alignment - 1)
