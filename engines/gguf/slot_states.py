"""Copies what a slot holds out of llama.cpp and back, for saved_caches.py; on the step thread."""

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.gguf.native import llama

State = npt.NDArray[np.uint8]


def copy_of(context: Any, slot: int, *, max_bytes: int) -> State | None:
    """All that a slot holds, or None if it is larger than `max_bytes`."""
    binding = llama()
    size = binding.llama_state_seq_get_size(context, slot)
    if not 0 < size <= max_bytes:
        return None
    state = np.empty(size, np.uint8)
    written = binding.llama_state_seq_get_data(context, _pointer(state), size, slot)
    return state if written == size else None


def put_back(context: Any, slot: int, state: State, *, length: int) -> bool:
    """Give the empty `slot` what `copy_of` gave for `length` positions; False if any of it failed.

    `state` must be unchanged and of the same model in the same layout: llama.cpp trusts it.
    What a failure left in the slot is to be cleared.
    """
    binding = llama()
    read = binding.llama_state_seq_set_data(context, _pointer(state), len(state), slot)
    last = binding.llama_memory_seq_pos_max(binding.llama_get_memory(context), slot)
    return read == len(state) and last == length - 1


def _pointer(state: State) -> Any:
    return state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
