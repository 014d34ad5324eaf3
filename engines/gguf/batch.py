"""A step's rows as llama.cpp takes them."""

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.gguf.native import llama


class Batch:
    """A llama_batch over numpy arrays, made once and filled for every step."""

    def __init__(self, max_tokens: int) -> None:
        binding = llama()
        self._tokens = np.zeros(max_tokens, np.int32)
        self._positions = np.zeros(max_tokens, np.int32)
        self._num_slots = np.ones(max_tokens, np.int32)
        self._slots = np.zeros(max_tokens, np.int32)
        self._wants_logits = np.zeros(max_tokens, np.int8)
        addresses = self._slots.ctypes.data + self._slots.itemsize * np.arange(max_tokens)
        self._slot_pointers = addresses.astype(np.uintp)
        fields = dict(binding.llama_batch._fields_)

        def pointer(array: npt.NDArray[Any], field: str) -> Any:
            return ctypes.cast(array.ctypes.data, fields[field])

        self._batch = binding.llama_batch()
        self._batch.token = pointer(self._tokens, "token")
        self._batch.pos = pointer(self._positions, "pos")
        self._batch.n_seq_id = pointer(self._num_slots, "n_seq_id")
        self._batch.seq_id = pointer(self._slot_pointers, "seq_id")
        self._batch.logits = pointer(self._wants_logits, "logits")

    def fill(self, rows: Sequence[tuple[int, int, int, bool]]) -> Any:
        """The batch with these rows."""
        count = len(rows)
        tokens, positions, slots, wants_logits = zip(*rows, strict=True)
        self._tokens[:count] = tokens
        self._positions[:count] = positions
        self._slots[:count] = slots
        self._wants_logits[:count] = wants_logits
        self._batch.n_tokens = count
        return self._batch
