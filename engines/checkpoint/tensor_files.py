"""Which tensors a checkpoint has, read from the headers of its safetensors files.

A header is small, so every name, shape and length is checked before the first byte of
weights is read: a download that was cut short is named at once, and not after minutes
of loading. Format: https://github.com/huggingface/safetensors#format.
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.checkpoint.checkpoint_errors import CheckpointUnavailable, CheckpointUnsupported
from engines.checkpoint.json_fields import JsonFields, decode_json, shown

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
MAX_HEADER_BYTES = 100 * 2**20  # safetensors' own limit
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
DTYPE_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1}
DTYPE_BYTES |= {"U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "U32": 4, "U64": 8}

_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor of one file; `begin` and `end` count bytes behind the file's header."""

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_entries(folder: Path) -> Mapping[str, TensorEntry]:
    """Every tensor of a checkpoint by name, in the order of its files and of their bytes.

    Raises `CheckpointUnavailable`, or `CheckpointUnsupported` where the weights are there in
    a format that this engine does not read.
    """
    if (folder / INDEX).exists():
        return _indexed(folder)
    if (folder / SINGLE).exists():
        return {entry.name: entry for entry in read_header(folder / SINGLE)}
    raise _nothing_to_read(folder)


def _indexed(folder: Path) -> Mapping[str, TensorEntry]:
    index = JsonFields.read(folder / INDEX)
    places = index.fields("weight_map").values
    if not places:
        index.fail("weight_map", "an object that says which file has which tensor")
    entries: dict[str, TensorEntry] = {}
    for file in sorted({str(file) for file in places.values()}):
        if Path(file).name != file or not file.endswith(".safetensors"):
            raise CheckpointUnavailable(
                f"{INDEX}: {shown(file)} is not the name of a safetensors file in this folder"
            )
        for entry in read_header(folder / file):
            if places.get(entry.name) == file:
                entries[entry.name] = entry
    for name, file in places.items():
        if name not in entries:
            raise CheckpointUnavailable(
                f"{INDEX}: says that tensor {name!r} is in {file}, which does not have it; "
                "download both again"
            )
    return entries


def _nothing_to_read(folder: Path) -> Exception:
    pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    if pickles:
        return CheckpointUnsupported(
            f"the weights are there as {pickles[0]} only, a pickle, which can run code when it is "
            "read and never is; convert them to safetensors (in transformers: "
            'model.save_pretrained(folder)) or get the model\'s revision "refs/pr/…" that has them'
        )
    if any(folder.glob("*.gguf")):
        return CheckpointUnsupported(
            'the weights are there as GGUF only; serve them with an engine of kind = "gguf"'
        )
    return CheckpointUnavailable(
        f"{SINGLE} is missing, and so is {INDEX}; the folder must hold the model's weights"
    )


def read_header(path: Path) -> list[TensorEntry]:
    """The tensors of one file, in the order of their bytes."""
    size = _size(path)
    with path.open("rb") as file:
        start = file.read(_LENGTH.size)
        length = _LENGTH.unpack(start)[0] if len(start) == _LENGTH.size else 0
        if not 2 <= length <= MAX_HEADER_BYTES or length + _LENGTH.size > size:
            raise CheckpointUnavailable(
                f"{path.name} is cut short or is not a safetensors file: it has {size} bytes and "
                f"begins with a header length of {length}; download it again"
            )
        content = file.read(length)
    header = decode_json(content, f"{path.name}: its header")
    if not isinstance(header, dict):
        raise CheckpointUnavailable(f"{path.name}: its header is no JSON object")
    header.pop("__metadata__", None)
    entries = sorted(
        (_entry(path, name, fields) for name, fields in header.items()),
        key=lambda entry: entry.begin,
    )
    _check_length(path, size - _LENGTH.size - length, entries)
    return entries


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        raise CheckpointUnavailable(
            f"{path.name} is missing, and {INDEX} names it; download it"
        ) from None


def _check_length(path: Path, size: int, entries: list[TensorEntry]) -> None:
    position = 0
    for entry in entries:
        if entry.begin != position:
            raise CheckpointUnavailable(
                f"{path.name}: tensor {entry.name!r} begins at byte {entry.begin}, but the one "
                f"before it ends at {position}; download the file again"
            )
        position = entry.end
    if size != position:
        raise CheckpointUnavailable(
            f"{path.name} holds {size} bytes of weights, but its header says {position}; it was "
            "cut short or overwritten, download it again"
        )


def _entry(path: Path, name: str, fields: Any) -> TensorEntry:
    try:
        dtype, shape, (begin, end) = fields["dtype"], fields["shape"], fields["data_offsets"]
        counts = [*shape, begin, end]
        is_sound = all(isinstance(count, int) and count >= 0 for count in counts)
        num_bytes = math.prod(shape) * DTYPE_BYTES.get(dtype, 0)
    except (KeyError, TypeError, ValueError):
        raise CheckpointUnavailable(
            f"{path.name}: the header's entry for {name!r} is {shown(fields)}; expected dtype, "
            "shape and data_offsets"
        ) from None
    if not is_sound or (dtype in DTYPE_BYTES and num_bytes != end - begin):
        raise CheckpointUnavailable(
            f"{path.name}: tensor {name!r} is {dtype} {shape}, but its data_offsets are "
            f"{[begin, end]}"
        )
    return TensorEntry(name, path, dtype, tuple(shape), begin, end)
