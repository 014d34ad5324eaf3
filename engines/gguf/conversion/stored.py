"""The numbers of a checkpoint's tensors, mapped from its files and copied only where changed."""

import math
import struct
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.checkpoint.checkpoint_errors import CheckpointUnsupported
from engines.checkpoint.tensor_files import TensorEntry

Numbers = npt.NDArray[Any]

# numpy has no bfloat16: its bits are kept as they are, and made float32 by a shift.
_DTYPES: Mapping[str, type[np.generic]] = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}
_LENGTH = struct.Struct("<Q")


def stored(entry: TensorEntry) -> Numbers:
    """A tensor as it is in its file; of BF16 the bits. Raises `CheckpointUnsupported`."""
    dtype = dtype_of(entry)
    if not math.prod(entry.shape):
        raise CheckpointUnsupported(f"{entry.file.name}: tensor {entry.name!r} is empty")
    return np.memmap(
        entry.file,
        dtype=dtype,
        mode="r",
        offset=_data_start(entry.file) + entry.begin,
        shape=entry.shape,
    )


def dtype_of(entry: TensorEntry) -> type[np.generic]:
    """How a tensor is held here. Raises `CheckpointUnsupported`."""
    if entry.dtype not in _DTYPES:
        raise CheckpointUnsupported(
            f"{entry.file.name}: tensor {entry.name!r} is stored as {entry.dtype}; a model can be "
            f"made of {', '.join(_DTYPES)}"
        )
    return _DTYPES[entry.dtype]


def as_float32(numbers: Numbers) -> npt.NDArray[np.float32]:
    """The same numbers as float32; `uint16` are the bits of BF16."""
    if numbers.dtype == np.uint16:
        return (numbers.astype(np.uint32) << 16).view(np.float32)
    return numbers.astype(np.float32)


def one_dtype(entries: Sequence[TensorEntry]) -> str:
    """The dtype of tensors that become one. Raises `CheckpointUnsupported` if they differ."""
    dtypes = {entry.dtype for entry in entries}
    if len(dtypes) > 1:
        names = ", ".join(repr(entry.name) for entry in entries)
        raise CheckpointUnsupported(f"{names} are stored as {' and '.join(sorted(dtypes))}")
    return dtypes.pop()


@cache
def _data_start(file: Path) -> int:
    with file.open("rb") as opened:
        return _LENGTH.size + _LENGTH.unpack(opened.read(_LENGTH.size))[0]
